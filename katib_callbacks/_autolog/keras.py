"""Keras: a wrapper around ``keras.Model.fit``."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from katib_callbacks._autolog.ownership import MakeCallback, trainings_in_progress


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


PATCHES = {"keras": patch_keras}
"""By the module that is patched."""
