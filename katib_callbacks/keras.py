"""The callback for Keras 3 on any backend (torch, JAX, TensorFlow).

::

    from katib_callbacks.keras import KatibReportCallback

    model.fit(..., callbacks=[KatibReportCallback("val_acc")])
"""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from katib_callbacks.errors import MissingDependencyError
from katib_callbacks.recording.callback import ReportingCallback, callbacks_beside, first_keeper, is_kind
from katib_callbacks.recording.shares import share_of_epochs
from katib_callbacks.reporting.ranks import ProcessRank, framework_rank

__all__ = ["KatibReportCallback"]


try:
    from keras import __version__, backend
    from keras.callbacks import Callback
except ImportError as error:
    raise MissingDependencyError(
        f'Keras 3 cannot be used ({error}): pip install "katib-callbacks[keras]" and the backend of KERAS_BACKEND'
    ) from error


_PATIENCE_EPOCHS = 3
"""A metric of a validation that takes place every few epochs only is missed after so many."""

_TF_KERAS = "callbacks"
"""The module that has all of tf_keras' callbacks."""

_RESTORES_ONLY_WHERE_IT_STOPPED = __version__.startswith("2.")
"""Whether EarlyStopping leaves the last weights to a training that ran to its planned end, as it does in Keras 2."""

_BATCH_HOOKS = ("on_train_batch_end", "on_batch_end")


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

    There is a batch hook only where a sink shows progress, and ``self.model`` is not read: the one switches off
    asynchronous dispatch in releases that do not know ``async_safe``, the other makes JAX copy its state back.
    """

    async_safe = True  # to Keras: the batch hook touches neither model nor logs

    _lent = frozenset({"_model", "_kept_by"})
    _model = None  # for a copy
    _kept_by: Any = None  # the EarlyStopping that puts an earlier model back, or a ModelCheckpoint
    _is_restoring = False  # the former
    _kept: Any = None  # the best value of the latter, as it was last seen
    _has_validated = False
    _logs: Mapping[str, Any] = MappingProxyType({})  # the last epoch's, to which later callbacks add
    _taken = 0
    _has_begun = True
    _epoch = _batches = 0
    _steps_per_epoch: float | None = None

    def _prepare(self) -> None:
        """Make a batch hook where there is something to show; Keras looks for it before training begins."""
        # A subclass may have one, under either name: Keras' own calls the other.
        is_free = all(getattr(type(self), hook) is getattr(Callback, hook) for hook in _BATCH_HOOKS)
        if self._recorder.shows_progress and is_free:
            self.__dict__["on_train_batch_end"] = self._show_progress

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin a run."""
        self._forget()
        self._recorder.start(_jax_rank())
        self._has_begun, self._batches, self._steps_per_epoch, self._has_validated = False, 0, None, False
        self._find_kept()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Add to the last epoch's row what later callbacks put into its logs."""
        if len(self._logs) > self._taken:
            self._take_additions()
        if self._kept_by is not None:
            self._notice_kept()
        self._epoch = epoch
        if not self._has_begun:  # with initial_epoch, or resumed, this need not be the first one
            self._has_begun = True
            self._recorder.begin_progress(self._share, 0)

    def _show_progress(self, batch: int, logs: Any = None) -> None:
        """Show how far the training is, about once a second: ``on_train_batch_end`` where a sink shows it."""
        self._batches = batch + 1
        progress = self._recorder.progress
        if progress is not None and progress.is_due():
            progress.show_share(self._share, self._batches)

    def _share(self, steps: int) -> float | None:
        params = self.params or {}  # a hand-written loop need not set any
        planned = params.get("steps") or self._steps_per_epoch  # None where the data have no length
        return share_of_epochs(self._epoch, params.get("epochs"), steps, planned)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Take the epoch's row: training and validation metrics are both there. ``on_train_end`` has fewer."""
        recorder = self._recorder
        progress = recorder.progress
        if progress is not None and progress.is_due():  # as a rule where there is no batch hook
            progress.show_share(share_of_epochs, epoch + 1, (self.params or {}).get("epochs"), 0, None)
        if logs and recorder.is_recording:
            recorder.record(logs, row=(epoch + 1, None, 0), is_awaited=self._is_awaited)
            self._logs, self._taken = logs, len(logs)
        self._steps_per_epoch = self._batches or None
        if recorder.may_stop_early and recorder.is_to_stop(epoch + 1, jax=_jax()):
            self.model.stop_training = True

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note that a validation has run."""
        self._has_validated = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Deliver."""
        self._take_additions()
        self._notice_kept()
        self._forget()
        is_restored = self._is_restored()
        if self._is_restoring and not is_restored:
            self._recorder.keep_none()
        self._recorder.finish(is_restored=is_restored)
        self._recorder.deliver()

    def _take_additions(self) -> None:
        """A dict keeps its order, so what was added stands at its end."""
        self._recorder.record(dict(list(self._logs.items())[self._taken :]))
        self._taken = len(self._logs)

    def _forget(self) -> None:
        self._logs, self._taken = {}, 0

    def _is_awaited(self, name: str) -> bool:
        """Return whether a validation may be yet to come; whether there will be one is not known."""
        return not self._has_validated and self._recorder.row_count <= _PATIENCE_EPOCHS

    def _find_kept(self) -> None:
        """Find what puts an earlier model back, the last of several; and else what keeps the best one, the first."""
        self._kept_by = self._kept = None
        self._is_restoring = False
        if self._recorder.report not in {"final", "kept"} or not self._recorder.is_recording:
            return
        keeping = []
        for one in callbacks_beside(self):
            if is_kind(one, "EarlyStopping", "early_stopping", _TF_KERAS) and one.restore_best_weights:
                self._kept_by, self._is_restoring = one, True
            elif is_kind(one, "ModelCheckpoint", "model_checkpoint", _TF_KERAS) and one.save_best_only:
                keeping.append(one)
        if keeping and not self._is_restoring and self._recorder.report == "kept":
            self._kept_by = first_keeper(keeping, "save the best model only")
            self._kept = self._kept_by.best

    def _notice_kept(self) -> None:
        """Note that the model of the last epoch is kept, if it is."""
        kept_by = self._kept_by
        if self._is_restoring:
            if kept_by.best_weights is not None and kept_by.best_epoch == self._epoch:
                self._recorder.keep()
        elif kept_by is not None and kept_by.best is not self._kept:
            self._kept = kept_by.best
            self._recorder.keep()

    def _is_restored(self) -> bool:
        """Return whether an earlier model is put back, now or by a callback that comes later."""
        if not self._is_restoring or self._kept_by is None or self._kept_by.best_weights is None:
            return False
        return self._kept_by.stopped_epoch > 0 or not _RESTORES_ONLY_WHERE_IT_STOPPED

    # tf_keras asks its own Callback class these, and any other for the lack of them raises AttributeError.

    def _implements_train_batch_hooks(self) -> bool:
        return "on_train_batch_end" in vars(self)

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False


def _jax() -> Any:
    """Return JAX if it is what trains here."""
    return sys.modules.get("jax") if backend.backend() == "jax" else None


def _jax_rank() -> ProcessRank | None:
    """Ask JAX if it is what trains here. Other backends have no word of their own on it."""
    jax = _jax()
    if jax is None:
        return None
    index = jax.process_index()
    return framework_rank(is_global_zero=index == 0, rank=index, source="jax.process_index")
