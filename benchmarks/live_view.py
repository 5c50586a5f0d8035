"""What it costs to look at an experiment: the live view beside the trials, and the epochs that a trial shows.

The view's share is the CPU time of its thread, by that of the experiment's processes, in one and the same run, drawn on
a pseudo-terminal.
"""

import os
import pty
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, Size, run
from machine import experiment

from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.local.state.watch import Watch
from katib_callbacks.pictures.live import shown_live
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.settings import Runtime

MAX_SHARE_PERCENT = 1.0
MAX_EPOCH_US = 200.0
"""An epoch that takes less than 20 ms would feel one percent."""

TRIALS, EPOCHS = 12, 20
TRAINING_EPOCHS = 2_000
RUNS = 5

TRIAL = f"""
import os, time
from katib_callbacks.recording.recorder import MetricRecorder

recorder = MetricRecorder(["loss"])
recorder.start(None)
recorder.begin_progress(lambda: 0.0)
for epoch in range(1, {EPOCHS} + 1):
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass
    recorder.progress.show(epoch / {EPOCHS})
    recorder.record({{"loss": float(os.environ["X"]) / epoch}}, row=(epoch, None, 0))
recorder.finish()
recorder.deliver()
"""


def percent_of_the_view(home: Path, trials: int) -> float:
    """Run an experiment under the live view, and return the view's CPU time by that of all the rest."""
    command = [sys.executable, "-c", TRIAL]
    name, _ = runner.create(home, experiment("live", command, trials, parallel=2), folder=home)
    spent_s: dict[int, float] = {}
    with ExperimentStore(database(home)) as store, on_a_terminal():
        watch = Watch(store, home, name)

        def look() -> object:
            spent_s[threading.get_ident()] = time.thread_time()
            return watch.look()

        before_s = used_s()
        with shown_live(look):  # type: ignore[arg-type]
            Runner(home, name).run()
        all_s = used_s() - before_s
    view_s = sum(seconds for thread, seconds in spent_s.items() if thread != threading.get_ident())
    return view_s / (all_s - view_s) * 100


@contextmanager
def on_a_terminal() -> Iterator[None]:
    """Let stdout be a terminal whose output is read and thrown away."""
    primary, secondary = pty.openpty()
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(secondary, 1)

    def drain() -> None:
        try:
            while os.read(primary, 65_536):
                pass
        except OSError:
            os.close(primary)

    threading.Thread(target=drain, daemon=True).start()
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(secondary)


def used_s() -> float:
    """Return the CPU time of this process and of all its children that have ended."""
    spent = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def epoch_us(path: Path | None) -> float:
    """Return what an epoch costs a trial that shows it in a file, or nowhere."""
    environ = {"KATIB_TRIAL_NAME": "t", "KATIB_DB_MANAGER_ADDRESS": "127.0.0.1:1"}
    if path is not None:
        environ["KATIB_CALLBACKS_LOCAL_PROGRESS"] = str(path)
    recorder = MetricRecorder(["loss", "accuracy"], _runtime=Runtime(environ=lambda: environ))
    recorder.start(None)
    recorder.begin_progress(lambda: 0.0)
    start_s = time.process_time()
    for epoch in range(TRAINING_EPOCHS):
        recorder.record({"loss": 1 / (epoch + 1), "accuracy": 0.9}, row=(epoch + 1, None, 0))
    spent_s = time.process_time() - start_s
    recorder.abandon()
    return spent_s / TRAINING_EPOCHS * 1e6


def measure(size: Size) -> Iterator[Figure]:
    """Look at an experiment, then at epochs."""
    trials = size(TRIALS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        percent = percent_of_the_view(Path(folder), trials)
        pairs = [(epoch_us(None), epoch_us(Path(folder, f"progress-{number}"))) for number in range(RUNS)]
    yield Figure(f"the live view, of the CPU time of {trials} trials", [percent], "%", at_most=MAX_SHARE_PERCENT)
    added_us = [shown - plain for plain, shown in pairs]
    yield Figure("an epoch that a trial shows, added CPU", added_us, "us", at_most=MAX_EPOCH_US)


if __name__ == "__main__":
    run(__doc__, measure)
