"""All experiments and trials, in the SQLite file that also holds the observation log.

Each change is committed before its consequences are acted upon: after a crash there is what was decided, and no more. A
commit outlives its process; syncing against a power cut is left to the observation log.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ExperimentError, StoreError
from katib_callbacks.local.state import observation_log
from katib_callbacks.local.state.states import CREATED, FINAL_TRIAL_STATES, condition
from katib_callbacks.local.trainer.experiment import as_experiment, is_optimization_job
from katib_callbacks.metrics import StoredMetricLog

BUSY_TIMEOUT_S = 30.0
"""How long to wait for another writer: the DB manager's writes sync the disk."""

LATEST_ROWS = 200
"""How many of a trial's rows are looked at for its latest values: a few epochs."""

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
    started_s: float | None
    completed_s: float | None


_EXPERIMENT_JSON = ("manifest", "conditions")
_TRIAL_JSON = ("assignments", "point", "attempts", "observation", "conditions")


class ExperimentStore:
    """The tables of experiments and trials in one file, which is made with its folder. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._mapped_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._connection.close()

    def __enter__(self) -> "ExperimentStore":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def version(self) -> int:
        """Return a number that changes when another connection has written; costs no look into a table."""
        with self._mapped_errors():
            number: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return number

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
            "manifest": json.dumps(manifest),
            "seed": seed,
            "folder": str(folder),
            "workdir": None if workdir is None else str(workdir),
            "gpus_per_trial": gpus_per_trial,
            "conditions": json.dumps([condition(CREATED, "ExperimentCreated", "Experiment is created", now_s)]),
            "created_s": now_s,
        }
        with self._writing() as connection:
            if connection.execute("SELECT 1 FROM local_experiments WHERE name = ?", (name,)).fetchone():
                raise ExperimentError(f"an experiment {name!r} already exists; resume or delete it")
            _insert(connection, "local_experiments", row)

    def experiment(self, name: str) -> ExperimentRow:
        """Return one experiment; the ExperimentError for another name lists those that there are."""
        rows = self.experiments(name)
        if not rows:
            known = ", ".join(row.name for row in self.experiments()) or "none"
            raise ExperimentError(f"there is no experiment {name!r}; there are: {known}")
        return rows[0]

    def experiments(self, name: str | None = None) -> list[ExperimentRow]:
        """Return all experiments, the oldest first, or the one of a name."""
        query = "SELECT * FROM local_experiments WHERE ? IS NULL OR name = ? ORDER BY created_s, name"
        with self._mapped_errors():
            rows = self._connection.execute(query, (name, name)).fetchall()
        return [experiment_row(row) for row in rows]

    def trials(self, experiment: str | None = None, *, first: int = 0) -> list[TrialRow]:
        """Return the trials of an experiment, or of all, in the order in which they were made; from a number on."""
        query = """
            SELECT * FROM local_trials WHERE (? IS NULL OR experiment = ?) AND number >= ? ORDER BY experiment, number
        """
        with self._mapped_errors():
            rows = self._connection.execute(query, (experiment, experiment, first)).fetchall()
        return [trial_row(row) for row in rows]

    def trial(self, name: str) -> TrialRow:
        """Return one trial, or raise ExperimentError."""
        with self._mapped_errors():
            row = self._connection.execute("SELECT * FROM local_trials WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise ExperimentError(f"there is no trial {name!r}")
        return trial_row(row)

    def add_trial(self, trial: TrialRow) -> None:
        """Store a new trial."""
        with self._writing() as connection:
            _insert(connection, "local_trials", _encoded(trial.__dict__, _TRIAL_JSON))

    def update_trial(self, name: str, *, rows: Iterable[StoredMetricLog] = (), **columns: Any) -> None:
        """Change columns of a trial, and add rows to its log, in one transaction."""
        with self._writing() as connection:
            observation_log.add_rows(connection, name, rows)
            _update(connection, "local_trials", name, _encoded(columns, _TRIAL_JSON))

    def unfinished_trials(self, experiment: str) -> list[TrialRow]:
        """Return the trials of an experiment that run or wait to run."""
        return [trial for trial in self.trials(experiment) if trial.state not in FINAL_TRIAL_STATES]

    def add_rows(self, trial: str, rows: Iterable[StoredMetricLog]) -> None:
        """Add rows to a trial's log."""
        with self._writing() as connection:
            observation_log.add_rows(connection, trial, rows)

    @contextmanager
    def values(self, trial: str) -> Iterator[Iterator[tuple[str, str]]]:
        """Open the names and values of a trial's rows, by time."""
        with self._mapped_errors():
            yield observation_log.read_values(self._connection, trial)

    def rows(self, trial: str) -> list[StoredMetricLog]:
        """Return a trial's rows in the observation log, by time."""
        with self._mapped_errors():
            return observation_log.read_rows(self._connection, trial)

    def latest_values(self, trial: str) -> dict[str, str]:
        """Return the latest value of each metric of a trial that its last rows have."""
        with self._mapped_errors():
            return observation_log.read_latest_values(self._connection, trial, LATEST_ROWS)

    def rows_of_all(self, experiment: str) -> dict[str, list[StoredMetricLog]]:
        """Return the rows of all trials of an experiment, each one's by time."""
        with self._mapped_errors():
            return observation_log.read_rows_of_all(self._connection, experiment)

    def stop_reason(self, trial: str) -> str | None:
        """Return why the DB manager ended a trial early; None if it did not."""
        with self._mapped_errors():
            return observation_log.read_stop_reason(self._connection, trial)

    def delete_rows(self, trial: str) -> None:
        """Delete a trial's rows in the observation log."""
        with self._writing() as connection:
            observation_log.delete_rows(connection, trial)

    def update_experiment(self, name: str, **columns: Any) -> None:
        """Change columns of an experiment."""
        with self._writing() as connection:
            _update(connection, "local_experiments", name, _encoded(columns, _EXPERIMENT_JSON))

    @contextmanager
    def editing(self, name: str) -> Iterator["tuple[ExperimentRow, dict[str, Any]]"]:
        """Open an experiment that nobody else changes meanwhile; what is put into the mapping is stored in the end."""
        with self._writing() as connection:
            changes: dict[str, Any] = {}
            yield self.experiment(name), changes
            if changes:
                _update(connection, "local_experiments", name, _encoded(changes, _EXPERIMENT_JSON))

    def delete_experiment(self, name: str) -> None:
        """Delete an experiment, its trials and their rows."""
        with self._writing() as connection:
            query = "SELECT name FROM local_trials WHERE experiment = ?"
            for (trial,) in connection.execute(query, (name,)).fetchall():
                observation_log.delete_rows(connection, trial)
            connection.execute("DELETE FROM local_experiments WHERE name = ?", (name,))

    def _prepare(self) -> None:
        (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: SQLite cannot keep a write-ahead log there; use a local disk")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        has_tables = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'local_trials'").fetchone()
        if not has_tables:
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}{observation_log.SCHEMA} COMMIT;")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._mapped_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        """Turn what SQLite and the file system raise into a StoreError that names the file: the one place for it."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}") from error


