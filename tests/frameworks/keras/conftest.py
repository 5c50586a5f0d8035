"""A tiny model on the backend that KERAS_BACKEND names, torch by default: each fit takes a fraction of a second."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported, which otherwise asks for tensorflow

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    collect_ignore = ["test_tf_keras.py"]

X = np.arange(8, dtype="float32").reshape(8, 1) / 8
Y = 2 * X


def pytest_collection_modifyitems(items):
    here = __file__.rpartition("/")[0]
    for item in items:
        if str(item.path).startswith(here):
            # numpy 2 of Keras' own Variable.
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))


class Shows(keras.callbacks.Callback):
    """Puts scripted values into the logs, one of each list an epoch; None leaves an epoch out."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: series[epoch] for name, series in self.values.items() if series[epoch] is not None})


class RaisesIn(keras.callbacks.Callback):
    """Fails in one hook."""

    def __init__(self, hook, error):
        super().__init__()

        def fail(*_, **__):
            raise error

        setattr(self, hook, fail)


@pytest.fixture
def shows():
    return Shows


@pytest.fixture
def raises_in():
    return RaisesIn


@pytest.fixture
def make_model():
    def make(model_class=keras.Model, *, metrics=("mae",)):
        inputs = keras.Input((1,))
        model = model_class(inputs, keras.layers.Dense(1)(inputs))
        model.compile(optimizer="sgd", loss="mse", metrics=list(metrics))
        return model

    return make


@pytest.fixture
def fit(make_model):
    """Train and return the history; two epochs on eight examples, validated on the same."""

    def run(*callbacks, model=None, **options):
        model = make_model() if model is None else model
        defaults = {"epochs": 2, "batch_size": 4, "verbose": 0, "validation_data": (X, Y)}
        return model.fit(X, Y, callbacks=list(callbacks), **(defaults | options)).history

    return run


@pytest.fixture
def driver(make_model, tmp_path):
    from frameworks.keras.driver import KerasDriver  # noqa: PLC0415  of this keras: tf_keras has none

    return KerasDriver(make_model, tmp_path)
