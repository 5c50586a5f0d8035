"""Ownership: what tells a callback that autolog made from one that the user made, and whether it is one too many."""

import weakref
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Protocol

from katib_callbacks.recording.callback import ReportingCallback, callers
from katib_callbacks.recording.voice import Voice

_TRAININGS = frozenset(
    {
        ("lightning.pytorch.trainer.trainer", "_fit_impl"),  # what a spawned process runs, too
        ("pytorch_lightning.trainer.trainer", "_fit_impl"),
        ("transformers.trainer", "train"),
        ("keras.src.backend.torch.trainer", "fit"),
        ("keras.src.backend.jax.trainer", "fit"),
        ("keras.src.backend.tensorflow.trainer", "fit"),
    }
)
"""The functions, by module and name, whose presence on the stack means that a training is in progress."""


class MakeCallback(Protocol):
    """Makes a callback of autolog's; None where there is to be none. Never raises."""

    def __call__(self, adapter: str, present: Iterable[object], *, is_inert_welcome: bool = False) -> Any:
        """Take the adapter's name, and what callbacks there are."""


Patch = Callable[[ModuleType, MakeCallback], Callable[[], None]]
"""Changes a module just imported, and returns a function that undoes it. An AttributeError comes before any change."""


class Ownership:
    """The mark of the callbacks that autolog makes while it is on. A copy in another process stays as it was."""

    def __init__(self, is_on: bool = True) -> None:
        self.is_on = is_on
        self.voice = Voice(is_shared=True)
        self._callbacks: weakref.WeakSet[ReportingCallback] = weakref.WeakSet()

    def mark(self, callback: ReportingCallback) -> None:
        """Make a callback one of autolog's."""
        callback._autolog = self  # noqa: SLF001  the base class has it for this
        callback._recorder.speak_with(self.voice)  # noqa: SLF001  as above
        self._callbacks.add(callback)

    def turn_off(self) -> None:
        """Have the callbacks forget what they have recorded, and record no more."""
        self.is_on = False
        for callback in list(self._callbacks):
            callback._recorder.abandon()  # noqa: SLF001  as above

    def wants(self, callbacks: Iterable[object]) -> bool:
        """Return whether a callback of autolog's is to record a run that begins now with these callbacks."""
        return self.is_on and trainings_in_progress() <= 1 and not any(map(is_explicit, callbacks))

    def __reduce__(self) -> tuple[type["Ownership"], tuple[bool]]:
        return Ownership, (self.is_on,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Ownership":
        return self  # a copy of a trainer is turned off with it


def is_ours(callback: object) -> bool:
    """Return whether something is a callback of ours, or a class of it, which transformers takes as well."""
    return isinstance(callback, ReportingCallback) or (
        isinstance(callback, type) and issubclass(callback, ReportingCallback)
    )


def is_explicit(callback: object) -> bool:
    """Return whether something is a callback of ours that the user made."""
    return is_ours(callback) and getattr(callback, "_autolog", None) is None


def trainings_in_progress() -> int:
    """Count the trainings on this thread's stack: unlike a counter it is right after any exception."""
    return sum((frame.f_globals.get("__name__"), frame.f_code.co_name) in _TRAININGS for frame in callers())
