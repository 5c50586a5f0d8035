"""What a log may hold: tensors, numbers of any kind and things that are none, NaN in disguise."""

import numpy as np
import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback

from katib_callbacks.transformers import KatibReportCallback

NAN = float("nan")


class LogsAtEachStep(Trainer):
    """Logs what ``shown`` returns, from within the loss, as users do."""

    def compute_loss(self, model, inputs, *arguments, **options):
        if model.training:
            self.log(self.shown())
        return super().compute_loss(model, inputs, *arguments, **options)


def make_logging_trainer(make_trainer, callback, shown, **options):
    trainer = make_trainer(callback, trainer_class=LogsAtEachStep, **options)
    trainer.shown = shown
    return trainer


def test_a_tensor_that_is_logged_is_let_go_of(make_trainer, rows):
    callback = KatibReportCallback("own", report="history")
    weight = torch.tensor(1.0, requires_grad=True)
    trainer = make_logging_trainer(make_trainer, callback, lambda: {"own": weight * 0.5})
    trainer.train()
    assert rows() == [("own", 0.5), ("own", 0.5)]


def test_a_torchmetrics_object_that_is_logged_is_no_number_and_breaks_nothing(make_trainer, rows, warnings_of):
    class Metric(torch.nn.Module):  # as torchmetrics has it: ``clone``, and no ``detach``
        def clone(self):
            return self

    make_logging_trainer(make_trainer, KatibReportCallback("loss"), lambda: {"own": Metric()}).train()
    assert rows() == [("loss", 0.25)]
    assert warnings_of() == []


def test_a_key_that_is_no_name_breaks_nothing(make_trainer, rows):
    make_logging_trainer(make_trainer, KatibReportCallback("loss"), lambda: {0: 0.5}).train()
    assert rows() == [("loss", 0.25)]


def test_a_tensor_that_is_changed_later_keeps_its_value(make_trainer, rows):
    total = torch.tensor(0.0)

    def shown():
        total.add_(1)
        return {"own": total}

    make_logging_trainer(make_trainer, KatibReportCallback("own", report="history"), shown).train()
    assert rows() == [("own", 1), ("own", 2)]


@pytest.mark.parametrize(
    "value", ["text", None, True, [1.0], {"a": 1.0}, torch.zeros(2), torch.tensor(1.0, device="meta")], ids=str
)
def test_what_is_no_number_is_named_and_left_out(make_trainer, rows, warnings_of, value):
    make_logging_trainer(make_trainer, KatibReportCallback(["own", "loss"]), lambda: {"own": value}).train()
    assert rows() == [("loss", 0.25)]
    assert [message for message in warnings_of() if "'own'" in message]


def test_what_compute_metrics_returns_and_is_no_number_is_named_and_left_out(make_trainer, rows, warnings_of):
    values = {"numpy": np.float32(0.9), "tensor": torch.tensor(0.1), "text": "a", "none": None, "many": [0.1, 0.2]}
    make_trainer(KatibReportCallback(), num_train_epochs=1, compute_metrics=lambda _: dict(values)).train()
    assert {name: value for name, value in rows() if name.startswith("eval_")} == {
        "eval_loss": 1.5,
        "eval_numpy": 0.9,
        "eval_tensor": 0.1,
    }
    unreported = [message for message in warnings_of() if message.startswith("Not reported: metric ")]
    assert [message.split("'")[1] for message in unreported] == ["eval_text", "eval_none", "eval_many"]


def test_an_evaluation_that_is_nan_is_left_out_though_the_filter_hides_the_loss(make_trainer, tiny_model, rows):
    make_trainer(KatibReportCallback(["loss", "eval_loss"]), model=tiny_model(losses=[0.5, NAN])).train()
    assert rows() == [("loss", 0)]


