"""SQLite as a store that keeps what it acknowledged: WAL, a sync at every commit, one writer at a time."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    String,
    Table,
    create_engine,
    event,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError, OperationalError

from katib_callbacks.db_manager.store.database import Database
from katib_callbacks.db_manager.store.errors import BusyError
from katib_callbacks.db_manager.store.table import METADATA, OBSERVATION_LOGS, TRIAL_TIME, Log, Row, Span
from katib_callbacks.errors import ConfigurationError, StoreError

BUSY_TIMEOUT_S = 10.0
"""How long a call waits for another writer, of this process or another one. Clients retry what fails after it."""

ROWS_PER_STATEMENT = 200
"""SQLite before 3.32 takes 999 parameters in a statement."""

_OPEN_RETRY_INTERVAL_S = 0.02
_HEADER_BYTES, _LARGEST_PAGE = 100, 65_536  # https://www.sqlite.org/fileformat2.html
_WRITES = "katib_callbacks_writes"


class SQLiteDatabase(Database):
    """An SQLite file, opened for several threads and beside other processes."""

    time = type_coerce(OBSERVATION_LOGS.c.time, String)  # it is text already

    def __init__(self, url: URL, *, max_connections: int) -> None:
        if url.drivername not in {"sqlite", "sqlite+pysqlite"}:
            raise ConfigurationError(f"database driver {url.drivername!r} is not known; write sqlite:///katib.db")
        if url.database in {None, "", ":memory:"}:
            raise ConfigurationError(
                "an in-memory database would lose every row with this process; name a file: sqlite:///katib.db"
            )
        if url.host or url.query or str(url.database).startswith("file:"):
            raise ConfigurationError("an SQLite database is named by a plain path alone: sqlite:///katib.db")
        self._path = Path(str(url.database)).absolute()  # a later chdir must not lead to another file
        self._wal = self._path.with_name(f"{self._path.name}-wal")
        self._file_id: tuple[int, int] | None = None
        self._wal_id: tuple[int, int] | None = None
        self._size = 0
        self._damage: str | None = None
        self._file: int | None = None
        self._keeper: sqlite3.Connection | None = None
        # SQLite's own waiting polls and is unfair: 50 threads would starve some. This lock queues them; SQLite's
        # busy timeout is left for other processes.
        self._turn_to_write = threading.Lock()
        self._places_to_read = threading.BoundedSemaphore(max_connections)
        self.url = url.set(database=str(self._path))
        # No limit here: what is above bounds the connections.
        self.engine: Engine = create_engine(self.url, pool_size=0, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", self._begin)
        self._writer = self.engine.execution_options(**{_WRITES: True})

    def create(
        self,
        *,
        is_initialized: bool,
        connect_timeout_s: float,  # noqa: ARG002  nobody to wait for
        extra_tables: Sequence[Table] = (),
    ) -> None:
        """Make the file, for its owner alone, the table and its index.

        While another process turns the same new file to WAL, SQLite answers "locked" at once, without its timeout.
        """
        if not self._path.parent.is_dir():
            raise StoreError(f"the folder {str(self._path.parent)!r} does not exist")
        with suppress(OSError):  # SQLite says what is wrong
            # Stays open: to close a file gives up all locks that this process has on it, SQLite's among them.
            self._file = os.open(self._path, os.O_RDONLY | os.O_CREAT, 0o600)
        give_up_at = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self.engine.connect().close()
                break
            except OperationalError as error:
                if "locked" not in str(error.orig) or time.monotonic() > give_up_at:
                    raise
                time.sleep(_OPEN_RETRY_INTERVAL_S)
        if not is_initialized:
            # In the transaction of the one writer: a second process that starts on the same file finds them made.
            with self.writing() as connection:
                METADATA.create_all(connection)
                for table in extra_tables:
                    table.create(connection, checkfirst=True)
                TRIAL_TIME.create(connection, checkfirst=True)  # for a table that another program has made
        # The write-ahead log is deleted with the last connection: as long as this one is open it is one and the same.
        self._keeper = sqlite3.connect(self._path, check_same_thread=False)
        self._keeper.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        self._file_id = _identify(self._path)
        self._wal_id = _identify(self._wal)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database and waits for other readers alone."""
        if not self._places_to_read.acquire(timeout=BUSY_TIMEOUT_S):
            raise BusyError(f"too many are reading: no place within {BUSY_TIMEOUT_S:g} s")
        try:
            with self.engine.begin() as connection:
                yield connection
        finally:
            self._places_to_read.release()

    def checking(self) -> Any:
        return self.engine.begin()

    @contextmanager
    def writing(self, *, is_patient: bool = False) -> Iterator[Connection]:  # noqa: ARG002  there is one lock for all
        """Open a transaction that may write and is committed, and on disk, when the block is left."""
        if not self._turn_to_write.acquire(timeout=BUSY_TIMEOUT_S):
            raise StoreError(f"the database is busy: no turn to write within {BUSY_TIMEOUT_S:g} s")
        try:
            with self._writer.begin() as connection:
                yield connection
        finally:
            self._turn_to_write.release()

    def lock(self, connection: Connection, trial_names: Iterable[str], *, is_patient: bool) -> frozenset[str]:  # noqa: ARG002
        """Nothing is left to lock: one transaction at a time writes to the file."""
        return frozenset()

    def select_spans(self, connection: Connection, spans: Sequence[Span]) -> Iterator[Row]:
        values = ", ".join(["(?, ?, ?)"] * len(spans))
        # A CROSS JOIN is carried out in the order that it is written in: each span is looked up through the index.
        query = (
            f"WITH span (trial, first, last) AS (VALUES {values}) "  # noqa: S608  question marks
            "SELECT trial_name, time, metric_name, value FROM span CROSS JOIN observation_logs "
            "ON trial_name = trial AND time BETWEEN first AND last"
        )
        parameters = tuple(text for span in spans for text in span)
        yield from map(tuple, connection.exec_driver_sql(query, parameters))

    def insert(self, connection: Connection, additions: Sequence[tuple[str, Sequence[Log]]]) -> None:
        rows = ((trial_name, *log) for trial_name, logs in additions for log in logs)
        # Not executemany: it lets other threads run after each row, and waits for its turn again as often.
        while chunk := list(islice(rows, ROWS_PER_STATEMENT)):
            values = ", ".join(["(?, ?, ?, ?)"] * len(chunk))
            connection.exec_driver_sql(
                f"INSERT INTO observation_logs (trial_name, time, metric_name, value) VALUES {values}",  # noqa: S608
                tuple(chain.from_iterable(chunk)),
            )

    def is_worth_another_try(self, error: DBAPIError) -> bool:  # noqa: ARG002
        """No: a file does not come back by itself."""
        return False

    def close(self) -> None:
        """Close every connection; the last one folds the WAL into the file."""
        self.engine.dispose()
        if self._keeper is not None:
            self._keeper.close()
        if self._file is not None:
            os.close(self._file)
        self._keeper = self._file = None

    def _begin(self, connection: Connection) -> None:
        # Python's sqlite3 would begin late and as a reader: two readers that both want to write then fail at once,
        # without waiting.
        if self._file_id is not None:
            self._check_files()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")

    def _check_files(self) -> None:
        """Find out whether the opened files are still there and whole: SQLite would go on and lose rows."""
        if self._damage is None:
            if _identify(self._path) != self._file_id:
                raise StoreError("the file was removed or replaced; its rows would go nowhere. Restart the DB manager")
            size = self._path.stat().st_size
            if _identify(self._wal) != self._wal_id:
                self._damage = (
                    f"the write-ahead log {self._wal.name!r} was removed or replaced while the DB manager was running; "
                    "rows that were only in it may be lost. Restore the file from a backup, or restart "
                    "and go on without"
                )
            elif size < self._size and self._is_cut():
                self._damage = (
                    "the file was cut while the DB manager was running; rows are lost. Restore it from a backup, and "
                    "restart the DB manager"
                )
            self._size = size
        if self._damage is not None:
            raise StoreError(self._damage)

    def _is_cut(self) -> bool:
        """Return whether the file has fewer pages than it says: a file that a VACUUM made smaller has not."""
        header = b""
        if self._file is not None:
            os.lseek(self._file, 0, os.SEEK_SET)
            header = os.read(self._file, _HEADER_BYTES)
        page_bytes = int.from_bytes(header[16:18], "big")
        page_bytes = _LARGEST_PAGE if page_bytes == 1 else page_bytes
        pages = int.from_bytes(header[28:32], "big")
        return len(header) < _HEADER_BYTES or self._path.stat().st_size < pages * page_bytes


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _configure(connection: Any, _record: object) -> None:
    """Set up one new connection of Python's ``sqlite3``."""
    connection.isolation_level = None  # begin and commit are SQLAlchemy's to send
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"SQLite cannot keep a write-ahead log there (journal mode {mode!r}); use a local disk")
    connection.execute("PRAGMA synchronous=FULL")  # a commit returns when its rows are on the disk