def experiment_row(stored: sqlite3.Row | Mapping[str, Any]) -> ExperimentRow:
    """Return the experiment of a table's row."""
    columns = _decoded(stored, _EXPERIMENT_JSON)
    source = columns.pop("manifest")
    return ExperimentRow(**columns, manifest=as_experiment(source), source=source)


def trial_row(stored: sqlite3.Row | Mapping[str, Any]) -> TrialRow:
    """Return the trial of a table's row."""
    return TrialRow(**_decoded(stored, _TRIAL_JSON))


def _decoded(row: sqlite3.Row | Mapping[str, Any], json_columns: tuple[str, ...]) -> dict[str, Any]:
    values = dict(row)
    for column in json_columns:
        if values[column] is not None:
            values[column] = json.loads(values[column])
    for column in ("folder", "workdir"):
        if values.get(column) is not None:
            values[column] = Path(values[column])
    return values


def _encoded(values: Mapping[str, Any], json_columns: tuple[str, ...]) -> dict[str, Any]:
    return {
        column: json.dumps(value) if column in json_columns and value is not None else value
        for column, value in values.items()
    }


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    places = ", ".join("?" * len(row))
    # Table and columns are names of this module, never input.
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))  # noqa: S608


def _update(connection: sqlite3.Connection, table: str, name: str, columns: Mapping[str, Any]) -> None:
    changes = ", ".join(f"{column} = ?" for column in columns)
    connection.execute(f"UPDATE {table} SET {changes} WHERE name = ?", (*columns.values(), name))  # noqa: S608  as above
