"""What a callback costs an epoch: ours beside an empty one, Ray's, Optuna's and MLflow's, in the same process.

``--framework lightning``, ``transformers``, or Keras with a backend: ``keras/torch``. Each callback has a training of
its own, in turns, so that none finds the processor's caches warmed by another; all see ten metrics an epoch. Measured
is the time between entering and leaving a callback's hooks of an epoch. Beside a peer that is told as a mean, because
MLflow's callback for Lightning writes in bursts. The yardstick is one read of the framework's own metric dictionary,
see the module of each framework.

Ours holds values back until training ends; what that delivery takes is told apart. What the peers do in an epoch:

- Optuna's callbacks report one metric to their study, here in memory, and ask whether to prune.
- MLflow's hand all metrics to its tracking store, here a SQLite file.
- Ray's hand all metrics to the controller, here on this machine. Checkpoints, which they write with their defaults,
  are turned off. They work in a process that Ray starts, so everything is measured in there, unless Ray is missing or
  ``--ray no`` is given.

With Lightning, then how the cost grows: with the metrics of an epoch, and along a training of 10,000 epochs.
"""

import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from figures import Figure, Growth, Size
from figures import run as run_program
from machine import QuietSink

from katib_callbacks import KatibReporter

HERE = Path(__file__).parent

METRIC_COUNT = 10
EPOCHS = 40
"""In each of the turns."""

TURNS = 3
READ_LIMIT = 3.0
GROWN_METRICS = (2, 10, 30, 100, 300, 1_000)
GROWN_EPOCHS = (1, 10, 100, 1_000, 3_000, 10_000)

RAY_EPOCHS = 4
"""In each of the turns: a report in Ray Train takes up to the 2 s after which its controller looks again."""

Peer = Callable[[], Any] | str
"""Makes a callback, or says why there is none."""


class Framework(Protocol):
    """What a framework's module has to offer."""

    HOOKS: Sequence[str]
    """The hooks of an epoch that a callback may use, the one that begins it first."""
    NAMES: Sequence[str]
    """Its names of the ten metrics."""
    MONITOR: str
    """The one that Optuna and ``report="best"`` get."""
    RAY: str
    """What its Ray callback works in: ``tune`` or ``train``."""

    def yardsticks(self) -> dict[str, Any]:
        """Return callbacks that do as little as can be. The first is the single read."""

    def callback_class(self) -> type:
        """Return our callback."""

    def optuna(self, trial: Any) -> Peer:
        """Return Optuna's callback, which gets one metric."""

    def mlflow(self, run_id: str, stack: ExitStack) -> Peer:
        """Return MLflow's callback, which gets all metrics."""

    def ray(self) -> Peer:
        """Return Ray's callback, which gets all metrics, and writes no checkpoint."""

    def train(self, callback: Any, epochs: int, turn: int, folder: Path) -> None:
        """Train once."""


def framework_named(name: str) -> Framework:
    """Import a framework's module."""
    name, _, backend = name.partition("/")
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    framework: Framework = import_module(f"overhead_{name}").Framework()
    assert len(framework.NAMES) == METRIC_COUNT
    return framework


