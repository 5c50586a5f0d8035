"""What a callback costs an epoch of Keras: ours beside an empty one, Optuna's, MLflow's and Ray's.

::

    KERAS_BACKEND=torch python benchmarks/overhead_keras.py
    KERAS_BACKEND=tensorflow python benchmarks/overhead_keras.py --ray   # inside a Ray Train worker

Each callback has a fit of its own in the same process, in turns, so that none finds the processor's caches warmed by
another; all see ten metrics an epoch (five, each on training and validation data). Measured is the time between
entering and leaving a callback's hooks of an epoch; the table has medians. The yardsticks are what Keras itself does to
read its metrics once (``model.get_metrics_result()``, here of five metrics, since there is no read of ten), and a plain
copy of the ``logs`` that it hands over, which is the least that anybody can do who keeps them.

Ours holds values back until training ends; what that delivery takes is printed apart. Peers that are not installed
are named as such. What they do in an epoch:

- Optuna's KerasPruningCallback reports one metric to its study, here in memory, and asks whether to prune.
- MLflow's callback hands all metrics to a background thread, which writes them to a SQLite file.
- Ray's ReportCheckpointCallback hands all metrics to the controller and, with its defaults, writes a checkpoint, which
  is turned off here by ``checkpoint_on="train_end"``. It works with TensorFlow alone.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
METRIC_COUNT = 5
"""On the training data, and as many on the validation data; the loss is one of them."""

TURNS = 4

HOOKS = ("on_epoch_begin", "on_epoch_end", "on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end")

Samples = dict[str, list[float]]


def timed(callback: Any) -> tuple[Any, list[float]]:
    """Return the callback with its hooks timed, and the list that gets the seconds of each epoch."""
    seconds: list[float] = []

    def wrap(name: str, hook: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any, **options: Any) -> None:
            start = time.perf_counter()
            hook(*arguments, **options)
            elapsed = time.perf_counter() - start
            if name == "on_epoch_begin":
                seconds.append(elapsed)
            else:
                seconds[-1] += elapsed

        return run

    for name in HOOKS:
        setattr(callback, name, wrap(name, getattr(callback, name)))
    return callback, seconds


def model_with_metrics() -> Any:
    """Return a compiled model whose logs hold ten scalars an epoch."""
    import keras  # noqa: PLC0415  after KERAS_BACKEND is set

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    names = ["mae", "mse", "mape", "cosine_similarity"]
    model.compile(optimizer="sgd", loss="mse", metrics=names[: METRIC_COUNT - 1])
    return model


def yardsticks() -> dict[str, Any]:
    """Return callbacks that do as little as can be, to compare with."""
    import keras  # noqa: PLC0415

    class Reads(keras.callbacks.Callback):
        def on_train_begin(self, _: Any = None) -> None:
            self.trained = self.model

        def on_epoch_end(self, _epoch: int, _logs: Any = None) -> None:
            self.trained.get_metrics_result()

    class Copies(keras.callbacks.Callback):
        def on_epoch_end(self, _epoch: int, logs: Any = None) -> None:
            self.seen = dict(logs)

    return {
        "one read: model.get_metrics_result()": Reads(),
        "one copy: dict(logs)": Copies(),
        "an empty callback": keras.callbacks.Callback(),
    }


def ours() -> dict[str, Any]:
    """Return our callback with each reduction, with and without names."""
    from katib_callbacks.keras import KatibReportCallback  # noqa: PLC0415

    names = ["loss", "mae", "mse", "mape", "cosine_similarity"]
    named = [*names, *(f"val_{name}" for name in names)]
    best: Any = {"report": "best", "monitor": "val_loss", "mode": "min"}
    return {
        "KatibReportCallback(ten names)": KatibReportCallback(named),
        "KatibReportCallback()": KatibReportCallback(),
        "KatibReportCallback(ten names, report='best')": KatibReportCallback(named, **best),
        "KatibReportCallback(ten names, report='history')": KatibReportCallback(named, report="history"),
    }


def peers(stack: ExitStack, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return other libraries' callbacks, and a line for each that cannot be compared."""
    found: dict[str, Any] = {}
    absent = []
    if find_spec("optuna_integration"):
        import optuna  # noqa: PLC0415
        from optuna_integration import KerasPruningCallback  # noqa: PLC0415

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(pruner=optuna.pruners.NopPruner())
        found["Optuna KerasPruningCallback (one metric)"] = KerasPruningCallback(study.ask(), "val_loss")
    else:
        absent.append("Optuna: optuna-integration[keras] is not installed")
    if find_spec("mlflow"):
        import mlflow  # noqa: PLC0415
        from mlflow.keras import MlflowCallback  # noqa: PLC0415

        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        stack.enter_context(mlflow.start_run())
        found["MLflow MlflowCallback"] = MlflowCallback()
    else:
        absent.append("MLflow: not installed")
    return found, absent


