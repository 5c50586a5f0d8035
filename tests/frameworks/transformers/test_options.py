"""The options, as a real training shows them."""

import logging
import subprocess
import sys
import textwrap

import pytest

from katib_callbacks import ConfigurationError, MetricValueError, UnavailableError
from katib_callbacks.transformers import KatibReportCallback

NAN = float("nan")


def test_names_come_from_the_environment(make_trainer, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "accuracy=eval_accuracy, loss")
    make_trainer(KatibReportCallback()).train()
    assert rows() == [("accuracy", 0.2), ("loss", 0.25)]


def test_an_argument_comes_before_the_environment(make_trainer, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "loss")
    make_trainer(KatibReportCallback("eval_accuracy")).train()
    assert rows() == [("eval_accuracy", 0.2)]


def test_a_missing_metric_is_warned_of_early_with_the_nearest_name(make_trainer, rows, warnings_of):
    make_trainer(KatibReportCallback(["accuracy", "loss"])).train()
    early, final = warnings_of()
    assert early.startswith("Metric 'accuracy' has not appeared so far. Seen: ")
    assert early.endswith("Did you mean 'eval_accuracy'?")
    assert final.startswith("Metric 'accuracy' never appeared.")
    assert rows() == [("loss", 0.25)]


def test_nothing_is_missed_that_is_logged_less_often_or_at_the_end(make_trainer, rows, warnings_of):
    callback = KatibReportCallback(["loss", "eval_accuracy", "train_loss", "train_runtime"], report="history")
    options = {"logging_strategy": "steps", "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 6}
    make_trainer(callback, num_train_epochs=6, **options).train()
    options |= {"logging_steps": 6, "eval_steps": 1}
    make_trainer(callback, num_train_epochs=6, **options).train()
    assert warnings_of() == []


def test_a_missing_metric_raises_after_training_where_it_shall(make_trainer, rows):
    trainer = make_trainer(KatibReportCallback(["accuracy", "loss"], on_missing="raise"))
    with pytest.raises(ConfigurationError, match="'accuracy' never appeared"):
        trainer.train()
    assert trainer.state.global_step == 2
    assert [name for name, _ in rows()] == ["loss"], "delivered before it raises"


def test_a_missing_metric_is_ignored_where_it_shall(make_trainer, rows, warnings_of):
    make_trainer(KatibReportCallback(["accuracy", "loss"], on_missing="ignore")).train()
    assert warnings_of() == []
    assert rows() == [("loss", 0.25)]


def test_nan_is_left_out_with_a_warning(make_trainer, rows, warnings_of):
    make_trainer(KatibReportCallback(["eval_accuracy", "loss"]), scores=[0.5, NAN]).train()
    assert rows() == [("loss", 0.25)]
    assert [message for message in warnings_of() if "eval_accuracy=nan" in message]


def test_nan_raises_after_training_where_it_shall(make_trainer, rows):
    with pytest.raises(MetricValueError, match="eval_accuracy=nan"):
        make_trainer(KatibReportCallback(["eval_accuracy", "loss"], on_nan="raise"), scores=[0.5, NAN]).train()
    assert rows() == []


def test_nan_is_sent_where_it_shall(katib_db_manager, make_trainer):
    make_trainer(KatibReportCallback("eval_accuracy", on_nan="send"), scores=[0.5, NAN]).train()
    assert [row.value for row in katib_db_manager.metrics()] == ["nan"]


@pytest.fixture
def unreachable(katib_db_manager, monkeypatch):
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("KATIB_CALLBACKS_TIMEOUT_S", "0.5")


def test_a_delivery_that_fails_is_a_warning(unreachable, make_trainer, warnings_of):
    callback = KatibReportCallback("eval_accuracy")
    assert make_trainer(callback).train().global_step == 2
    assert callback.receipt is None
    assert [message for message in warnings_of() if "127.0.0.1:1" in message]


def test_a_delivery_that_fails_raises_after_training_where_it_shall(unreachable, make_trainer):
    trainer = make_trainer(KatibReportCallback("eval_accuracy", on_error="raise"))
    with pytest.raises(UnavailableError):
        trainer.train()
    assert trainer.state.global_step == 2


def test_another_rank_is_silent(make_trainer, rows, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    callback = KatibReportCallback("eval_accuracy")
    trainer = make_trainer(callback)
    trainer.train()
    trainer.evaluate()
    assert rows() == []
    assert callback.receipt is None


def test_a_trainer_that_is_not_rank_zero_is_silent(make_trainer, rows):
    callback = KatibReportCallback("eval_accuracy")
    trainer = make_trainer(callback)
    trainer.is_world_process_zero = lambda: False
    trainer.train()
    trainer.evaluate()
    assert rows() == []


def test_the_callbacks_can_be_disabled(make_trainer, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    make_trainer(KatibReportCallback("eval_accuracy")).train()
    assert rows() == []


def test_outside_a_trial_nothing_happens_but_one_line(make_trainer, monkeypatch, caplog):
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    caplog.set_level(logging.INFO, logger="katib_callbacks")
    callback = KatibReportCallback("eval_accuracy")
    trainer = make_trainer(callback)
    trainer.train()
    trainer.evaluate()
    ours = [record for record in caplog.records if record.name.startswith("katib_callbacks")]
    assert [(record.levelname, "Not in a Katib trial" in record.message) for record in ours] == [("INFO", True)]
    assert callback.receipt is None


def test_outside_a_trial_grpc_is_not_even_imported(tmp_path):
    script = """
        import sys
        import torch
        from transformers import Trainer, TrainingArguments
        from katib_callbacks.transformers import KatibReportCallback

        class Model(torch.nn.Linear):
            def forward(self, x, labels=None):
                logits = super().forward(x)
                return {"loss": logits.sum(), "logits": logits}

        data = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 2
        arguments = TrainingArguments(sys.argv[1], num_train_epochs=1, report_to="none", use_cpu=True)
        Trainer(Model(1, 1), arguments, train_dataset=data, callbacks=[KatibReportCallback()]).train()
        print("grpc" in sys.modules, "katib_callbacks.wire.messages" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
