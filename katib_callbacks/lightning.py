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
from katib_callbacks.recording.callback import ReportingCallback
from katib_callbacks.recording.shares import largest, share_of_epochs, share_of_steps, share_of_time
from katib_callbacks.reporting.ranks import framework_rank

__all__ = ["KatibReportCallback"]


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
    """Say whether there is such a package, and not just a folder of that name in the working directory."""
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

    _lent = frozenset({"log", "log_dict"})  # methods of the module
    _steps_per_epoch = math.inf  # of an epoch that has ended
    _shown: Mapping[str, Any] = MappingProxyType({})  # what callback_metrics showed last

    @property
    def state_key(self) -> str:
        """The key in a checkpoint: callbacks that report different things may stand in one Trainer."""
        return f"{type(self).__qualname__}{self._recorder!r}"

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, as plain floats, which ``torch.load(weights_only=True)`` reads."""
        return self._recorder.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rows of the run that wrote the checkpoint, if training starts now."""
        self._recorder.restore(state_dict)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget a checkpoint that was loaded for something else; one for this fit is loaded after this hook."""
        del trainer, pl_module
        if stage == "fit":
            self._recorder.restore(None)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a run. Lightning has cleared the sanity check's metrics."""
        del pl_module
        self._shown = {}
        if trainer.fast_dev_run or self._is_superfluous(trainer.callbacks):
            self._recorder.abandon()
        else:
            rank = framework_rank(is_global_zero=trainer.is_global_zero, rank=trainer.global_rank)
            self._recorder.start(rank)
            self._steps_per_epoch = math.inf
            self._recorder.begin_progress(self._share, trainer, 0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show how far the training is, about once a second, where a sink shows it."""
        del pl_module, outputs, batch
        progress = self._recorder.progress
        if progress is not None and progress.is_due():
            progress.show_share(self._share, trainer, batch_idx + 1)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Add to the last epoch's row what was logged after our hook: by the module itself, by later callbacks."""
        del pl_module
        self._take(trainer, row=None)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the epoch's row: training and validation metrics are both there."""
        del pl_module
        self._take(trainer, row=trainer.current_epoch)
        if self._recorder.progress is not None:
            self._steps_per_epoch = trainer.fit_loop.batch_idx + 1

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the values while they are complete; Lightning's own last checkpoint may still be written."""
        del pl_module
        self._take(trainer, row=None)
        self._recorder.finish()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Deliver."""
        del trainer, pl_module
        self._recorder.deliver()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Deliver nothing of a failed or interrupted run: Katib never reads a failed trial's rows."""
        del trainer, pl_module, exception
        self._recorder.abandon()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Report a ``trainer.validate`` after training."""
        del pl_module
        if trainer.state.fn == "validate":
            self._recorder.evaluated(trainer.callback_metrics, is_validation=True)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Report a ``trainer.test`` after training."""
        del pl_module
        self._recorder.evaluated(trainer.callback_metrics, is_validation=False)

    def _share(self, trainer: Any, steps: int) -> float | None:
        """Return the share of the training that is done, by the limit that will end it first."""
        planned = trainer.num_training_batches  # infinite where the data have no length: then the last epoch's counts
        steps_per_epoch = planned if planned < math.inf else self._steps_per_epoch
        shares = [
            share_of_epochs(trainer.current_epoch, trainer.max_epochs, steps, steps_per_epoch),
            share_of_steps(trainer.global_step, trainer.max_steps),
        ]
        shares += map(_share_of_time, filter(_is_timer, trainer.callbacks))  # max_time makes one
        return largest(shares)

    def _take(self, trainer: Any, *, row: int | None) -> None:
        """Record what is fresh. A stale value is the same tensor object as before.

        ``callback_metrics`` computes, across ranks where a metric asks for it, so every rank of a distributed run
        reads it, also one that has nothing to record.
        """
        if not self._recorder.is_active and trainer.world_size == 1:
            return
        shown = dict(trainer.callback_metrics)
        fresh = {name: value for name, value in shown.items() if self._shown.get(name) is not value}
        self._shown = shown
        self._recorder.record(fresh, row=row)

    @staticmethod
    def _is_bookkeeping(name: str, names: Collection[str]) -> bool:
        """``m_step`` and ``m_epoch`` stand beside an ``m`` that was logged ``on_step`` and ``on_epoch``."""
        base, _, suffix = name.rpartition("_")
        return suffix in {"step", "epoch"} and base in names


def _is_timer(callback: object) -> bool:
    """Say whether it is Lightning's ``Timer``, of either package; other callbacks may have methods of these names."""
    return any(
        (kind.__name__, kind.__module__.rpartition(".")[2]) == ("Timer", "timer") for kind in type(callback).__mro__
    )


def _share_of_time(timer: Any) -> float | None:
    left_s: float | None = timer.time_remaining()
    # No limit; or the clock of the last fit, which it keeps for ever.
    return None if left_s is None or timer.end_time() is not None else share_of_time(timer.time_elapsed(), left_s)
