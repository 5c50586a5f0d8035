"""transformers."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments

from katib_callbacks.transformers import KatibReportCallback


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, labels):
        loss = (self.layer(x) - labels).square().mean()
        return {"loss": loss, "logits": x}


def main():
    data = [{"x": torch.zeros(1), "labels": torch.zeros(1)}] * 4
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=2, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True
        )
        trainer = Trainer(
            Model(),
            arguments,
            train_dataset=data,
            eval_dataset=data[:1],
            compute_metrics=lambda _: {"accuracy": 0.25 * trainer.state.epoch},
            callbacks=[KatibReportCallback({"val_acc": "eval_accuracy"})],
        )
        trainer.train()


if __name__ == "__main__":
    main()
