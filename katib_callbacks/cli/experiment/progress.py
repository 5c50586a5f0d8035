"""The progress of an experiment on stdout: a live table with a progress bar, or plain lines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from katib_callbacks.cli.experiment.home import opened
from katib_callbacks.console import printable, say
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.controller import Event
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import TrialRow
from katib_callbacks.local.state.watch import Watch
from katib_callbacks.pictures.live import REFRESH_S, Snapshot, ended_line, news_lines, shown_live

_UNFINISHED = (states.CREATED, states.RUNNING)


class Lines:
    """A line for each change that the runner tells of."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._done = snapshot.done

    def update(self, event: Event) -> None:
        """Print the line of an event."""
        trial = event.trial
        if trial is None:
            say(f"experiment {self._snapshot.name}: {event.message}")
        elif trial.state in _UNFINISHED:
            say(f"{trial.name} {event.message}: {parameters(trial)}")
        else:
            self._done += 1
            say(ended_line(self._snapshot, trial.name, trial.state, trial.value, event.message, self._done))


def parameters(trial: TrialRow) -> str:
    """Return a trial's parameters on one line."""
    return printable(" ".join(f"{name}={value}" for name, value in trial.assignments.items()))


@contextmanager
def progress(home: Path, name: str) -> Iterator[Callable[[Event], None]]:
    """Show an experiment that this process runs: a live table on a terminal, else a line for each event it is told."""
    with opened(home) as store:
        look = Watch(store, home, name).look
        if not _is_terminal():
            yield Lines(look()).update
            return
        with shown_live(look):
            yield lambda _: None


def watch(home: Path, name: str) -> Snapshot:
    """Show an experiment until it is over or no process runs it, and return what it came to.

    Off a terminal a line says how a trial has ended, and the first lines are those of trials that had before.
    """
    with opened(home) as store:
        look = Watch(store, home, name).look
        if _is_terminal():
            with shown_live(look) as latest:
                while runner.is_run(home, name) and not latest().is_over:
                    time.sleep(REFRESH_S)
            return latest()
        while True:
            is_run = runner.is_run(home, name)
            snapshot = look()
            for line in news_lines(snapshot):
                say(line)
            if snapshot.is_over or not is_run:
                return snapshot
            time.sleep(REFRESH_S)


def _is_terminal() -> bool:
    return sys.stdout.isatty() and find_spec("rich") is not None
