"""The base of the databases: the code that their modules share, and the methods that the store needs of each."""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Engine,
    NullPool,
    QueuePool,
    Result,
    Table,
    create_engine,
    event,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from katib_callbacks.db_manager.store.errors import BusyError
from katib_callbacks.db_manager.store.table import TRIAL_TIME_INDEX, Log, Row, Span
from katib_callbacks.errors import ConfigurationError, MissingDependencyError

CONNECT_TIMEOUT_S = 5
"""For one attempt, as Katib's own manager has it (pkg/db/v1beta1/mysql/mysql.go)."""

CONNECT_INTERVAL_S = 1.0
"""Between attempts at the start."""

ANSWER_TIMEOUT_S = 30
"""How long a statement may take. A client that has given up is gone by then."""

LOCK_TIMEOUT_S = 10
"""How long a call waits for another manager that writes the same trial, or for an administrator's lock."""

POOL_TIMEOUT_S = 10.0
"""How long a call waits for a free connection before it is told to try again."""

IDLE_TIMEOUT_S = 120
"""After which the database ends a session of ours that stands still: a frozen manager must not keep its locks."""

RESERVED_CONNECTIONS = 2
"""The writer's and the health check's: neither ever waits for readers."""

_logger = logging.getLogger(__name__)


class Database(Protocol):
    """The methods that the store needs of a database, all for several threads; ``url`` has its path made absolute."""

    url: URL

    @property
    def time(self) -> ColumnElement[str]:
        """The column ``time`` as text, in the form of ``Log``."""

    def create(self, *, is_initialized: bool, connect_timeout_s: float, extra_tables: Sequence[Table] = ()) -> None:
        """Wait until the database answers, and make the tables and the index unless it ``is_initialized``."""

    def reading(self) -> Any:
        """Open a transaction that sees one state of the database; a context manager."""

    def checking(self) -> Any:
        """Open a transaction as :meth:`reading` does, past everybody who waits; for one caller at a time."""

    def writing(self, *, is_patient: bool = False) -> Any:
        """Open a transaction that is committed, and on disk, when the block is left; a context manager.

        One caller at a time, but for those that are patient: they may wait for locks in it.
        """

    def lock(self, connection: Connection, trial_names: Iterable[str], *, is_patient: bool) -> frozenset[str]:
        """Take the locks of trials, which end with the transaction; returns those that another manager is writing.

        Those are not locked. With ``is_patient`` it waits for them, and raises BusyError where one did not come free in
        time.
        """

    def select_spans(self, connection: Connection, spans: Sequence[Span]) -> Iterator[Row]:
        """Yield every stored row within the spans."""

    def insert(self, connection: Connection, additions: Sequence[tuple[str, Sequence[Log]]]) -> None:
        """Add rows of trials; their ids follow their order."""

    def abandon(self, connection: Connection, result: Result[Any]) -> None:  # noqa: ARG002  MySQL's needs the other
        """Leave a result of which there is more to read."""
        result.close()

    def equals(self, column: Column[str], text: str) -> ColumnElement[bool]:
        """Return the condition that a column is exactly this text, through the index; most databases' ``=`` is that."""
        return column == text

    def is_worth_another_try(self, error: DBAPIError) -> bool:
        """Return whether the same may succeed at once on another connection."""

    def close(self) -> None:
        """Close all connections. May be called twice."""


