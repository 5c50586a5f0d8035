"""How far a training is, as the sinks that show it are told."""

import contextlib
import copy
import warnings

import keras
import numpy as np
import pytest
from keras.callbacks import CallbackList, EarlyStopping

from frameworks.progress import (
    EPOCHS,
    STEPS,
    Gate,
    assert_same_curve,
    assert_trained_beside_a_hanging_server,
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


class KerasGate(keras.callbacks.Callback):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            self.gate.pass_step()

    def on_train_batch_end(self, batch, logs=None):
        self.gate.pass_step()


def test_the_status_server_sees_the_curve_of_all_frameworks(status_server, status_reporter, train, shows):
    ours = KatibReportCallback("val_acc", reporter=status_reporter)

    train(shows(val_acc=[0.1, 0.2, 0.3]), ours, KerasGate(Gate(status_server)))

    assert_same_curve(status_server)
    assert status_server.seen[-1].metrics == {"val_acc": "0.3"}
    assert ours.receipt.delivered == 1


def test_the_curve_and_the_metrics_so_far(curve, train, shows):
    callback = KatibReportCallback({"accuracy": "val_acc"}, reporter=curve.reporter)

    train(shows(val_acc=[0.1, 0.2, 0.3]), callback, IN_ORDER)

    assert curve.fractions == rounded(fractions())
    assert curve.latest == [{}, {"accuracy": 0.1}, {"accuracy": 0.2}, {"accuracy": 0.3}]
    assert curve.sent == [{"accuracy": 0.3}]


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


def test_a_training_that_stops_early_is_done(curve, train, shows):
    stopping = EarlyStopping("val_acc", mode="min", patience=1)

    train(shows(val_acc=[0.1, 0.2, 0.3]), stopping, KatibReportCallback(reporter=curve.reporter), IN_ORDER)

    assert curve.fractions == rounded(fractions(2 * STEPS))


def test_a_training_that_fails_stays_where_it_was(curve, train, raises_in):
    callback = KatibReportCallback(reporter=curve.reporter)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(callback, IN_ORDER, raises_in("on_epoch_end", RuntimeError("out of memory")))

    assert curve.fractions == rounded(fractions(STEPS)[:-1])
    assert curve.sent == []


def test_evaluation_and_trainings_of_no_epoch_have_no_progress(curve, train, make_model):
    callback = KatibReportCallback(reporter=curve.reporter)
    make_model().evaluate(X, X, verbose=0, callbacks=[callback])
    with contextlib.suppress(UnboundLocalError):  # in Keras 3.0 itself
        train(callback, epochs=0)

    assert curve.told == []


def test_a_second_fit_begins_anew(curve, train):
    callback = KatibReportCallback(reporter=curve.reporter)
    for _ in range(2):
        train(callback, IN_ORDER, epochs=1)

    assert curve.fractions == [0.0, 0.25, 0.5, 0.75, 0.999, 1.0] * 2


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


def test_training_does_not_wait_for_a_server_that_hangs(status_server, train, shows, monkeypatch, katib_db_manager):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "auto")
    status_server.behave_always("hang")
    callback = KatibReportCallback("val_acc")

    train(shows(val_acc=[0.1, 0.2, 0.3]), callback)

    assert katib_db_manager.latest() == {"val_acc": 0.3}
    assert_trained_beside_a_hanging_server(status_server, callback.receipt)
