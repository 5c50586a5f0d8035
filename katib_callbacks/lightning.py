"""The callback for PyTorch Lightning 2, in either of its packages: ``lightning`` and ``pytorch_lightning``.

::

    from katib_callbacks.lightning import KatibReportCallback

    Trainer(callbacks=[KatibReportCallback("val_acc")])

The two packages' ``Callback`` classes are unrelated. This one derives from those that are loaded when this module is
imported; with neither loaded yet, from those that are installed.
"""

import math
import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from katib_callbacks.errors import MissingDependencyError
from katib_callbacks.recording.callback import ReportingCallback, first_keeper, is_kind
from katib_callbacks.recording.recorder import always, never
from katib_callbacks.recording.shares import largest, share_of_epochs, share_of_steps, share_of_time
from katib_callbacks.reporting.ranks import framework_rank

__all__ = ["KatibReportCallback"]


_PACKAGES = ("lightning", "pytorch_lightning")


def _callback_classes() -> tuple[type, ...]:
    packages = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
    loaded = [module for module in packages.values() if sys.modules.get(module) is not None]  # None blocks an import
    modules = loaded or [module for package, module in packages.items() if _is_installed(package)]
    if not modules:
        raise MissingDependencyError(
            'neither lightning nor pytorch_lightning is installed: pip install "katib-callbacks[lightning]"'
        )
    return tuple(import_module(module).Callback for module in modules)


