"""Train a small vision transformer on scikit-learn's digits with the transformers Trainer and report to Katib.

By hand, outside a trial, it trains and says that it reports nothing::

    python examples/transformers_digits.py --learning-rate 0.002

As a trial, Katib sets KATIB_TRIAL_NAME, and the callback does the rest.
"""

import argparse
import logging
import tempfile

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from katib_callbacks.transformers import KatibReportCallback

Example = dict[str, Tensor]


def digits_datasets() -> tuple[list[Example], list[Example]]:
    """Return 1,437 examples to train and 360 to evaluate: a (1, 8, 8) image of floats in 0..1 and its label each."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    examples = [
        {"pixel_values": image, "labels": label} for image, label in zip(pixels, torch.tensor(labels), strict=True)
    ]
    train, evaluation = train_test_split(examples, test_size=0.2, random_state=0, stratify=labels)
    return train, evaluation


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of images that were recognised; the Trainer shows it as ``eval_accuracy``."""
    return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    torch.manual_seed(0)

    model = ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            num_labels=10,
            hidden_size=arguments.hidden_size,
            intermediate_size=2 * arguments.hidden_size,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )
    train, evaluation = digits_datasets()
    report = KatibReportCallback({"accuracy": "eval_accuracy", "loss": "eval_loss"})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                folder,
                learning_rate=arguments.learning_rate,
                num_train_epochs=arguments.epochs,
                per_device_train_batch_size=64,
                per_device_eval_batch_size=len(evaluation),
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=train,
            eval_dataset=evaluation,
            compute_metrics=accuracy,
            callbacks=[report],
        )
        trainer.train()

    last = next(row for row in reversed(trainer.state.log_history) if "eval_accuracy" in row)
    print(f"trained {arguments.epochs} epochs: accuracy {last['eval_accuracy']:.4f}, loss {last['eval_loss']:.4f}")
    print(f"receipt: {report.receipt}")


if __name__ == "__main__":
    main()
