"""The experiments of this machine: what their store and the files of their trials say, only read."""

import math
import shlex
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local.running.runner import database, is_run
from katib_callbacks.local.state import states
from katib_callbacks.local.state.status import best_trial
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow
from katib_callbacks.local.trainer.objects import verdict
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.template import TrialTemplate
from katib_callbacks.page.changes import Changes
from katib_callbacks.page.curves import curves, drawn, fuller
from katib_callbacks.page.logs import log_files, read_log, termination_message
from katib_callbacks.reporting.progress_file import ProgressReader, ShownProgress

STOPPED = "Stopped"
"""The state that is shown of an experiment that is not over and that no process runs."""

_REDUCED = ("latest", "min", "max")

_STATES = (
    *(states.SUCCEEDED, states.EARLY_STOPPED, states.RUNNING, states.CREATED),
    *(states.METRICS_UNAVAILABLE, states.FAILED, states.KILLED),
)
"""From good to bad, as they are counted."""

RUN_CHECK_INTERVAL_S = 5.0
"""How long an answer counts whether a process runs an experiment: to ask takes its lock for a moment."""

_SHOWN_PORT = 29500
"""In the command of a trial whose processes meet at a port; a trial is given a free one."""


@dataclass
class _Known:
    """An experiment as it was read last."""

    version: int = -1
    row: ExperimentRow | None = None
    trials: list[TrialRow] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    was_run: tuple[float, bool] = (float("-inf"), False)


