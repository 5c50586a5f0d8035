"""The callback for PyTorch Lightning 2, in either of its packages: ``lightning`` and ``pytorch_lightning``.

::

    from katib_callbacks.lightning import KatibReportCallback

    Trainer(callbacks=[KatibReportCallback("val_acc")])

The two packages' ``Callback`` classes are unrelated. This one derives from those that are loaded when this module is
imported; with neither loaded yet, from those that are installed.
"""

import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from katib_callbacks._callback import ReportingCallback
from katib_callbacks.distributed import framework_rank
from katib_callbacks.errors import MissingDependencyError


def _callback_classes() -> tuple[type, ...]:
    packages = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
    loaded = [module for module in packages.values() if sys.modules.get(module) is not None]  # None blocks an import
    modules = loaded or [module for package, module in packages.items() if find_spec(package) is not None]
    if not modules:
        raise MissingDependencyError(
            'neither lightning nor pytorch_lightning is installed: pip install "katib-callbacks[lightning]"'
        )
    return tuple(import_module(module).Callback for module in modules)


class KatibReportCallback(ReportingCallback, *_callback_classes()):  # type: ignore[misc]  # bases known at run time
    """Reports the metrics of ``trainer.fit`` to Katib when it has ended; arguments as in ``ReportingCallback``.

    The values are those of ``trainer.callback_metrics``: what the module logs with ``self.log``. Where it logs with
    ``sync_dist=False``, rank zero has the values of its own share alone. They are taken when training ends and
    delivered after Lightning's last checkpoint, in ``on_fit_end``, so a callback that raises in ``on_train_end``
    before this one keeps it from reporting. What ``trainer.validate`` and ``trainer.test`` show later is reported as
    ``after_training`` says. A run resumed from a checkpoint goes on with the rows of the run that wrote it.
    """

    _lent = frozenset({"log", "log_dict"})  # methods of the module
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

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Add to the last epoch's row what was logged after our hook: by the module itself, by later callbacks."""
        del pl_module
        self._take(trainer, row=None)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the epoch's row: training and validation metrics are both there."""
        del pl_module
        self._take(trainer, row=trainer.current_epoch)

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