def test_the_dictionaries_of_others_are_not_changed_and_theirs_are_not_read(make_trainer, rows):
    class Changes(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            logs["eval_accuracy"] = 99.0
            logs.pop("loss", None)

    class Keeps(TrainerCallback):
        shown = ()

        def on_log(self, args, state, control, logs=None, **_):
            self.shown = (*self.shown, dict(logs))

    keeps = Keeps()
    trainer = make_trainer(Changes(), KatibReportCallback(["eval_accuracy", "loss"]), keeps)
    result = trainer.train()
    assert rows() == [("eval_accuracy", 0.2), ("loss", 0.25)]
    assert all(logs["eval_accuracy"] == 99.0 and "step" not in logs for logs in keeps.shown)
    assert result.metrics["eval_accuracy"] == 99.0
    assert all("step" in row for row in trainer.state.log_history)


class CountingTensor(torch.Tensor):
    """A tensor that counts how often it is read, which on an accelerator waits for the device."""

    reads = 0

    def item(self):
        CountingTensor.reads += 1
        return super().item()

    def __float__(self):
        CountingTensor.reads += 1
        return super().__float__()


@pytest.mark.parametrize(("report", "reads"), [("final", 1), ("history", 3), ("best", 3)])
def test_a_value_is_read_at_most_once_a_metric_and_row(make_trainer, rows, monkeypatch, report, reads):
    monkeypatch.setattr(CountingTensor, "reads", 0)
    options = {"monitor": "own", "mode": "max"} if report == "best" else {}
    callback = KatibReportCallback("own", report=report, **options)

    def shown():
        return {"own": torch.tensor(float(trainer.state.global_step)).as_subclass(CountingTensor)}

    trainer = make_logging_trainer(make_trainer, callback, shown, num_train_epochs=3, eval_strategy="no")
    trainer.train()
    assert rows()[-1] == ("own", 2)
    assert CountingTensor.reads == reads


def test_with_many_steps_the_last_value_alone_is_read(make_trainer, rows, monkeypatch):
    monkeypatch.setattr(CountingTensor, "reads", 0)
    reads = []

    class Watches(TrainerCallback):
        def on_step_end(self, *_, **__):
            reads.append(CountingTensor.reads)

    callback = KatibReportCallback("own")
    trainer = make_logging_trainer(
        make_trainer, callback, lambda: {"own": torch.tensor(0.5).as_subclass(CountingTensor)}, num_train_epochs=20
    )
    trainer.add_callback(Watches())
    trainer.train()
    assert rows() == [("own", 0.5)]
    assert reads == [0] * 20
    assert CountingTensor.reads == 1


FILTERED = "logging_nan_inf_filter"


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.0}], ids=repr)
def test_the_nan_filter_is_warned_of_once_when_it_bites(make_trainer, tiny_model, rows, warnings_of, options):
    model = tiny_model(losses=[0.5, NAN, NAN])
    make_trainer(KatibReportCallback("loss"), model=model, num_train_epochs=3, **options).train()
    assert rows() == [("loss", 0)]
    assert len([message for message in warnings_of() if FILTERED in message]) == 1


def test_the_nan_filter_is_warned_of_where_it_makes_a_loss_too_small(make_trainer, tiny_model, warnings_of):
    model = tiny_model(losses=[0.5, NAN])
    options = {"logging_strategy": "steps", "logging_steps": 2}
    make_trainer(KatibReportCallback("loss"), model=model, **options).train()
    assert [message for message in warnings_of() if FILTERED in message]


def test_without_the_filter_nan_is_nan(make_trainer, tiny_model, rows, warnings_of):
    model = tiny_model(losses=[0.5, NAN])
    callback = KatibReportCallback(["loss", "eval_accuracy"])
    make_trainer(callback, model=model, logging_nan_inf_filter=False).train()
    assert rows() == [("eval_accuracy", 0.2)]
    assert [FILTERED in message for message in warnings_of()] == [False]
    assert "loss=nan" in warnings_of()[0]


def test_the_filter_is_not_warned_of_where_it_does_not_bite(make_trainer, warnings_of):
    make_trainer(KatibReportCallback("loss"), max_grad_norm=0.0).train()
    assert warnings_of() == []


def test_the_counters_that_trl_shows_are_no_metrics(make_trainer, rows):
    class Trainer(transformers.Trainer):  # as TRL's trainers log: num_tokens, step_time, and eval_ before each
        def log(self, logs, *arguments):
            own = {"num_tokens": 7.0, "step_time": 0.1, "mean_token_accuracy": 0.5}
            prefix = "" if self.model.training else "eval_"
            super().log({**logs, **{f"{prefix}{name}": value for name, value in own.items()}}, *arguments)

    make_trainer(KatibReportCallback(), trainer_class=Trainer, eval_strategy="epoch").train()

    names = {name for name, _ in rows()}
    assert {"mean_token_accuracy", "eval_mean_token_accuracy"} <= names
    assert [name for name in names if "num_tokens" in name or "step_time" in name] == []


def test_a_counter_of_trls_is_reported_where_it_is_named(make_trainer, rows):
    make_logging_trainer(make_trainer, KatibReportCallback("num_tokens"), lambda: {"num_tokens": 7.0}).train()
    assert rows() == [("num_tokens", 7)]


def test_a_misspelt_argument_blames_the_public_class():
    with pytest.raises(TypeError, match=r"^KatibReportCallback\(\) got .* 'metric'; did you mean 'metrics'\?$"):
        KatibReportCallback(metric="loss")
