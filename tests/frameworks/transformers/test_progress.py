"""How far a training is, as the sinks that show it are told."""

import logging

import pytest
import transformers
from transformers import TrainerCallback

from frameworks.progress import (
    EPOCHS,
    fractions,
    rounded,
)
from katib_callbacks.transformers import KatibReportCallback

OPTIONS = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": 1}
"""As many steps as all frameworks do: there are four examples."""


@pytest.fixture(autouse=True)
def _without_transformers_own_callback(monkeypatch):
    """Since release 5 the Trainer adds its own in every TrainJob, ``report_to="none"`` or not."""
    monkeypatch.setenv("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")


class KubeflowCallback(TrainerCallback):
    """Stands for transformers' own, which its older releases lack; it is known by its name."""


def test_steps_that_end_a_training_in_mid_epoch_count(curve, make_trainer):
    make_trainer(KatibReportCallback(reporter=curve.reporter), **OPTIONS, max_steps=6).train()

    assert curve.fractions == rounded(fractions(6, total=6))


def test_the_row_of_the_loaded_model_is_sent_when_the_end_is_shown(curve, make_trainer):
    best = {"metric_for_best_model": "eval_accuracy", "load_best_model_at_end": True, "save_strategy": "epoch"}
    callback = KatibReportCallback(
        "eval_accuracy", report="best", monitor="eval_accuracy", mode="max", reporter=curve.reporter
    )

    make_trainer(callback, scores=[0.1, 0.3, 0.2], **OPTIONS, **best).train()

    assert curve.fractions == rounded(fractions())
    assert curve.sent == [{"eval_accuracy": 0.3}]


def test_beside_transformers_own_callback_it_stays_quiet(
    status_server, make_trainer, katib_db_manager, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "katib_callbacks")
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    callback = KatibReportCallback(["eval_accuracy", "test_loss"], on_missing="ignore")
    trainer = make_trainer(KubeflowCallback(), callback, **OPTIONS)
    trainer.train()
    trainer.predict(trainer.train_dataset)

    assert status_server.begun == 0
    assert set(katib_db_manager.latest()) == {"eval_accuracy", "test_loss"}
    assert callback.receipt.sinks["trainjob"].skipped == (
        "transformers' own KubeflowCallback shows this TrainJob's status"
    )
    assert len([record for record in caplog.records if "gets nothing" in record.getMessage()]) == 1


def test_where_transformers_own_callback_shows_everything_there_is_nothing_to_do(
    status_server, make_trainer, monkeypatch
):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    callback = KatibReportCallback("eval_accuracy")

    make_trainer(callback, KubeflowCallback(), **OPTIONS).train()

    assert status_server.begun == 0
    assert "KubeflowCallback" in callback.receipt.skipped


def test_transformers_own_callback_is_found_where_the_trainer_adds_it(status_server, make_trainer, monkeypatch):
    monkeypatch.delenv("DISABLE_KUBEFLOW_INTEGRATION")
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    callback = KatibReportCallback("eval_accuracy")

    make_trainer(callback, **OPTIONS).train()

    assert status_server.percentages[-1] == 100
    if hasattr(transformers.integrations.integration_utils, "KubeflowCallback"):
        assert "KubeflowCallback" in callback.receipt.skipped
        assert "eval_loss" in status_server.seen[-1].metrics, "the status is its own"
    else:
        assert callback.receipt.skipped is None
        assert status_server.seen[-1].metrics == {"eval_accuracy": "0.3"}
