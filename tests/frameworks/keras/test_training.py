"""Every way that a Keras training goes, in one process: real fits, rows read back from the DB manager."""

import inspect
import logging

import keras
import numpy as np
import pytest

from katib_callbacks import ConfigurationError, KatibReporter
from katib_callbacks.keras import KatibReportCallback

X = np.ones((8, 1), "float32")


def test_the_last_epoch_is_reported(katib_db_manager, rows, fit):
    callback = KatibReportCallback({"error": "val_mae", "loss": "loss"})
    history = fit(callback)
    assert rows() == [("error", history["val_mae"][-1]), ("loss", history["loss"][-1])]
    assert history["val_mae"][0] != history["val_mae"][-1]
    assert callback.receipt.delivered == 2
    assert callback.receipt.trial_name == katib_db_manager.trial_name


def test_without_names_every_scalar_is_reported_and_said(rows, fit, caplog):
    history = fit(KatibReportCallback())
    assert rows() == [(name, values[-1]) for name, values in history.items()]
    assert {name for name, _ in rows()} == {"loss", "mae", "val_loss", "val_mae"}
    assert "No metrics were named, so all are reported: loss, mae, val_loss, val_mae" in caplog.text


def test_a_metric_that_is_no_scalar_is_named_and_left_out(rows, fit, make_model, caplog):
    model = make_model(metrics=[keras.metrics.F1Score(name="f1", threshold=0.5), "mae"])
    model.fit(X, X, verbose=0, callbacks=[KatibReportCallback()])
    assert {name for name, _ in rows()} == {"loss", "f1", "mae"}  # of one class, so f1 has one element

    inputs = keras.Input((1,))
    classifier = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    classifier.compile(loss="categorical_crossentropy", metrics=[keras.metrics.F1Score(name="f1")])
    classifier.fit(X, np.eye(2, dtype="float32")[[0, 1] * 4], verbose=0, callbacks=[KatibReportCallback()])
    assert [name for name, _ in rows()[3:]] == ["loss"]
    assert "Not reported: metric 'f1'" in caplog.text


def test_nested_metrics_are_reported_under_the_names_that_keras_gives_them(rows):
    inputs = keras.Input((1,))
    outputs = {"a": keras.layers.Dense(1, name="a")(inputs), "b": keras.layers.Dense(1, name="b")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile(loss={"a": "mse", "b": "mse"}, metrics={"a": ["mae"], "b": ["mae"]})
    history = model.fit(X, {"a": X, "b": X}, verbose=0, callbacks=[KatibReportCallback(["a_mae", "b_mae"])]).history
    assert rows() == [("a_mae", history["a_mae"][-1]), ("b_mae", history["b_mae"][-1])]


@pytest.mark.parametrize("is_first", [True, False], ids=["ours first", "ours last"])
def test_what_another_callback_adds_to_the_logs_belongs_to_its_epoch(rows, fit, shows, is_first):
    ours = KatibReportCallback(["loss", "learning_rate", "score"], report="history")
    others = [keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1)), shows(score=[1.0, None, 3.0])]
    history = fit(*([ours, *others] if is_first else [*others, ours]), epochs=3)
    first, second, third = history["loss"]
    assert rows() == [
        *[("loss", first), ("learning_rate", 0.5), ("score", 1)],
        *[("loss", second), ("learning_rate", 0.25)],
        *[("loss", third), ("learning_rate", pytest.approx(0.5 / 3)), ("score", 3)],
    ]


def test_a_validation_of_an_earlier_epoch_counts_if_it_is_the_last(rows, fit):
    history = fit(KatibReportCallback("val_loss"), epochs=3, validation_freq=2)
    assert rows() == [("val_loss", history["val_loss"][0])]
    assert len(history["val_loss"]) == 1


def test_history_has_a_validation_only_where_there_was_one(katib_db_manager, rows, fit):
    history = fit(KatibReportCallback(["val_loss", "loss"], report="history"), epochs=4, validation_freq=2)
    losses, validations = history["loss"], history["val_loss"]
    assert rows() == [
        ("loss", losses[0]),
        ("val_loss", validations[0]),
        ("loss", losses[1]),
        ("loss", losses[2]),
        ("val_loss", validations[1]),
        ("loss", losses[3]),
    ]
    times = [row.timestamp for row in katib_db_manager.metrics()]
    assert times == sorted(set(times))