class DatabaseServer(Database):
    """Connections to a database server: a pool with a maximum, one connection for the writer, one for health checks.

    The first connection is made without ``unlimited_args``, since making an index takes its time.
    """

    driver = ""
    extra = ""
    package = ""
    create_table = ""
    engine_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self, url: URL, *, max_connections: int, connect_args: dict[str, Any], unlimited_args: dict[str, Any]
    ) -> None:
        if not url.database:
            raise ConfigurationError("names no database; write it after the host: .../katib")
        if max_connections <= RESERVED_CONNECTIONS:
            raise ConfigurationError(f"needs at least {RESERVED_CONNECTIONS + 1} connections, not {max_connections}")
        self.url = url.set(drivername=self.driver)
        self._lost: dict[int, float] = {}
        self._engines: list[Engine] = []
        self._readers = self._make_engine(max_connections - RESERVED_CONNECTIONS, connect_args)
        self._writer = self._make_engine(1, connect_args)
        self._checker = self._make_engine(1, connect_args)
        self._creator = create_engine(
            self.url, poolclass=NullPool, connect_args={**connect_args, **unlimited_args}, **self.engine_options
        )

    def _make_engine(self, size: int, connect_args: dict[str, Any]) -> Engine:
        try:
            engine = create_engine(
                self.url,
                poolclass=QueuePool,
                pool_size=size,
                max_overflow=0,
                pool_timeout=POOL_TIMEOUT_S,
                pool_pre_ping=True,  # a connection that died while it was idle is replaced and not given out
                connect_args=connect_args,
                **self.engine_options,
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"{self.url.get_backend_name()} needs {self.package}: "
                f'pip install "katib-callbacks[db-manager,{self.extra}]"'
            ) from error
        event.listen(engine, "connect", self.configure)
        self._engines.append(engine)
        return engine

    def configure(self, connection: Any, _record: object) -> None:
        """Set up one new connection of the driver."""

    def create(self, *, is_initialized: bool, connect_timeout_s: float, extra_tables: Sequence[Table] = ()) -> None:
        with self._connect(connect_timeout_s) as connection:
            self.warn_of_lost_writes(connection)
            if is_initialized:
                return
            try:
                self._lock_initialization(connection)
                connection.exec_driver_sql(self.create_table)
                for table in extra_tables:
                    table.create(connection, checkfirst=True)
                try:
                    self.create_index(connection)
                except SQLAlchemyError as error:  # no right to, or a row format without room: slow is better than not
                    _logger.warning("no %s, so every call reads the whole table: %s", TRIAL_TIME_INDEX, told_by(error))
                connection.commit()
            finally:
                self.unlock(connection)

    def _lock_initialization(self, connection: Connection) -> None:
        """Wait for another manager that makes the index of a large table, however long that takes."""
        while True:
            try:
                self.lock(connection, ["initialization"], is_patient=True)
            except BusyError:  # noqa: PERF203  seconds apart
                connection.rollback()  # PostgreSQL answers nothing else after an error
                _logger.warning("waiting for another manager, which makes the table or its index")
            else:
                return

    def _connect(self, timeout_s: float) -> Connection:
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                return self._creator.connect()
            except DBAPIError as error:  # noqa: PERF203  at most once a second
                if self.is_refusal(error) or time.monotonic() + CONNECT_INTERVAL_S > give_up_at:
                    raise
                _logger.warning("waiting for the database: %s", told_by(error))
                time.sleep(CONNECT_INTERVAL_S)

    def reading(self) -> Connection:
        return self._readers.connect()

    def checking(self) -> Connection:
        return self._checker.connect()

    @contextmanager
    def writing(self, *, is_patient: bool = False) -> Iterator[Connection]:
        # Whoever waits for a lock must not keep the one writer from other trials' rows.
        with (self._readers if is_patient else self._writer).connect() as connection:
            driver = connection.connection.driver_connection
            session = self.session(driver)
            try:
                yield connection
                connection.commit()
            except BaseException:
                with suppress(SQLAlchemyError):  # what went wrong first is what counts
                    connection.rollback()
                if self.is_closed(driver):  # the server may not know for long, and keep the session's locks
                    self._lost[session] = time.monotonic()
                raise
            finally:
                self.unlock(connection)

    def lost_sessions(self) -> list[int]:
        """Return the sessions of lost connections that the server may not have ended."""
        for session, lost_at_s in list(self._lost.items()):
            if time.monotonic() - lost_at_s > IDLE_TIMEOUT_S:
                self._lost.pop(session, None)
        return list(self._lost)

    def session(self, driver: Any) -> int:
        """Return what the server calls the session of a driver's connection."""
        raise NotImplementedError

    def is_closed(self, driver: Any) -> bool:
        """Return whether the driver has given up its connection."""
        raise NotImplementedError

    def unlock(self, connection: Connection) -> None:
        """Give back locks that do not end with the transaction."""

    def create_index(self, connection: Connection) -> None:
        """Make the index unless it is there."""
        raise NotImplementedError

    def warn_of_lost_writes(self, connection: Connection) -> None:
        """Log a warning where the server is set up to lose what it has acknowledged."""

    def is_refusal(self, error: DBAPIError) -> bool:
        """Return whether a failure to connect will not go away by waiting."""
        raise NotImplementedError

    def is_worth_another_try(self, error: DBAPIError) -> bool:
        """Return whether the connection died, or the statement lost against another one."""
        return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))

    def close(self) -> None:
        """Close all connections that are not in use."""
        for engine in self._engines:
            engine.dispose()


def lock_key(database: str | None, name: str) -> bytes:
    """Return what all managers call the lock of a trial, 32 bytes: a server's locks are not per database."""
    return hashlib.sha256(f"katib-callbacks/{database}/{name}".encode()).digest()


def told_by(error: BaseException) -> str:
    """Return what a database says, without the statement that SQLAlchemy adds."""
    return str(error.orig if isinstance(error, DBAPIError) else error).partition("\n")[0]
