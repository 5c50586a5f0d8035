"""Measure what it costs to look at an experiment: the live view beside the trials, and the epochs that a trial shows.

The view's share is the CPU time of its thread, by that of the experiment's processes, in one and the same run, drawn on
a pseudo-terminal. ``--check`` fails where a limit is missed.
"""

import argparse
import os
import pty
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.local.state.watch import Watch
from katib_callbacks.pictures.live import shown_live
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.recording.rows import Position
from katib_callbacks.settings import Runtime

MAX_SHARE = 0.01
MAX_EPOCH_US = 200.0
"""An epoch that takes less than 20 ms would feel one percent."""

TRIALS, EPOCHS = 12, 20
TRAINING_EPOCHS = 2_000
RUNS = 5

TRIAL = f"""
import os, time
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.recording.rows import Position

recorder = MetricRecorder(["loss"])
recorder.start(None)
recorder.begin_progress(lambda: 0.0)
for epoch in range(1, {EPOCHS} + 1):
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass
    recorder.progress.show(epoch / {EPOCHS})
    recorder.record({{"loss": float(os.environ["X"]) / epoch}}, row=Position(epoch=epoch))
recorder.finish()
recorder.deliver()
"""


def experiment() -> dict[str, object]:
    """Return an experiment whose trials train for two seconds of CPU time each, two at a time."""
    container = {
        "name": "main",
        "command": [sys.executable, "-c", TRIAL],
        "env": [{"name": "X", "value": "${trialParameters.x}"}],
    }
    return {
        "metadata": {"name": "live"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": 2,
            "maxTrialCount": TRIALS,
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


def share_of_the_view(home: Path) -> float:
    """Run an experiment under the live view, and return the view's CPU time by that of all the rest."""
    name, _ = runner.create(home, experiment(), folder=home)
    spent_s: dict[int, float] = {}
    with ExperimentStore(database(home)) as store, on_a_terminal():
        watch = Watch(store, home, name)

        def look() -> object:
            spent_s[threading.get_ident()] = time.thread_time()
            return watch.look()

        before_s = cpu_s()
        with shown_live(look):  # type: ignore[arg-type]
            Runner(home, name).run()
        all_s = cpu_s() - before_s
    view_s = sum(seconds for thread, seconds in spent_s.items() if thread != threading.get_ident())
    return view_s / (all_s - view_s)


class on_a_terminal:  # noqa: N801  used as a function
    """Let stdout be a terminal whose output is read and thrown away."""

    def __enter__(self) -> None:
        primary, self._secondary = pty.openpty()
        self._stdout = os.dup(1)
        sys.stdout.flush()
        os.dup2(self._secondary, 1)
        self._primary = primary
        threading.Thread(target=self._drain, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        os.dup2(self._stdout, 1)
        os.close(self._stdout)
        os.close(self._secondary)

    def _drain(self) -> None:
        try:
            while os.read(self._primary, 65_536):
                pass
        except OSError:
            os.close(self._primary)


def cpu_s() -> float:
    """Return the CPU time of this process and of all its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
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
        recorder.record({"loss": 1 / (epoch + 1), "accuracy": 0.9}, row=Position(epoch=epoch + 1))
    spent_s = time.process_time() - start_s
    recorder.abandon()
    return spent_s / TRAINING_EPOCHS * 1e6


def main() -> None:
    """Measure, print, and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a limit is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        share = share_of_the_view(Path(folder))
        paths = [Path(folder) / f"progress-{number}" for number in range(RUNS)]
        pairs = [(epoch_us(None), epoch_us(path)) for path in paths]
    added_us = median(shown - plain for plain, shown in pairs)
    print(f"the live view: {share:.2%} of the CPU time of an experiment of {TRIALS} trials (at most {MAX_SHARE:.0%})")
    print(f"an epoch that is shown: {added_us:.0f} us more of a trial's CPU time (at most {MAX_EPOCH_US:.0f} us)")
    if arguments.check and (share > MAX_SHARE or added_us > MAX_EPOCH_US):
        sys.exit("a limit was missed")


if __name__ == "__main__":
    main()
