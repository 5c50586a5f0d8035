"""The trials of a cluster whose Experiments cannot be read: what a DB manager holds for the trials that are named.

Katib's protocol lists no trials, so their names are given. It knows no states and no logs either: a trial is
what it reported.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from katib_callbacks.errors import ExperimentError, KatibCallbacksError
from katib_callbacks.local.collectors.observation import (
    UNAVAILABLE,
    objective_text,
    objective_value,
    reduce,
)
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.metrics.scalars import as_number
from katib_callbacks.page.changes import Changes
from katib_callbacks.page.curves import curves, drawn

REPORTED, NO_VALUES, NO_ROWS = "Reported", "MetricsUnavailable", "No rows"

INTERVAL_S = 10.0
"""How long the answers count, at least."""

PAUSE_FACTOR = 20.0
"""And so many times as long as they took: Katib's table has no index on the trial, and each one is a scan."""

Rows = list[StoredMetricLog]


class DBManagerSource:
    """Reads the rows of trials by ``read``, which raises KatibCallbacksError; ``objective`` is a type and a metric."""

    def __init__(
        self,
        read: Callable[[str], Rows],
        experiment: str,
        trials: Sequence[str],
        objective: tuple[str, str] | None = None,
    ) -> None:
        self._read = read
        self._name = experiment
        self._names = list(dict.fromkeys(trials))
        self._objective = objective
        self._lock = threading.Lock()
        self._rows: Mapping[str, Rows] = {}
        self._due_s = float("-inf")
        self._error: KatibCallbacksError | None = None
        self._changes = Changes()

    def close(self) -> None:
        """Close nothing: a connection lives as long as its question."""

    def experiments(self) -> list[dict[str, Any]]:
        """Return the one experiment that there is."""
        return [self._experiment(self._shown())]

    def experiment(self, name: str, generation: str, revision: int) -> dict[str, Any]:
        """Return what has changed in the experiment since a revision."""
        if name != self._name:
            raise ExperimentError(f"there is no experiment {name!r}; there is: {self._name}")
        trials = self._shown()
        with self._lock:
            self._changes.take(self._experiment(trials), trials)
            return self._changes.since(generation, revision)

    def curves(self, trials: Sequence[str]) -> dict[str, Any]:
        """Return the curves of trials, by name."""
        found = {}
        for name in trials:
            rows, shown = self._rows_of(name), self._trial(self._number(name), name)
            drawing = curves((row.name, row.value, row.timestamp.timestamp()) for row in _timed(rows))
            metrics = drawn(drawing, shown["started_s"])
            found[name] = {"state": shown["state"], "number": shown["number"], "metrics": metrics}
        return found

    def trial(self, name: str) -> dict[str, Any]:
        """Return what the rows of a trial say."""
        nothing: dict[str, Any] = {
            "commands": [],
            "conditions": [],
            "logs": [],
            "termination_message": "",
            "trainer_status": None,
        }
        return {**self._trial(self._number(name), name), **nothing, "experiment": self._name}

    def log(self, trial: str, file: str, offset: int | None) -> dict[str, Any]:
        """Refuse: a DB manager has no logs."""
        del file, offset
        raise ExperimentError(f"a DB manager has no log of trial {trial!r}; see: kubectl logs")

    def _refresh(self) -> Mapping[str, Rows]:
        """Read the rows of all trials, unless they were read a moment ago."""
        with self._lock:
            begin_s = time.monotonic()
            if begin_s >= self._due_s:
                self._error = None
                try:
                    self._rows = {name: self._read(name) for name in self._names}
                except KatibCallbacksError as error:
                    self._error = error
                finally:  # a server that does not answer is not asked more often
                    end_s = time.monotonic()
                    self._due_s = end_s + max(INTERVAL_S, PAUSE_FACTOR * (end_s - begin_s))
            if self._error is not None:
                raise self._error
            return self._rows

    def _rows_of(self, name: str) -> Rows:
        return self._refresh().get(name, [])

    def _number(self, name: str) -> int:
        if name not in self._names:
            raise ExperimentError(f"there is no trial {name!r}")
        return self._names.index(name)

    def _shown(self) -> list[dict[str, Any]]:
        self._refresh()
        return [self._trial(number, name) for number, name in enumerate(self._names)]

    def _trial(self, place: int, name: str) -> dict[str, Any]:
        rows = self._rows.get(name, [])
        timed = _timed(rows)
        names = list(dict.fromkeys(row.name for row in rows))
        observation = reduce(((row.name, row.value) for row in rows), names)
        text = UNAVAILABLE
        if self._objective is not None:
            kind, metric = self._objective
            text = objective_text(observation, metric, "max" if kind == "maximize" else "min")
        has_values = any(as_number(row.value) is not None for row in rows)
        return {
            "name": name,
            "number": place,
            "state": NO_ROWS if not rows else REPORTED if has_values else NO_VALUES,
            "reason": "",
            "message": "",
            "parameters": {},
            "value": objective_value(text),
            "metrics": {one["name"]: {key: one[key] for key in ("latest", "min", "max")} for one in observation},
            "started_s": timed[0].timestamp.timestamp() if timed else None,
            "completed_s": timed[-1].timestamp.timestamp() if timed else None,
        }

    def _experiment(self, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        kind, metric = self._objective or (None, None)
        valued = [trial for trial in trials if trial["value"] is not None]
        sign = -1 if kind == "maximize" else 1
        best = min(valued, key=lambda trial: sign * trial["value"], default=None)
        begins = [trial["started_s"] for trial in trials if trial["started_s"] is not None]
        return {
            "name": self._name,
            "state": "Rows only",
            "message": "what a DB manager holds for the trials that were named; states and logs are the cluster's",
            "kind": "Experiment",
            "counts": Counter(trial["state"] for trial in trials),
            "max_trials": None,
            "parallel_trials": None,
            "algorithm": None,
            "objective": {"metric": metric, "type": kind, "goal": None},
            "metrics": list(dict.fromkeys(name for trial in trials for name in trial["metrics"])),
            "parameters": [],
            "best": None if best is None else {key: best[key] for key in ("name", "number", "value")},
            "created_s": min(begins, default=None),
            "started_s": min(begins, default=None),
            "completed_s": None,
            "has_logs": False,
        }


def _timed(rows: Rows) -> Rows:
    """Return the rows that have a time of their own."""
    return [row for row in rows if row.timestamp.year > 1]
