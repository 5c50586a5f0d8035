"""Lightning for ``overhead.py``. One read is ``trainer.callback_metrics``, a property that computes."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset


class Module(LightningModule):
    """Logs half of the metrics in training and the others in validation."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, _: int) -> Any:
        """Log and return a loss."""
        loss = self.layer(batch[0]).square().mean()
        self._log("train_", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        """Log."""
        loss = self.layer(batch[0]).square().mean()
        self._log("val_", loss)

    def _log(self, prefix: str, loss: Any, **options: Any) -> None:
        self.log_dict({name: loss for name in self.names if name.startswith(prefix)}, **options)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Reads(Callback):
    """Reads once, where our callback does."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Read."""
        del pl_module
        self.seen = trainer.callback_metrics


class Framework:
    """See ``overhead.Framework``."""

    HOOKS = (
        "on_train_epoch_start",
        "on_validation_epoch_start",
        "on_validation_start",
        "on_validation_epoch_end",
        "on_validation_end",
        "on_train_epoch_end",
    )
    MONITOR = "val_0"
    RAY = "tune"

    def __init__(self, metrics: int = 10) -> None:
        self.NAMES = tuple(f"{stage}_{kind}" for stage in ("train", "val") for kind in range(metrics // 2))
        self.loader = DataLoader(TensorDataset(torch.linspace(0, 1, 16).reshape(16, 1)), batch_size=16)

    def yardsticks(self) -> dict[str, Any]:
        """Return the read and the empty callback."""
        return {"trainer.callback_metrics": Reads(), "an empty callback": Callback()}

    def callback_class(self) -> type:
        """Return our callback."""
        from katib_callbacks.lightning import KatibReportCallback  # noqa: PLC0415  after lightning

        return KatibReportCallback

    def optuna(self, trial: Any) -> Callable[[], Any]:
        """Return Optuna's callback."""
        from optuna_integration.pytorch_lightning import PyTorchLightningPruningCallback  # noqa: PLC0415

        return lambda: PyTorchLightningPruningCallback(trial, self.MONITOR)

    def mlflow(self, run_id: str, stack: ExitStack) -> Callable[[], Any]:
        """Return the callback that ``mlflow.pytorch.autolog`` adds; it has no public name."""
        import mlflow  # noqa: PLC0415
        from mlflow.pytorch import _lightning_autolog  # noqa: PLC0415
        from mlflow.utils.autologging_utils import MlflowAutologgingQueueingClient, batch_metrics_logger  # noqa: PLC0415

        client = MlflowAutologgingQueueingClient(mlflow.get_tracking_uri())
        logger = stack.enter_context(batch_metrics_logger(run_id))
        make = vars(_lightning_autolog)["__MlflowPLCallback"]
        return lambda: make(client, logger, run_id, False, 1, None, False)

    def ray(self) -> Callable[[], Any]:
        """Return Ray's callback."""
        from ray.tune.integration.pytorch_lightning import TuneReportCheckpointCallback  # noqa: PLC0415

        return lambda: TuneReportCheckpointCallback(save_checkpoints=False, on="train_epoch_end")

    def train(self, callback: Any, epochs: int, turn: int, folder: Path) -> None:
        """Train once."""
        del turn
        Trainer(
            max_epochs=epochs,
            callbacks=[callback],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        ).fit(Module(self.NAMES), self.loader, self.loader)
