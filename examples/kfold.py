"""Cross-validate in one trial and report the mean once.

A callback in each fold's Trainer would report every fold, and Katib would take the best of them. So the folds train
without one, and a KatibReporter sends the mean::

    python examples/kfold.py --learning-rate 0.01 --folds 3
"""

import argparse
from statistics import fmean, stdev

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning_digits import DigitsClassifier
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch.utils.data import DataLoader, Subset, TensorDataset

from katib_callbacks import KatibReporter


def fold_accuracy(data: TensorDataset, train: list[int], validate: list[int], learning_rate: float) -> float:
    """Train on one part of the data and return the accuracy on the other."""
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        DigitsClassifier(learning_rate, hidden_units=32),
        DataLoader(Subset(data, train), batch_size=64, shuffle=True),
        DataLoader(Subset(data, validate), batch_size=len(validate)),
    )
    return float(trainer.callback_metrics["val_acc"])


def main() -> None:
    """Train every fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--folds", type=int, default=3)
    arguments = parser.parse_args()

    seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    accuracies = [
        fold_accuracy(data, train.tolist(), validate.tolist(), arguments.learning_rate)
        for train, validate in StratifiedKFold(arguments.folds).split(images, labels)
    ]
    print(f"accuracy: {fmean(accuracies):.4f} +- {stdev(accuracies):.4f}")

    with KatibReporter() as reporter:
        if reporter.idle_reason is not None:
            print(f"{reporter.idle_reason}: nothing is reported")
            return
        receipt = reporter.report({"accuracy": fmean(accuracies), "accuracy_stdev": stdev(accuracies)})
        print(f"receipt: {receipt}")


if __name__ == "__main__":
    main()
