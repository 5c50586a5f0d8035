"""A tiny model and Trainer: each training takes a fraction of a second, and its numbers tell their epoch."""

import itertools
import warnings
from pathlib import Path

import pytest
import torch

from frameworks.transformers.driver import TransformersDriver

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # transformers 4 imports numpy.core
    from transformers import PrinterCallback, Trainer, TrainingArguments

HERE = Path(__file__).parent
DATA = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([float(i)])} for i in range(4)]


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            # Deprecations of their own doing: between them, these packages use what torch and Python are giving up.
            for kind in ("DeprecationWarning", "FutureWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:.*:{kind}:(torch|transformers|accelerate)"))


class TinyModel(torch.nn.Module):
    """Takes one step an epoch.

    The training loss of step n is ``losses[n - 1]``, and 2**-n where there is none; eval_loss is that + 1.
    """

    def __init__(self, losses=()):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.register_buffer("steps", torch.tensor(0))
        self.losses = list(losses)

    def loss_of(self, step):
        return self.losses[step - 1] if 0 < step <= len(self.losses) else 2.0**-step

    def forward(self, x, labels=None):
        self.steps += self.training
        logits = self.layer(x)
        value = self.loss_of(int(self.steps)) + (not self.training)
        return {"loss": value * (1 + 0 * logits.sum()), "logits": logits}


class Scores:
    """A ``compute_metrics``: the n-th evaluation's accuracy is ``values[n - 1]``, by default n / 10."""

    def __init__(self, values=None):
        self.values = iter(values if values is not None else (n / 10 for n in itertools.count(1)))

    def __call__(self, _):
        return {"accuracy": next(self.values)}


@pytest.fixture
def make_trainer(tmp_path):
    def make(*callbacks, model=None, scores=None, trainer_class=Trainer, eval_dataset=DATA, **options):
        defaults = {
            "output_dir": str(tmp_path / "output"),
            "num_train_epochs": 2,
            "per_device_train_batch_size": len(DATA),
            "eval_strategy": "epoch",
            "logging_strategy": "epoch",
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
        }
        model_options = {} if "model_init" in options else {"model": model or TinyModel()}
        trainer_options = {name: options.pop(name) for name in ("model_init", "compute_metrics") if name in options}
        trainer = trainer_class(
            args=TrainingArguments(**(defaults | options)),
            train_dataset=DATA,
            eval_dataset=eval_dataset,
            callbacks=list(callbacks),
            **({"compute_metrics": Scores(scores)} | model_options | trainer_options),
        )
        trainer.remove_callback(PrinterCallback)  # prints, so reads, every value
        return trainer

    return make


@pytest.fixture
def tiny_model():
    return TinyModel


@pytest.fixture
def model_init():
    return lambda: TinyModel()  # noqa: PLW0108  a Trainer would pass a trial to the class itself


@pytest.fixture
def rows(katib_db_manager):
    """Read what was delivered, as (name, value); for approximate numbers in between, values are floats."""
    return lambda: [(row.name, round(float(row.value), 6)) for row in katib_db_manager.metrics()]


@pytest.fixture
def can_resume(monkeypatch):
    """Let transformers before 4.48 load its own random states under torch from 2.6 on."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.fixture
def driver(make_trainer, can_resume, monkeypatch):
    monkeypatch.setenv("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")  # or release 5 adds its own callback in every TrainJob
    return TransformersDriver(make_trainer)
