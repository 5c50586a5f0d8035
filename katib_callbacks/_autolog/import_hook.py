"""AfterImport: act on a module as soon as it has been imported, without importing it.

Python has no such hook. A finder at the front of ``sys.meta_path`` asks the other finders, and has their loader call
back when it has executed the module. Specs, loaders and modules stay what they were.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

_META_PATH = threading.Lock()
"""Held while one of ours comes or goes: a list that is replaced would lose what is put into the old one meanwhile."""


class AfterImport:
    """Calls an action once for each of some modules: at once if it is loaded, otherwise when it has been imported.

    An action runs in the thread that imports, which holds the module's import lock, so it must not wait for another
    thread. One that raises is logged. Thread-safe; leaves ``sys.meta_path`` after the last one.
    """

    def __init__(self, actions: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._actions = dict(actions)
        self._finding = threading.local()

    def start(self) -> None:
        """Act on the modules that are loaded, and wait for the others. Imports nothing."""
        with _META_PATH:
            sys.meta_path.insert(0, self)  # first of all, so that no import falls between
        for name in list(self._actions):
            if sys.modules.get(name) is None:  # None blocks the import of a module
                continue
            with contextlib.suppress(ImportError):  # it failed in another thread
                self._act(name, import_module(name))  # waits, where another thread is in the middle of it
        self._leave_if_done()

    def stop(self) -> None:
        """Wait no longer."""
        self._actions.clear()
        self._leave_if_done()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, for an awaited module; None for any other."""
        if name not in self._actions or name in vars(self._finding):
            return None
        vars(self._finding)[name] = True  # another finder of this kind may ask all others in its turn
        try:
            spec = _find_spec(self, name, path, target)
        finally:
            del vars(self._finding)[name]
        if spec is not None and spec.loader is not None:  # a namespace package may have none
            self._hook(spec.loader, name)
        return spec

    def _hook(self, loader: Any, name: str) -> None:
        """Have a loader call back. Set on the instance: its class serves all modules."""
        original = getattr(loader, "exec_module", None)
        if original is None:
            return

        def exec_module(module: ModuleType) -> None:
            original(module)
            if vars(loader).get("exec_module") is exec_module:
                del loader.exec_module
            if sys.modules.get(name) is module:  # not one that somebody loads aside
                self._act(name, module)
                self._leave_if_done()

        try:
            loader.exec_module = exec_module
        except AttributeError:  # no instance dictionary: nothing that Python or an installer brings
            logger.warning("Cannot tell when %s has been imported: its loader is a %s.", name, type(loader).__name__)

    def _act(self, name: str, module: ModuleType) -> None:
        action = self._actions.pop(name, None)  # atomic, so each acts once
        if action is None:
            return
        try:
            action(module)
        except Exception:
            logger.exception("Internal error after the import of %s; the import goes on.", name)

    def _leave_if_done(self) -> None:
        """Rebind the list: another thread may be walking it, and would skip the finder after one that is removed."""
        with _META_PATH:
            if not self._actions and self in sys.meta_path:
                sys.meta_path = [finder for finder in sys.meta_path if finder is not self]


def _find_spec(asking: object, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Do what ``importlib`` does with ``sys.meta_path``, one finder left out."""
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        if finder is asking or find is None:
            continue
        spec: ModuleSpec | None = find(name, path, target)
        if spec is not None:
            return spec
    return None
