"""Evaluations after training, and without one."""

import pytest

from katib_callbacks.transformers import KatibReportCallback


def test_an_evaluation_after_training_adds_what_was_missing(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback(["eval_accuracy", "loss"]), eval_strategy="no")
    trainer.train()
    assert rows() == [("loss", 0.25)]
    trainer.evaluate()
    assert rows() == [("loss", 0.25), ("eval_accuracy", 0.1)]


def test_an_evaluation_after_training_adds_nothing_that_training_showed(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback(["eval_accuracy", "loss"]))
    trainer.train()
    trainer.evaluate()
    assert rows() == [("eval_accuracy", 0.2), ("loss", 0.25)]


@pytest.mark.parametrize(("after_training", "expected"), [("update", [0.2, 0.3]), ("ignore", [0.2])])
def test_after_training_says_what_is_added(make_trainer, rows, after_training, expected):
    trainer = make_trainer(KatibReportCallback("eval_accuracy", after_training=after_training))
    trainer.train()
    trainer.evaluate()
    assert rows() == [("eval_accuracy", value) for value in expected]


def test_without_names_an_evaluation_counts_and_a_test_does_not(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback(), eval_strategy="no")
    trainer.train()
    during = len(rows())
    trainer.evaluate(metric_key_prefix="test")
    trainer.predict(trainer.eval_dataset)
    assert len(rows()) == during
    trainer.evaluate()
    assert sorted(rows()[during:]) == [("eval_accuracy", 0.3), ("eval_loss", 1.25)]


@pytest.mark.parametrize("action", ["evaluate", "predict"])
def test_a_test_counts_where_it_is_named(make_trainer, rows, action):
    trainer = make_trainer(KatibReportCallback(["test_accuracy", "loss"], on_missing="ignore"))
    trainer.train()
    getattr(trainer, action)(trainer.eval_dataset, metric_key_prefix="test")
    assert rows() == [("loss", 0.25), ("test_accuracy", 0.3)]


def test_each_evaluation_after_training_is_an_update(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback("eval_accuracy", after_training="update"), eval_strategy="no")
    trainer.train()
    trainer.evaluate()
    trainer.evaluate()
    assert rows() == [("eval_accuracy", 0.1), ("eval_accuracy", 0.2)]


def test_evaluation_without_training_reports_nothing(make_trainer, rows):
    callback = KatibReportCallback(["eval_accuracy", "test_accuracy"])
    trainer = make_trainer(callback)
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset)
    assert rows() == []
    assert callback.receipt is None


def test_an_evaluation_before_training_is_no_part_of_it(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback("eval_accuracy", report="history"), num_train_epochs=1)
    trainer.evaluate()
    trainer.train()
    assert rows() == [("eval_accuracy", 0.2)]
