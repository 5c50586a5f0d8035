"""What autolog patches in transformers and Keras, and how each patch is undone.

A patch is called with a module that has just been imported, or was already, and with what makes a callback. It returns
what undoes it, and raises AttributeError before it has changed anything if the module is not as expected.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Protocol

from katib_callbacks._autolog.ownership import is_explicit, is_ours, trainings_in_progress


class MakeCallback(Protocol):
    """Makes a callback of autolog's; None where there is to be none. Never raises."""

    def __call__(self, adapter: str, present: Iterable[object], *, is_inert_welcome: bool = False) -> Any:
        """Take the adapter's name, and what callbacks there are."""


Patch = Callable[[ModuleType, MakeCallback], Callable[[], None]]


# -- transformers ------------------------------------------------------------------------------------------------------


def patch_integrations(module: ModuleType, make: MakeCallback) -> Callable[[], None]:
    """Teach transformers ``report_to="katib"``."""
    integrations = module.INTEGRATION_TO_CALLBACK
    before = integrations.get("katib")
    integrations["katib"] = ours = _default_callback(module.TrainerCallback, make)

    def undo() -> None:
        if integrations.get("katib") is ours:
            del integrations["katib"]
            if before is not None:
                integrations["katib"] = before

    return undo


def patch_trainer(module: ModuleType, make: MakeCallback) -> Callable[[], None]:
    """Give every Trainer a callback that makes room for an explicit one.

    A Trainer puts its defaults, its integrations and the user's own one after the other through
    ``CallbackHandler.add_callback``, and so does ``trainer.add_callback`` later.
    """
    defaults, handler_class = module.DEFAULT_CALLBACKS, module.CallbackHandler
    original = handler_class.add_callback
    ours = _default_callback(module.TrainerCallback, make)

    @functools.wraps(original)
    def add_callback(self: Any, callback: Any) -> Any:
        if getattr(callback, "_is_autologs_default", False):
            callback = make("transformers", self.callbacks)
            if callback is None:
                return None
        elif is_ours(callback):
            self.callbacks[:] = [other for other in self.callbacks if is_explicit(other) or not is_ours(other)]
        return original(self, callback)

    handler_class.add_callback = add_callback
    defaults.append(ours)

    def undo() -> None:
        if ours in defaults:
            defaults.remove(ours)
        if handler_class.add_callback is add_callback:  # otherwise somebody wrapped it; ours does nothing now
            handler_class.add_callback = original

    return undo


def _default_callback(base: Any, make: MakeCallback) -> type:
    """Make the class that stands for a callback where transformers wants a class that takes no arguments."""

    class KatibAutologCallback(base):  # type: ignore[misc]  # known at run time
        _is_autologs_default = True

        def __new__(cls) -> Any:
            """Return the adapter's callback, for who does not go through ``CallbackHandler.add_callback``."""
            return make("transformers", (), is_inert_welcome=True) or base()

    return KatibAutologCallback


# -- Keras -------------------------------------------------------------------------------------------------------------


def patch_keras(module: ModuleType, make: MakeCallback) -> Callable[[], None]:
    """Wrap ``keras.Model.fit``, which every model inherits from the Trainer of its backend."""
    model_class, list_class = module.Model, module.callbacks.CallbackList
    original = model_class.fit
    signature = inspect.signature(original)
    is_inherited = "fit" not in vars(model_class)

    @functools.wraps(original)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            call = signature.bind(self, *args, **kwargs)
        except TypeError:
            return original(self, *args, **kwargs)  # which says it better
        given: Any = call.arguments.get("callbacks")
        is_list = isinstance(given, list_class)  # which Keras takes as it is
        present = list(_flattened(given.callbacks if is_list else given))
        callback = None if trainings_in_progress() else make("keras", present)
        if callback is None:
            return original(self, *args, **kwargs)
        if not is_list:
            call.arguments["callbacks"] = [*present, callback]
            return original(*call.args, **call.kwargs)
        callback.set_params(given.params)
        callback.set_model(self)
        given.callbacks.append(callback)
        try:
            return original(self, *args, **kwargs)
        finally:
            given.callbacks.remove(callback)

    model_class.fit = fit

    def undo() -> None:
        if vars(model_class).get("fit") is not fit:  # somebody wrapped it; ours does nothing now
            return
        if is_inherited:
            del model_class.fit
        else:
            model_class.fit = original

    return undo


def _flattened(callbacks: object) -> Iterator[object]:
    """Yield the callbacks of what ``fit`` takes: None, one, or any nest of lists, tuples and dicts."""
    if isinstance(callbacks, Mapping):
        callbacks = [callbacks[key] for key in sorted(callbacks)]  # in the order of Keras' own tree.flatten
    if isinstance(callbacks, list | tuple):
        for callback in callbacks:
            yield from _flattened(callback)
    elif callbacks is not None:
        yield callbacks


PATCHES: Mapping[str, Patch] = {
    "transformers.integrations.integration_utils": patch_integrations,
    "transformers.trainer": patch_trainer,
    "keras": patch_keras,
}
"""By the module that is patched."""
