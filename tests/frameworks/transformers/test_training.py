"""Every way that a Trainer's training goes, in one process: real Trainers, rows read back from the DB manager."""

import pytest
from transformers import EarlyStoppingCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainerCallback

from katib_callbacks.transformers import KatibReportCallback


class DoesIn(TrainerCallback):
    """Another callback, with one hook."""

    def __init__(self, hook, action):
        setattr(self, hook, lambda args, state, control, **_: action(state, control))


def raises(error):
    def fail(*_):
        raise error

    return fail


def test_the_defaults_leave_the_summary_alone_and_its_loss_is_reported(make_trainer, rows):
    trainer = make_trainer(
        KatibReportCallback(), eval_dataset=None, eval_strategy="no", logging_strategy="steps", logging_steps=500
    )
    trainer.train()
    assert rows() == [("train_loss", 0.375)]


def test_with_no_names_every_scalar_but_the_bookkeeping_is_reported(make_trainer, rows, warnings_of):
    make_trainer(KatibReportCallback(), skip_memory_metrics=False, include_num_input_tokens_seen=False).train()
    names = ["loss", "grad_norm", "learning_rate", "eval_loss", "eval_accuracy", "train_loss"]
    assert sorted(name for name, _ in rows()) == sorted(names)
    assert [message for message in warnings_of() if "No metrics were named" in message and "eval_accuracy" in message]


def test_bookkeeping_is_reported_where_it_is_named(make_trainer, rows):
    make_trainer(KatibReportCallback(["epoch", "train_runtime"])).train()
    assert [name for name, _ in rows()] == ["epoch", "train_runtime"]
    assert dict(rows())["epoch"] == 2


def test_logs_and_evaluations_by_steps_are_taken_in_any_order(make_trainer, rows):
    callback = KatibReportCallback(["loss", "eval_accuracy"], report="history")
    options = {"eval_strategy": "steps", "eval_steps": 2, "logging_strategy": "steps", "logging_steps": 1}
    make_trainer(callback, num_train_epochs=4, **options).train()
    assert rows() == [
        ("loss", 0.5),
        ("loss", 0.25),
        ("eval_accuracy", 0.1),
        ("loss", 0.125),
        ("loss", 0.0625),
        ("eval_accuracy", 0.2),
    ]


def test_history_has_each_steps_own_values_and_time(katib_db_manager, make_trainer, rows):
    make_trainer(KatibReportCallback(["loss", "eval_accuracy", "train_loss"], report="history")).train()
    assert rows() == [
        ("loss", 0.5),
        ("eval_accuracy", 0.1),
        ("loss", 0.25),
        ("eval_accuracy", 0.2),
        ("train_loss", 0.375),
    ]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


def test_several_evaluation_sets_are_merged(make_trainer, rows, warnings_of):
    data = make_trainer().eval_dataset
    callback = KatibReportCallback(["eval_a_accuracy", "eval_b_accuracy", "loss"], report="history")
    make_trainer(callback, eval_dataset={"a": data, "b": data}).train()
    assert rows() == [
        ("eval_a_accuracy", 0.1),
        ("eval_b_accuracy", 0.2),
        ("loss", 0.5),
        ("eval_a_accuracy", 0.3),
        ("eval_b_accuracy", 0.4),
        ("loss", 0.25),
    ]
    assert warnings_of() == []


