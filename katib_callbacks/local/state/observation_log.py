"""The rows of trials, in the file in which the experiment's DB manager keeps them.

The DB manager commits before it replies, so a delivered row is read here at once; what is written here is committed
together with what is decided from it.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from katib_callbacks.metrics import StoredMetricLog

SCHEMA = """
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


def read_rows(connection: sqlite3.Connection, trial: str) -> list[StoredMetricLog]:
    """Return a trial's rows by time, those of one time in the order of their arrival."""
    query = "SELECT metric_name, value, time FROM observation_logs WHERE trial_name = ? ORDER BY time, id"
    return [_row(*row) for row in connection.execute(query, (trial,))]


def read_rows_of_all(connection: sqlite3.Connection, experiment: str) -> dict[str, list[StoredMetricLog]]:
    """Return the rows of all trials of an experiment, each one's as :func:`read_rows` does."""
    query = """
        SELECT t.name, metric_name, r.value, time FROM local_trials t JOIN observation_logs r ON trial_name = t.name
        WHERE t.experiment = ? ORDER BY t.name, r.time, r.id
    """
    found: dict[str, list[StoredMetricLog]] = {}
    for trial, name, value, time in connection.execute(query, (experiment,)):
        found.setdefault(trial, []).append(_row(name, value, time))
    return found


def read_values(connection: sqlite3.Connection, trial: str) -> Iterator[tuple[str, str]]:
    """Yield names and values of a trial's rows by time, one row at a time."""
    query = "SELECT metric_name, value FROM observation_logs WHERE trial_name = ? ORDER BY time, id"
    yield from connection.execute(query, (trial,))


def read_latest_values(connection: sqlite3.Connection, trial: str, count: int) -> dict[str, str]:
    """Return the latest value of each metric that a trial's last rows have, by name."""
    query = "SELECT metric_name, value FROM observation_logs WHERE trial_name = ? ORDER BY time DESC, id DESC LIMIT ?"
    return dict(reversed(connection.execute(query, (trial, count)).fetchall()))


def add_rows(connection: sqlite3.Connection, trial: str, rows: Iterable[StoredMetricLog]) -> None:
    """Add rows to a trial's."""
    connection.executemany(
        "INSERT INTO observation_logs (trial_name, time, metric_name, value) VALUES (?, ?, ?, ?)",
        ((trial, _text(row.timestamp), row.name, row.value) for row in rows),
    )


def delete_rows(connection: sqlite3.Connection, trial: str) -> None:
    """Delete a trial's rows, and what it handed in for early stopping."""
    for table in ("observation_logs", *_stopping_tables(connection)):
        connection.execute(f"DELETE FROM {table} WHERE trial_name = ?", (trial,))  # noqa: S608  a table's own name


def read_stop_reason(connection: sqlite3.Connection, trial: str) -> str | None:
    """Return why the DB manager ended a trial early (db_manager/stopping/records.py); None if it did not."""
    if not _stopping_tables(connection):
        return None
    query = "SELECT reason FROM katib_callbacks_stopping_trials WHERE trial_name = ? AND state = 'stopped'"
    found = connection.execute(query, (trial,)).fetchone()
    return None if found is None else str(found[0])


def _stopping_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables of early stopping, which the DB manager makes with the first question."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'katib_callbacks_stopping_*'"
    return [name for (name,) in connection.execute(query)]


def _row(name: str, value: str, time: str) -> StoredMetricLog:
    return StoredMetricLog(name, value, datetime.fromisoformat(time).replace(tzinfo=timezone.utc))


def _text(timestamp: datetime) -> str:
    """Return a time as the column holds it: naive UTC."""
    return timestamp.astimezone(timezone.utc).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
