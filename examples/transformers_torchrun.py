"""Train on scikit-learn's digits in several processes with the transformers Trainer and report to Katib, once.

::

    torchrun --nproc-per-node 2 examples/transformers_torchrun.py

Every process has the callback; the one that is rank zero of all of them reports. The Trainer gathers predictions from
all processes, so its metrics are those of the whole evaluation set.
"""

import argparse
import logging
import tempfile

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
from transformers_digits import accuracy, digits_datasets

from katib_callbacks.transformers import KatibReportCallback


def main() -> None:
    """Train once, then evaluate on what training never saw."""
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
    train, held_out = digits_datasets()
    evaluation, test = held_out[::2], held_out[1::2]
    names = {"accuracy": "eval_accuracy", "loss": "eval_loss", "test_accuracy": "test_accuracy"}
    report = KatibReportCallback(names)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                folder,
                learning_rate=arguments.learning_rate,
                num_train_epochs=arguments.epochs,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=len(evaluation),
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                use_cpu=not torch.cuda.is_available(),
                disable_tqdm=True,
            ),
            train_dataset=train,
            eval_dataset=evaluation,
            compute_metrics=accuracy,
            callbacks=[report],
        )
        trainer.train()
        trainer.evaluate(test, metric_key_prefix="test")  # every process takes part; rank zero reports it, too

    print(f"rank {trainer.args.process_index} of {trainer.args.world_size}: receipt: {report.receipt}")
    torch.distributed.destroy_process_group()  # on CPUs a process may abort that ends without this


if __name__ == "__main__":
    main()