def _is_installed(package: str) -> bool:
    """Return whether there is such a package, and not just a folder of that name in the working directory."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


class KatibReportCallback(ReportingCallback, *_callback_classes()):  # type: ignore[misc]  # bases known at run time
    """Reports the metrics of ``trainer.fit`` to Katib when it has ended; arguments as in ``ReportingCallback``.

    The values are those of ``trainer.callback_metrics``: what the module logs with ``self.log``. Where it logs with
    ``sync_dist=False``, rank zero has the values of its own share alone. They are taken when training ends and
    delivered after Lightning's last checkpoint, in ``on_fit_end``, so a callback that raises in ``on_train_end``
    before this one keeps it from reporting. What ``trainer.validate`` and ``trainer.test`` show later is reported as
    ``after_training`` says. A run resumed from a checkpoint goes on with the rows of the run that wrote it.
    """

    _lent = frozenset({"log", "log_dict", "_unread", "_checkpoint"})  # methods of the module, and what has the trainer
    _steps_per_epoch = math.inf  # of an epoch that has ended
    _shown: Mapping[str, Any] = MappingProxyType({})  # what callback_metrics showed last
    _unread: Any = None  # the trainer, between the validation of an epoch's last batch and the end of the epoch
    _has_trained = True  # since the last row began
    _has_validated = _has_ended_epoch = _can_validate = False
    _first_epoch = 0
    _checkpoint: Any = None  # the ModelCheckpoint that says which model is kept
    _kept: tuple[str, Any] = ("", None)  # the path and the score of that model, as they were last seen
    _restored_kept: list[Any] | None = None

    @property
    def state_key(self) -> str:
        """The key in a checkpoint: callbacks that report different things may stand in one Trainer."""
        return f"{type(self).__qualname__}{self._recorder!r}"

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, as plain floats, which ``torch.load(weights_only=True)`` reads."""
        self._read_validation()
        state = self._recorder.state()
        path, score = self._kept
        return {**state, "kept_path": [path, None if score is None else float(score)]} if state else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rows of the run that wrote the checkpoint, if training starts now, and if they are ours."""
        self._restored_kept = state_dict["kept_path"] if self._recorder.restore(state_dict) else None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget a checkpoint that was loaded for something else; one for this fit is loaded after this hook."""
        if stage == "fit":
            self._restored_kept = None
            self._recorder.restore(None)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a run. Lightning has cleared the sanity check's metrics."""
        self._shown, self._unread, self._has_trained, self._has_validated = {}, None, True, False
        self._first_epoch, self._has_ended_epoch = trainer.current_epoch, False
        self._can_validate = "validation_step" in _own_methods(pl_module)
        if trainer.fast_dev_run or self._is_superfluous(trainer.callbacks):
            self._recorder.abandon()
        else:
            rank = framework_rank(is_global_zero=trainer.is_global_zero, rank=trainer.global_rank)
            self._recorder.start(rank)
            self._steps_per_epoch = math.inf
            self._recorder.begin_progress(self._share, trainer, 0)
        self._find_checkpoint(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show how far the training is, about once a second, where a sink shows it."""
        self._has_trained = True
        progress = self._recorder.progress
        if progress is not None and progress.is_due():
            progress.show_share(self._share, trainer, batch_idx + 1)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Look whether the last validation's model was kept."""
        self._notice_kept()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the row of a validation within a fit; report a ``trainer.validate`` after training."""
        if trainer.state.fn == "validate":
            self._recorder.evaluated(trainer.callback_metrics, is_validation=True)
        elif trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._has_validated, self._unread = True, trainer
            if not trainer.is_last_batch:
                self._read_validation()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Add to the last epoch's row what was logged after our hook: by the module itself, by later callbacks."""
        self._take(trainer, is_new=False)
        self._notice_kept()
        self._has_ended_epoch = trainer.current_epoch > self._first_epoch

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the epoch's row: training and validation metrics are both there."""
        is_new = self._has_trained or self._unread is not None
        if is_new and self._unread is None:
            self._notice_kept()
        self._take(trainer, is_new=is_new)  # else a kept model of this row is noticed when the row is complete
        self._unread = None
        if self._recorder.progress is not None:
            self._steps_per_epoch = trainer.fit_loop.batch_idx + 1
        if self._recorder.may_stop_early:  # on every rank, whatever it records
            stop = self._recorder.ask(trainer.current_epoch + 1).stop
            trainer.should_stop |= bool(trainer.strategy.reduce_boolean_decision(stop, all=False))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the values while they are complete; Lightning's own last checkpoint may still be written."""
        self._take(trainer, is_new=False)
        self._notice_kept()
        self._recorder.finish()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Deliver."""
        self._recorder.deliver()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Deliver nothing of a failed or interrupted run: Katib never reads a failed trial's rows."""
        self._recorder.abandon()

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Report a ``trainer.test`` after training."""
        self._recorder.evaluated(trainer.callback_metrics, is_validation=False)

    def _share(self, trainer: Any, steps: int) -> float | None:
        """Return the share of the training that is done, by the limit that will end it first."""
        planned = trainer.num_training_batches  # infinite where the data have no length: then the last epoch's counts
        steps_per_epoch = planned if planned < math.inf else self._steps_per_epoch
        shares = [
            share_of_epochs(trainer.current_epoch, trainer.max_epochs, steps, steps_per_epoch),
            share_of_steps(trainer.global_step, trainer.max_steps),
        ]
        shares += [
            _share_of_time(one) for one in trainer.callbacks if is_kind(one, "Timer", "timer")
        ]  # max_time makes one
        return largest(shares)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _read_validation(self) -> None:
        """Take the row of a validation that is over, before its checkpoint is written or training goes on.

        After an epoch's last batch this waits for the end of the epoch, which has the training's metrics as well.
        """
        trainer, self._unread = self._unread, None
        if trainer is not None:
            self._take(trainer, is_new=True, is_within_epoch=True)

    def _take(self, trainer: Any, *, is_new: bool, is_within_epoch: bool = False) -> None:
        """Record what is fresh. A stale value is the same tensor as before; a number was set by hand and counts anew.

        ``callback_metrics`` computes, across ranks where a metric asks for it, so every rank of a distributed run
        reads it, also one that has nothing to record.
        """
        if not self._recorder.is_recording and trainer.world_size == 1:
            return
        shown, before = dict(trainer.callback_metrics), self._shown
        fresh = {
            name: value
            for name, value in shown.items()
            if before.get(name) is not value or (is_new and not hasattr(value, "detach"))
        }
        self._shown = shown
        if is_within_epoch:
            for name in [name for name in fresh if f"{name}_step" in fresh and f"{name}_epoch" not in fresh]:
                del fresh[name], shown[name]  # a step's value; the epoch's mean is yet to come
        if is_new and fresh:
            self._has_trained = False
        row = (trainer.current_epoch + 1, trainer.global_step, self._recorder.row_count) if is_new else None
        has_to_wait = not self._recorder.selection.has_all and (
            not self._has_ended_epoch or (not self._has_validated and trainer.enable_validation)
        )
        self._recorder.record(fresh, row=row, is_awaited=always if has_to_wait else never)

    def _may_follow(self, name: str) -> bool:
        """Return whether ``trainer.validate`` or ``trainer.test`` may bring this name."""
        return (self._can_validate and not self._has_validated) or "test" in name.lower()

    # -- the model that is kept ------------------------------------------------------------------------------------

    def _find_checkpoint(self, trainer: Any) -> None:
        """Find what keeps models by a metric, the first if there are several, and what it has kept before."""
        restored, self._restored_kept = self._restored_kept, None
        self._checkpoint, self._kept = None, ("", None)
        if self._recorder.report != "kept":
            return
        keeping = [one for one in trainer.checkpoint_callbacks if is_kind(one, "ModelCheckpoint", "model_checkpoint")]
        keeping = [one for one in keeping if one.monitor is not None and one.save_top_k != 0]
        if not keeping:
            return
        self._checkpoint = first_keeper(keeping, "have a monitor") if self._recorder.is_recording else keeping[0]
        self._kept = path, score = self._checkpoint.best_model_path, self._checkpoint.best_model_score
        if restored is not None and path:
            is_other = path != restored[0] or not (score is None or restored[1] is None or restored[1] == float(score))
            if is_other:  # it was kept when the checkpoint was written that this run goes on from
                self._keep()

    def _notice_kept(self) -> None:
        """Note that the model of the last row is kept, if it is."""
        if self._checkpoint is None:
            return
        path, score = self._kept
        if path != self._checkpoint.best_model_path or score is not self._checkpoint.best_model_score:
            self._kept = self._checkpoint.best_model_path, self._checkpoint.best_model_score
            self._keep()

    def _keep(self) -> None:
        """Note the kept model, with its own score: it may have been saved after the last row, at a training step."""
        score = self._checkpoint.best_model_score
        self._recorder.keep(scores={} if score is None else {self._checkpoint.monitor: score})

    @staticmethod
    def _is_bookkeeping(name: str, names: Collection[str]) -> bool:
        """``m_step`` and ``m_epoch`` stand beside an ``m`` that was logged ``on_step`` and ``on_epoch``."""
        base, _, suffix = name.rpartition("_")
        return suffix in {"step", "epoch"} and base in names


def _own_methods(module: Any) -> set[str]:
    """Return the names that the user's module defines, and not Lightning's own classes."""
    kinds = (kind for kind in type(module).__mro__ if kind.__module__.partition(".")[0] not in _PACKAGES)
    return {*vars(module), *(name for kind in kinds for name in vars(kind))}


def _share_of_time(timer: Any) -> float | None:
    left_s: float | None = timer.time_remaining()
    # No limit; or the clock of the last fit, which it keeps for ever.
    return None if left_s is None or timer.end_time() is not None else share_of_time(timer.time_elapsed(), left_s)
