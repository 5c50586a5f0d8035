"""An experiment and its trials as pictures show them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from katib_callbacks.errors import MissingDependencyError
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.metrics.scalars import as_number

CREATED, RUNNING, SUCCEEDED, EARLY_STOPPED = "Created", "Running", "Succeeded", "EarlyStopped"
UNFINISHED = (CREATED, RUNNING)
"""Katib's words for the states of trials, as far as they are looked at here."""


@dataclass(frozen=True)
class ParameterRecord:
    """A parameter of the search space; ``kind`` is ``int``, ``double``, ``discrete`` or ``categorical``."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False


@dataclass(frozen=True)
class TrialRecord:
    """A trial.

    Args:
        objective: The value that counts; None if there is none, or none yet.
        metrics: For each metric that was declared its ``min``, ``max`` and ``latest``, as texts.
        rows: What the DB manager holds, by time.
        epochs: What the trial's callback showed while it trained, an epoch or step each.
    """

    name: str
    number: int
    state: str
    reason: str
    message: str
    parameters: Mapping[str, str]
    objective: float | None
    metrics: Mapping[str, Mapping[str, str]]
    created_s: float
    started_s: float | None
    completed_s: float | None
    rows: Sequence[StoredMetricLog] = ()
    epochs: Sequence[Mapping[str, float]] = ()

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return a metric over epochs, from 1: as it was reported, or shown where that is more; finite values only."""
        reported = [row.value for row in self.rows if row.name == metric]
        shown = [(number, epoch[metric]) for number, epoch in enumerate(self.epochs, 1) if metric in epoch]
        points = shown if len(shown) > len(reported) else enumerate(map(as_number, reported), 1)
        return [(number, value) for number, value in points if value is not None and math.isfinite(value)]


@dataclass(frozen=True)
class ExperimentRecord:
    """An experiment with its trials, in the order of their numbers."""

    name: str
    state: str
    message: str
    objective: str
    is_maximized: bool
    metrics: Sequence[str]
    parameters: Sequence[ParameterRecord]
    budget: int | None
    trials: Sequence[TrialRecord] = field(repr=False)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best objective, the first of equal ones; None if none has one."""
        valued = [trial for trial in self.trials if trial.objective is not None]
        sign = -1 if self.is_maximized else 1
        return min(valued, key=lambda trial: sign * (trial.objective or 0.0), default=None)


def shortened(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters, without its middle if it was longer: ends tell names apart."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def all_shortened(texts: Sequence[str], width: int) -> dict[str, str]:
    """Return a short name for each text, no two of which are equal."""
    names: dict[str, str] = {}
    for text in texts:
        short, number = shortened(text, width), 1
        while short in names.values():
            number += 1
            mark = f"~{number}"
            short = f"{shortened(text, width - len(mark))}{mark}"
        names[text] = short
    return names


def check_installed(what: str, extra: str, *modules: str) -> None:
    """Raise MissingDependencyError, which names the extra, unless all modules are installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(f'{what} needs {", ".join(missing)}: pip install "katib-callbacks[{extra}]"')
