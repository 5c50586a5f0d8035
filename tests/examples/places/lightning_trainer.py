"""Lightning."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from katib_callbacks.lightning import KatibReportCallback


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return self.layer(batch).square().mean()

    def validation_step(self, _batch, _):
        self.log("val_acc", 0.25 * (self.current_epoch + 1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def main():
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[KatibReportCallback("val_acc")],
    )
    trainer.fit(Module(), DataLoader(torch.zeros(4, 1)), DataLoader(torch.zeros(1, 1)))


if __name__ == "__main__":
    main()
