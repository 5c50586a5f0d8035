"""Whose number is reported, and which rows there are: values that tell one model from another."""

import json
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback

from katib_callbacks.transformers import KatibReportCallback

METRICS = ["eval_accuracy", "loss"]
KEEPS = {"save_strategy": "epoch", "metric_for_best_model": "accuracy"}
LOADS = KEEPS | {"load_best_model_at_end": True}
SCORES = [0.5, 0.875, 0.75]
BEST = {"report": "best", "monitor": "eval_accuracy", "mode": "max"}


def test_a_better_row_that_was_not_saved_is_not_the_kept_models(make_trainer, rows):
    trainer = make_trainer(
        KatibReportCallback(METRICS, report="kept"),
        scores=[0.5, 0.75, 0.875, 0.625],
        num_train_epochs=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_accuracy",
    )
    trainer.train()
    assert trainer.model.steps == 2
    assert rows() == [("eval_accuracy", 0.75), ("loss", 0.25)]


def test_the_mean_of_the_whole_training_stands_beside_the_loaded_models_row(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback(["train_loss", *METRICS]), scores=SCORES, num_train_epochs=3, **LOADS)
    trainer.train()
    assert rows() == [("train_loss", round((0.5 + 0.25 + 0.125) / 3, 6)), ("eval_accuracy", 0.875), ("loss", 0.25)]


def test_rows_that_a_trainers_own_log_adds_without_a_step_belong_to_the_step_before(make_trainer, rows):
    class Logs(Trainer):
        def log(self, logs, *arguments, **options):
            super().log(logs, *arguments, **options)
            self.state.log_history.append({"mine": self.state.global_step})

    callback = KatibReportCallback(["eval_accuracy", "mine"])
    make_trainer(callback, scores=SCORES, num_train_epochs=3, trainer_class=Logs, **LOADS).train()
    assert rows() == [("eval_accuracy", 0.875), ("mine", 2)]


def test_a_mode_that_contradicts_the_trainers_own_decides_over_what_it_loads(make_trainer, rows):
    callback = KatibReportCallback("eval_accuracy", **BEST | {"mode": "min"})
    make_trainer(callback, scores=[0.75, 0.875, 0.5, 0.625], num_train_epochs=4, **LOADS).train()
    assert rows() == [("eval_accuracy", 0.5)]


def test_a_value_that_is_older_than_the_model_of_the_reported_row_is_said(make_trainer, tiny_model, rows, warnings_of):
    callback = KatibReportCallback(METRICS, report="best", monitor="loss", mode="min")
    model = tiny_model(losses=[0.5, 0.375, 0.125, 0.25])
    options = {"num_train_epochs": 4, "eval_strategy": "steps", "eval_steps": 2}
    make_trainer(callback, model=model, scores=[0.5, 0.75], **options).train()
    assert rows() == [("eval_accuracy", 0.5), ("loss", 0.125)]
    [message] = warnings_of()
    assert "eval_accuracy=0.5 is from step 2, the model from 3" in message


# -- the model before its first step -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"), [({"report": "history"}, [0.5, 0.25]), (BEST, [0.5]), ({}, [0.25])], ids=str
)
def test_the_untrained_model_is_no_result(make_trainer, rows, options, expected):
    callback = KatibReportCallback("eval_accuracy", **options)
    make_trainer(callback, scores=[0.9, 0.5, 0.25], eval_on_start=True).train()
    assert rows() == [("eval_accuracy", value) for value in expected]


def test_the_untrained_models_values_do_not_stand_in_for_those_that_training_lacks(make_trainer, rows, warnings_of):
    callback = KatibReportCallback(METRICS)
    make_trainer(callback, scores=[0.9], eval_on_start=True, eval_strategy="no").train()
    assert rows() == [("loss", 0.25)]


def test_without_a_step_the_untrained_model_is_all_there_is(make_trainer, rows):
    make_trainer(KatibReportCallback("eval_accuracy"), scores=[0.9], eval_on_start=True, num_train_epochs=0).train()
    assert rows() == [("eval_accuracy", 0.9)]


# -- evaluations of the training set -------------------------------------------------------------------------------


class EvaluatesTraining(TrainerCallback):
    """Evaluates the training set after each epoch, as many do."""

    def on_epoch_end(self, args, state, control, **_):
        self.trainer.evaluate(self.trainer.train_dataset, metric_key_prefix="train")


def test_an_evaluation_of_the_training_set_is_not_overwritten_by_the_mean_of_the_losses(make_trainer, rows):
    evaluates = EvaluatesTraining()
    callback = KatibReportCallback(["train_loss", "train_accuracy"])
    evaluates.trainer = make_trainer(callback, evaluates, eval_strategy="no")
    evaluates.trainer.train()
    assert rows() == [("train_loss", 1.25), ("train_accuracy", 0.2)], "an evaluation's loss is one more"


