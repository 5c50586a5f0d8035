"""What a local trial costs beside starting its process: trials that do nothing, one after the other.

The same number of ``python -c pass`` runs in the same process environment as: bare subprocesses; trials of
:mod:`katib_callbacks.local` (Push, so each ends with a look into the observation log and a row that says that nothing
was reported); Optuna's own loop with a subprocess objective and its SQLite storage; and Ray Tune, where it is installed.
``--check`` exits with 1 if a limit is missed; without it the figures only tell.
"""

import argparse
import contextlib
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from katib_callbacks.local import creation
from katib_callbacks.local.controller import Event
from katib_callbacks.local.runner import Runner

COST_LIMIT_MS = 60.0
GROWTH_LIMIT_MIB = 8.0
"""Of the runner, from the first tenth of the trials to the last: what Optuna keeps of a thousand trials, and no more."""

COMMAND = [sys.executable, "-c", "pass"]
RAY_TRIALS = 50
"""It takes half a second and more for each."""


def experiment(trials: int) -> dict[str, object]:
    """Return an experiment of trials that do nothing."""
    container = {"name": "main", "command": COMMAND, "env": [{"name": "X", "value": "${trialParameters.x}"}]}
    return {
        "metadata": {"name": "nothing"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": 1,
            "maxTrialCount": trials,
            "metricsCollectorSpec": {"collector": {"kind": "Push"}},
            "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            },
        },
    }


def resident_mib() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Meter:
    """Takes the time of each trial's end, and the memory now and then."""

    def __init__(self, trials: int) -> None:
        self.ends_s: list[float] = []
        self.memory_mib: list[float] = []
        self._every = max(1, trials // 10)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if event.trial is not None and event.trial.state != "Running":
            self.ends_s.append(time.perf_counter())
            if len(self.ends_s) % self._every == 0:
                gc.collect()
                self.memory_mib.append(resident_mib())


def bare(count: int) -> float:
    """Return the milliseconds that a process takes which does nothing."""
    start = time.perf_counter()
    for _ in range(count):
        subprocess.run(COMMAND, check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3 / count


def ours(count: int, folder: Path) -> tuple[float, list[float]]:
    """Return the milliseconds for each trial between the first's end and the last's, and the memory on the way."""
    meter = Meter(count)
    creation.store(folder, experiment(count), folder=folder)
    Runner(folder, "nothing", meter).run()
    if len(meter.ends_s) != count:
        sys.exit(f"{len(meter.ends_s)} trials ended instead of {count}")
    return (meter.ends_s[-1] - meter.ends_s[0]) * 1e3 / (count - 1), meter.memory_mib


def optuna_loop(count: int, folder: Path) -> float:
    """Return the milliseconds for each trial of Optuna's own loop."""
    import optuna  # noqa: PLC0415  measured

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.create_study(sampler=sampler, storage=f"sqlite:///{folder / 'optuna.db'}")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        subprocess.run(COMMAND, check=True, stdin=subprocess.DEVNULL)
        return 0.0

    start = time.perf_counter()
    study.optimize(objective, n_trials=count)
    return (time.perf_counter() - start) * 1e3 / count


def ray_tune(count: int, folder: Path) -> float:
    """Return the milliseconds for each trial of Ray Tune, its start not counted."""
    import ray  # noqa: PLC0415  optional
    from ray import tune  # noqa: PLC0415  optional

    def objective(config: dict[str, float]) -> None:
        del config
        subprocess.run(COMMAND, check=True, stdin=subprocess.DEVNULL)
        tune.report({"loss": 0.0})

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        config = tune.TuneConfig(num_samples=count, max_concurrent_trials=1)
        storage = tune.RunConfig(storage_path=str(folder / "ray"), verbose=0)
        tuner = tune.Tuner(objective, param_space={"x": tune.uniform(0, 1)}, tune_config=config, run_config=storage)
        start = time.perf_counter()
        with contextlib.redirect_stdout(None):
            tuner.fit()
        return (time.perf_counter() - start) * 1e3 / count
    finally:
        ray.shutdown()


def show(name: str, count: int, cost_ms: float, process_ms: float) -> None:
    """Print a line of the table."""
    print(f"{name:<46}{count:>7}{cost_ms:>10.1f} ms{cost_ms - process_ms:>12.1f} ms", flush=True)


def verdict(what: str, figure: str, limit: str, *, is_met: bool) -> bool:
    """Print one figure beside its limit."""
    print(f"{'pass' if is_met else 'MISS'}  {what}: {figure} (limit: {limit})")
    return is_met


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    arguments = parser.parse_args()

    count = arguments.trials
    print(f"{'Trials that do nothing, one at a time':<46}{'trials':>7}{'each':>13}{'above bare':>15}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        before_ms = bare(max(20, count // 10))
        cost_ms, memory_mib = ours(count, folder)
        process_ms = (before_ms + bare(max(20, count // 10))) / 2  # around ours: the machine may be busy
        show("python -c pass, alone", count // 5, process_ms, process_ms)
        show("katib_callbacks.local", count, cost_ms, process_ms)
        others: dict[str, tuple[int, Callable[[int, Path], float]]] = {
            "optuna, subprocess objective, SQLite storage": (max(10, count // 5), optuna_loop)
        }
        if find_spec("ray") is not None:
            others["ray tune, subprocess trainable"] = (min(count, RAY_TRIALS), ray_tune)
        for other, (trials, measure) in others.items():
            show(other, trials, measure(trials, folder), process_ms)
    if find_spec("ray") is None:
        print("not measured: Ray Tune is not installed (nox -s bench_local installs it)")
    growth_mib = memory_mib[-1] - memory_mib[0]
    print(f"\nmemory of the runner, at each tenth of the trials: {', '.join(f'{mib:.1f}' for mib in memory_mib)} MiB\n")
    above_ms = cost_ms - process_ms
    met = [
        verdict(
            "a trial costs above its process",
            f"{above_ms:.1f} ms",
            f"at most {COST_LIMIT_MS:g} ms",
            is_met=above_ms <= COST_LIMIT_MS,
        ),
        verdict(
            "memory grows",
            f"{growth_mib:.1f} MiB",
            f"at most {GROWTH_LIMIT_MIB:g} MiB",
            is_met=growth_mib <= GROWTH_LIMIT_MIB,
        ),
    ]
    if arguments.check and not all(met):
        sys.exit(1)


if __name__ == "__main__":
    main()
