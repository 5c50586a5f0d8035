"""What a local trial costs beside starting its process: trials that do nothing, one after the other.

Trials of :mod:`katib_callbacks.local` run ``python -c pass`` (Push, so each ends with a look into the observation log
and a row that says that nothing was reported); so do Optuna's own loop with a subprocess objective and its SQLite
storage, and Ray Tune, where it is installed. Between them bare processes of the same kind are started, since the
machine may be busy: the difference is what is told, as a mean. Then, by the runner's time of the processor, how the
cost grows with the trials that are done and with those that run at once.
"""

import contextlib
import gc
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from figures import Figure, Growth, Size, run
from machine import experiment, memory_mib, trial_row

from katib_callbacks.local.running import runner
from katib_callbacks.local.running.controller import Event
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state.states import FINAL_TRIAL_STATES
from katib_callbacks.local.state.store import ExperimentStore

COST_LIMIT_MS = 15.0
GROWTH_LIMIT_MIB = 5.0
"""Of the runner, from the first tenth of the trials to the last: what Optuna keeps of a thousand, and no more."""

RESUME_LIMIT_S = 5.0
"""To take up an experiment of a thousand trials, with the algorithm that learns most from them."""

COMMAND = [sys.executable, "-c", "pass"]
TRIALS, OPTUNA_TRIALS = 1_000, 100
RAY_TRIALS = 10
"""It takes seconds for each."""

GROWN_TRIALS = (10, 30, 100, 300, 1_000)
PARALLEL, PARALLEL_TRIALS = (1, 2, 4, 8, 16), 48


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

    def above(self, trials_ms: list[float]) -> list[float]:
        """Return what each trial took above the mean of these processes."""
        return [one - statistics.fmean(self.times_ms) for one in trials_ms]


class Meter:
    """Takes the time of each trial, that of the processor as well, and the memory now and then."""

    def __init__(self, trials: int) -> None:
        self.times_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.memory_mib: list[float] = []
        self.bare = Bare()
        self._every = max(1, trials // 10)
        self._since = 0.0, 0.0

    def __call__(self, event: Event) -> None:
        """Take an event: from the end of one trial, when this returns, to that of the next."""
        if event.trial is None or event.trial.state not in FINAL_TRIAL_STATES:
            return
        if any(self._since):  # the first one waits for the DB manager
            self.times_ms.append((time.perf_counter() - self._since[0]) * 1e3)
            self.cpu_ms.append((time.process_time() - self._since[1]) * 1e3)
        if (len(self.times_ms) + 1) % self._every == 0:
            gc.collect()
            self.memory_mib.append(memory_mib(field="VmRSS"))
        self.bare.after_a_trial()
        self._since = time.perf_counter(), time.process_time()


def ours(trials: int, folder: Path, parallel: int = 1) -> Meter:
    """Measure trials of katib_callbacks.local, and the runner's memory."""
    meter, name = Meter(trials), f"nothing-{parallel}"
    runner.create(folder, experiment(name, COMMAND, trials, parallel), folder=folder)
    Runner(folder, name, meter).run()
    if len(meter.times_ms) < trials - 1:  # Katib's own count lets some more begin where several run at once
        sys.exit(f"{len(meter.times_ms) + 1} trials ended instead of {trials}")
    return meter


def resumed_s(trials: int, folder: Path) -> float:
    """Measure what passes until an experiment of many finished trials, searched by TPE, runs its next one."""
    one = experiment("many", COMMAND, trials + 1)
    one["spec"]["algorithm"]["algorithmName"] = "tpe"
    runner.create(folder, one, folder=folder)
    with ExperimentStore(database(folder)) as store:
        for number in range(trials):
            store.add_trial(trial_row("many", number, number / trials))
    begun_s: list[float] = []

    def take(event: Event) -> None:
        if event.trial is not None:
            begun_s.append(time.perf_counter())

    start_s = time.perf_counter()
    Runner(folder, "many", take).run()
    return begun_s[0] - start_s


def optuna_loop(count: int, folder: Path) -> list[float]:
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
    return bare.above(times_ms)


def ray_tune(count: int, folder: Path) -> list[float]:
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
        return bare.above([cost_ms])
    finally:
        ray.shutdown()


def measure(size: Size) -> Iterator[Figure | Growth]:
    """Run trials of each kind."""
    count = size(TRIALS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        meter = ours(count, folder)
        above_ms, beside = meter.bare.above(meter.times_ms), {}
        beside["Optuna's loop, subprocess objective, SQLite"] = optuna_loop(size(OPTUNA_TRIALS), folder)
        if find_spec("ray") is not None:
            beside["Ray Tune, subprocess trainable"] = ray_tune(RAY_TRIALS, folder)
        what, limit = "trial that does nothing, above its process, mean", COST_LIMIT_MS
        for peer, theirs_ms in beside.items():
            yield Figure(what, above_ms, "ms", peer, theirs_ms, at_most=limit, is_peer=True, is_mean=True)
        mib = meter.memory_mib
        yield Figure(f"memory that grows over {count:,} trials", [mib[-1] - mib[0]], "MiB", at_most=GROWTH_LIMIT_MIB)
        yield Figure(f"resuming {count:,} trials of TPE", [resumed_s(count, folder)], "s", at_most=RESUME_LIMIT_S)
        done = {at: statistics.median(meter.cpu_ms[at // 2 : at]) for at in GROWN_TRIALS if at <= count}
        yield Growth("a local trial, CPU of the runner", "trials done", "ms", {"ours": done}, 0)
        at_once = {}
        for parallel in PARALLEL:
            at_once[parallel] = statistics.fmean(ours(PARALLEL_TRIALS, folder / str(parallel), parallel).cpu_ms)
        yield Growth("a local trial, CPU of the runner", "trials at once", "ms", {"ours": at_once}, 0)


if __name__ == "__main__":
    run(__doc__, measure)
