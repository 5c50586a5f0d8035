"""What a local trial costs beside starting its process: trials that do nothing, one after the other.

Trials of :mod:`katib_callbacks.local` run ``python -c pass`` (Push, so each ends with a look into the observation log
and a row that says that nothing was reported); so do Optuna's own loop with a subprocess objective and its SQLite
storage, and Ray Tune, where it is installed. Between them bare processes of the same kind are started, since the
machine may be busy: the difference is what is told. ``--check`` exits with 1 if a limit is missed.
"""

import argparse
import contextlib
import gc
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from katib_callbacks.local.running import runner
from katib_callbacks.local.running.controller import Event
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentStore, TrialRow

COST_LIMIT_MS = 15.0
GROWTH_LIMIT_MIB = 5.0
"""Of the runner, from the first tenth of the trials to the last: what Optuna keeps of a thousand, and no more."""

RESUME_LIMIT_S = 5.0
"""To take up an experiment of a thousand trials, with the algorithm that learns most from them."""

COMMAND = [sys.executable, "-c", "pass"]
RAY_TRIALS = 15
"""It takes seconds for each."""


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


class Bare:
    """Starts a process that does nothing after every few trials, so that both are measured on the same busy machine."""

    def __init__(self, every: int = 5) -> None:
        self._every = every
        self._trials = 0
        self.times_ms: list[float] = []

    def after_a_trial(self) -> None:
        """Count a trial, and start a process now and then."""
        self._trials += 1
        if self._trials % self._every == 0:
            start = time.perf_counter()
            subprocess.run(COMMAND, check=True, stdin=subprocess.DEVNULL)
            self.times_ms.append((time.perf_counter() - start) * 1e3)


