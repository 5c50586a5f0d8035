"""Tries to fit a Keras 3 model under tf.distribute's MultiWorkerMirroredStrategy, as a TFJob's workers would."""

import witness  # isort: skip  # first, to see everything

import json
import os

import keras
import numpy as np
import tensorflow as tf

from katib_callbacks.keras import KatibReportCallback

X = np.arange(8, dtype="float32").reshape(8, 1) / 8


def main() -> None:
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    ours, error = KatibReportCallback("loss"), ""
    try:
        with strategy.scope():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        model.fit(X, X, batch_size=4, epochs=1, verbose=0, callbacks=[ours])
    except ValueError as failure:
        error = f"{type(failure).__name__}: {failure}"
    witness.testify(rank, ours.receipt, error=error, replicas=strategy.num_replicas_in_sync)


if __name__ == "__main__":
    main()