class LocalSource:
    """Reads a home. One question at a time is answered, and no table is read before another process has written."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._lock = threading.Lock()
        self._store: ExperimentStore | None = None
        self._file: tuple[int, int] | None = None
        self._known: dict[str, _Known] = {}
        self._readers: dict[str, ProgressReader] = {}

    def close(self) -> None:
        """Close the store. May be called twice."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store, self._file, self._known, self._readers = None, None, {}, {}

    @contextmanager
    def _opened(self) -> Iterator[ExperimentStore]:
        """Open the store that lies there now: the home may have been deleted, and another one made."""
        path = database(self._home)
        with self._lock:
            try:
                found = path.stat()
            except OSError as error:
                self._close()
                raise ExperimentError(f"{self._home} holds no experiments (no {path.name})") from error
            if self._store is None or self._file != (found.st_dev, found.st_ino):
                self._close()
                self._store, self._file = ExperimentStore(path), (found.st_dev, found.st_ino)
            yield self._store

    # -- experiments -----------------------------------------------------------------------------------------------

    def experiments(self) -> list[dict[str, Any]]:
        """Return all experiments, the newest first."""
        with self._opened() as store:
            version = store.version()
            rows = {row.name: row for row in store.experiments()}
            self._known = {name: self._known.get(name, _Known()) for name in rows}
            return [self._experiment(self._read(store, row, version)) for row in reversed(rows.values())]

    def experiment(self, name: str, generation: str, revision: int) -> dict[str, Any]:
        """Return what has changed in an experiment since a revision."""
        with self._opened() as store:
            version = store.version()
            known = self._known.get(name)
            row = known.row if known is not None and known.version == version else None
            known = self._read(store, row or store.experiment(name), version)
            shown = zip(known.trials, known.shown, strict=True)
            trials = [self._trial(store, trial) if trial.state == states.RUNNING else one for trial, one in shown]
            known.changes.take(self._experiment(known), trials)
            return known.changes.since(generation, revision)

    def _read(self, store: ExperimentStore, row: ExperimentRow, version: int) -> _Known:
        known = self._known.setdefault(row.name, _Known())
        if known.version != version:
            known.version, known.row, known.trials = version, row, store.trials(row.name)
            known.shown = [self._trial(store, trial) for trial in known.trials]
        return known

    def _experiment(self, known: _Known) -> dict[str, Any]:
        row, trials = known.row, known.trials
        assert row is not None  # noqa: S101  it was read
        spec, objective = row.manifest["spec"], row.manifest["spec"]["objective"]
        state, message = verdict(row, trials)
        if row.state not in states.FINAL_EXPERIMENT_STATES and not self._is_run(known):
            state, message = STOPPED, f"no process runs it; go on with: katib-callbacks experiment resume {row.name}"
        best, counts = best_trial(row.manifest, trials), Counter(trial.state for trial in trials)
        return {
            "name": row.name,
            "state": state,
            "message": message,
            "kind": "OptimizationJob" if row.is_optimization_job else "Experiment",
            "counts": {state: counts[state] for state in _STATES if counts[state]},
            "max_trials": spec.get("maxTrialCount"),
            "parallel_trials": spec.get("parallelTrialCount"),
            "algorithm": spec["algorithm"]["algorithmName"],
            "objective": {
                "metric": objective["objectiveMetricName"],
                "type": objective["type"],
                "goal": objective.get("goal"),
            },
            "metrics": [objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or ())],
            "parameters": [_parameter(one) for one in spec.get("parameters") or ()],
            "best": None if best is None else {"name": best.name, "number": best.number, "value": best.value},
            "created_s": row.created_s,
            "started_s": row.started_s,
            "completed_s": row.completed_s,
            "has_logs": True,
        }

    def _is_run(self, known: _Known) -> bool:
        at_s, was_run = known.was_run
        if known.row is not None and time.monotonic() >= at_s + RUN_CHECK_INTERVAL_S:
            was_run = is_run(self._home, known.row.name)
            known.was_run = time.monotonic(), was_run
        return was_run

    # -- trials ----------------------------------------------------------------------------------------------------

    def curves(self, trials: Sequence[str]) -> dict[str, Any]:
        """Return the curves of trials, by name."""
        with self._opened() as store:
            return {name: self._curves(store, store.trial(name)) for name in trials}

    def _curves(self, store: ExperimentStore, trial: TrialRow) -> dict[str, Any]:
        rows = store.rows(trial.name)
        stored = curves((row.name, row.value, row.timestamp.timestamp()) for row in rows if row.timestamp.year > 1)
        found = fuller(stored, self._progress(trial).rows)
        return {"state": trial.state, "number": trial.number, "metrics": drawn(found, trial.started_s)}

    def _progress(self, trial: TrialRow) -> ShownProgress:
        """Return how far a trial's callback says that it is, and was."""
        path = TrialFiles(self._home, trial.experiment, trial.name).progress
        if trial.state != states.RUNNING:
            self._readers.pop(trial.name, None)
            return ProgressReader(path).read()
        return self._readers.setdefault(trial.name, ProgressReader(path)).read()

    def _trial(self, store: ExperimentStore, trial: TrialRow) -> dict[str, Any]:
        told = trial.conditions[-1]
        shown: dict[str, Any] = {
            "name": trial.name,
            "number": trial.number,
            "state": trial.state,
            "reason": told["reason"],
            "message": told["message"],
            "parameters": trial.assignments,
            "value": trial.value,
            "metrics": {one["name"]: {key: one[key] for key in _REDUCED} for one in trial.observation or ()},
            "started_s": trial.started_s,
            "completed_s": trial.completed_s,
        }
        if trial.state == states.RUNNING:
            progress = self._progress(trial)
            latest = {**store.latest_values(trial.name), **{name: repr(one) for name, one in progress.latest.items()}}
            shown["metrics"] = {name: {"latest": value} for name, value in latest.items()}
            shown["progress"] = {
                "share": _finite(progress.fraction),
                "remaining_s": _finite(progress.remaining_s),
                "row": progress.place and progress.place.row,
            }
        return shown

    def trial(self, name: str) -> dict[str, Any]:
        """Return all about a trial but its curves and the text of its logs."""
        with self._opened() as store:
            trial = store.trial(name)
            row = store.experiment(trial.experiment)
            shown = self._trial(store, trial)
        files = TrialFiles(self._home, row.name, name)
        return {
            **shown,
            "experiment": row.name,
            "attempts": len(trial.attempts),
            "commands": _commands(row, trial),
            "conditions": [
                {key: one[key] for key in ("type", "status", "reason", "message", "lastTransitionTime")}
                for one in trial.conditions
            ],
            "folder": str(row.workdir or files.folder),
            "logs": [path.name for path in log_files(files)],
            "termination_message": termination_message(files),
            "trainer_status": files.status,
        }

    def log(self, trial: str, file: str, offset: int | None) -> dict[str, Any]:
        """Return what a log has from an offset on; its last part without one."""
        with self._opened() as store:
            found = store.trial(trial)
        piece = read_log(TrialFiles(self._home, found.experiment, found.name), file, offset)
        return {**piece, "is_over": found.state in states.FINAL_TRIAL_STATES}


def _finite(value: object) -> float | None:
    """Return a number that JSON has; a trial's own program may have written the file."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _parameter(spec: dict[str, Any]) -> dict[str, Any]:
    space = spec.get("feasibleSpace") or {}
    is_number = spec["parameterType"] in {"double", "int"}
    return {
        "name": spec["name"],
        "is_number": is_number,
        "is_logarithmic": is_number and str(space.get("distribution", "")).startswith("log"),
    }


def _commands(row: ExperimentRow, trial: TrialRow) -> list[str]:
    """Return the command of each of a trial's processes, as a shell reads it."""
    template = TrialTemplate.of(row.manifest)
    try:
        plan = template.plan(trial.name, trial.assignments, free_port=lambda: _SHOWN_PORT)
    except ConfigurationError as error:
        return [str(error)]
    return [shlex.join(process.command) for process in plan.processes]
