"""The observation log store: Katib's table, written and read through SQLAlchemy Core, the same on every database.

A database's own ways (locks, connections, durability, comparison of texts) stand in a module each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from os import PathLike
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, delete, func, inspect, select
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from katib_callbacks.db_manager.store.database import Database, told_by
from katib_callbacks.db_manager.store.errors import BusyError, ForeignTrialError, UnstorableError
from katib_callbacks.db_manager.store.group_commit import Batch, GroupCommit, missing_logs
from katib_callbacks.db_manager.store.mysql import MySQLDatabase
from katib_callbacks.db_manager.store.owners import TRIAL_NAMESPACES, admit, check_owner, is_not_foreign, release
from katib_callbacks.db_manager.store.postgresql import PostgreSQLDatabase
from katib_callbacks.db_manager.store.sqlite import SQLiteDatabase
from katib_callbacks.db_manager.store.table import OBSERVATION_LOGS, Log, naive_utc
from katib_callbacks.db_manager.store.urls import parse_url, printable
from katib_callbacks.errors import ConfigurationError, StoreError

_DATABASES: dict[str, Callable[..., Database]] = {
    "sqlite": SQLiteDatabase,
    "mysql": MySQLDatabase,
    "mariadb": MySQLDatabase,
    "postgresql": PostgreSQLDatabase,
    "postgres": PostgreSQLDatabase,
}

STREAMED_ROWS = 1_000
"""How many rows are fetched ahead of those that are looked at."""

T = TypeVar("T")


class RowWriter(Protocol):
    """Takes the rows that are read, a few at a time."""

    def add(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Take rows: metric name, value, and time as ``Log`` has it."""


W = TypeVar("W", bound=RowWriter)