def test_best_is_the_row_of_the_weights_that_early_stopping_restores(rows, fit, make_model, shows):
    model = make_model()
    stopping = keras.callbacks.EarlyStopping("score", mode="min", patience=1, restore_best_weights=True)
    ours = KatibReportCallback(["score", "val_loss"], report="best", monitor="score", mode="min")
    history = fit(shows(score=[0.5, 0.25, 0.5, 1.0]), ours, stopping, model=model, epochs=4)
    assert len(history["score"]) == 3
    assert rows() == [("score", 0.25), ("val_loss", history["val_loss"][1])]


class StopsIn(keras.callbacks.Callback):
    """Stops the training in one hook."""

    def __init__(self, hook):
        super().__init__()

        def stop(*_, **__):
            self.model.stop_training = True

        setattr(self, hook, stop)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
def test_stop_training_is_a_normal_end(rows, fit, hook):
    history = fit(StopsIn(hook), KatibReportCallback("val_loss"), epochs=4)
    assert len(history["val_loss"]) == 1
    assert rows() == [("val_loss", history["val_loss"][0])]


def test_early_stopping_is_a_normal_end(rows, fit, shows):
    stopping = keras.callbacks.EarlyStopping("score", mode="max", patience=1)
    history = fit(shows(score=[0.5, 0.25, 0.125, 1.0]), stopping, KatibReportCallback(["score", "val_loss"]), epochs=4)
    assert rows() == [("score", 0.25), ("val_loss", history["val_loss"][1])]


def test_terminate_on_nan_is_a_normal_end_without_the_nan(rows, fit, make_model, shows, caplog):
    model = make_model()
    model.compile(optimizer=keras.optimizers.SGD(float("inf")), loss="mse")
    callbacks = [keras.callbacks.TerminateOnNaN(), shows(score=[0.5] * 9), KatibReportCallback(["score", "loss"])]
    history = fit(*callbacks, model=model, epochs=9)
    assert len(history["loss"]) < 9
    assert rows() == [("score", 0.5)]
    assert "Not reported: loss=" in caplog.text


if "raise_error" in inspect.signature(keras.callbacks.TerminateOnNaN).parameters:

    def test_terminate_on_nan_that_raises_reports_nothing(rows, fit, make_model):
        model = make_model()
        model.compile(optimizer=keras.optimizers.SGD(float("inf")), loss="mse")
        callback = KatibReportCallback("loss", on_nan="send")
        with pytest.raises(RuntimeError, match="NaN"):
            fit(callback, keras.callbacks.TerminateOnNaN(raise_error=True), model=model, epochs=9)
        assert rows() == []


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_begin", "on_epoch_end"])
def test_a_run_that_fails_or_is_interrupted_reports_nothing(rows, fit, raises_in, error, hook):
    callback = KatibReportCallback("loss")
    with pytest.raises(error):
        fit(callback, raises_in(hook, error()))
    assert rows() == []
    assert callback.receipt is None


def test_a_later_callback_that_fails_at_the_end_leaves_one_report(rows, fit, raises_in):
    with pytest.raises(RuntimeError, match="late"):
        fit(KatibReportCallback("loss"), raises_in("on_train_end", RuntimeError("late")))
    assert [name for name, _ in rows()] == ["loss"]


def fit_if_anything_is_left(fit, *callbacks, **options):
    """Keras before 3.4 fails by itself, after its hooks, where there is no epoch to train."""
    try:
        return fit(*callbacks, **options)
    except UnboundLocalError:
        return {}


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 2, "initial_epoch": 2}])
def test_a_fit_with_nothing_to_do_reports_nothing(rows, fit, options):
    callback = KatibReportCallback("loss", on_missing="raise")
    fit_if_anything_is_left(fit, callback, **options)
    assert rows() == []
    assert callback.receipt is None


def test_data_that_runs_out_ends_the_report_with_what_keras_shows(rows, make_model):
    """In the third epoch, nothing or zeros under torch, the second's values under JAX, zeros under TensorFlow."""
    batches = ((X, X) for _ in range(4))
    ours = KatibReportCallback("loss", report="history", on_missing="raise")
    with pytest.warns(UserWarning, match="ran out of data"):
        losses = (
            make_model()
            .fit(batches, steps_per_epoch=2, epochs=3, shuffle=False, verbose=0, callbacks=[ours])
            .history["loss"]
        )
    assert rows() == [("loss", loss) for loss in losses]
    assert losses[2:] in ([], losses[1:2], [0.0])


