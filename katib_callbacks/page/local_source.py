"""The experiments of this machine: what their store and the files of their trials say, only read."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.running.runner import database, is_run
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.page.changes import Changes
from katib_callbacks.page.curves import curves, drawn, fuller
from katib_callbacks.page.logs import log_files, read_log, termination_message
from katib_callbacks.page.shown import shown_commands, shown_experiment, shown_running, shown_trial
from katib_callbacks.reporting.progress_file import ProgressReader, ShownProgress

RUN_CHECK_INTERVAL_S = 5.0
"""How long an answer counts whether a process runs an experiment: to ask takes its lock for a moment."""

PAUSE_FACTOR = 100.0
"""For so many times as long as it took to read an experiment it is not read again: trials share the machine."""


@dataclass
class _Known:
    """An experiment as it was read last, and what was made of it."""

    row: ExperimentRow
    version: int = -1
    due_s: float = -math.inf
    trials: list[TrialRow] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    is_run: bool = False
    run_checked_s: float = -math.inf
    changes: Changes = field(default_factory=Changes)


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
            rows = {row.name: row for row in store.experiments()}
            self._known = {name: known for name, known in self._known.items() if name in rows}
            return [self._read(store, name).summary for name in reversed(rows)]

    def experiment(self, name: str, generation: str, revision: int) -> dict[str, Any]:
        """Return what has changed in an experiment since a revision."""
        with self._opened() as store:
            known = self._read(store, name)
            shown = zip(known.trials, known.shown, strict=True)
            trials = [self._running(store, trial) if trial.state == states.RUNNING else one for trial, one in shown]
            known.changes.take(known.summary, trials)
            return known.changes.since(generation, revision)

    def _read(self, store: ExperimentStore, name: str) -> _Known:
        """Return an experiment as it is; as it was a moment ago, where reading it takes long."""
        known, now_s, version = self._known.get(name), time.monotonic(), store.version()
        if known is None or (known.version != version and now_s >= known.due_s):
            begin_s = time.thread_time()
            row = store.experiment(name)
            known = self._known.setdefault(name, _Known(row))
            known.version, known.row, known.trials = version, row, store.trials(name)
            known.shown, known.summary = [shown_trial(trial) for trial in known.trials], {}
            known.due_s = now_s + PAUSE_FACTOR * (time.thread_time() - begin_s)
        was_run = known.is_run
        if (
            known.row.state not in states.FINAL_EXPERIMENT_STATES
            and now_s >= known.run_checked_s + RUN_CHECK_INTERVAL_S
        ):
            known.is_run, known.run_checked_s = is_run(self._home, name), now_s
        if not known.summary or known.is_run != was_run:
            known.summary = shown_experiment(known.row, known.trials, is_run=known.is_run)
        return known

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

    def _running(self, store: ExperimentStore, trial: TrialRow) -> dict[str, Any]:
        return shown_running(trial, store.latest_values(trial.name), self._progress(trial))

    def trial(self, name: str) -> dict[str, Any]:
        """Return all about a trial but its curves and the text of its logs."""
        with self._opened() as store:
            trial = store.trial(name)
            row = store.experiment(trial.experiment)
            shown = self._running(store, trial) if trial.state == states.RUNNING else shown_trial(trial)
        files = TrialFiles(self._home, row.name, name)
        return {
            **shown,
            "experiment": row.name,
            "attempts": len(trial.attempts),
            "commands": shown_commands(row, trial),
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
