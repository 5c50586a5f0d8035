"""PostgreSQL, through psycopg."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import URL, Connection, String, literal_column
from sqlalchemy.exc import DBAPIError, OperationalError

from katib_callbacks.db_manager.store.database import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    DatabaseServer,
    lock_key,
    told_by,
)
from katib_callbacks.db_manager.store.errors import BusyError
from katib_callbacks.db_manager.store.table import TRIAL_TIME_INDEX, Log, Row, Span
from katib_callbacks.errors import ConfigurationError

# Katib's statement: pkg/db/v1beta1/postgres/init.go.
_CREATE_TABLE = """CREATE TABLE IF NOT EXISTS observation_logs
    (trial_name VARCHAR(255) NOT NULL,
    id serial PRIMARY KEY,
    time TIMESTAMP(6),
    metric_name VARCHAR(255) NOT NULL,
    value TEXT NOT NULL)"""
_CREATE_INDEX = f"CREATE INDEX IF NOT EXISTS {TRIAL_TIME_INDEX} ON observation_logs (trial_name, time)"

# OFFSET 0 keeps the planner from joining the whole table: each span is looked up by itself.
_SELECT_SPANS = """SELECT trial_name, to_char(time, 'YYYY-MM-DD HH24:MI:SS.US'), metric_name, value
    FROM unnest(%s::text[], %s::timestamp[], %s::timestamp[]) AS span (trial, first, last)
    CROSS JOIN LATERAL (SELECT * FROM observation_logs AS log
        WHERE log.trial_name = span.trial AND log.time BETWEEN span.first AND span.last OFFSET 0) AS stored"""
_COPY = "COPY observation_logs (trial_name, time, metric_name, value) FROM STDIN"

# What a text has in COPY's own format: https://www.postgresql.org/docs/current/sql-copy.html
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

# In the order of the array, so that two managers that wait never wait for each other.
_LOCK = "SELECT pg_advisory_xact_lock(key) IS NOT NULL FROM unnest(%s::bigint[]) AS key"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"

ROWS_PER_WRITE = 5_000
"""What is held in memory until it is sent."""

_END_LOST_SESSIONS = """SELECT pg_terminate_backend(pid) FROM (SELECT DISTINCT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid = ANY(%s)) AS holder"""

LOST_AFTER_S = 5
"""How long the other end may stay silent before it is asked whether it is there, and a session may stand still in a
transaction: so long are locks kept where a connection is cut."""

_ANSWER_MARGIN_S = 2  # the server's own limit on a statement comes first
_PROBE_INTERVAL_S, _PROBES = 2, 3

_LOCK_NOT_AVAILABLE = "55P03"

_logger = logging.getLogger(__name__)


class PostgreSQLDatabase(DatabaseServer):
    """A database of a PostgreSQL server."""

    driver = "postgresql+psycopg"
    time = literal_column("to_char(time, 'YYYY-MM-DD HH24:MI:SS.US')", String)
    extra = "postgres"
    package = "psycopg"
    create_table = _CREATE_TABLE

    def __init__(self, url: URL, *, max_connections: int) -> None:
        if url.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise ConfigurationError(f"database driver {url.drivername!r} is not known; write postgresql://...")
        super().__init__(
            url,
            max_connections=max_connections,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "tcp_user_timeout": (LOST_AFTER_S + _PROBES * _PROBE_INTERVAL_S) * 1_000,
                "keepalives_idle": LOST_AFTER_S,
                "keepalives_interval": _PROBE_INTERVAL_S,
                "keepalives_count": _PROBES,
                "client_encoding": "utf8",  # what the database's own cannot hold is its to refuse
                "application_name": "katib-callbacks",
            },
            unlimited_args={},
        )

    def configure(self, connection: Any, _record: object) -> None:
        """Bound what a session may wait for, at either end, and let a commit wait for the disk."""
        wait = connection.wait
        connection.wait = lambda steps, *rest, **options: wait(self._bounded(connection, steps), *rest, **options)
        settings = {
            "lock_timeout": f"{LOCK_TIMEOUT_S}s",
            "statement_timeout": f"{ANSWER_TIMEOUT_S}s",
            "idle_in_transaction_session_timeout": f"{LOST_AFTER_S}s",
            "tcp_keepalives_idle": str(LOST_AFTER_S),
            "tcp_keepalives_interval": str(_PROBE_INTERVAL_S),
            "tcp_keepalives_count": str(_PROBES),
            "timezone": "UTC",
        }
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        # Other values than off wait for more than this disk and are the administrator's.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()

    def _bounded(self, connection: Any, steps: Any) -> Any:
        """Carry out the steps of a statement, and give up a connection that is open and from which no answer comes."""
        give_up_at_s = time.monotonic() + ANSWER_TIMEOUT_S + _ANSWER_MARGIN_S
        ready = None
        try:
            while True:
                ready = yield steps.send(ready)
                if not ready and time.monotonic() > give_up_at_s:
                    connection.pgconn.finish()
                    raise self._readers.dialect.loaded_dbapi.OperationalError("the database does not answer")
        except StopIteration as end:
            return end.value

    def session(self, driver: Any) -> int:
        """Return the process that serves it."""
        return int(driver.info.backend_pid)

    def is_closed(self, driver: Any) -> bool:
        """Return whether psycopg gave it up."""
        return bool(driver.closed)

    def lock(self, connection: Connection, trial_names: Iterable[str], *, is_patient: bool) -> frozenset[str]:
        """Take locks of the transaction."""
        keys = {int.from_bytes(lock_key(self.url.database, name)[:8], "big", signed=True): name for name in trial_names}
        ordered = sorted(keys)
        lost = self.lost_sessions()
        if lost:
            connection.exec_driver_sql(_END_LOST_SESSIONS, (lost,))
        try:
            answers = connection.exec_driver_sql(_LOCK if is_patient else _TRY_LOCK, (ordered,)).scalars().all()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            raise BusyError(f"another manager has been writing the trial for {LOCK_TIMEOUT_S} s") from error
        return frozenset(keys[key] for key, is_taken in zip(ordered, answers, strict=True) if not is_taken)

    def create_index(self, connection: Connection) -> None:
        with connection.begin_nested():  # a failure must not undo the table
            connection.exec_driver_sql(_CREATE_INDEX)

    def warn_of_lost_writes(self, connection: Connection) -> None:
        """Warn where a commit does not wait for the disk: the setting is the whole server's."""
        if connection.exec_driver_sql("SHOW fsync").scalar() != "on":
            _logger.warning("fsync is off: a crash of the database's machine may lose acknowledged rows")

    def is_refusal(self, error: DBAPIError) -> bool:
        """Return whether the server knows us and does not let us in; psycopg has no code for that."""
        return re.search(r"authentication failed|(role|database) .* does not exist", told_by(error)) is not None

    def select_spans(self, connection: Connection, spans: Sequence[Span]) -> Iterator[Row]:
        columns = tuple(list(column) for column in zip(*spans, strict=True))
        yield from map(tuple, connection.exec_driver_sql(_SELECT_SPANS, columns))

    def insert(self, connection: Connection, additions: Sequence[tuple[str, Sequence[Log]]]) -> None:
        """Add rows by COPY, which costs this process a tenth of what INSERT does."""
        rows = (
            f"{trial_name.translate(_ESCAPES)}\t{time}\t{name.translate(_ESCAPES)}\t{value.translate(_ESCAPES)}\n"
            for trial_name, logs in additions
            for time, name, value in logs
        )
        errors = connection.dialect.loaded_dbapi.Error
        driver: Any = connection.connection.driver_connection
        try:
            with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
                while chunk := "".join(islice(rows, ROWS_PER_WRITE)):
                    copy.write(chunk)
        except errors as error:  # which SQLAlchemy does not see
            is_lost = bool(driver.closed)
            if is_lost:
                connection.invalidate(error)
            raise DBAPIError.instance(
                _COPY, None, error, errors, connection_invalidated=is_lost, dialect=connection.dialect
            ) from error
