"""The rows of trials, in the SQLite file in which the experiment's DB manager keeps them.

The DB manager commits before it replies, so a delivered row is read here at once; what is written here is committed
together with what is decided from it.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from katib_callbacks.errors import StoreError
from katib_callbacks.metrics import StoredMetricLog

BUSY_TIMEOUT_S = 30.0
"""How long to wait for another writer: the DB manager's writes sync the disk."""

LATEST_ROWS = 200
"""How many of a trial's rows are looked at for its latest values: a few epochs."""


class ObservationLog:
    """The rows of all trials in one file, which is made with its folder. For one thread at a time."""

    schema = """
CREATE TABLE IF NOT EXISTS observation_logs (
    trial_name VARCHAR(255) NOT NULL,
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    time DATETIME,
    metric_name VARCHAR(255) NOT NULL,
    value TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_observation_logs_trial_time ON observation_logs (trial_name, time);
"""
    """As :mod:`katib_callbacks.db_manager.store.table` has it: the first one who opens the file makes the table."""

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

    def version(self) -> int:
        """Return a number that changes when another connection has written; costs no look into a table."""
        number: int = self._read("PRAGMA data_version")[0][0]
        return number

    def rows(self, trial: str) -> list[StoredMetricLog]:
        """Return a trial's rows by time, those of one time in the order of their arrival."""
        query = "SELECT metric_name, value, time FROM observation_logs WHERE trial_name = ? ORDER BY time, id"
        return [_row(*row) for row in self._read(query, trial)]

    def rows_of_all(self, experiment: str) -> dict[str, list[StoredMetricLog]]:
        """Return the rows of all trials of an experiment, each one's as :meth:`rows` does."""
        query = """
            SELECT t.name, metric_name, r.value, time FROM local_trials t JOIN observation_logs r ON trial_name = t.name
            WHERE t.experiment = ? ORDER BY t.name, r.time, r.id
        """
        found: dict[str, list[StoredMetricLog]] = {}
        for trial, *row in self._read(query, experiment):
            found.setdefault(trial, []).append(_row(*row))
        return found

    def latest_values(self, trial: str) -> dict[str, str]:
        """Return the latest value of each metric of a trial that its last rows have."""
        query = (
            "SELECT metric_name, value FROM observation_logs WHERE trial_name = ? ORDER BY time DESC, id DESC LIMIT ?"
        )
        return dict(map(tuple, reversed(self._read(query, trial, LATEST_ROWS))))

    @contextmanager
    def values(self, trial: str) -> Iterator[Iterable[tuple[str, str]]]:
        """Open the names and values of a trial's rows by time, which are read one at a time."""
        query = "SELECT metric_name, value FROM observation_logs WHERE trial_name = ? ORDER BY time, id"
        with self._mapped_errors():
            yield self._connection.execute(query, (trial,))

    def add_rows(self, trial: str, rows: Iterable[StoredMetricLog]) -> None:
        """Add rows to a trial's."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO observation_logs (trial_name, time, metric_name, value) VALUES (?, ?, ?, ?)",
                ((trial, _text(row.timestamp), row.name, row.value) for row in rows),
            )

    def delete_rows(self, trial: str) -> None:
        """Delete a trial's rows, and what it handed in for early stopping."""
        with self._writing() as connection:
            for table in ("observation_logs", *self._stopping_tables()):
                connection.execute(f"DELETE FROM {table} WHERE trial_name = ?", (trial,))  # noqa: S608  its own name

    def stop_reason(self, trial: str) -> str | None:
        """Return why the DB manager ended a trial early (db_manager/stopping/records.py); None if it did not."""
        if not self._stopping_tables():
            return None
        query = "SELECT reason FROM katib_callbacks_stopping_trials WHERE trial_name = ? AND state = 'stopped'"
        found = self._read(query, trial)
        return str(found[0][0]) if found else None

    def _stopping_tables(self) -> list[str]:
        """Return the tables of early stopping, which the DB manager makes with the first question."""
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'katib_callbacks_stopping_*'"
        return [name for (name,) in self._read(query)]

    def _prepare(self) -> None:
        (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: SQLite cannot keep a write-ahead log there; use a local disk")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        has_tables = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'local_trials'").fetchone()
        if not has_tables:
            self._connection.executescript(f"BEGIN IMMEDIATE; {self.schema} COMMIT;")

    def _read(self, query: str, *parameters: Any) -> list[sqlite3.Row]:
        with self._mapped_errors():
            return self._connection.execute(query, parameters).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction; within another one it is a part of that."""
        with self._mapped_errors():
            if self._connection.in_transaction:
                yield self._connection
                return
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


def _row(name: str, value: str, time: str) -> StoredMetricLog:
    return StoredMetricLog(name, value, datetime.fromisoformat(time).replace(tzinfo=timezone.utc))


def _text(timestamp: datetime) -> str:
    """Return a time as the column holds it: naive UTC."""
    return timestamp.astimezone(timezone.utc).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
