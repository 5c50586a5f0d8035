"""Train a small network on scikit-learn's digits with PyTorch Lightning and report to Katib.

By hand, outside a trial, it trains and says that it reports nothing::

    python examples/lightning_digits.py --learning-rate 0.01

As a trial, Katib sets KATIB_TRIAL_NAME, and the callback does the rest.
"""

import argparse
import logging

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from katib_callbacks.lightning import KatibReportCallback


class DigitsClassifier(LightningModule):
    """A two-layer perceptron on 8x8 images."""

    def __init__(self, learning_rate: float, hidden_units: int) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.network = nn.Sequential(nn.Linear(64, hidden_units), nn.ReLU(), nn.Linear(hidden_units, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        images, labels = batch
        loss = cross_entropy(self.network(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Log loss and accuracy of one batch; Lightning averages them over the epoch."""
        images, labels = batch
        logits = self.network(images)
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def digits_loaders() -> tuple[DataLoader, DataLoader]:
    """Return loaders of 1,437 images to train and 360 to validate: (N, 64) floats in 0..1 and (N,) labels."""
    images, labels = load_digits(return_X_y=True)
    tensors = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    train_x, val_x, train_y, val_y = train_test_split(*tensors, test_size=0.2, random_state=0, stratify=labels)
    train = DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True)
    return train, DataLoader(TensorDataset(val_x, val_y), batch_size=len(val_x))


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    seed_everything(0)

    report = KatibReportCallback({"accuracy": "val_acc", "loss": "val_loss"})
    trainer = Trainer(
        max_epochs=arguments.epochs,
        callbacks=[report],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitsClassifier(arguments.learning_rate, arguments.hidden_units), *digits_loaders())

    values = {name: round(float(value), 4) for name, value in trainer.callback_metrics.items()}
    print(f"trained {arguments.epochs} epochs: {values}")
    print(f"receipt: {report.receipt}")


if __name__ == "__main__":
    main()