class Meter:
    """Takes the time of each trial, and the memory now and then."""

    def __init__(self, trials: int) -> None:
        self.times_ms: list[float] = []
        self.memory_mib: list[float] = []
        self.bare = Bare()
        self._every = max(1, trials // 10)
        self._since_s = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event: from the end of one trial, when this returns, to that of the next."""
        if event.trial is None or event.trial.state == "Running":
            return
        if self._since_s:  # the first one waits for the DB manager
            self.times_ms.append((time.perf_counter() - self._since_s) * 1e3)
        if (len(self.times_ms) + 1) % self._every == 0:
            gc.collect()
            self.memory_mib.append(resident_mib())
        self.bare.after_a_trial()
        self._since_s = time.perf_counter()


@dataclass
class Result:
    """Milliseconds of each trial, and of each bare process between them."""

    trials_ms: list[float]
    bare_ms: list[float]
    memory_mib: list[float] = field(default_factory=list)


def ours(count: int, folder: Path) -> Result:
    """Measure trials of katib_callbacks.local, and the runner's memory."""
    meter = Meter(count)
    runner.create(folder, experiment(count), folder=folder)
    Runner(folder, "nothing", meter).run()
    if len(meter.times_ms) != count - 1:
        sys.exit(f"{len(meter.times_ms) + 1} trials ended instead of {count}")
    return Result(meter.times_ms, meter.bare.times_ms, meter.memory_mib)


def resumed_s(count: int, folder: Path) -> float:
    """Measure what passes until an experiment of many finished trials, searched by TPE, runs its next one."""
    one: Any = experiment(count + 1)
    one["metadata"]["name"] = "many"
    one["spec"]["algorithm"]["algorithmName"] = "tpe"
    runner.create(folder, one, folder=folder)
    names = [f"many-{number}" for number in range(count)]
    with ExperimentStore(database(folder)) as store:
        for number, name in enumerate(names):
            x = number / count
            observation = [{"name": "loss", "min": str(x), "max": str(x), "latest": str(x)}]
            conditions = [states.condition(states.SUCCEEDED, "TrialSucceeded", "Trial has succeeded", time.time())]
            store.add_trial(
                TrialRow(
                    name,
                    "many",
                    number,
                    {"x": str(x)},
                    {"x": x},
                    2 * number,
                    2 * number + 1,
                    x,
                    states.SUCCEEDED,
                    ["attempt"],
                    observation,
                    conditions,
                    time.time(),
                    time.time(),
                    time.time(),
                )
            )
    begun_s: list[float] = []

    def take(event: Event) -> None:
        if event.trial is not None:
            begun_s.append(time.perf_counter())

    start_s = time.perf_counter()
    Runner(folder, "many", take).run()
    return begun_s[0] - start_s


def optuna_loop(count: int, folder: Path) -> Result:
    """Measure trials of Optuna's own loop."""
    import optuna  # noqa: PLC0415  measured

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.create_study(sampler=sampler, storage=f"sqlite:///{folder / 'optuna.db'}")
    bare, times_ms, since_s = Bare(), [], [time.perf_counter()]

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        subprocess.run(COMMAND, check=True, stdin=subprocess.DEVNULL)
        return 0.0

    def ended(_study: optuna.Study, _trial: optuna.trial.FrozenTrial) -> None:
        times_ms.append((time.perf_counter() - since_s[0]) * 1e3)
        bare.after_a_trial()
        since_s[0] = time.perf_counter()

    study.optimize(objective, n_trials=count, callbacks=[ended])
    return Result(times_ms, bare.times_ms)


def ray_tune(count: int, folder: Path) -> Result:
    """Measure trials of Ray Tune as a whole, its start not counted."""
    import ray  # noqa: PLC0415  optional
    from ray import tune  # noqa: PLC0415  optional

    def objective(config: dict[str, float]) -> None:
        del config
        subprocess.run(COMMAND, check=True, stdin=subprocess.DEVNULL)
        tune.report({"loss": 0.0})

    bare = Bare(every=1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        config = tune.TuneConfig(num_samples=count, max_concurrent_trials=1)
        storage = tune.RunConfig(storage_path=str(folder / "ray"), verbose=0)
        tuner = tune.Tuner(objective, param_space={"x": tune.uniform(0, 1)}, tune_config=config, run_config=storage)
        for _ in range(10):
            bare.after_a_trial()
        start = time.perf_counter()
        with contextlib.redirect_stdout(None):
            tuner.fit()
        cost_ms = (time.perf_counter() - start) * 1e3 / count
        for _ in range(10):
            bare.after_a_trial()
        return Result([cost_ms] * count, bare.times_ms)
    finally:
        ray.shutdown()


def show(name: str, result: Result) -> float:
    """Print a line of the table; returns the milliseconds above a bare process, both as means."""
    each_ms, bare_ms = statistics.fmean(result.trials_ms), statistics.fmean(result.bare_ms)
    figures = f"{each_ms:>10.1f} ms{bare_ms:>10.1f} ms{each_ms - bare_ms:>10.1f} ms"
    print(f"{name:<46}{len(result.trials_ms):>7}{figures}", flush=True)
    return each_ms - bare_ms


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
    print(f"{'Trials that do nothing, one at a time':<46}{'trials':>7}{'each':>13}{'process':>13}{'above':>13}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        result = ours(count, folder)
        above_ms = show("katib_callbacks.local", result)
        show("optuna, subprocess objective, SQLite storage", optuna_loop(max(10, count // 5), folder))
        if find_spec("ray") is not None:
            show("ray tune, subprocess trainable", ray_tune(min(count, RAY_TRIALS), folder))
        resume_s = resumed_s(count, folder)
    if find_spec("ray") is None:
        print("not measured: Ray Tune is not installed (nox -s bench_local installs it)")
    memory_mib = result.memory_mib
    growth_mib = memory_mib[-1] - memory_mib[0]
    print(f"\nmemory of the runner, at each tenth of the trials: {', '.join(f'{mib:.1f}' for mib in memory_mib)} MiB\n")
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
        verdict(
            f"{count} trials are resumed",
            f"{resume_s:.2f} s",
            f"less than {RESUME_LIMIT_S:g} s",
            is_met=resume_s < RESUME_LIMIT_S,
        ),
    ]
    if arguments.check and not all(met):
        sys.exit(1)


if __name__ == "__main__":
    main()
