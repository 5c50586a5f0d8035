"""Keras for ``overhead.py``; KERAS_BACKEND says on what, torch by default.

One read is ``model.get_metrics_result()``, twice, for there is none of training and validation metrics together: Keras
itself does both in each epoch, and hands the result over as ``logs``.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np


class Reads(keras.callbacks.Callback):
    """Reads once, where our callback does."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the model once: under JAX to ask for it copies its state back."""
        del logs
        self.trained = self.model

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Read."""
        del epoch, logs
        self.seen = self.trained.get_metrics_result(), self.trained.get_metrics_result()


class Framework:
    """See ``overhead.Framework``."""

    HOOKS = ("on_epoch_begin", "on_epoch_end", "on_test_begin", "on_test_end")
    NAMES = tuple(
        f"{prefix}{name}" for prefix in ("", "val_") for name in ("loss", "mae", "mse", "mape", "cosine_similarity")
    )
    MONITOR = "val_loss"
    RAY = "train"

    def __init__(self) -> None:
        self.data = np.linspace(0, 1, 64, dtype="float32").reshape(64, 1)
        self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        self.model.compile(optimizer="sgd", loss="mse", metrics=["mae", "mse", "mape", "cosine_similarity"])

    def yardsticks(self) -> dict[str, Any]:
        """Return the read and the empty callback."""
        return {"model.get_metrics_result(), twice": Reads(), "an empty callback": keras.callbacks.Callback()}

    def callback_class(self) -> type:
        """Return our callback."""
        from katib_callbacks.keras import KatibReportCallback  # noqa: PLC0415

        return KatibReportCallback

    def optuna(self, trial: Any) -> Callable[[], Any] | str:
        """Return Optuna's callback."""
        from optuna_integration.keras import KerasPruningCallback  # noqa: PLC0415

        return lambda: KerasPruningCallback(trial, self.MONITOR)

    def mlflow(self, run_id: str, stack: ExitStack) -> Callable[[], Any]:
        """Return MLflow's callback."""
        del run_id, stack
        from mlflow.keras import MlflowCallback  # noqa: PLC0415

        return MlflowCallback

    def ray(self) -> Callable[[], Any] | str:
        """Return Ray's callback."""
        if keras.backend.backend() != "tensorflow":
            return "its Keras callback works on TensorFlow alone"
        from ray.train.tensorflow.keras import ReportCheckpointCallback  # noqa: PLC0415

        return lambda: ReportCheckpointCallback(checkpoint_on="train_end")

    def train(self, callback: Any, epochs: int, turn: int, folder: Path) -> None:
        """Train on: Keras counts a model's epochs."""
        del folder
        first = turn * epochs
        self.model.fit(
            self.data,
            self.data,
            initial_epoch=first,
            epochs=first + epochs,
            validation_data=(self.data, self.data),
            verbose=0,
            callbacks=[callback],
        )