def measure(epochs: int, more: Callable[[], dict[str, Any]] = dict) -> tuple[Samples, float, list[str]]:
    """Train with each callback, in turns.

    Returns:
        The seconds of each epoch for each callback, those of a delivery of ours, and what could not be compared.
    """
    import numpy as np  # noqa: PLC0415

    from katib_callbacks.db_manager import DBManager  # noqa: PLC0415

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(DBManager(f"sqlite:///{folder / 'katib.db'}"))
        os.environ |= {"KATIB_TRIAL_NAME": "benchmark", "KATIB_DB_MANAGER_ADDRESS": server.address}
        mine = ours()
        others, absent = peers(stack, folder)
        callbacks = yardsticks() | mine | others | more()
        pairs = {name: timed(callback) for name, callback in callbacks.items()}
        data = np.linspace(0, 1, 64, dtype="float32").reshape(64, 1)
        model = model_with_metrics()
        for turn in range(TURNS):
            for callback, _ in pairs.values():
                first, last = turn * epochs, (turn + 1) * epochs
                options: Any = {"initial_epoch": first, "epochs": last, "validation_data": (data, data), "verbose": 0}
                model.fit(data, data, callbacks=[callback], **options)
        if not all(callback.receipt and callback.receipt.delivered for callback in mine.values()):
            sys.exit("a callback of ours delivered nothing, so its figures mean nothing")
        delivery_s = statistics.median(callback.receipt.elapsed_s for callback in mine.values())
    return {name: seconds for name, (_, seconds) in pairs.items()}, delivery_s, absent


def ray_worker(configuration: dict[str, Any]) -> None:
    """Measure inside a Ray Train worker, where Ray's callback can report."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from ray.train.tensorflow.keras import ReportCheckpointCallback  # noqa: PLC0415

    def callback() -> dict[str, Any]:
        return {"Ray ReportCheckpointCallback": ReportCheckpointCallback(checkpoint_on="train_end")}

    result = measure(configuration["epochs"], callback)
    Path(configuration["path"]).write_text(json.dumps(result), encoding="utf-8")


def measure_with_ray(epochs: int) -> tuple[Samples, float, list[str]]:
    """Measure as :func:`measure`, in a process that Ray starts."""
    import ray  # noqa: PLC0415
    from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.tensorflow import TensorflowTrainer  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        trainer = TensorflowTrainer(
            ray_worker,
            train_loop_config={"epochs": epochs, "path": str(path)},
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(storage_path=folder),
        )
        trainer.fit()
        ray.shutdown()
        samples, delivery_s, absent = json.loads(path.read_text(encoding="utf-8"))
    return samples, delivery_s, absent


def show(samples: Samples, delivery_s: float, absent: list[str]) -> None:
    """Print the table of medians and ratios."""
    medians = {name: statistics.median(seconds) for name, seconds in samples.items()}
    read, copy, *_ = medians.values()
    epochs = len(next(iter(samples.values())))
    print(f"\n{2 * METRIC_COUNT} metrics, {epochs} epochs in {TURNS} turns; medians of an epoch\n")
    print(f"{'callback':<52} {'us':>9} {'x read':>8} {'x copy':>8}")
    for name, median in medians.items():
        print(f"{name:<52} {median * 1e6:9.1f} {median / read:8.2f} {median / copy:8.1f}")
    print(f"\nour delivery after training, once: {delivery_s * 1e3:.1f} ms")
    for line in absent:
        print(f"not compared: {line}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50, help="in each of the turns")
    parser.add_argument("--ray", action="store_true", help="measure in a Ray Train worker, with Ray's callback")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.ray:
        show(*measure_with_ray(arguments.epochs))
        return
    samples, delivery_s, absent = measure(arguments.epochs)
    show(samples, delivery_s, [*absent, "Ray: only with --ray, which needs ray[train] and tensorflow"])


if __name__ == "__main__":
    main()
