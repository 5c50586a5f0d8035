"""Train on scikit-learn's digits in several processes with PyTorch Lightning and report to Katib, once.

Lightning starts the processes by itself, one for each device::

    python examples/lightning_ddp.py --devices 2

torchrun does as well: ``torchrun --nproc-per-node 2 examples/lightning_ddp.py --devices 2``. Every process has the
callback; the one of rank zero reports. With ``sync_dist=True`` its values are those of all processes, without it those
of its own share of the data.
"""

import argparse
import logging

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning_digits import DigitsClassifier, digits_loaders
from torch import Tensor
from torch.nn.functional import cross_entropy

from katib_callbacks.lightning import KatibReportCallback


class DistributedDigitsClassifier(DigitsClassifier):
    """As its base, with validation metrics of all processes."""

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Log loss and accuracy of one batch; Lightning averages them over the epoch and the processes."""
        images, labels = batch
        logits = self.network(images)
        self.log("val_loss", cross_entropy(logits, labels), sync_dist=True)
        self.log("val_acc", (logits.argmax(dim=1) == labels).float().mean(), sync_dist=True)


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--devices", type=int, default=2, help="processes of a node")
    parser.add_argument("--nodes", type=int, default=1)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    seed_everything(0)

    report = KatibReportCallback({"accuracy": "val_acc", "loss": "val_loss"})
    trainer = Trainer(
        max_epochs=arguments.epochs,
        callbacks=[report],
        accelerator="auto",
        devices=arguments.devices,
        num_nodes=arguments.nodes,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DistributedDigitsClassifier(arguments.learning_rate, arguments.hidden_units), *digits_loaders())

    print(f"rank {trainer.global_rank} of {trainer.world_size}: receipt: {report.receipt}")
    torch.distributed.destroy_process_group()  # on CPUs a process may abort that ends without this


if __name__ == "__main__":
    main()