def test_a_second_fit_reports_again_and_only_itself(rows, fit, make_model):
    model, callback = make_model(), KatibReportCallback("loss", report="history")
    first = fit(callback, model=model)
    second = fit(callback, model=model, epochs=3, initial_epoch=2)
    assert rows() == [("loss", loss) for loss in first["loss"] + second["loss"]]
    assert callback.receipt.delivered == 1


def test_evaluate_and_predict_report_nothing(rows, fit, make_model):
    model, callback = make_model(), KatibReportCallback(["loss", "mae"], after_training="update")
    model.evaluate(X, X, verbose=0, callbacks=[callback])
    assert rows() == []
    fit(callback, model=model)
    model.evaluate(X, X, verbose=0, callbacks=[callback])
    model.predict(X, verbose=0, callbacks=[callback])
    assert len(rows()) == 2


def test_an_evaluation_is_reported_through_the_reporter(rows, fit, make_model):
    model = make_model()
    fit(KatibReportCallback("val_loss"), model=model)
    results = model.evaluate(X, X, verbose=0, return_dict=True)
    with KatibReporter() as reporter:
        reporter.report({"test_mae": results["mae"]})
    assert rows()[1:] == [("test_mae", results["mae"])]


def test_a_hand_written_loop_drives_it_through_a_callback_list(rows, make_model):
    model = make_model()
    callbacks = keras.callbacks.CallbackList([KatibReportCallback("loss", report="history")], model=model)
    callbacks.on_train_begin()
    losses = []
    logs = {}
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        logs["loss"] = float(model.train_on_batch(X, X, return_dict=True)["loss"])
        losses.append(("loss", logs["loss"]))
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end(logs)
    assert rows() == losses


def test_a_run_that_backup_and_restore_resumes_reports_its_last_part(rows, fit, make_model, raises_in, tmp_path):
    ours = KatibReportCallback("loss", report="history")
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    model = make_model()
    killed = raises_in("on_train_end", RuntimeError("killed"))

    def kill(epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("killed")

    killed.on_epoch_begin = kill
    with pytest.raises(RuntimeError, match="killed"):
        fit(ours, backup, killed, model=model, epochs=4)
    assert rows() == []

    resumed = KatibReportCallback("loss", report="history")
    history = fit(resumed, keras.callbacks.BackupAndRestore(tmp_path / "backup"), model=make_model(), epochs=4)
    assert len(history["loss"]) in {2, 4}  # Keras 3.0 restores the weights alone, and begins with the first epoch again
    assert rows() == [("loss", loss) for loss in history["loss"]]


def test_a_run_that_backup_and_restore_knows_to_be_finished_reports_nothing(rows, fit, tmp_path):
    histories = []
    for _ in range(2):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        histories.append(fit_if_anything_is_left(fit, KatibReportCallback("loss"), backup))
    first, second = histories
    trained = [first, second] if second else [first]  # Keras 3.0, as above, trains again
    assert rows() == [("loss", history["loss"][-1]) for history in trained]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TF_CONFIG", '{"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "worker", "index": 0}}'),
        ("KERAS_DISTRIBUTION_PROCESS_ID", "1"),
    ],
)
def test_a_worker_that_the_launcher_does_not_call_rank_zero_is_silent(
    katib_db_manager, rows, fit, monkeypatch, caplog, variable, value
):
    monkeypatch.setenv(variable, value)
    callback = KatibReportCallback("loss")
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        fit(callback)
    assert rows() == []
    assert callback.receipt is None
    assert f"rank 1 ({variable}=" in caplog.text


def test_best_without_a_mode_raises_when_the_callback_is_made():
    with pytest.raises(ConfigurationError, match="needs mode"):
        KatibReportCallback(report="best", monitor="loss")


def test_a_misspelt_argument_blames_the_public_class():
    with pytest.raises(TypeError, match=r"^KatibReportCallback\(\) got .* 'metric'; did you mean 'metrics'\?$"):
        KatibReportCallback(metric="loss")
