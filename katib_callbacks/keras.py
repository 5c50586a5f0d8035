"""The callback for Keras 3 on any backend (torch, JAX, TensorFlow).

::

    from katib_callbacks.keras import KatibReportCallback

    model.fit(..., callbacks=[KatibReportCallback("val_acc")])
"""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from katib_callbacks._callback import ReportingCallback
from katib_callbacks.distributed import ProcessRank, framework_rank
from katib_callbacks.errors import MissingDependencyError

try:
    from keras import backend
    from keras.callbacks import Callback
except ImportError as error:
    raise MissingDependencyError(
        f'Keras 3 cannot be used ({error}): pip install "katib-callbacks[keras]" and the backend of KERAS_BACKEND'
    ) from error


class KatibReportCallback(ReportingCallback, Callback):  # type: ignore[misc]  # Any where types are checked
    """Reports the metrics of ``model.fit`` to Katib when it has ended; arguments as in ``ReportingCallback``.

    The values are those of the epochs' ``logs``, which Keras has as Python floats already, with what other callbacks
    add to them, such as ``learning_rate``. They are delivered in ``on_train_end``: a callback that raises there before
    this one keeps it from reporting, so list this one first. A fit that fails reports nothing.

    Under JAX with a ``keras.distribution`` the metrics are those of all processes. Without one, and under torch, rank
    zero has the values of its own share alone.
    ``model.evaluate`` gives its metrics no names of their own, so it is not reported, whatever ``after_training``
    says: hand its result to ``katib_callbacks.KatibReporter``. A loop of ``model.train_on_batch`` calls no callbacks
    unless it drives them through ``keras.callbacks.CallbackList``. A run that ``BackupAndRestore`` resumes reports
    the epochs of its last part. TensorFlow shows 0.0 for an epoch whose data had run out.

    There is no batch hook, and ``self.model`` is not read: the one switches off asynchronous dispatch, the other
    makes JAX copy its state back.
    """

    _lent = frozenset({"_model"})
    _model = None  # for a copy
    _logs: Mapping[str, Any] = MappingProxyType({})  # the last epoch's, to which later callbacks add
    _taken = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin a run."""
        del logs
        self._forget()
        self._recorder.start(_jax_rank())

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Add to the last epoch's row what later callbacks put into its logs."""
        del epoch, logs
        self._take_additions()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Take the epoch's row: training and validation metrics are both there. ``on_train_end`` has fewer."""
        if logs and self._recorder.is_active:
            self._recorder.record(logs, row=epoch)
            self._logs, self._taken = logs, len(logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Deliver."""
        del logs
        self._take_additions()
        self._forget()
        self._recorder.finish()
        self._recorder.deliver()

    def _take_additions(self) -> None:
        """A dict keeps its order, so what was added stands at its end."""
        if len(self._logs) > self._taken:
            self._recorder.record(dict(list(self._logs.items())[self._taken :]))
            self._taken = len(self._logs)

    def _forget(self) -> None:
        self._logs, self._taken = {}, 0

    # tf_keras asks its own Callback class these, and any other for the lack of them raises AttributeError.

    def _implements_train_batch_hooks(self) -> bool:
        return False

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False


def _jax_rank() -> ProcessRank | None:
    """Ask JAX if it is what trains here. Other backends have no word of their own on it."""
    jax = sys.modules.get("jax")
    if backend.backend() != "jax" or jax is None:
        return None
    index = jax.process_index()
    return framework_rank(is_global_zero=index == 0, rank=index, source="jax.process_index")
