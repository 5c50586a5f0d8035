"""Evaluations after training, and without one."""

import pytest

from katib_callbacks.transformers import KatibReportCallback


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


def test_an_evaluation_before_training_is_no_part_of_it(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback("eval_accuracy", report="history"), num_train_epochs=1)
    trainer.evaluate()
    trainer.train()
    assert rows() == [("eval_accuracy", 0.2)]