class ObservationLogStore:
    """The rows of all trials in one database. Every method may be called by several threads, and blocks.

    The arguments are those of ``DBManager``; ``keeps_namespaces`` keeps the table of trials' owners, too, so that
    ``namespace`` may be given below. A URL that cannot be right is a ConfigurationError, a missing driver a
    MissingDependencyError. Methods raise BusyError where nothing was done, for want of room or a turn, and else
    StoreError where the database did not say that it is done.
    """

    def __init__(
        self,
        url: str | PathLike[str] | URL,
        *,
        max_connections: int,
        is_initialized: bool = False,
        connect_timeout_s: float = 0.0,
        keep_duplicates: bool = False,
        keeps_namespaces: bool = False,
    ) -> None:
        parsed = parse_url(url)
        try:
            self._database = _DATABASES[parsed.get_backend_name()](parsed, max_connections=max_connections)
        except KeyError as error:
            raise ConfigurationError(
                f"{printable(parsed)}: the DB manager does not know {parsed.get_backend_name()!r} databases; "
                f"known: {', '.join(_DATABASES)}"
            ) from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{printable(parsed)}: {error}") from error
        self.url = printable(self._database.url)
        """The URL with an absolute path and without password or options: for messages."""
        self._keep_duplicates = keep_duplicates
        self._tables = (OBSERVATION_LOGS, TRIAL_NAMESPACES) if keeps_namespaces else (OBSERVATION_LOGS,)
        self.also_deleted: list[Callable[[Connection, str], None]] = []
        """Called with a trial that is deleted, in the transaction that deletes its rows."""
        try:
            with self._mapped_errors("open"):
                self._database.create(
                    is_initialized=is_initialized,
                    connect_timeout_s=connect_timeout_s,
                    extra_tables=self._tables[1:],
                )
                with self._database.checking() as connection:  # another manager's table
                    has_namespaces = inspect(connection).has_table(TRIAL_NAMESPACES.name)
                self._releases_namespaces = keeps_namespaces or has_namespaces
            self.check()
            self._writer: GroupCommit[Batch] = GroupCommit(self._write, refusals=(UnstorableError,))
        except BaseException:
            self._database.close()
            raise

    def insert(self, trial_name: str, logs: Sequence[Log], *, namespace: str | None = None) -> None:
        """Store the rows, all or none; returns when they are on disk.

        A batch that comes a second time, whole or in part, is stored once: of equal rows as many are added as the batch
        has more than the table. Two of our managers on one database keep that up together. ``namespace`` is the
        caller's, and becomes the owner of a trial without one; None where any caller may write. A trial of another
        namespace is a ForeignTrialError, rows that will never be stored an UnstorableError.
        """
        batch = Batch(trial_name, logs, namespace)
        self._writer.submit(batch)
        batch.wait()
        if batch.is_contended:  # another manager is writing this trial: wait for it here, not in everybody's way
            self._write([batch], is_patient=True)
            if isinstance(batch.error, ForeignTrialError):
                raise batch.error

    def read(
        self,
        trial_name: str,
        open_writer: Callable[[], W],
        *,
        metric_name: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
        namespace: str | None = None,
    ) -> W:
        """Write a trial's rows by time, then by arrival, to a writer of ``open_writer``, and return that writer.

        A new writer is opened where a connection dies; what it raises leaves this method. An empty ``metric_name`` is
        all; ``start`` and ``end`` are inclusive; without a ``namespace`` any caller may read, else a trial of another
        one is a ForeignTrialError.
        """
        column = OBSERVATION_LOGS.c
        query = (
            select(column.metric_name, column.value, self._database.time)
            .where(
                self._database.equals(column.trial_name, trial_name),
                column.time.is_not(None),  # the column allows what no reply can say
            )
            .order_by(column.time, column.id)
            .execution_options(stream_results=True, max_row_buffer=STREAMED_ROWS)
        )
        if metric_name:
            query = query.where(self._database.equals(column.metric_name, metric_name))
        if start is not None:
            query = query.where(column.time >= naive_utc(start))
        if end is not None:
            query = query.where(column.time <= naive_utc(end))
        if namespace is not None:  # besides the check below: it may change hands between two statements
            query = query.where(is_not_foreign(trial_name, namespace))

        def read(connection: Connection) -> W:
            writer = open_writer()
            if namespace is not None:
                check_owner(connection, trial_name, namespace)
            result = connection.execute(query)
            try:
                for rows in result.partitions(STREAMED_ROWS):
                    writer.add(rows)
            except StoreError:
                self._database.abandon(connection, result)
                raise
            return writer

        return self._do("read", self._database.reading, read)

    def has_rows_before(self, trial_name: str, time: str) -> bool:
        """Return whether a trial has rows from before a time of the form of ``Log``."""
        column = OBSERVATION_LOGS.c
        is_of_trial = self._database.equals(column.trial_name, trial_name)
        query = select(column.id).where(is_of_trial, column.time < datetime.fromisoformat(time)).limit(1)
        return self._do("read", self._database.reading, lambda read: read.execute(query).first() is not None)

    def trials_before(self, end: datetime) -> list[str]:
        """Return the trials that have no row at or after a time."""
        column = OBSERVATION_LOGS.c
        query = select(column.trial_name).group_by(column.trial_name).having(func.max(column.time) < naive_utc(end))
        return self._do("read", self._database.reading, lambda read: list(read.execute(query).scalars()))

    def delete(self, trial_name: str, *, before: datetime | None = None, is_attempt: bool = False) -> int:
        """Delete all rows of a trial, and its owner; returns how many. With ``before`` only if it has none since.

        With ``is_attempt`` they are those of an earlier attempt, and what else is known of the trial stays.
        """
        column = OBSERVATION_LOGS.c
        is_of_trial = self._database.equals(column.trial_name, trial_name)

        def write(connection: Connection) -> int:
            if before is not None:
                newer = select(column.id).where(is_of_trial, column.time >= naive_utc(before)).limit(1)
                if connection.execute(newer).first() is not None:
                    return 0
            deleted: int = connection.execute(delete(OBSERVATION_LOGS).where(is_of_trial)).rowcount
            if self._releases_namespaces:
                release(connection, trial_name)
            for forget in () if is_attempt else self.also_deleted:
                forget(connection, trial_name)
            return deleted

        return self.transact(write, lock=trial_name)

    def transact(self, action: Callable[[Connection], T], *, lock: str | None = None) -> T:
        """Do something in one transaction, and return when it is on disk; ``action`` may be called twice.

        With ``lock``, a name, no other manager on this database does what has the same one.
        """

        def write(connection: Connection) -> T:
            if lock is not None:
                self._database.lock(connection, [lock], is_patient=True)
            return action(connection)

        return self._do("write to", partial(self._database.writing, is_patient=True), write)

    def check(self) -> None:
        """Read every column of each table, or raise StoreError. For one caller at a time; waits for no other."""

        def read(connection: Connection) -> None:
            for table in self._tables:
                connection.execute(select(table).limit(1)).all()

        self._do("read", self._database.checking, read)

    def close(self) -> None:
        """Write what is queued and close all connections. May be called twice."""
        self._writer.close()
        self._database.close()

    def _write(self, batches: Sequence[Batch], *, is_patient: bool = False) -> None:
        """Write batches in one transaction, except those whose trial another manager is writing."""

        def write(connection: Connection) -> frozenset[str]:
            contended = self._database.lock(connection, {batch.trial_name for batch in batches}, is_patient=is_patient)
            free = admit(connection, [batch for batch in batches if batch.trial_name not in contended])
            additions: list[tuple[str, Sequence[Log]]] = [(batch.trial_name, batch.logs) for batch in free]
            if free and not self._keep_duplicates:
                additions = missing_logs(free, self._database.select_spans(connection, [batch.span for batch in free]))
            if additions:
                self._database.insert(connection, additions)
            return contended

        contended = self._do("write to", partial(self._database.writing, is_patient=is_patient), write)
        for batch in batches:
            batch.is_contended = batch.trial_name in contended

    def _do(self, action: str, opened: Callable[[], Any], do: Callable[[Connection], T]) -> T:
        """Do something in a transaction; again at once where its connection died, since the next one may be good."""

        def attempt() -> T:
            with opened() as connection:
                return do(connection)

        with self._mapped_errors(action):
            try:
                return attempt()
            except DBAPIError as error:
                if not self._database.is_worth_another_try(error):
                    raise
            return attempt()

    @contextmanager
    def _mapped_errors(self, action: str) -> Iterator[None]:
        """Turn whatever the database raises into a StoreError that names it: the one place that does so."""
        try:
            yield
        except StoreError as error:
            raise type(error)(f"{self.url}: {error}") from error
        except PoolTimeoutError as error:
            raise BusyError(f"{self.url}: every connection to the database is in use") from error
        except (SQLAlchemyError, ValueError) as error:  # ValueError: a cell that is no time
            if isinstance(error, DataError):
                raise UnstorableError(f"{self.url}: the database refuses what was sent: {told_by(error)}") from error
            raise StoreError(f"{self.url}: cannot {action} the database: {told_by(error)}") from error