def timed(callback: Any, hooks: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Have a callback's hooks timed; the list that is returned gets the seconds of each epoch."""
    seconds: list[float] = []

    def wrap(hook: Callable[..., Any], *, is_first: bool) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if is_first:
                seconds.append(0.0)
            start = clock()
            answer = hook(*arguments, **options)
            if seconds:  # not what a sanity check does before training
                seconds[-1] += clock() - start
            return answer

        return run

    for name in hooks:
        setattr(callback, name, wrap(getattr(callback, name), is_first=name == hooks[0]))
    return seconds


def ours(framework: Framework) -> dict[str, Any]:
    """Return our callback with each reduction, with and without names."""
    make, names = framework.callback_class(), framework.NAMES
    best = make(names, report="best", monitor=framework.MONITOR, mode="min")
    return {
        "ours, ten names": make(names),
        "ours, no names": make(),
        "ours, ten names, best": best,
        "ours, ten names, history": make(names, report="history"),
    }


@contextmanager
def mlflow_run(folder: Path) -> Iterator[str]:
    """Begin a run in a store in ``folder``; yields its id."""
    import mlflow  # noqa: PLC0415

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment("overhead", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("overhead")
    with mlflow.start_run() as run:
        yield run.info.run_id


def peers(framework: Framework, stack: ExitStack, folder: Path, *, is_in_ray: bool) -> dict[str, Peer]:
    """Return the other libraries' callbacks, or why they cannot be compared."""
    found: dict[str, Peer] = {"Optuna, one metric": "optuna-integration is not installed"}
    if find_spec("optuna_integration"):
        import optuna  # noqa: PLC0415

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        found["Optuna, one metric"] = framework.optuna(optuna.create_study(pruner=optuna.pruners.NopPruner()).ask())
    found["MLflow, all metrics"] = "mlflow is not installed"
    if find_spec("mlflow"):
        found["MLflow, all metrics"] = framework.mlflow(stack.enter_context(mlflow_run(folder)), stack)
    found["Ray, all metrics"] = framework.ray() if is_in_ray else "not in a process that Ray started"
    return found


def measure(name: str, epochs: int, *, is_in_ray: bool) -> dict[str, Any]:
    """Train with each callback, in turns.

    Returns:
        The seconds of each epoch for each callback; those of a delivery of ours; what could not be compared and why.
    """
    from katib_callbacks.db_manager import DBManager  # noqa: PLC0415

    warnings.simplefilter("ignore")
    framework = framework_named(name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(DBManager(f"sqlite:///{folder / 'katib.db'}"))
        os.environ |= {"KATIB_TRIAL_NAME": "benchmark", "KATIB_DB_MANAGER_ADDRESS": server.address}
        mine = ours(framework)
        others = peers(framework, stack, folder, is_in_ray=is_in_ray)
        absent = {name: reason for name, reason in others.items() if isinstance(reason, str)}
        made = {name: make() for name, make in others.items() if not isinstance(make, str)}
        callbacks = framework.yardsticks() | mine | made
        samples = {name: timed(callback, framework.HOOKS) for name, callback in callbacks.items()}
        for turn in range(TURNS):
            for callback_name, callback in callbacks.items():
                is_slow = callback_name.startswith("Ray")
                framework.train(callback, min(epochs, RAY_EPOCHS) if is_slow else epochs, turn, folder)
        for variant, callback in mine.items():
            if callback.receipt is None or callback.receipt.delivered < METRIC_COUNT:
                sys.exit(f"{variant} delivered {callback.receipt}, so its figures mean nothing")
        delivery_s = statistics.median(callback.receipt.elapsed_s for callback in mine.values())
    return {"samples": samples, "delivery_s": delivery_s, "absent": absent}


def in_ray(configuration: Mapping[str, Any]) -> None:
    """Measure; called by Ray in a process of its own, which cannot return anything."""
    result = measure(configuration["framework"], configuration["epochs"], is_in_ray=True)
    Path(configuration["path"]).write_text(json.dumps(result), encoding="utf-8")


def measure_in_ray(name: str, epochs: int) -> Any:
    """Measure as :func:`measure`, in a process that Ray starts."""
    import ray  # noqa: PLC0415

    # Ray finds this module by its name, and so the frameworks'.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    function = import_module("overhead").in_ray
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "result.json"
        configuration = {"framework": name, "epochs": epochs, "path": str(path)}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            run_config: Any = {"storage_path": folder}
            if framework_named(name).RAY == "tune":
                from ray import tune  # noqa: PLC0415

                tune.Tuner(
                    function, param_space=configuration, run_config=tune.RunConfig(**run_config, verbose=0)
                ).fit()
            else:
                from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415
                from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # noqa: PLC0415

                DataParallelTrainer(
                    function,
                    train_loop_config=configuration,
                    scaling_config=ScalingConfig(num_workers=1),
                    run_config=RunConfig(**run_config),
                ).fit()
        finally:
            ray.shutdown()
        return json.loads(path.read_text(encoding="utf-8"))


def measure_figures(size: Size, framework: str, ray: str) -> Iterator[Figure | Growth]:
    """Measure a framework's callbacks."""
    in_or_without = measure_in_ray if ray == "yes" and find_spec("ray") else partial(measure, is_in_ray=False)
    result = in_or_without(framework, size(EPOCHS))
    samples = {name: [one * 1e6 for one in seconds] for name, seconds in result["samples"].items()}
    (read_name, read), *_ = samples.items()
    title = f"{framework}: an epoch's hooks, {METRIC_COUNT} metrics"
    for name, mine in samples.items():
        if name.startswith("ours"):
            what = f"{title}, {name.removeprefix('ours, ')}"
            yield Figure(what, mine, "us", f"one read: `{read_name}`", read, ratio_at_most=READ_LIMIT)
    mine = samples["ours, ten names"]
    for name, theirs in samples.items():
        if name.endswith(("one metric", "all metrics")):
            limit = 1.0 if name.endswith("all metrics") else None
            what = f"{title}, ten names, mean"
            yield Figure(what, mine, "us", name, theirs, None, limit, is_peer=True, is_mean=True)
    yield Figure(f"{framework}: delivery after training", [result["delivery_s"] * 1e3], "ms")
    for name, reason in result["absent"].items():
        print(f"not compared: {name}: {reason}")
    if framework == "lightning":
        yield from growths(size)


def growths(size: Size) -> Iterator[Growth]:
    """Train Lightning with more and more metrics, then for many epochs."""
    from overhead_lightning import Framework as Lightning  # noqa: PLC0415  it needs lightning

    def hooks_us(metrics: int, epochs: int, **options: Any) -> list[float]:
        framework = Lightning(metrics)
        reporter = KatibReporter("127.0.0.1:1", trial_name="benchmark", sinks=[QuietSink()])
        callback = framework.callback_class()(framework.NAMES, reporter=reporter, **options)
        seconds = timed(callback, framework.HOOKS, time.thread_time)
        with tempfile.TemporaryDirectory() as folder:
            framework.train(callback, epochs, 0, Path(folder))
        return [one * 1e6 for one in seconds]

    warnings.simplefilter("ignore")
    by_metrics = {count: statistics.median(hooks_us(count, EPOCHS)) for count in GROWN_METRICS}
    yield Growth("lightning: an epoch's hooks, CPU", "metrics", "us", {"ours": by_metrics}, 1)
    each = hooks_us(METRIC_COUNT, size(GROWN_EPOCHS[-1]), report="history")
    by_epochs = {count: statistics.median(each[count // 2 : count]) for count in GROWN_EPOCHS if count <= len(each)}
    yield Growth("lightning: an epoch's hooks with `history`, CPU", "epochs before", "us", {"ours": by_epochs}, 0)


if __name__ == "__main__":
    run_program(__doc__, measure_figures, framework="lightning", ray="yes")
