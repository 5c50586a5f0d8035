"""autolog in transformers: real Trainers, none of which was given a callback by the test."""

import logging
import subprocess
import sys

import pytest
import transformers.trainer
from transformers import Trainer, TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK
from transformers.trainer import DEFAULT_CALLBACKS, CallbackHandler

from katib_callbacks.transformers import KatibReportCallback

ADD_CALLBACK = CallbackHandler.add_callback


@pytest.fixture(autouse=True)
def nothing_is_left_patched():
    before = (list(DEFAULT_CALLBACKS), dict(INTEGRATION_TO_CALLBACK))
    yield
    assert before == (DEFAULT_CALLBACKS, INTEGRATION_TO_CALLBACK)
    assert CallbackHandler.add_callback is ADD_CALLBACK


def ours(trainer):
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, KatibReportCallback)]


# -- on, off, twice ----------------------------------------------------------------------------------------------------


def test_it_comes_before_the_users_own(autolog, rows, make_trainer):
    class Other(TrainerCallback):
        pass

    autolog(metrics="eval_accuracy")
    kinds = [type(callback) for callback in make_trainer(Other()).callback_handler.callbacks]
    assert kinds == [*DEFAULT_CALLBACKS[:-1], KatibReportCallback, Other]
    assert rows() == []


def test_twice_the_last_arguments_count_for_new_trainers(autolog, rows, make_trainer):
    autolog(metrics="train_loss")
    first = make_trainer()
    autolog(metrics="eval_accuracy")
    second = make_trainer()
    assert len(ours(first)) == len(ours(second)) == 1
    assert len(DEFAULT_CALLBACKS) == 2
    second.train()
    assert rows() == [("eval_accuracy", 0.2)]
    first.train()
    assert [name for name, _ in rows()] == ["eval_accuracy", "train_loss"]


def test_outside_a_trial_no_trainer_has_it(autolog, rows, make_trainer, monkeypatch, caplog):
    assert rows() == []
    monkeypatch.delenv("KATIB_TRIAL_NAME")
    caplog.set_level(logging.INFO)
    autolog(metrics="eval_accuracy")
    trainer = make_trainer(report_to="katib")
    trainer.train()
    assert ours(trainer) == []
    assert rows() == []
    assert caplog.text.count("Not in a Katib trial (KATIB_TRIAL_NAME is not set): nothing will be reported.") == 1


# -- report_to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report_to", ["katib", ["katib"]])
def test_report_to_katib(autolog, rows, make_trainer, report_to):
    autolog(metrics="eval_accuracy")
    trainer = make_trainer(report_to=report_to)
    assert len(ours(trainer)) == 1
    trainer.train()
    assert rows() == [("eval_accuracy", 0.2)]


def test_report_to_katib_is_unknown_without_autolog(autolog, rows, make_trainer):
    def complaint():
        with pytest.raises(ValueError, match="katib is not supported, only") as error:
            make_trainer(report_to="katib")
        return str(error.value)

    before = complaint()
    autolog()
    autolog(disable=True)
    assert complaint() == before
    assert rows() == []


def test_beside_report_to_an_explicit_callback_is_the_only_one(autolog, rows, make_trainer):
    autolog(metrics="train_loss")
    explicit = KatibReportCallback("eval_accuracy")
    trainer = make_trainer(explicit, report_to="katib")
    assert ours(trainer) == [explicit]
    trainer.train()
    assert rows() == [("eval_accuracy", 0.2)]


def test_the_classes_make_callbacks_wherever_they_are_called(autolog, rows, monkeypatch):
    """Other projects' trainers build their lists of callbacks themselves."""
    autolog(metrics="eval_accuracy")
    kind = INTEGRATION_TO_CALLBACK["katib"]
    assert issubclass(kind, TrainerCallback)
    assert type(kind()) is type(DEFAULT_CALLBACKS[-1]()) is KatibReportCallback
    autolog(disable=True)
    assert type(kind()) is TrainerCallback
    assert rows() == []


def test_another_integration_of_that_name_comes_back(autolog, rows):
    INTEGRATION_TO_CALLBACK["katib"] = TrainerCallback
    try:
        autolog()
        assert INTEGRATION_TO_CALLBACK["katib"] is not TrainerCallback
        autolog(disable=True)
        assert INTEGRATION_TO_CALLBACK.pop("katib") is TrainerCallback
    finally:
        INTEGRATION_TO_CALLBACK.pop("katib", None)
    assert rows() == []


