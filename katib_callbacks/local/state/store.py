"""All experiments and trials, in the SQLite file that also holds the observation log.

Each change is committed before its consequences are acted upon: after a crash there is what was decided, and no more. A
commit outlives its process; syncing against a power cut is left to the observation log. The schema and the rows that
mirror it make up half of this module, since a change of one is a change of all.
"""

import json
import secrets
import sqlite3
import string
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.state.observation_log import ObservationLog
from katib_callbacks.local.state.states import CREATED, FINAL_EXPERIMENT_STATES, FINAL_TRIAL_STATES, condition
from katib_callbacks.local.trainer.experiment import as_experiment, is_optimization_job, is_train_job
from katib_callbacks.metrics import StoredMetricLog

_SCHEMA = """
CREATE TABLE IF NOT EXISTS local_experiments (
    name TEXT PRIMARY KEY,
    manifest TEXT NOT NULL,         -- the user's object, as JSON, without its status
    seed INTEGER NOT NULL,          -- drawn once, for algorithms without random_state
    folder TEXT NOT NULL,           -- where it was started
    workdir TEXT,                   -- where all trials work; NULL for folders of their own
    gpus_per_trial INTEGER,         -- NULL for what the template says
    conditions TEXT NOT NULL,       -- as JSON, the current one last
    created_s REAL NOT NULL,
    started_s REAL,
    completed_s REAL,
    delete_by_s REAL                -- until then somebody waits for its runner to end
);
CREATE TABLE IF NOT EXISTS local_trials (
    name TEXT PRIMARY KEY,
    experiment TEXT NOT NULL REFERENCES local_experiments (name) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    assignments TEXT NOT NULL,      -- {parameter: string}
    point TEXT NOT NULL,            -- {parameter: the algorithm's coordinate}
    asked INTEGER NOT NULL,         -- the question to the algorithm, and ...
    told INTEGER,                   -- ... the answer, on one count of events, for replay
    value REAL,                     -- what was told; NULL for a trial without an objective
    state TEXT NOT NULL,
    attempts TEXT NOT NULL,         -- marks of the attempts, the last one last
    observation TEXT,
    conditions TEXT NOT NULL,
    created_s REAL NOT NULL,
    started_s REAL,
    completed_s REAL,
    UNIQUE (experiment, number)
);
"""


_NAME_CHARACTERS = string.ascii_lowercase + string.digits
_SUFFIX_CHARACTERS = 8  # as Katib's


@dataclass(frozen=True)
class ExperimentRow:
    """An experiment as it is stored; the columns are explained in the schema.

    ``manifest`` is Katib's object, also of an OptimizationJob; ``source`` what the user wrote.
    """

    name: str
    manifest: Mapping[str, Any]
    source: Mapping[str, Any]
    seed: int
    folder: Path
    workdir: Path | None
    gpus_per_trial: int | None
    conditions: list[dict[str, Any]]
    created_s: float
    started_s: float | None
    completed_s: float | None
    delete_by_s: float | None

    @property
    def state(self) -> str:
        """The type of the condition that holds now."""
        return str(self.conditions[-1]["type"])

    @property
    def is_optimization_job(self) -> bool:
        """Whether it is an OptimizationJob of Kubeflow Trainer."""
        return is_optimization_job(self.source)

    @property
    def is_train_job(self) -> bool:
        """Whether it is one TrainJob of Kubeflow Trainer, run for itself: its only trial has its name."""
        return is_train_job(self.source)

    @property
    def is_experiment(self) -> bool:
        """Whether it is an Experiment of Katib."""
        return not (self.is_optimization_job or self.is_train_job)

    @property
    def is_deleted(self) -> bool:
        """Whether somebody waits for its runner to end, to delete or to stop it."""
        return self.delete_by_s is not None and time.time() < self.delete_by_s


@dataclass(frozen=True)
class TrialRow:
    """A trial as it is stored; the columns are explained in the schema."""

    name: str
    experiment: str
    number: int
    assignments: dict[str, str]
    point: dict[str, Any]
    asked: int
    told: int | None
    value: float | None
    state: str
    attempts: list[str]
    observation: list[dict[str, str]] | None
    conditions: list[dict[str, Any]]
    created_s: float
    started_s: float | None = None
    completed_s: float | None = None

    @classmethod
    def created(
        cls,
        experiment: str,
        number: int,
        assignments: dict[str, str],
        point: Mapping[str, Any],
        asked: int,
        *,
        name: str | None = None,
    ) -> "TrialRow":
        """Return a new trial, Created, by default with a name such as Katib gives it."""
        now_s = time.time()
        suffix = "".join(secrets.choice(_NAME_CHARACTERS) for _ in range(_SUFFIX_CHARACTERS))
        return cls(
            name=name or f"{experiment}-{suffix}",
            experiment=experiment,
            number=number,
            assignments=assignments,
            point=dict(point),
            asked=asked,
            told=None,
            value=None,
            state=CREATED,
            attempts=[],
            observation=None,
            conditions=[condition(CREATED, "TrialCreated", "Trial is created", now_s)],
            created_s=now_s,
        )


_JSON = frozenset({"manifest", "conditions", "assignments", "point", "attempts", "observation"})
_PATHS = frozenset({"folder", "workdir"})


