"""How far a training is, as the sinks that show it are told."""

import pytest
import transformers
from transformers import TrainerCallback

from frameworks.progress import (
    EPOCHS,
    fractions,
    rounded,
)
from katib_callbacks import KatibReporter
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


class LoudCallback(KubeflowCallback):
    """Shows an end of its own, as transformers' does: once, without what only we report."""

    def on_train_begin(self, args, state, control, **kwargs):
        self._initialized, self._metrics = True, {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._metrics |= {name: value for name, value in logs.items() if isinstance(value, float)}

    def on_train_end(self, args, state, control, **kwargs):
        if self._initialized:
            with KatibReporter(sinks=["trainjob"]) as reporter:
                reporter.report({"eval_loss": -1.0})


LoudCallback.__name__ = KubeflowCallback.__name__


def test_beside_transformers_own_callback_it_shows_the_end_only(
    status_server, make_trainer, katib_db_manager, monkeypatch
):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    callback = KatibReportCallback(["eval_accuracy", "test_loss"], on_missing="ignore")
    trainer = make_trainer(KubeflowCallback(), callback, **OPTIONS)
    trainer.train()
    trainer.predict(trainer.train_dataset)

    assert callback.receipt.sinks["trainjob"].delivered == 1  # waits for it
    assert set(status_server.percentages) == {100}
    assert set(status_server.seen[-1].metrics) == {"eval_accuracy", "test_loss"}
    assert set(katib_db_manager.latest()) == {"eval_accuracy", "test_loss"}


@pytest.mark.parametrize("is_ours_first", [True, False])
def test_the_end_has_the_metrics_of_both_whoever_stands_first(status_server, make_trainer, monkeypatch, is_ours_first):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    callbacks = [KatibReportCallback({"accuracy": "eval_accuracy"}), LoudCallback()]
    trainer = make_trainer(*callbacks[:: 1 if is_ours_first else -1], **OPTIONS)

    for accuracy in ("0.3", "0.6"):
        trainer.train()

        last = status_server.seen[-1]
        assert last.progress == 100
        assert last.metrics["accuracy"] == accuracy
        assert float(last.metrics["eval_loss"]) > 0
        assert callbacks[0].receipt.sinks["trainjob"].delivered == 1


def test_transformers_own_callback_is_left_alone_where_the_status_is_not_ours_to_show(
    status_server, make_trainer, katib_db_manager, monkeypatch
):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "katib")
    make_trainer(KatibReportCallback("eval_accuracy"), LoudCallback(), **OPTIONS).train()

    assert status_server.seen[-1].metrics == {"eval_loss": "-1"}
    assert set(katib_db_manager.latest()) == {"eval_accuracy"}


def test_an_objective_by_its_name_in_katib_stands_there_beside_transformers_own_callback(
    status_server, make_trainer, monkeypatch
):
    """Where the Trainer adds it by itself, as in every TrainJob."""
    monkeypatch.delenv("DISABLE_KUBEFLOW_INTEGRATION")
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    callback = KatibReportCallback({"accuracy": "eval_accuracy"})

    make_trainer(callback, **OPTIONS).train()

    last = status_server.seen[-1]
    assert (last.progress, last.metrics["accuracy"]) == (100, "0.3")
    if hasattr(transformers.integrations.integration_utils, "KubeflowCallback"):
        assert "eval_loss" in last.metrics, "what its own would have shown stays"
    else:
        assert last.metrics == {"accuracy": "0.3"}
