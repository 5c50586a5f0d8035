"""tf_keras, the predecessor of Keras 3 that lives on beside TensorFlow: another Callback class, the same hooks."""

import pickle

import numpy as np
import pytest
import tf_keras

from katib_callbacks.keras import KatibReportCallback

X = np.arange(8, dtype="float32").reshape(8, 1) / 8


@pytest.fixture
def make_model():
    def make():
        model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,))])
        model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        return model

    return make


@pytest.fixture
def fit(make_model):
    def run(*callbacks, model=None, **options):
        defaults = {"epochs": 3, "batch_size": 4, "verbose": 0, "validation_data": (X, X)}
        return (model or make_model()).fit(X, X, callbacks=list(callbacks), **(defaults | options)).history

    return run


def test_the_last_epoch_is_reported(rows, fit):
    callback = KatibReportCallback({"error": "val_mae", "loss": "loss"})
    history = fit(callback)
    assert rows() == [("error", history["val_mae"][-1]), ("loss", history["loss"][-1])]
    assert callback.receipt.delivered == 2


def test_history_has_a_validation_only_where_there_was_one(rows, fit):
    history = fit(KatibReportCallback(["val_loss", "loss"], report="history"), validation_freq=2)
    losses, validations = history["loss"], history["val_loss"]
    assert rows() == [("loss", losses[0]), ("val_loss", validations[0]), ("loss", losses[1]), ("loss", losses[2])]


def test_best_is_the_row_of_the_weights_that_early_stopping_restores(rows, fit):
    class Shows(tf_keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = [0.5, 0.25, 0.75][epoch]

    stopping = tf_keras.callbacks.EarlyStopping("score", mode="min", patience=1, restore_best_weights=True)
    best = {"report": "best", "monitor": "score", "mode": "min"}
    for options in (best, {"report": "final"}, {"report": "kept"}):
        history = fit(Shows(), KatibReportCallback(["score", "val_loss"], **options), stopping)
        assert rows()[-2:] == [("score", 0.25), ("val_loss", history["val_loss"][1])]


def test_kept_is_the_row_of_the_best_checkpoint(rows, fit, tmp_path):
    checkpoint = tf_keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), "loss", save_best_only=True)
    history = fit(KatibReportCallback("loss", report="kept"), checkpoint)
    assert rows() == [("loss", min(history["loss"]))]


def test_a_run_that_fails_reports_nothing_and_the_next_one_only_itself(rows, fit):
    class Fails(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("no memory")

    callback = KatibReportCallback("loss", report="history")
    with pytest.raises(RuntimeError, match="no memory"):
        fit(callback, Fails())
    assert rows() == []
    history = fit(pickle.loads(pickle.dumps(callback)), epochs=1)  # noqa: S301  our own bytes
    assert rows() == [("loss", history["loss"][0])]


def test_evaluate_and_predict_report_nothing(rows, fit, make_model):
    model, callback = make_model(), KatibReportCallback("loss")
    fit(callback, model=model)
    model.evaluate(X, X, verbose=0, callbacks=[callback])
    model.predict(X, verbose=0, callbacks=[callback])
    assert len(rows()) == 1


def test_a_worker_that_tf_config_does_not_call_rank_zero_is_silent(rows, fit, monkeypatch):
    task = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", task)
    callback = KatibReportCallback("loss")
    fit(callback)
    assert rows() == []
    assert callback.receipt is None