# -- rows belong to a trial ----------------------------------------------------------------------------------------


@pytest.fixture
def parent(make_trainer, tmp_path):
    """Train a parent trial, and return its last checkpoint."""

    def train(**options):
        folder = tmp_path / "parent"
        callback = KatibReportCallback("eval_accuracy")
        make_trainer(callback, scores=[0.1, 0.9], output_dir=str(folder), save_strategy="epoch", **options).train()
        return folder / "checkpoint-2"

    return train


@pytest.mark.parametrize(
    ("options", "expected"), [({"report": "history"}, [0.3, 0.4]), (BEST, [0.4]), ({}, [0.4])], ids=str
)
def test_a_child_trial_leaves_its_parents_rows_behind(
    katib_db_manager, make_trainer, parent, monkeypatch, can_resume, options, expected
):
    checkpoint = parent()
    assert json.loads((checkpoint / "trainer_state.json").read_text())["trial_name"] == "test-trial"
    monkeypatch.setenv("KATIB_TRIAL_NAME", "child")
    callback = KatibReportCallback("eval_accuracy", **options)
    make_trainer(callback, scores=[0.3, 0.4], num_train_epochs=4).train(resume_from_checkpoint=str(checkpoint))
    assert [float(row.value) for row in katib_db_manager.metrics("child")] == expected


def test_each_of_several_callbacks_leaves_the_parents_rows_behind(
    katib_db_manager, make_trainer, parent, monkeypatch, can_resume
):
    checkpoint = parent()
    monkeypatch.setenv("KATIB_TRIAL_NAME", "child")
    callbacks = KatibReportCallback({"last": "eval_accuracy"}), KatibReportCallback({"best": "eval_accuracy"}, **BEST)
    trainer = make_trainer(*callbacks, scores=[0.4, 0.3], num_train_epochs=4)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    rows = [(row.name, float(row.value)) for row in katib_db_manager.metrics("child")]
    assert rows == [("last", 0.3), ("best", 0.4)]


def test_one_checkpoint_from_outside_any_trial_is_nobodys_rows(
    katib_db_manager, make_trainer, parent, monkeypatch, can_resume
):
    monkeypatch.delenv("KATIB_TRIAL_NAME")
    checkpoint = parent()
    monkeypatch.setenv("KATIB_TRIAL_NAME", "child")
    callback = KatibReportCallback("eval_accuracy", report="history")
    make_trainer(callback, scores=[0.3, 0.4], num_train_epochs=4).train(resume_from_checkpoint=str(checkpoint))
    assert [float(row.value) for row in katib_db_manager.metrics("child")] == [0.3, 0.4]


def test_the_parents_model_that_a_child_evaluates_at_its_start_is_not_the_childs_result(
    katib_db_manager, make_trainer, parent, monkeypatch, can_resume
):
    checkpoint = parent()
    monkeypatch.setenv("KATIB_TRIAL_NAME", "child")
    callback = KatibReportCallback("eval_accuracy", **BEST)
    trainer = make_trainer(callback, scores=[0.9, 0.3, 0.4], num_train_epochs=4, eval_on_start=True)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert [float(row.value) for row in katib_db_manager.metrics("child")] == [0.4]


def test_a_child_whose_parents_model_is_put_back_says_that_it_has_no_row_of_it(
    katib_db_manager, make_trainer, parent, monkeypatch, can_resume, warnings_of
):
    checkpoint = parent(metric_for_best_model="accuracy")
    monkeypatch.setenv("KATIB_TRIAL_NAME", "child")
    trainer = make_trainer(KatibReportCallback("eval_accuracy"), scores=[0.3, 0.4], num_train_epochs=4, **LOADS)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert Path(trainer.state.best_model_checkpoint) == checkpoint
    assert [float(row.value) for row in katib_db_manager.metrics("child")] == [0.4]
    [message] = warnings_of()
    assert "has no row of its own in this training" in message


# -- a metric that is yet to come ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["test", "heldout"])
def test_another_sets_metric_is_not_missed_before_it_is_evaluated(make_trainer, rows, warnings_of, prefix):
    trainer = make_trainer(KatibReportCallback(["eval_accuracy", f"{prefix}_accuracy"]), num_train_epochs=3)
    trainer.train()
    trainer.evaluate(trainer.eval_dataset, metric_key_prefix=prefix)
    assert rows() == [("eval_accuracy", 0.3), (f"{prefix}_accuracy", 0.4)]
    assert warnings_of() == []
