"""What blocks for Lightning name: a model with its data, and a Trainer that trains for a moment."""

import torch
from lightning import pytorch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

import katib_callbacks
from katib_callbacks.lightning import KatibReportCallback  # noqa: F401

MADE = []


class Trainer(pytorch.Trainer):
    """Lightning's, without files and bars, that knows whether it was asked to train."""

    def __init__(self, **options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        super().__init__(**{"enable_checkpointing": bool(kept(options)), **quiet, **options, "max_epochs": 2})
        self.has_fitted = False
        MADE.append(self)

    def fit(self, *args, **options):
        self.has_fitted = True
        super().fit(*args, **options)


def kept(options):
    return [one for one in options.get("callbacks", []) if type(one).__name__ == "ModelCheckpoint"]


pytorch.Trainer = Trainer  # for blocks that import it, in this process only


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, _batch, _):
        self.log("val_acc", 0.75)
        self.log("val_loss", 0.25)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


model = Module()
train_loader = DataLoader(torch.zeros(4, 1))
val_loader = DataLoader(torch.zeros(1, 1))


def finish():
    for trainer in MADE or [Trainer()]:
        if not trainer.has_fitted:
            trainer.fit(model, train_loader, val_loader)
    katib_callbacks.autolog(disable=True)  # not for the next block
