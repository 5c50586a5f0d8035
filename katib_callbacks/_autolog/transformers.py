"""transformers: one default callback for every Trainer, and ``report_to="katib"``."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from katib_callbacks._autolog.ownership import MakeCallback, is_explicit, is_ours


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


PATCHES = {
    "transformers.integrations.integration_utils": patch_integrations,
    "transformers.trainer": patch_trainer,
}
"""By the module that is patched."""
