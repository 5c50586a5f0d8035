"""State: whether autolog is on in this process, with which arguments, and what it has patched."""

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from katib_callbacks import settings
from katib_callbacks._autolog import keras, transformers
from katib_callbacks._autolog.import_hook import AfterImport
from katib_callbacks._autolog.ownership import Ownership, Patch, is_ours
from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.settings import DEFAULT_RUNTIME
from katib_callbacks.sinks.auto import NOWHERE

logger = logging.getLogger(__name__)

PATCHES: Mapping[str, Patch] = {**transformers.PATCHES, **keras.PATCHES}


class State:
    """Autolog in this process; ``is_on`` is None while the environment decides, for Lightning."""

    def __init__(self) -> None:
        self.is_on: bool | None = None
        self._arguments: Mapping[str, Any] = {}
        self._switch = Ownership()
        self._lock = threading.RLock()
        self._hook: AfterImport | None = None
        self._undo: list[Callable[[], None]] = []

    def turn_on(self, arguments: Mapping[str, Any]) -> None:
        """Make callbacks with these arguments from now on."""
        with self._lock:
            self._arguments = dict(arguments)
            if self._switch.is_on:
                self._switch.voice.forget()
            else:
                self._switch = Ownership()
            was_on, self.is_on = self.is_on, True
            if was_on:
                return
            self._hook = hook = AfterImport({name: functools.partial(self._patch, p) for name, p in PATCHES.items()})
        hook.start()  # without the lock: it may wait for another thread's import, at whose end is _patch

    def turn_off(self) -> None:
        """Undo all of it."""
        with self._lock:
            self.is_on = False
            self._switch.turn_off()
            if self._hook is not None:
                self._hook.stop()
                self._hook = None
            while self._undo:
                self._undo.pop()()

    def _patch(self, patch: Patch, module: ModuleType) -> None:
        with self._lock:
            if not self.is_on:
                return
            try:
                self._undo.append(patch(module, self.callback))
            except AttributeError as error:
                logger.warning("autolog does not know this release of %s: %s", module.__name__.partition(".")[0], error)

    def is_asked(self) -> bool:
        """Return whether autolog is on in this process."""
        return settings.is_autolog_on(DEFAULT_RUNTIME) if self.is_on is None else self.is_on

    def callback(self, adapter: str, present: Iterable[object], *, is_inert_welcome: bool = False) -> Any:
        """Make a callback of autolog's, or None: off, outside a trial, one is present. Never raises.

        ``adapter`` is the framework's module here. With ``is_inert_welcome`` one that will report nothing is made, too.
        """
        try:
            if not self.is_asked() or any(map(is_ours, present)):
                return None
            if not (self._has_something_to_report() or is_inert_welcome):
                return None
            callback = import_module(f"katib_callbacks.{adapter}").KatibReportCallback(**self._arguments)
            self._switch.mark(callback)
        except KatibCallbacksError as error:
            self.say_that_none_is_added(error)
        except Exception:
            logger.exception("Internal error in autolog, which adds no callback; training goes on.")
        else:
            return callback
        return None

    def say_that_none_is_added(self, error: KatibCallbacksError) -> None:
        """Log why Trainers get no callback, once for each reason."""
        self._switch.voice.warn("autolog adds no callback: %s", error)

    def _has_something_to_report(self) -> bool:
        """Return whether a report has a destination here; if it has not, log once why nothing will be reported."""
        from katib_callbacks.reporting.reporter import KatibReporter  # noqa: PLC0415  not before autolog is asked for

        reporter: KatibReporter = self._arguments.get("reporter") or KatibReporter()
        where = NOWHERE if settings.is_disabled(DEFAULT_RUNTIME) else reporter.whereabouts
        if where.nothing is None:
            return True
        self._switch.voice.log(where.level_of_nothing(DEFAULT_RUNTIME), "%s", where.why_nothing(reporter.trial_name))
        return False


STATE = State()
