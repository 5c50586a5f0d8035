"""Trains in Lightning; the numbers tell epoch and ranks, and every rank waits for the others in several places."""

import witness  # isort: skip  # first, to see everything

import argparse

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from katib_callbacks.lightning import KatibReportCallback

DATA = TensorDataset(torch.arange(8.0).reshape(8, 1), torch.arange(8.0).reshape(8, 1))


class Module(LightningModule):
    """With two ranks: ``val_acc`` is epoch + 0.5, but epoch + 0.25 on rank zero alone; ``gathered`` is 3."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        x, y = batch
        loss = self.current_epoch + 1.0 + self.global_rank
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return (self.layer(x) - y).square().mean()

    def validation_step(self, batch, _):
        self.log("val_acc", self.current_epoch + 0.25 + 0.5 * self.global_rank, sync_dist=True)

    def test_step(self, batch, batch_idx):
        self.log("test_acc", 0.25 + 0.5 * self.global_rank, sync_dist=True)

    def on_validation_epoch_end(self):
        self.all_gather(torch.tensor(float(self.global_rank)))

    def on_train_epoch_end(self):
        shares = self.all_gather(torch.tensor(float(self.global_rank + 1)))
        self.log("gathered", shares.sum(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)


class Witness(Callback):
    """Speaks for each rank, in processes from which nothing returns, too."""

    def __init__(self, ours: KatibReportCallback) -> None:
        self.ours = ours

    def on_train_start(self, trainer, pl_module):
        witness.leave_process_group_at_exit()

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            witness.light_beacon(trainer.global_rank)

    def teardown(self, trainer, pl_module, stage):
        if stage == "fit":
            witness.testify(trainer.global_rank, self.ours.receipt, is_global_zero=trainer.is_global_zero)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--report", default="final")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()

    names = {"accuracy": "val_acc", "loss": "train_loss", "gathered": "gathered"}
    if arguments.test:
        names["tested"] = "test_acc"
    ours = KatibReportCallback(names, report=arguments.report, on_missing="ignore")
    trainer = Trainer(
        accelerator="cpu",
        devices=arguments.devices,
        strategy=arguments.strategy,
        max_epochs=arguments.epochs,
        callbacks=[ours, Witness(ours)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module, loader = Module(), DataLoader(DATA, batch_size=2)
    trainer.fit(module, loader, loader)
    if arguments.test:
        witness.note(f"trained-{trainer.global_rank}")
        trainer.test(module, loader, verbose=False)


if __name__ == "__main__":
    main()
