"""autolog in Keras: fits that were given no callback by the test, on the backend of the session."""

import inspect
import os
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

from katib_callbacks.keras import KatibReportCallback

X = np.ones((8, 1), "float32")
PLAIN_FIT = keras.Model.fit


@pytest.fixture(autouse=True)
def nothing_is_left_patched():
    assert "fit" not in vars(keras.Model)
    yield
    assert "fit" not in vars(keras.Model)
    assert keras.Model.fit is PLAIN_FIT


class Sees(keras.callbacks.Callback):
    """Keeps the callbacks of the fit that it is in, with the model's help."""

    def __init__(self):
        super().__init__()
        self.kinds = []

    def on_train_begin(self, logs=None):
        frame = inspect.currentframe()
        while not isinstance(frame.f_locals.get("self"), keras.callbacks.CallbackList):
            frame = frame.f_back
        self.kinds = [type(callback) for callback in frame.f_locals["self"].callbacks]


# -- on, off, twice ----------------------------------------------------------------------------------------------------


def test_it_is_the_adapters_callback_after_the_users_own(autolog, rows, fit):
    autolog(metrics="loss")
    sees = Sees()
    fit(sees)
    assert sees.kinds == [Sees, KatibReportCallback, keras.callbacks.History]
    assert len(rows()) == 1


def test_outside_a_trial_fit_is_given_nothing(autolog, rows, fit, monkeypatch):
    assert rows() == []
    monkeypatch.delenv("KATIB_TRIAL_NAME")
    autolog(metrics="loss")
    sees = Sees()
    fit(sees)
    assert sees.kinds == [Sees, keras.callbacks.History]
    assert rows() == []


# -- what is patched ---------------------------------------------------------------------------------------------------


def test_a_wrong_call_fails_as_before(autolog, rows, make_model):
    def complaint():
        with pytest.raises(TypeError) as error:
            make_model().fit(X, X, callback=[])
        return str(error.value)

    before = complaint()
    autolog()
    assert complaint() == before
    assert rows() == []


# -- beside explicit callbacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        lambda callback, _: [keras.callbacks.TerminateOnNaN(), callback],
        lambda callback, _: (callback,),
        lambda callback, _: callback,
        lambda callback, _: {"ours": callback},
        lambda callback, model: keras.callbacks.CallbackList([callback], add_history=True, model=model),
    ],
    ids=["list", "tuple", "bare", "dict", "CallbackList"],
)
def test_an_explicit_callback_is_the_only_one(autolog, rows, make_model, given):
    autolog(metrics="mae")
    model = make_model()
    model.fit(X, X, verbose=0, callbacks=given(KatibReportCallback("loss"), model))
    assert [name for name, _ in rows()] == ["loss"]


@pytest.mark.parametrize(
    "given",
    [lambda: None, list, lambda: Sees(), lambda: [Sees()], lambda: (Sees(),), lambda: [[Sees()], {"other": Sees()}]],  # noqa: PLW0108
    ids=["none", "empty", "bare", "list", "tuple", "nested"],
)
def test_whatever_callbacks_fit_takes_ours_joins_them(autolog, rows, make_model, given):
    autolog(metrics="loss")
    callbacks = given()
    before = list(callbacks) if isinstance(callbacks, list) else callbacks
    make_model().fit(X, X, verbose=0, callbacks=callbacks)
    assert [name for name, _ in rows()] == ["loss"]
    assert callbacks == before, "the user's own list is left alone"


def test_a_callback_list_is_left_as_it_was(autolog, rows, make_model):
    autolog(metrics="loss")
    model = make_model()
    callbacks = keras.callbacks.CallbackList([Sees()], add_history=True, model=model, epochs=1)
    before = list(callbacks.callbacks)
    model.fit(X, X, verbose=0, callbacks=callbacks)
    model.fit(X, X, verbose=0, callbacks=callbacks)
    assert [name for name, _ in rows()] == ["loss", "loss"]
    assert callbacks.callbacks == before


def test_arguments_may_come_by_position(autolog, rows, make_model):
    autolog(metrics="loss", report="history")
    sees = Sees()
    make_model().fit(X, X, 4, 3, 0, [sees])
    assert KatibReportCallback in sees.kinds
    assert len(rows()) == 3


# -- trainings of every kind -------------------------------------------------------------------------------------------


def test_models_of_every_kind_report(autolog, rows):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, inputs):
            return self.layer(inputs)

    class Fits(Subclassed):
        def fit(self, *args, **kwargs):
            return super().fit(*args, epochs=2, **kwargs)

    class FitsAlone(Subclassed):
        def fit(self, x, y, **_):
            return self.train_on_batch(x, y)

    autolog(metrics="loss", report="history")
    counts = []
    for model in [keras.Sequential([keras.layers.Dense(1)]), Subclassed(), Fits(), FitsAlone()]:
        model.compile(loss="mse")
        model.fit(X, X, verbose=0)
        counts.append(len(rows()))
    assert counts == [1, 2, 4, 4]


def test_evaluation_and_prediction_report_nothing(autolog, rows, fit, make_model):
    autolog()
    model = make_model()
    model.evaluate(X, X, verbose=0)
    model.predict(X, verbose=0)
    model.train_on_batch(X, X)
    assert rows() == []


def test_fits_in_threads_are_not_inside_one_another(autolog, rows, make_model):
    """Each has a stack of its own, and a callback."""
    autolog(metrics="loss")
    entered = threading.Barrier(2)

    class Meets(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            entered.wait(60)

    models = [make_model() for _ in range(2)]
    threads = [
        threading.Thread(target=model.fit, args=(X, X), kwargs={"verbose": 0, "callbacks": [Meets()]})
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [name for name, _ in rows()] == ["loss", "loss"]


# -- imports -----------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
{before}
import katib_callbacks
katib_callbacks.autolog(metrics="loss")
{check}
{after}
import keras, numpy
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile(loss="mse")
model.fit(numpy.ones((4, 1)), numpy.ones((4, 1)), verbose=0)
katib_callbacks.autolog(disable=True)
model.fit(numpy.ones((4, 1)), numpy.ones((4, 1)), verbose=0)
assert "fit" not in vars(keras.Model)
"""


@pytest.mark.parametrize(
    "parts",
    [
        {"before": "import keras"},
        {"check": "assert 'keras' not in sys.modules", "after": "import keras"},
        {"after": "from keras.models import Sequential"},
        {"before": "from katib_callbacks.keras import KatibReportCallback"},
        {"before": "sys.modules.update(dict.fromkeys(['transformers', 'lightning', 'pytorch_lightning']))"},
    ],
    ids=["before", "after", "a part of it first", "the adapter first", "without other frameworks"],
)
def test_keras_may_be_imported_before_or_after(katib_db_manager, parts):
    script = SCRIPT.format(**({"before": "", "check": "", "after": ""} | parts))
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    assert [row.name for row in katib_db_manager.metrics()] == ["loss"]
