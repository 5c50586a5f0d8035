"""Each change of an experiment or a trial, written by the database itself, whichever process made it.

Triggers add a row in the transaction of the change, so there is one for each commit, in the order of the commits. They
are made by the first API server of a home, and cost a home without one nothing.
"""

import functools
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore, TrialRow, experiment_row, trial_row

MAX_CHANGES = 5_000
"""How many are kept. Who asks for changes since an older one is told so, and lists anew."""

_TABLES = {"local_experiments": experiment_row, "local_trials": trial_row}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS local_changes (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    changed TEXT NOT NULL,          -- the table
    earlier TEXT,                   -- its row before, as JSON; NULL for a new one
    later TEXT                      -- and after; NULL for one that was deleted
)
"""


class Change(NamedTuple):
    """A change of one row; of an experiment or of a trial, by the type of the rows."""

    version: int
    earlier: ExperimentRow | TrialRow | None
    later: ExperimentRow | TrialRow | None


class ChangeLog(ExperimentStore):
    """A store whose changes are written down, from now on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._writing() as connection:
            connection.execute(_SCHEMA)
            for table in _TABLES:
                _make_triggers(connection, table)

    def state(self) -> tuple[list[ExperimentRow | TrialRow], list[Change]]:
        """Return all rows as they are, and the changes that led there, as far as they are kept."""
        with self._mapped_errors():
            self._connection.execute("BEGIN")  # nothing that is read changes meanwhile
            try:
                return [*self.experiments(has_train_jobs=True), *self.trials()], self.changes(0)
            finally:
                self._connection.execute("ROLLBACK")

    def changes(self, since: int) -> list[Change]:
        """Return the changes after one, in order."""
        query = "SELECT * FROM local_changes WHERE version > ? ORDER BY version"
        with self._mapped_errors():
            return [_change(*row) for row in self._connection.execute(query, (since,))]


def _change(version: int, table: str, earlier: str | None, later: str | None) -> Change:
    rows: list[Any] = [text and _TABLES[table](json.loads(text)) for text in (earlier, later)]
    return Change(version, *rows)


def _make_triggers(connection: sqlite3.Connection, table: str) -> None:
    """Make a table's triggers anew: it may have other columns than in an earlier release."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    for action, rows in (("INSERT", (None, "NEW")), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD", None))):
        values = ", ".join(map(functools.partial(_as_json, columns), rows))
        name = f"{table}_{action.lower()}_is_written_down"
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        connection.execute(
            f"CREATE TRIGGER {name} AFTER {action} ON {table} BEGIN "  # noqa: S608  names of this package
            f"INSERT INTO local_changes (changed, earlier, later) VALUES ('{table}', {values}); "
            f"DELETE FROM local_changes WHERE version <= (SELECT max(version) FROM local_changes) - {MAX_CHANGES}; END"
        )


def _as_json(columns: Sequence[str], row: str | None) -> str:
    """Return SQL's expression for a row as JSON."""
    if row is None:
        return "NULL"
    return "json_object({})".format(", ".join(f"'{column}', {row}.{column}" for column in columns))