# -- beside explicit callbacks -----------------------------------------------------------------------------------------


def test_a_class_is_an_explicit_callback(autolog, rows, make_trainer, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "eval_accuracy")
    autolog(metrics="train_loss")
    make_trainer(KatibReportCallback).train()
    assert rows() == [("eval_accuracy", 0.2)]


@pytest.mark.parametrize("is_on", [True, False])
def test_one_that_is_added_later_is_the_only_one(autolog, rows, make_trainer, is_on):
    autolog(metrics="train_loss")
    trainer = make_trainer()
    if not is_on:
        autolog(disable=True)
    explicit = KatibReportCallback("eval_accuracy")
    trainer.add_callback(explicit)
    assert explicit in ours(trainer)
    assert len(ours(trainer)) == (1 if is_on else 2)
    trainer.train()
    assert rows() == [("eval_accuracy", 0.2)]


def test_the_users_may_remove_it(autolog, rows, make_trainer):
    autolog(metrics="eval_accuracy")
    trainer = make_trainer()
    trainer.remove_callback(KatibReportCallback)
    trainer.train()
    assert rows() == []


# -- what is patched ---------------------------------------------------------------------------------------------------


def test_each_new_trainer_gets_the_callback_by_default(autolog):
    autolog()
    assert [kind.__name__ for kind in DEFAULT_CALLBACKS] == ["DefaultFlowCallback", "KatibAutologCallback"]


def test_a_release_that_is_unknown_is_said_so_and_left_alone(autolog, monkeypatch, caplog):
    with monkeypatch.context() as changes:
        changes.delattr(transformers.trainer, "DEFAULT_CALLBACKS")
        autolog(metrics="eval_accuracy")
    assert "autolog does not know this release of transformers: " in caplog.text
    assert CallbackHandler.add_callback is ADD_CALLBACK


# -- trainings of every kind -------------------------------------------------------------------------------------------


def test_each_run_of_a_hyperparameter_search_reports_as_with_an_explicit_callback(
    autolog, rows, make_trainer, model_init
):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    autolog(metrics="eval_loss")
    trainer = make_trainer(model_init=model_init)
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-4)},
        n_trials=2,
        direction="minimize",
    )
    assert [name for name, _ in rows()] == ["eval_loss"] * 2


def test_a_trainer_class_of_ones_own_reports(autolog, rows, make_trainer):
    class Mine(Trainer):
        def train(self, *args, **kwargs):
            return super().train(*args, **kwargs)

    autolog(metrics="eval_accuracy")
    make_trainer(trainer_class=Mine).train()
    assert rows() == [("eval_accuracy", 0.2)]


# -- imports -----------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
{before}
import katib_callbacks
katib_callbacks.autolog(metrics="train_loss")
{after}
import torch, transformers
from transformers import Trainer, TrainingArguments

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def forward(self, x, labels=None):
        return {{"loss": 0.25 * (1 + 0 * self.layer(x).sum())}}

def train(report_to):
    data = [{{"x": torch.ones(1), "labels": torch.ones(1)}}] * 4
    arguments = TrainingArguments(output_dir="output", num_train_epochs=1, save_strategy="no", report_to=report_to,
        use_cpu=True, disable_tqdm=True)
    Trainer(Model(), arguments, train_dataset=data).train()

train("{report_to}")
katib_callbacks.autolog(disable=True)
train("none")
"""


@pytest.mark.parametrize(
    "parts",
    [
        {"before": "from transformers import Trainer"},
        {"before": "from transformers import TrainerCallback, TrainingArguments", "report_to": "katib"},
        {"before": "from transformers.integrations import INTEGRATION_TO_CALLBACK"},
        {"after": "from transformers import Trainer"},
        {"after": "from transformers.integrations import INTEGRATION_TO_CALLBACK as found; assert found['katib']"},
        {"after": "assert 'transformers' not in sys.modules", "report_to": "katib"},
        {"before": "sys.modules.update(dict.fromkeys(['keras', 'lightning', 'pytorch_lightning']))"},
    ],
    ids=["before", "a part before", "another before", "after", "a part after", "later", "without other frameworks"],
)
def test_transformers_may_be_imported_before_or_after(katib_db_manager, tmp_path, parts):
    script = SCRIPT.format(**({"before": "", "after": "", "report_to": "none"} | parts))
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert [(row.name, float(row.value)) for row in katib_db_manager.metrics()] == [("train_loss", 0.25)]
