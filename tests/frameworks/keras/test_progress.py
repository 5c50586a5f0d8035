"""How far a training is, as the sinks that show it are told."""

import contextlib
import copy
import warnings

import keras
import numpy as np
import pytest
from keras.callbacks import CallbackList

from frameworks.progress import (
    EPOCHS,
    STEPS,
    fractions,
    rounded,
)
from katib_callbacks.keras import KatibReportCallback

X = np.linspace(0, 1, STEPS, dtype="float32").reshape(STEPS, 1)


@pytest.fixture
def train(make_model):
    """Train as all frameworks do: so many epochs of so many steps."""

    def run(*callbacks, model=None, **options):
        model = make_model() if model is None else model
        defaults = {"epochs": EPOCHS, "batch_size": 1, "verbose": 0, "validation_data": (X, 2 * X)}
        return model.fit(X, 2 * X, callbacks=list(callbacks), **(defaults | options))

    return run


class InOrder(keras.callbacks.Callback):
    """Has Keras call batch hooks one after the other, as it must for a callback that says nothing of async_safe."""

    def on_train_batch_end(self, batch, logs=None):
        pass


IN_ORDER = InOrder()


def test_batch_hooks_that_keras_calls_side_by_side_show_no_step_back(curve, train, shows):
    train(shows(val_acc=[0.1, 0.2, 0.3]), KatibReportCallback("val_acc", reporter=curve.reporter))

    assert curve.fractions[0] == 0.0
    assert curve.fractions[-1] == 1.0
    assert curve.fractions == sorted(curve.fractions)


def test_a_training_that_begins_later_shows_the_share_of_the_whole(curve, train):
    train(KatibReportCallback(reporter=curve.reporter), IN_ORDER, initial_epoch=1)

    assert curve.fractions == rounded(fractions(first=STEPS))


def test_data_without_a_length_count_from_the_second_epoch_on(curve, make_model):
    def generate():
        for _ in range(2 * STEPS):
            yield X[:1], 2 * X[:1]

    callback = KatibReportCallback(reporter=curve.reporter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the data have run out
        make_model().fit(generate(), epochs=2, verbose=0, callbacks=[callback, IN_ORDER])

    assert curve.fractions[0] == 0.0
    assert curve.fractions[-1] == 1.0
    assert curve.fractions == sorted(curve.fractions)


def test_steps_per_epoch_count(curve, make_model):
    def generate():
        while True:
            yield X[:1], 2 * X[:1]

    callback = KatibReportCallback(reporter=curve.reporter)
    model = make_model()
    model.fit(generate(), epochs=2, steps_per_epoch=2, shuffle=False, verbose=0, callbacks=[callback, IN_ORDER])

    assert curve.fractions == rounded(fractions(4, total=4))


def test_evaluation_and_trainings_of_no_epoch_have_no_progress(curve, train, make_model):
    callback = KatibReportCallback(reporter=curve.reporter)
    make_model().evaluate(X, X, verbose=0, callbacks=[callback])
    with contextlib.suppress(UnboundLocalError):  # in Keras 3.0 itself
        train(callback, epochs=0)

    assert curve.told == []


def test_a_copy_shows_progress_itself(curve, train):
    callback = copy.deepcopy(KatibReportCallback("loss", reporter=None))
    assert "on_train_batch_end" not in vars(callback)

    ours = KatibReportCallback("loss", reporter=curve.reporter)
    hook = copy.copy(ours).on_train_batch_end

    assert hook.__func__ is KatibReportCallback._show_progress


def test_there_is_a_batch_hook_only_where_it_is_needed_and_never_one_that_keras_waits_for(curve, katib_db_manager):
    without, with_hook = KatibReportCallback(), KatibReportCallback(reporter=curve.reporter)

    assert "on_train_batch_end" not in vars(without)
    assert "on_train_batch_end" in vars(with_hook)
    if keras.backend.backend() == "jax" and hasattr(CallbackList, "_on_train_batch_end"):  # not in Keras 3.0
        assert CallbackList([with_hook])._async_train


@pytest.mark.parametrize("name", ["on_train_batch_end", "on_batch_end"])
def test_a_batch_hook_of_a_subclass_stays(curve, train, name):
    batches = []

    class Counts(KatibReportCallback):
        pass

    setattr(Counts, name, lambda _self, batch, logs=None: batches.append(batch))
    train(Counts(reporter=curve.reporter))

    assert len(batches) == EPOCHS * STEPS
    assert curve.fractions[0] == 0.0
    assert curve.fractions[-1] == 1.0
