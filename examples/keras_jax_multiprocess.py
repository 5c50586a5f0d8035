"""Train on scikit-learn's digits in several JAX processes with Keras 3 and report to Katib, once.

Each process is started with the variables that Kubeflow's TrainJob gives to a JAX pod::

    export JAX_COORDINATOR_ADDRESS=127.0.0.1:12345 JAX_NUM_PROCESSES=2
    JAX_PROCESS_ID=0 python examples/keras_jax_multiprocess.py &
    JAX_PROCESS_ID=1 python examples/keras_jax_multiprocess.py

Every process has the callback; the one of ``jax.process_index() == 0`` reports. Under ``DataParallel`` its metrics are
those of all processes.
"""

import argparse
import logging
import os

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it when it is imported

import jax
import keras
from keras_digits import digits_classifier
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from katib_callbacks.keras import KatibReportCallback

SHUTDOWN_S = 600
"""How long the other processes wait at their end for process 0, which may be delivering for up to 480 s. After JAX's
default of 300 s it would abort them all, process 0 with its rows included."""


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hidden-units", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    jax.distributed.initialize(  # keras.distribution.initialize() does not take the last of these
        os.environ["JAX_COORDINATOR_ADDRESS"],
        int(os.environ["JAX_NUM_PROCESSES"]),
        int(os.environ["JAX_PROCESS_ID"]),
        shutdown_timeout_seconds=SHUTDOWN_S,
    )
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))

    images, labels = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(images / 16, labels, test_size=0.2, random_state=0)
    rank, processes = jax.process_index(), jax.process_count()
    size = len(train_x) // processes  # equal shares: every process takes as many steps

    report = KatibReportCallback({"accuracy": "val_accuracy", "loss": "val_loss"})
    model = digits_classifier(arguments.learning_rate, arguments.hidden_units)
    model.fit(
        train_x[rank * size : (rank + 1) * size],
        train_y[rank * size : (rank + 1) * size],
        batch_size=64 // processes,
        epochs=arguments.epochs,
        validation_data=(val_x, val_y),
        verbose=0,
        callbacks=[report],
    )
    print(f"process {rank} of {processes}: receipt: {report.receipt}")


if __name__ == "__main__":
    main()