def test_early_stopping_is_a_normal_end(make_trainer, rows, tmp_path):
    trainer = make_trainer(
        KatibReportCallback(["eval_accuracy"]),
        EarlyStoppingCallback(early_stopping_patience=1),
        scores=[0.5, 0.4, 0.3],
        num_train_epochs=5,
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert rows() == [("eval_accuracy", 0.5)], "of the model that was loaded"


def test_should_training_stop_is_a_normal_end(make_trainer, rows):
    def stop(state, control):
        control.should_training_stop = state.global_step == 2

    make_trainer(KatibReportCallback("loss"), DoesIn("on_step_end", stop), num_train_epochs=5).train()
    assert rows() == [("loss", 0.25)]


def test_max_steps_is_a_normal_end(make_trainer, rows):
    make_trainer(KatibReportCallback(["loss", "eval_accuracy"]), max_steps=3, num_train_epochs=9).train()
    assert rows() == [("loss", 0.125), ("eval_accuracy", 0.3)]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_training_that_fails_or_is_interrupted_reports_nothing(make_trainer, rows, error):
    callback = KatibReportCallback("eval_accuracy")
    trainer = make_trainer(callback, DoesIn("on_save", raises(error)), save_strategy="epoch")
    with pytest.raises(type(error)):
        trainer.train()
    trainer.evaluate()
    assert rows() == []
    assert callback.receipt is None


def test_a_second_training_begins_anew_and_reports_again(make_trainer, rows):
    callback = KatibReportCallback(["eval_accuracy", "loss"], report="history")
    trainer = make_trainer(callback, num_train_epochs=1)
    trainer.train()
    trainer.train()
    assert rows() == [("eval_accuracy", 0.1), ("loss", 0.5), ("eval_accuracy", 0.2), ("loss", 0.25)]


def test_a_training_that_failed_leaves_nothing_to_the_next_one(make_trainer, rows):
    callback = KatibReportCallback(report="history", metrics="eval_accuracy")
    failing = DoesIn("on_evaluate", raises(RuntimeError("broken")))
    trainer = make_trainer(callback, failing)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    trainer.remove_callback(failing)
    trainer.train()
    assert rows() == [("eval_accuracy", 0.2), ("eval_accuracy", 0.3)]


def test_a_smaller_batch_after_running_out_of_memory_begins_anew(make_trainer, tiny_model, rows):
    class RunsOutOfMemory(tiny_model):
        def forward(self, x, labels=None):
            if self.training and self.steps == 2 and len(x) > 2:
                raise RuntimeError("CUDA out of memory.")
            return super().forward(x, labels)

    trainer = make_trainer(
        KatibReportCallback(["eval_accuracy", "loss"], report="history"),
        model=RunsOutOfMemory(),
        num_train_epochs=3,
        auto_find_batch_size=True,
    )
    trainer.train()
    assert trainer.state.train_batch_size < 4
    assert [name for name, _ in rows()] == ["eval_accuracy", "loss"] * 3
    assert [value for name, value in rows() if name == "eval_accuracy"] == [0.3, 0.4, 0.5]


def test_no_epochs_report_nothing(make_trainer, rows, warnings_of):
    make_trainer(KatibReportCallback("train_loss"), num_train_epochs=0).train()
    assert rows() == []
    assert "ended without a metric to report" in warnings_of()[-1]


def test_a_callback_class_is_as_good_as_a_callback(make_trainer, rows, monkeypatch):
    monkeypatch.setenv("KATIB_CALLBACKS_METRICS", "eval_accuracy")
    make_trainer(KatibReportCallback).train()
    assert rows() == [("eval_accuracy", 0.2)]


def test_a_trainer_for_sequences_is_a_trainer(make_trainer, rows, tmp_path):
    base = make_trainer()
    trainer = Seq2SeqTrainer(
        model=base.model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=1, report_to="none", use_cpu=True, eval_strategy="epoch"
        ),
        train_dataset=base.train_dataset,
        eval_dataset=base.eval_dataset,
        callbacks=[KatibReportCallback(["eval_loss", "train_loss"])],
    )
    trainer.train()
    assert rows() == [("eval_loss", 1.5), ("train_loss", 0.5)]


def test_a_trainer_that_keeps_no_history_is_read_all_the_same(make_trainer, rows):
    class Forgetful(Trainer):
        def log(self, logs, *_):
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    make_trainer(KatibReportCallback(["eval_accuracy", "loss"]), trainer_class=Forgetful).train()
    assert rows() == [("eval_accuracy", 0.2), ("loss", 0.25)]
