"""MySQL and MariaDB, through PyMySQL.

Their comparison of texts ignores case, accents and blanks at the end, so what the index finds is compared again byte by
byte. Their locks outlive a session's transactions, and are given back by name.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    Result,
    String,
    and_,
    bindparam,
    literal_column,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from katib_callbacks.db_manager.store.database import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    DatabaseServer,
    lock_key,
)
from katib_callbacks.db_manager.store.errors import BusyError
from katib_callbacks.db_manager.store.table import TRIAL_TIME_INDEX, Log, Row, Span
from katib_callbacks.errors import ConfigurationError

# Katib's statement (pkg/db/v1beta1/mysql/init.go), and behind it what Katib leaves to the server's defaults: an engine
# with transactions, and a character set that has every character.
_CREATE_TABLE = """CREATE TABLE IF NOT EXISTS observation_logs
    (trial_name VARCHAR(255) NOT NULL,
    id INT AUTO_INCREMENT PRIMARY KEY,
    time DATETIME(6),
    metric_name VARCHAR(255) NOT NULL,
    value TEXT NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"""

_TIME = "CAST(CAST(observation_logs.time AS DATETIME(6)) AS CHAR)"  # six digits, whoever has made the table

STATEMENT_CHARACTERS = 1_000_000
"""Where a statement ends and another begins: in bytes that is at most a quarter of what servers take by default."""

# What a text has in a string of SQL, where backslashes escape (the session's sql_mode says so) and the character set
# has no byte of another character that looks like one of these.
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"})

_HAS_INDEX = (
    "SELECT COUNT(*) FROM information_schema.statistics "
    "WHERE table_schema = DATABASE() AND table_name = 'observation_logs' AND index_name = %s"
)

_IS_THERE = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = %s"

# Strict: a text that does not fit is an error and not cut. The timeouts hold for locks of tables, which an
# administrator may keep for hours, and for a session of ours that stands still.
_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    f"lock_wait_timeout = {LOCK_TIMEOUT_S}, innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}, "
    f"wait_timeout = {IDLE_TIMEOUT_S}"
)

_ACCESS_DENIED, _NO_RIGHT, _UNKNOWN_DATABASE = 1045, 1044, 1049
_LOCK_NAME_CHARACTERS = 60  # of at most 64

_KILL_INTERVAL_S = 0.01  # how often a session that was ended is looked for

_LOCKS = "katib_callbacks_locks"  # where a connection carries the names of the locks that it holds

_logger = logging.getLogger(__name__)


class MySQLDatabase(DatabaseServer):
    """A database of a MySQL or MariaDB server."""

    driver = "mysql+pymysql"
    extra = "mysql"
    package = "PyMySQL"
    create_table = _CREATE_TABLE
    time = literal_column(_TIME, String)
    engine_options = MappingProxyType({"isolation_level": "READ COMMITTED"})

    def __init__(self, url: URL, *, max_connections: int) -> None:
        if url.drivername not in {"mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"}:
            raise ConfigurationError(f"database driver {url.drivername!r} is not known; write mysql://...")
        super().__init__(
            url.update_query_dict({"charset": "utf8mb4"}),
            max_connections=max_connections,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": ANSWER_TIMEOUT_S,
                "write_timeout": ANSWER_TIMEOUT_S,
                "init_command": _SESSION,
            },
            unlimited_args={"read_timeout": None},
        )

    def session(self, driver: Any) -> int:
        """Return the connection's id."""
        return int(driver.thread_id())

    def is_closed(self, driver: Any) -> bool:
        """Return whether PyMySQL gave it up."""
        return not driver.open

    def lock(self, connection: Connection, trial_names: Iterable[str], *, is_patient: bool) -> frozenset[str]:
        """Take locks of the session, and note them for :meth:`unlock`."""
        keys = {}
        for name in trial_names:
            keys[f"katib-callbacks/{lock_key(self.url.database, name).hex()}"[:_LOCK_NAME_CHARACTERS]] = name
        ordered = sorted(keys)
        self._end_lost_sessions(connection, ordered)
        calls = ", ".join([f"GET_LOCK(%s, {LOCK_TIMEOUT_S if is_patient else 0})"] * len(ordered))
        answers = dict(zip(ordered, connection.exec_driver_sql(f"SELECT {calls}", tuple(ordered)).one(), strict=True))
        connection.info.setdefault(_LOCKS, []).extend(key for key in ordered if answers[key] == 1)
        contended = frozenset(name for key, name in keys.items() if answers[key] != 1)
        if contended and is_patient:
            raise BusyError(f"another manager has been writing the trial for {LOCK_TIMEOUT_S} s")
        return contended

    def _end_lost_sessions(self, connection: Connection, keys: Sequence[str]) -> None:
        """End sessions of lost connections that hold one of the locks: nobody else will give these back."""
        lost = self.lost_sessions()
        if not lost:
            return
        holders = ", ".join(["IS_USED_LOCK(%s)"] * len(keys))
        for session in set(connection.exec_driver_sql(f"SELECT {holders}", tuple(keys)).one()) & set(lost):
            with suppress(SQLAlchemyError):  # it may have ended by itself
                connection.exec_driver_sql(f"KILL {session:d}")
            self._lost.pop(session, None)
            give_up_at_s = time.monotonic() + LOCK_TIMEOUT_S
            while time.monotonic() < give_up_at_s and connection.exec_driver_sql(_IS_THERE, (session,)).scalar():
                time.sleep(_KILL_INTERVAL_S)

    def unlock(self, connection: Connection) -> None:
        """Give back what :meth:`lock` noted; where that fails, end the session, and the locks with it."""
        if connection.invalidated:
            return
        keys = connection.info.pop(_LOCKS, [])
        if keys:
            try:
                connection.exec_driver_sql("DO " + ", ".join(["RELEASE_LOCK(%s)"] * len(keys)), tuple(keys))
            except SQLAlchemyError:
                with suppress(SQLAlchemyError):
                    connection.invalidate()

    def create_index(self, connection: Connection) -> None:
        if not connection.exec_driver_sql(_HAS_INDEX, (TRIAL_TIME_INDEX,)).scalar():
            connection.exec_driver_sql(f"CREATE INDEX {TRIAL_TIME_INDEX} ON observation_logs (trial_name, time)")

    def warn_of_lost_writes(self, connection: Connection) -> None:
        """Warn where a commit does not wait for the disk: the setting is the whole server's."""
        setting = connection.exec_driver_sql("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit").scalar()
        if setting != 1:
            _logger.warning(
                "innodb_flush_log_at_trx_commit is %s: a crash may lose acknowledged rows; set it to 1", setting
            )

    def is_refusal(self, error: DBAPIError) -> bool:
        """Return whether the server knows us and does not let us in."""
        code = next(iter(getattr(error.orig, "args", ())), None)
        return code in {_ACCESS_DENIED, _NO_RIGHT, _UNKNOWN_DATABASE}

    def select_spans(self, connection: Connection, spans: Sequence[Span]) -> Iterator[Row]:
        """Yield what lies within the spans; trials whose names differ in case come along."""
        where = " OR ".join(["(trial_name = %s AND time BETWEEN %s AND %s)"] * len(spans))
        query = f"SELECT trial_name, {_TIME}, metric_name, value FROM observation_logs WHERE {where}"  # noqa: S608  no text
        yield from map(tuple, connection.exec_driver_sql(query, tuple(value for span in spans for value in span)))

    def insert(self, connection: Connection, additions: Sequence[tuple[str, Sequence[Log]]]) -> None:
        """Add rows in one statement, put together here: PyMySQL's own way takes longer than the server."""
        values: list[str] = []
        size = 0
        for trial_name, logs in additions:
            head = f"('{trial_name.translate(_ESCAPES)}','"
            for time_, metric_name, value in logs:
                text = f"{head}{time_}','{metric_name.translate(_ESCAPES)}','{value.translate(_ESCAPES)}')"
                size += len(text)
                if values and size > STATEMENT_CHARACTERS:
                    _insert(connection, values)
                    values, size = [], len(text)
                values.append(text)
        _insert(connection, values)

    def abandon(self, connection: Connection, result: Result[Any]) -> None:
        """Leave the connection with it: PyMySQL would read the rest, to throw it away."""
        rest = getattr(getattr(result, "cursor", None), "_result", None)
        connection.invalidate()
        if rest is not None:
            rest.unbuffered_active = False  # it would even read it from the closed connection

    def equals(self, column: Column[str], text: str) -> ColumnElement[bool]:
        """Compare through the index, and then the bytes of what was found."""
        data = bindparam(None, text.encode(), type_=LargeBinary)
        return and_(column == text, literal_column(f"CAST(CONVERT({column.name} USING utf8mb4) AS BINARY)") == data)


def _insert(connection: Connection, values: Sequence[str]) -> None:
    connection.exec_driver_sql(
        f"INSERT INTO observation_logs (trial_name, time, metric_name, value) VALUES {','.join(values)}",  # noqa: S608
        execution_options={"no_parameters": True},  # a percent sign is one
    )
