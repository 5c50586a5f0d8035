"""Fits a tiny Keras model, on the backend that KERAS_BACKEND names; this process knows of no other."""

import witness  # isort: skip  # first, to see everything

import argparse
import os

import keras
import numpy as np

from katib_callbacks.keras import KatibReportCallback

X = np.arange(8, dtype="float32").reshape(8, 1) / 8


class Score(keras.callbacks.Callback):
    """``score`` is epoch + 0.25 on rank zero, and epoch + 0.75 on rank one."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = epoch + 0.25 + 0.5 * self.rank
        if epoch == 1:
            witness.light_beacon(self.rank)


def join_jax() -> None:
    """Make one of the processes, and the model one that all of them train."""
    import jax  # noqa: PLC0415  other backends are none of its business

    number, count = (int(os.environ[f"JAX_{name}"]) for name in ("PROCESS_ID", "NUM_PROCESSES"))
    address = os.environ["JAX_COORDINATOR_ADDRESS"]
    # JAX ends the others only when it has not heard of a process for so long: 100 s by default.
    jax.distributed.initialize(address, count, number, heartbeat_timeout_seconds=15)
    keras.utils.set_random_seed(0)  # the same weights everywhere
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, help="what the test calls this process")
    parser.add_argument("--rank-from", help="the variable that the test knows this process by")
    parser.add_argument("--join-jax", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.join_jax:
        join_jax()
    rank = arguments.rank if arguments.rank_from is None else int(os.environ[arguments.rank_from])

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    ours = KatibReportCallback("score")
    model.fit(X, X, batch_size=4, epochs=arguments.epochs, verbose=0, callbacks=[Score(rank), ours])
    witness.testify(rank, ours.receipt)


if __name__ == "__main__":
    main()