class ExperimentStore(ObservationLog):
    """The tables of experiments and trials, beside their rows."""

    schema = f"{_SCHEMA}{ObservationLog.schema}"

    def __enter__(self) -> "ExperimentStore":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def add_experiment(
        self,
        name: str,
        manifest: Mapping[str, Any],
        *,
        seed: int,
        folder: Path,
        workdir: Path | None = None,
        gpus_per_trial: int | None = None,
    ) -> None:
        """Store a new experiment, Created; ExperimentError if there is one of this name."""
        now_s = time.time()
        row = {
            "name": name,
            "manifest": manifest,
            "seed": seed,
            "folder": folder,
            "workdir": workdir,
            "gpus_per_trial": gpus_per_trial,
            "conditions": [condition(CREATED, "ExperimentCreated", "Experiment is created", now_s)],
            "created_s": now_s,
        }
        with self._writing():
            if self.experiments(name):
                raise ExperimentError(f"an experiment {name!r} already exists; resume or delete it")
            self._insert("local_experiments", row)

    def experiment(self, name: str) -> ExperimentRow:
        """Return one experiment; the ExperimentError for another name lists those that there are."""
        rows = self.experiments(name)
        if not rows:
            known = ", ".join(row.name for row in self.experiments()) or "none"
            raise ExperimentError(f"there is no experiment {name!r}; there are: {known}")
        return rows[0]

    def experiments(self, name: str | None = None, *, has_train_jobs: bool = False) -> list[ExperimentRow]:
        """Return all experiments, the oldest first, or the one of a name; TrainJobs by name or if they are wanted."""
        query = "SELECT * FROM local_experiments WHERE ? IS NULL OR name = ? ORDER BY created_s, name"
        rows = [experiment_row(row) for row in self._read(query, name, name)]
        return [row for row in rows if name or has_train_jobs or not row.is_train_job]

    def trials(self, experiment: str | None = None, *, first: int = 0) -> list[TrialRow]:
        """Return the trials of an experiment, or of all, in the order in which they were made; from a number on."""
        query = """
            SELECT * FROM local_trials WHERE (? IS NULL OR experiment = ?) AND number >= ? ORDER BY experiment, number
        """
        return [trial_row(row) for row in self._read(query, experiment, experiment, first)]

    def trial(self, name: str) -> TrialRow:
        """Return one trial, or raise ExperimentError."""
        rows = self._read("SELECT * FROM local_trials WHERE name = ?", name)
        if not rows:
            raise ExperimentError(f"there is no trial {name!r}")
        return trial_row(rows[0])

    def has_trial(self, name: str) -> bool:
        """Return whether there is a trial of a name."""
        return bool(self._read("SELECT 1 FROM local_trials WHERE name = ?", name))

    def unfinished_trials(self, experiment: str) -> list[TrialRow]:
        """Return the trials of an experiment that run or wait to run."""
        return [trial for trial in self.trials(experiment) if trial.state not in FINAL_TRIAL_STATES]

    def is_over(self, experiment: str) -> bool:
        """Return whether an experiment has its verdict, and no trial of it runs on or waits to."""
        return self.experiment(experiment).state in FINAL_EXPERIMENT_STATES and not self.unfinished_trials(experiment)

    def add_trial(self, trial: TrialRow) -> None:
        """Store a new trial."""
        self._insert("local_trials", trial.__dict__)

    def update_trial(self, name: str, *, rows: Iterable[StoredMetricLog] = (), **columns: Any) -> None:
        """Change columns of a trial, and add rows to its log, in one transaction."""
        with self._writing():
            self.add_rows(name, rows)
            self._update("local_trials", name, columns)

    def update_experiment(self, name: str, **columns: Any) -> None:
        """Change columns of an experiment."""
        self._update("local_experiments", name, columns)

    @contextmanager
    def editing(self, name: str) -> Iterator[tuple[ExperimentRow, dict[str, Any]]]:
        """Open an experiment that nobody else changes meanwhile; what is put into the mapping is stored in the end."""
        with self._writing():
            changes: dict[str, Any] = {}
            yield self.experiment(name), changes
            if changes:
                self._update("local_experiments", name, changes)

    def delete_experiment(self, name: str) -> None:
        """Delete an experiment, its trials and their rows."""
        with self._writing() as connection:
            for (trial,) in self._read("SELECT name FROM local_trials WHERE experiment = ?", name):
                self.delete_rows(trial)
            connection.execute("DELETE FROM local_experiments WHERE name = ?", (name,))

    # Tables and columns are names of this module, never input.

    def _insert(self, table: str, row: Mapping[str, Any]) -> None:
        query = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608
        with self._writing() as connection:
            connection.execute(query, _encoded(row))

    def _update(self, table: str, name: str, columns: Mapping[str, Any]) -> None:
        changes = ", ".join(f"{column} = ?" for column in columns)
        with self._writing() as connection:
            connection.execute(f"UPDATE {table} SET {changes} WHERE name = ?", (*_encoded(columns), name))  # noqa: S608


def experiment_row(stored: sqlite3.Row | Mapping[str, Any]) -> ExperimentRow:
    """Return the experiment of a table's row."""
    columns = _decoded(stored)
    source = columns.pop("manifest")
    return ExperimentRow(**columns, manifest=as_experiment(source), source=source)


def trial_row(stored: sqlite3.Row | Mapping[str, Any]) -> TrialRow:
    """Return the trial of a table's row."""
    return TrialRow(**_decoded(stored))


def _decoded(row: sqlite3.Row | Mapping[str, Any]) -> dict[str, Any]:
    values = dict(row)
    for column, value in values.items():
        if value is not None and column in _JSON | _PATHS:
            values[column] = json.loads(value) if column in _JSON else Path(value)
    return values


def _encoded(columns: Mapping[str, Any]) -> list[Any]:
    """Return the values of columns as they are stored."""
    kinds = dict.fromkeys(_JSON, json.dumps) | dict.fromkeys(_PATHS, str)
    return [
        kinds[column](value) if column in kinds and value is not None else value for column, value in columns.items()
    ]
