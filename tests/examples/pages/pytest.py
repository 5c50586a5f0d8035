"""What blocks with tests of one's own name: a training that takes callbacks, or has its own."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # is imported in the least time

import keras
import numpy as np

from katib_callbacks.errors import UnavailableError  # noqa: F401
from katib_callbacks.keras import KatibReportCallback


def train(callbacks=()):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    chosen = list(callbacks) or [KatibReportCallback("accuracy")]
    model.fit(np.zeros((8, 1)), np.zeros((8,), int), epochs=1, callbacks=chosen)
