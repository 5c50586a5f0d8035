"""The observation log: Katib's table ``observation_logs``, written and read through SQLAlchemy Core.

What every database has in common stands here; a database's own ways (locks, connections, durability) stand in a module
each, with the methods of :class:`~katib_callbacks.db_manager.sqlite.SQLiteDatabase`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from sqlalchemy import (
    URL,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from katib_callbacks.db_manager.sqlite import SQLiteDatabase
from katib_callbacks.errors import ConfigurationError, StoreError
from katib_callbacks.metrics import MAX_NAME_CHARACTERS, StoredMetricLog

_METADATA = MetaData()

# The columns of Katib's pkg/db/v1beta1/mysql/init.go. Times are naive UTC, as Katib writes them.
OBSERVATION_LOGS = Table(
    "observation_logs",
    _METADATA,
    Column("trial_name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", DateTime),
    Column("metric_name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("value", Text, nullable=False),
    sqlite_autoincrement=True,  # ids are never used again, so that they tell the order of arrival
)
_TRIAL_TIME = Index("idx_observation_logs_trial_time", OBSERVATION_LOGS.c.trial_name, OBSERVATION_LOGS.c.time)

_DATABASES = {"sqlite": SQLiteDatabase}


class ObservationLogStore:
    """The rows of all trials in one database. Every method may be called by several threads, and blocks.

    Args:
        url: A SQLAlchemy URL such as ``sqlite:///katib.db``. The file is made if it does not exist.
        max_connections: How many calls may be under way at once.

    Raises:
        ConfigurationError: The URL is none, or names a database that is not known.
        StoreError: The database cannot be opened, or is none.
    """

    def __init__(self, url: str, *, max_connections: int) -> None:
        parsed = _parse_url(url)
        try:
            self._database = _DATABASES[parsed.get_backend_name()](parsed, max_connections=max_connections)
        except KeyError as error:
            raise ConfigurationError(
                f"{_printable(parsed)}: the DB manager does not know {parsed.get_backend_name()!r} databases; "
                f"known: {', '.join(sorted(_DATABASES))}"
            ) from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{_printable(parsed)}: {error}") from error
        self.url = _printable(self._database.url)
        """The URL with an absolute path and without password or options: for messages."""
        try:
            with self._mapped_errors("open"), self._database.creating() as connection:
                # In the transaction of the one writer: a second process that starts on the same file finds them made.
                _METADATA.create_all(connection)
                _TRIAL_TIME.create(connection, checkfirst=True)  # for a table that another program has made
            self.check()
        except BaseException:
            self.close()
            raise

    def insert(self, trial_name: str, logs: Sequence[StoredMetricLog]) -> None:
        """Store the rows, all or none; returns when they are on disk. Rows that come twice are stored twice.

        Raises:
            StoreError: They were not stored.
        """
        rows = [
            {
                "trial_name": trial_name,
                "time": log.timestamp.astimezone(timezone.utc).replace(tzinfo=None),
                "metric_name": log.name,
                "value": log.value,
            }
            for log in logs
        ]
        with self._mapped_errors("write to"), self._database.writing() as connection:
            connection.execute(insert(OBSERVATION_LOGS), rows)

    def select(
        self, trial_name: str, *, metric_name: str = "", start: datetime | None = None, end: datetime | None = None
    ) -> list[StoredMetricLog]:
        """Return a trial's rows by time, those of one time in the order of their arrival.

        Args:
            trial_name: Which trial, by its exact name.
            metric_name: Only this metric, by its exact name; empty for all.
            start: Only rows at or after this time.
            end: Only rows at or before this time.

        Raises:
            StoreError: The database did not answer.
        """
        column = OBSERVATION_LOGS.c
        query = (
            select(column.metric_name, column.value, column.time)
            .where(column.trial_name == trial_name, column.time.is_not(None))  # the column allows what no reply can say
            .order_by(column.time, column.id)
        )
        if metric_name:
            query = query.where(column.metric_name == metric_name)
        if start is not None:
            query = query.where(column.time >= start.astimezone(timezone.utc).replace(tzinfo=None))
        if end is not None:
            query = query.where(column.time <= end.astimezone(timezone.utc).replace(tzinfo=None))
        with self._mapped_errors("read"), self._database.reading() as connection:
            return [
                StoredMetricLog(name, value, time.replace(tzinfo=timezone.utc))
                for name, value, time in connection.execute(query)
            ]

    def delete(self, trial_name: str) -> None:
        """Delete all rows of a trial.

        Raises:
            StoreError: Nothing was deleted.
        """
        with self._mapped_errors("write to"), self._database.writing() as connection:
            connection.execute(delete(OBSERVATION_LOGS).where(OBSERVATION_LOGS.c.trial_name == trial_name))

    def check(self) -> None:
        """Read from the table, every column of it.

        Raises:
            StoreError: The database did not answer, or its table is another.
        """
        with self._mapped_errors("read"), self._database.reading() as connection:
            connection.execute(select(OBSERVATION_LOGS).limit(1)).all()

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._database.close()

    @contextmanager
    def _mapped_errors(self, action: str) -> Iterator[None]:
        """Turn whatever the database raises into a StoreError that names it: the one place that does so."""
        try:
            yield
        except StoreError as error:
            raise StoreError(f"{self.url}: {error}") from error
        except (SQLAlchemyError, ValueError) as error:  # ValueError: a cell that is no time
            cause = error.orig if isinstance(error, DBAPIError) else error
            reason = str(cause).partition("\n")[0]
            raise StoreError(f"{self.url}: cannot {action} the database: {reason}") from error


def _parse_url(text: str) -> URL:
    try:
        return make_url(text)
    except (SQLAlchemyError, ValueError):
        # Not chained: the text is in SQLAlchemy's message, and a password may be in the text.
        shown = f"***@{text.rpartition('@')[2]}" if "@" in text else text
        raise ConfigurationError(f"{shown!r} is no database URL such as sqlite:///katib.db") from None


def _printable(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)
