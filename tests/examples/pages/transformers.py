"""What blocks for transformers name: a model, arguments and data, and a Trainer that trains for a moment."""

import tempfile

import torch
import transformers
from transformers import TrainingArguments

from katib_callbacks.transformers import KatibReportCallback  # noqa: F401

DATA = [{"x": torch.zeros(1), "labels": torch.zeros(1)}] * 4
MADE = []


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, labels):
        loss = (self.layer(x) - labels).square().mean()
        return {"loss": loss, "logits": x}


class Trainer(transformers.Trainer):
    """The library's, with data where a page has dots, that knows whether it was asked to train."""

    def __init__(self, *given, **options):
        for name in ("train_dataset", "eval_dataset"):
            if options.get(name) is ...:
                options[name] = DATA
        super().__init__(*given, **options)
        self.has_trained = False
        MADE.append(self)

    def train(self, *given, **options):
        self.has_trained = True
        return super().train(*given, **options)


transformers.Trainer = Trainer  # for blocks that import it, in this process only
model = Model()
train_dataset = eval_dataset = test_dataset = DATA


def arguments(**options):
    quiet = {"eval_strategy": "epoch", "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True}
    return TrainingArguments(tempfile.mkdtemp(dir="."), **{**quiet, "num_train_epochs": 2, **options})


args = arguments()


def finish():
    for trainer in MADE:
        if not trainer.has_trained:
            trainer.train()
