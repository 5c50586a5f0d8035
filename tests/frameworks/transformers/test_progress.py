"""How far a training is, as the sinks that show it are told."""

import logging

import pytest
import transformers
from transformers import EarlyStoppingCallback, TrainerCallback

from frameworks.progress import (
    EPOCHS,
    STEPS,
    Gate,
    assert_same_curve,
    assert_trained_beside_a_hanging_server,
    fractions,
    rounded,
)
from katib_callbacks.transformers import KatibReportCallback

OPTIONS = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": 1}
"""As many steps as all frameworks do: there are four examples."""


class TransformersGate(TrainerCallback):
    def __init__(self, gate):
        self.gate = gate

    def on_train_begin(self, *_, **__):
        self.gate.pass_step()

    def on_step_end(self, args, state, control, **_):
        self.gate.pass_step()


class FailsAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise RuntimeError("out of memory")


@pytest.fixture(autouse=True)
def _without_transformers_own_callback(monkeypatch):
    """Since release 5 the Trainer adds its own in every TrainJob, ``report_to="none"`` or not."""
    monkeypatch.setenv("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")


class KubeflowCallback(TrainerCallback):
    """Stands for transformers' own, which its older releases lack; it is known by its name."""


def test_the_status_server_sees_the_curve_of_all_frameworks(status_server, status_reporter, make_trainer):
    ours = KatibReportCallback("eval_accuracy", reporter=status_reporter)

    make_trainer(ours, TransformersGate(Gate(status_server)), **OPTIONS).train()

    assert_same_curve(status_server)
    assert status_server.seen[-1].metrics == {"eval_accuracy": "0.3"}
    assert ours.receipt.delivered == 1


def test_the_curve_and_the_metrics_so_far(curve, make_trainer):
    callback = KatibReportCallback({"accuracy": "eval_accuracy"}, reporter=curve.reporter)

    make_trainer(callback, **OPTIONS).train()

    assert curve.fractions == rounded(fractions())
    assert curve.latest == [{}, {"accuracy": 0.1}, {"accuracy": 0.2}, {"accuracy": 0.3}]
    assert curve.sent == [{"accuracy": 0.3}]


def test_steps_that_end_a_training_in_mid_epoch_count(curve, make_trainer):
    make_trainer(KatibReportCallback(reporter=curve.reporter), **OPTIONS, max_steps=6).train()

    assert curve.fractions == rounded(fractions(6, total=6))


def test_a_training_that_stops_early_is_done(curve, make_trainer, tmp_path):
    stopping = EarlyStoppingCallback(early_stopping_patience=1)
    best = {"metric_for_best_model": "eval_accuracy", "load_best_model_at_end": True, "save_strategy": "epoch"}
    callback = KatibReportCallback("eval_accuracy", reporter=curve.reporter)

    make_trainer(callback, stopping, scores=[0.3, 0.2, 0.1], **OPTIONS, **best).train()

    assert curve.fractions == rounded(fractions(2 * STEPS))
    assert curve.sent == [{"eval_accuracy": 0.3}], "of the model that was loaded"


def test_the_row_of_the_loaded_model_is_sent_when_the_end_is_shown(curve, make_trainer):
    best = {"metric_for_best_model": "eval_accuracy", "load_best_model_at_end": True, "save_strategy": "epoch"}
    callback = KatibReportCallback(
        "eval_accuracy", report="best", monitor="eval_accuracy", mode="max", reporter=curve.reporter
    )

    make_trainer(callback, scores=[0.1, 0.3, 0.2], **OPTIONS, **best).train()

    assert curve.fractions == rounded(fractions())
    assert curve.sent == [{"eval_accuracy": 0.3}]


def test_a_training_that_fails_stays_where_it_was(curve, make_trainer):
    with pytest.raises(RuntimeError, match="out of memory"):
        make_trainer(KatibReportCallback(reporter=curve.reporter), FailsAt(STEPS), **OPTIONS).train()

    assert curve.fractions == rounded(fractions(STEPS)[:-1])
    assert curve.sent == []


def test_evaluation_has_no_progress(curve, make_trainer):
    make_trainer(KatibReportCallback(reporter=curve.reporter)).evaluate()

    assert curve.told == []


def test_a_resumed_run_begins_where_the_other_ended(curve, make_trainer, can_resume):
    options = OPTIONS | {"save_strategy": "epoch"}
    with pytest.raises(RuntimeError, match="out of memory"):
        make_trainer(FailsAt(STEPS + 1), **options).train()
    callback = KatibReportCallback("eval_accuracy", reporter=curve.reporter)

    make_trainer(callback, **options).train(resume_from_checkpoint=True)

    assert curve.fractions == rounded(fractions(first=STEPS))
    assert curve.latest[0] == {"eval_accuracy": 0.1}, "of the run that wrote the checkpoint"


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


def test_training_does_not_wait_for_a_server_that_hangs(status_server, make_trainer, monkeypatch, katib_db_manager):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    status_server.behave_always("hang")
    callback = KatibReportCallback("eval_accuracy")

    make_trainer(callback, **OPTIONS).train()

    assert katib_db_manager.latest() == {"eval_accuracy": 0.3}
    assert_trained_beside_a_hanging_server(status_server, callback.receipt)


def test_autolog_reports_a_trainjob_that_is_no_trial(autolog, status_server, make_trainer, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    autolog(metrics="eval_accuracy")

    make_trainer(**OPTIONS).train()

    assert status_server.seen[-1].metrics == {"eval_accuracy": "0.3"}
    assert status_server.percentages[-1] == 100
