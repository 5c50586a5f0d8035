"""What blocks with tests of one's own name: a training that takes callbacks, or has its own."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from katib_callbacks.errors import UnavailableError  # noqa: F401
from katib_callbacks.lightning import KatibReportCallback


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return self.layer(batch).square().mean()

    def validation_step(self, _batch, _):
        self.log("accuracy", 0.75)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def train(callbacks=()):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    chosen = list(callbacks) or [KatibReportCallback("accuracy")]
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, callbacks=chosen, **quiet)
    trainer.fit(Module(), DataLoader(torch.zeros(4, 1)), DataLoader(torch.zeros(1, 1)))
