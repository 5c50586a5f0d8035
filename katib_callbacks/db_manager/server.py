"""The DB manager's server: Katib's gRPC service and gRPC health on an observation log store."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import grpc

from katib_callbacks.db_manager.listening import bind, check_address
from katib_callbacks.db_manager.store import ObservationLogStore
from katib_callbacks.db_manager.validation import InvalidRequestError, check_trial_name, filters, report_rows
from katib_callbacks.errors import KatibCallbacksError, StoreError
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.forks import keep_core_up
from katib_callbacks.wire.server import DBManagerServicer, HealthServicer

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""The most rows that Katib's own DB manager takes in a request (16,383), with names of 255 four-byte characters, come
to 18 MB; gRPC's default of 4 MiB is below that. Without a limit one request could fill the memory."""

MAX_CALLS = 16
"""Calls worked on at once, each with a thread and a database connection; further ones wait for their turn. Writes come
one at a time anyway, so this is for readers, health checks, and for the network to overlap with the disk."""

STOP_GRACE_S = 20.0
"""How long calls in flight may take to finish at a stop: below the 30 s after which Kubernetes kills a pod."""

_logger = logging.getLogger(__name__)


class DBManager:
    """The embedded DB manager, as a context manager or by ``start`` and ``stop``; it may be started again.

    A call is answered only after its rows are committed and on disk. Thread-safe.

        with DBManager("sqlite:///katib.db") as db_manager:
            KatibReporter(db_manager.address, trial_name="trial").report({"accuracy": 0.9})

    Args:
        db: Where the rows lie: a SQLAlchemy URL. ``sqlite:///`` and a path; the file is made if it does not exist.
        listen_address: ``host:port``, an IPv6 host in brackets; port 0 takes a free one. There is no authentication:
            whoever reaches the address can read, write and delete.
    """

    def __init__(self, db: str = "sqlite:///katib.db", listen_address: str = "127.0.0.1:0") -> None:
        self._db = db
        self._listen_address = listen_address
        self._lock = threading.Lock()
        self._running: _Running | None = None

    @property
    def address(self) -> str:
        """Where the running server listens, such as ``127.0.0.1:43211``."""
        return self._started().address

    @property
    def db_url(self) -> str:
        """The URL of the running server's database, with an absolute path and without a password."""
        return self._started().store.url

    def start(self) -> "DBManager":
        """Open the database and serve it; does nothing if it runs.

        Returns:
            Itself.

        Raises:
            ConfigurationError: The URL or the address cannot be right, or the address is in use.
            StoreError: The database cannot be opened.
        """
        with self._lock:
            if self._running is None:
                self._running = _serve(self._db, self._listen_address)
        return self

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Refuse new calls, finish and commit those in flight, close the database; does nothing if it is stopped.

        Blocks until that is done.

        Args:
            grace_s: Seconds after which a call in flight is no longer answered. What it has begun to write is still
                committed, since a client cannot know that it was not.
        """
        with self._lock:
            running, self._running = self._running, None
            if running is not None:
                running.server.stop(grace_s).wait()
                running.workers.shutdown(wait=True)
                running.store.close()

    def __enter__(self) -> "DBManager":  # noqa: PYI034  typing.Self came with Python 3.11
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _started(self) -> "_Running":
        running = self._running
        if running is None:
            raise KatibCallbacksError("the DB manager does not run: use it in a with statement, or call start()")
        return running


@dataclass(frozen=True)
class _Running:
    address: str
    server: grpc.Server
    workers: ThreadPoolExecutor
    store: ObservationLogStore


def _serve(db: str, listen_address: str) -> _Running:
    check_address(listen_address)  # before the store is opened: an address in use leaves no new file behind
    keep_core_up()
    with ExitStack() as undo:
        store = ObservationLogStore(db, max_connections=MAX_CALLS)
        undo.callback(store.close)
        workers = ThreadPoolExecutor(max_workers=MAX_CALLS, thread_name_prefix="katib-callbacks-db-manager")
        undo.callback(workers.shutdown)
        server = grpc.server(
            workers,
            options=(
                ("grpc.so_reuseport", 0),  # otherwise a second server on the port would silently take half of the calls
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ),
        )
        server.add_generic_rpc_handlers((_Servicer(store).generic_handler(), _Health(store).generic_handler()))
        address = bind(server, listen_address)
        server.start()
        undo.pop_all()
    return _Running(address, server, workers, store)


class _Servicer(DBManagerServicer):
    def __init__(self, store: ObservationLogStore) -> None:
        self._store = store

    def ReportObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        return _answer(self._report, request, context)

    def GetObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        return _answer(self._get, request, context)

    def DeleteObservationLog(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  Katib's name
        return _answer(self._delete, request, context)

    def _report(self, request: Any) -> Any:
        self._store.insert(check_trial_name(request), report_rows(request))
        return messages.ReportObservationLogReply()

    def _get(self, request: Any) -> Any:
        trial_name = check_trial_name(request)
        metric_name, start, end = filters(request)
        return messages.GetObservationLogReply(
            observation_log=messages.ObservationLog(
                metric_logs=[
                    messages.MetricLog(
                        time_stamp=format_as_go(log.timestamp), metric=messages.Metric(name=log.name, value=log.value)
                    )
                    for log in self._store.select(trial_name, metric_name=metric_name, start=start, end=end)
                ]
            )
        )

    def _delete(self, request: Any) -> Any:
        self._store.delete(check_trial_name(request))
        return messages.DeleteObservationLogReply()


class _Health(HealthServicer):
    def __init__(self, store: ObservationLogStore) -> None:
        self._store = store

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        if request.service not in {"", methods.DB_MANAGER_SERVICE}:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _answer(self._check, request, context)

    def _check(self, _request: Any) -> Any:
        try:
            self._store.check()
        except StoreError as error:
            _logger.warning("not serving: %s", str(error))  # the text alone: a kept record would keep the call
            return messages.HealthCheckResponse(status=messages.NOT_SERVING)
        return messages.HealthCheckResponse(status=messages.SERVING)


def _answer(handle: Callable[[Any], Any], request: Any, context: grpc.ServicerContext) -> Any:
    """Call ``handle`` and map what it raises to a status: nothing that a request does may end the server."""
    try:
        return handle(request)
    except InvalidRequestError as error:
        code, details = grpc.StatusCode.INVALID_ARGUMENT, str(error)
    except StoreError as error:
        code, details = grpc.StatusCode.UNAVAILABLE, str(error)
        _logger.warning("%s", details)
    except Exception as error:
        _logger.exception("a call failed in a way that was not foreseen")
        code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}; the DB manager's log says more"
    return context.abort(code, details)  # raises


def format_as_go(timestamp: datetime) -> str:
    """Return RFC 3339 in UTC as Go's ``time.RFC3339Nano`` prints it: the fraction without trailing zeros."""
    text = timestamp.astimezone(timezone.utc).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"
