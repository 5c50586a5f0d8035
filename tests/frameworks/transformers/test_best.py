"""``report="best"``: the row where ``monitor`` was best, or that of the model that was loaded."""

import pytest

from katib_callbacks import ConfigurationError
from katib_callbacks.transformers import KatibReportCallback

NAN = float("nan")
METRICS = ["eval_accuracy", "loss"]


def best(**options):
    return KatibReportCallback(METRICS, report="best", **{"monitor": "eval_accuracy", "mode": "max"} | options)


def test_best_reports_the_metrics_of_one_step(make_trainer, rows):
    make_trainer(best(), scores=[0.5, 0.875, 0.75], num_train_epochs=3).train()
    assert rows() == [("eval_accuracy", 0.875), ("loss", 0.25)]


def test_best_may_be_the_last_row_and_a_minimum(make_trainer, rows):
    make_trainer(best(monitor="loss", mode="min"), num_train_epochs=3).train()
    assert rows() == [("eval_accuracy", 0.3), ("loss", 0.125)]


@pytest.mark.parametrize("metric", ["accuracy", "eval_accuracy", None])
@pytest.mark.parametrize(("greater", "expected"), [(True, 0.875), (False, 0.5)])
def test_greater_is_better_says_the_mode(make_trainer, rows, metric, greater, expected):
    callback = KatibReportCallback("eval_accuracy", report="best", monitor="eval_accuracy")
    options = {"metric_for_best_model": metric, "greater_is_better": greater}
    make_trainer(callback, scores=[0.5, 0.875, 0.75], num_train_epochs=3, **options).train()
    assert rows() == [("eval_accuracy", expected)]


def test_greater_is_better_follows_the_metrics_name(make_trainer, rows):
    callback = KatibReportCallback(METRICS, report="best", monitor="eval_loss")
    make_trainer(callback, model=None, scores=[0.5, 0.875, 0.75], metric_for_best_model="loss").train()
    assert rows() == [("eval_accuracy", 0.875), ("loss", 0.25)]


def test_the_callbacks_own_mode_comes_first(make_trainer, rows):
    make_trainer(best(mode="min"), metric_for_best_model="accuracy", greater_is_better=True).train()
    assert rows() == [("eval_accuracy", 0.1), ("loss", 0.5)]


@pytest.mark.parametrize("options", [{}, {"metric_for_best_model": "loss", "greater_is_better": False}], ids=repr)
def test_no_mode_and_none_that_is_said_of_the_monitor_raises_before_training(make_trainer, rows, options):
    trainer = make_trainer(KatibReportCallback(report="best", monitor="eval_accuracy"), **options)
    with pytest.raises(ConfigurationError, match="needs mode"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("arguments", [{}, {"mode": "max"}], ids=repr)
def test_best_without_a_monitor_raises_at_once(arguments):
    with pytest.raises(ConfigurationError, match="needs monitor"):
        KatibReportCallback(report="best", **arguments)


def test_the_row_of_the_loaded_model_is_reported(make_trainer, rows, warnings_of):
    trainer = make_trainer(
        KatibReportCallback(METRICS, report="best", monitor="eval_accuracy"),
        scores=[0.5, 0.875, 0.75],
        num_train_epochs=3,
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    trainer.train()
    assert trainer.model.steps == 2
    assert rows() == [("eval_accuracy", 0.875), ("loss", 0.25)]
    assert warnings_of() == []


def test_a_better_row_that_was_not_saved_is_not_the_loaded_models(make_trainer, rows):
    trainer = make_trainer(
        KatibReportCallback(METRICS, report="best", monitor="eval_accuracy"),
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


def test_another_monitor_than_the_loaded_models_decides_itself(make_trainer, rows):
    trainer = make_trainer(
        KatibReportCallback(METRICS, report="best", monitor="loss", mode="min"),
        scores=[0.5, 0.875, 0.75],
        num_train_epochs=3,
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    trainer.train()
    assert rows() == [("eval_accuracy", 0.75), ("loss", 0.125)]
