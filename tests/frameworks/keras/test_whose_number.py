"""Whose number is reported where Keras alone has a way to keep a model, or to show a value."""

import keras
import numpy as np
import pytest
from keras.callbacks import EarlyStopping, ModelCheckpoint

from katib_callbacks.keras import KatibReportCallback

SCORES = [0.5, 0.9, 0.6, 0.4]


@pytest.fixture
def warned(caplog):
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("katib_callbacks") and record.levelname == "WARNING"
    ]


class Weights(keras.callbacks.Callback):
    """Writes down the weights after each epoch, to find out which the model has in the end."""

    def __init__(self):
        super().__init__()
        self.after = []

    def on_epoch_end(self, epoch, logs=None):
        self.after.append(self.model.get_weights())

    def epoch_of(self, model):
        """Return the number of the epoch, from 0, whose weights the model has."""
        equal = [
            all(np.array_equal(one, other) for one, other in zip(weights, model.get_weights(), strict=True))
            for weights in self.after
        ]
        return max(epoch for epoch, is_equal in enumerate(equal) if is_equal)


def stopping(**options):
    return EarlyStopping(**({"monitor": "val_accuracy", "mode": "max", "restore_best_weights": True} | options))


WAYS = {
    "stopped": (SCORES, {"patience": 2}, 1),
    "not stopped": (SCORES, {"patience": 9}, 1),
    "start_from_epoch": ([0.9, 0.8, 0.5, 0.6, 0.55], {"patience": 2, "start_from_epoch": 2}, 3),
    "min_delta": ([0.5, 0.55, 0.58, 0.59, 0.4], {"patience": 3, "min_delta": 0.1}, 0),
    "the last one is the best": ([0.1, 0.2, 0.3], {"patience": 2}, 2),
}


@pytest.mark.parametrize("is_ours_first", [True, False])
@pytest.mark.parametrize(("scores", "options", "epoch"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("report", ["final", "kept"])
def test_the_restored_weights_row_is_reported(
    rows, warned, fit, shows, make_model, scores, options, epoch, is_ours_first, report
):
    early, weights, model = stopping(**options), Weights(), make_model()
    callback = KatibReportCallback(["val_accuracy", "other"], report=report)
    both = [callback, early] if is_ours_first else [early, callback]
    shown = shows(val_accuracy=scores, other=[10 + n for n in range(len(scores))])
    fit(shown, weights, *both, model=model, epochs=len(scores))

    assert weights.epoch_of(model) == epoch
    assert rows() == [("val_accuracy", scores[epoch]), ("other", 10 + epoch)]
    assert warned() == []


class StopsAsInKeras2(EarlyStopping):
    """Restores weights only where it stopped the training."""

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0:
            super().on_train_end(logs)


@pytest.mark.parametrize(("patience", "epoch"), [(1, 1), (9, 3)])
@pytest.mark.parametrize("report", ["final", "kept"])
def test_in_keras_2_a_training_that_was_not_stopped_has_its_last_weights(
    rows, warned, fit, shows, make_model, monkeypatch, patience, epoch, report
):
    monkeypatch.setattr("katib_callbacks.keras._RESTORES_ONLY_WHERE_IT_STOPPED", True)
    early = StopsAsInKeras2("val_accuracy", mode="max", patience=patience, restore_best_weights=True)
    weights, model = Weights(), make_model()
    callback = KatibReportCallback("val_accuracy", report=report)
    fit(shows(val_accuracy=SCORES), weights, callback, early, model=model, epochs=4)
    assert weights.epoch_of(model) == epoch
    assert rows() == [("val_accuracy", SCORES[epoch])]
    assert bool(warned()) == (report == "kept" and epoch == 3)


def test_what_a_later_callback_adds_to_the_restored_epoch_is_reported_with_it(rows, fit, shows):
    added = shows(late=[1, 2, 3, 4])
    callback = KatibReportCallback(["val_accuracy", "late"])
    fit(shows(val_accuracy=SCORES), callback, stopping(patience=2), added, epochs=4)
    assert rows() == [("val_accuracy", 0.9), ("late", 2)]


def test_without_restoring_the_last_row_is_final(rows, warned, fit, shows):
    early = stopping(patience=2, restore_best_weights=False)
    fit(shows(val_accuracy=SCORES), KatibReportCallback("val_accuracy"), early, epochs=4)
    assert rows() == [("val_accuracy", 0.4)]
    assert warned() == []


@pytest.fixture
def keeping(tmp_path):
    def make(**options):
        defaults = {"monitor": "val_accuracy", "mode": "max", "save_best_only": True}
        return ModelCheckpoint(tmp_path / "{epoch}.keras", **(defaults | options))

    return make


def test_the_first_of_several_checkpoints_decides_and_that_is_said(rows, warned, fit, shows, keeping, tmp_path):
    other = ModelCheckpoint(tmp_path / "other.keras", monitor="other", mode="min", save_best_only=True)
    callback = KatibReportCallback("val_accuracy", report="kept")
    fit(shows(val_accuracy=SCORES, other=[1, 2, 3, 4]), callback, keeping(), other, epochs=4)
    assert rows() == [("val_accuracy", 0.9)]
    [message] = warned()
    assert "the first one counts, with 'val_accuracy'" in message


@pytest.mark.parametrize("options", [{"save_best_only": False}, {"initial_value_threshold": 0.95}])
def test_where_nothing_is_kept_the_final_values_are_reported_and_that_is_said(
    rows, warned, fit, shows, keeping, options
):
    fit(shows(val_accuracy=SCORES), KatibReportCallback("val_accuracy", report="kept"), keeping(**options), epochs=4)
    assert rows() == [("val_accuracy", 0.4)]
    assert warned() == ["No model was kept in this training, so the final values are reported."]


def test_a_second_fit_has_its_own_kept_model(rows, fit, shows, keeping):
    callback, checkpoint = KatibReportCallback("val_accuracy", report="kept"), keeping()
    for scores in (SCORES, [0.1, 0.95, 0.2, 0.3]):
        fit(shows(val_accuracy=scores), callback, checkpoint, epochs=4)
    assert rows() == [("val_accuracy", 0.9), ("val_accuracy", 0.95)]


# -- what is old is said -------------------------------------------------------------------------------------------


def test_a_value_that_is_older_than_the_model_that_is_put_back_is_said(rows, warned, fit, shows):
    shown = shows(score=[3, 2, 1, 5], accuracy=[None, 0.3, None, 0.7])
    early = stopping(monitor="score", mode="min", patience=9)
    fit(shown, KatibReportCallback(["score", "accuracy"]), early, epochs=4)
    assert rows() == [("score", 1.0), ("accuracy", 0.3)]
    [message] = warned()
    assert "accuracy=0.3 is from epoch 2, the model from 3" in message


def test_a_metric_of_a_validation_that_has_not_run_is_not_missed(rows, warned, fit):
    class Adds(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            self.has_run = True

        def on_epoch_end(self, epoch, logs=None):
            if getattr(self, "has_run", False):
                logs["dev_acc"] = 0.5

    fit(Adds(), KatibReportCallback("dev_acc"), epochs=3, validation_freq=3)
    assert rows() == [("dev_acc", 0.5)]
    assert warned() == []
