"""The progress of an experiment on stdout: a live table with a progress bar, or plain lines."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from katib_callbacks.console import printable, say
from katib_callbacks.local.running.controller import Event
from katib_callbacks.local.state import states
from katib_callbacks.local.state.status import best_trial
from katib_callbacks.local.state.store import ExperimentRow, TrialRow

MAX_ROWS = 15
"""Trials in the live table: those that run, and the latest of the others."""

_BAR_WIDTH = 40

_UNFINISHED = (states.CREATED, states.RUNNING)


class Progress:
    """Counts, the best trial and the latest ones, from events; of no more trials than are shown."""

    def __init__(self, experiment: ExperimentRow, trials: Sequence[TrialRow]) -> None:
        spec = experiment.manifest["spec"]
        self.name = experiment.name
        self.objective = str(spec["objective"]["objectiveMetricName"])
        self.budget: int | None = spec.get("maxTrialCount")
        self._manifest = experiment.manifest
        self.counts: dict[str, int] = {}
        self.best: TrialRow | None = None
        self.latest: dict[str, TrialRow] = {}
        for trial in trials:
            self._take(trial)

    @property
    def done(self) -> int:
        """How many trials are in a final state."""
        return sum(self.counts.values())

    def update(self, event: Event) -> None:
        """Take an event and show it."""
        if event.trial is not None:
            self._take(event.trial)
        self.show(event)

    def show(self, event: Event) -> None:
        """Print a line."""
        trial = event.trial
        if trial is None:
            say(f"experiment {self.name}: {event.message}")
            return
        if trial.state in _UNFINISHED:
            say(f"{trial.name} {event.message}: {parameters(trial)}")
            return
        total = "" if self.budget is None else f"/{self.budget}"
        value = "" if trial.value is None else f", {printable(self.objective)} {trial.value:g}"
        say(f"[{self.done}{total}] {trial.name} {trial.state}{value}: {printable(event.message)}")

    def _take(self, trial: TrialRow) -> None:
        self.latest.pop(trial.name, None)
        self.latest[trial.name] = trial
        if len(self.latest) > MAX_ROWS:
            finished = (name for name, one in self.latest.items() if one.state not in _UNFINISHED)
            self.latest.pop(next(finished, next(iter(self.latest))))
        if trial.state in _UNFINISHED:
            return
        self.counts[trial.state] = self.counts.get(trial.state, 0) + 1
        self.best = best_trial(self._manifest, [trial] if self.best is None else [self.best, trial])


class LiveProgress(Progress):
    """The same on a terminal, drawn by rich when something has changed."""

    def __init__(self, experiment: ExperimentRow, trials: Sequence[TrialRow]) -> None:
        super().__init__(experiment, trials)
        from rich.live import Live  # noqa: PLC0415  optional

        self.live = Live(self._drawn(), auto_refresh=False)

    def show(self, event: Event) -> None:
        """Draw again."""
        del event
        self.live.update(self._drawn(), refresh=True)

    def _drawn(self) -> Any:
        from rich.console import Group  # noqa: PLC0415  optional
        from rich.progress_bar import ProgressBar  # noqa: PLC0415  optional
        from rich.table import Table  # noqa: PLC0415  optional
        from rich.text import Text  # noqa: PLC0415  optional

        table = Table("Trial", "State", self.objective, "Parameters", title=self.name, expand=True)
        for trial in self.latest.values():
            is_best = self.best is not None and trial.name == self.best.name
            value = "" if trial.value is None else f"{trial.value:g}"
            cells = (trial.name, trial.state, value, parameters(trial))
            table.add_row(*map(Text, cells), style="bold" if is_best else "")
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items()) or "none finished yet"
        total = "" if self.budget is None else f" of {self.budget}"
        bar = ProgressBar(total=self.budget, completed=self.done, pulse=self.budget is None, width=_BAR_WIDTH)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(f"{self.done}{total} trials: {counts}"))
        return Group(table, line)


def parameters(trial: TrialRow) -> str:
    """Return a trial's parameters on one line."""
    return printable(" ".join(f"{name}={value}" for name, value in trial.assignments.items()))


@contextmanager
def progress(experiment: ExperimentRow, trials: Sequence[TrialRow]) -> Iterator[Progress]:
    """Show an experiment's progress: a live table on a terminal, else a line for each change."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        shown = LiveProgress(experiment, trials)
        with shown.live:
            yield shown
        return
    yield Progress(experiment, trials)
