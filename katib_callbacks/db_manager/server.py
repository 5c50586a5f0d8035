"""The DB manager's server: Katib's gRPC service and gRPC health on an observation log store."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike
from types import TracebackType

import grpc
from sqlalchemy import URL

from katib_callbacks.db_manager.admission import Admission
from katib_callbacks.db_manager.health import Health, HealthMonitor
from katib_callbacks.db_manager.listening import bind, check_address
from katib_callbacks.db_manager.observer import Observer, make_observer
from katib_callbacks.db_manager.servicer import Servicer
from katib_callbacks.db_manager.store import ObservationLogStore
from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.wire import reflection
from katib_callbacks.wire.forks import keep_core_up

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""The most rows that Katib's own DB manager takes in a request (16,383), with names of 255 four-byte characters, come
to 18 MB; gRPC's default of 4 MiB is below that. Without a limit one request could fill the memory."""

MAX_CONNECTIONS = 10
"""Connections to the database: one writes, one checks, the others read. PostgreSQL has 100 for everybody, and Katib's
own manager takes one for each client of a burst."""

MAX_CALLS = 512
"""Calls worked on or waiting at once; further ones are told to try again. Each has a thread, which costs little while
it waits, and its rows in memory."""

MAX_THREADS = MAX_CALLS + 256
"""The others are for what never waits long, health checks and refusals, and for clients that send their request slowly:
gRPC keeps a thread for each."""

KEEPALIVE_S = 60
"""How often a silent client is asked whether it still lives, lest its calls stay for hours."""

STOP_GRACE_S = 20.0
"""How long calls in flight may take to finish at a stop: below the 30 s after which Kubernetes kills a pod."""


class DBManager:
    """The embedded DB manager, as a context manager or by ``start`` and ``stop``; it may be started again.

    A call is answered only after its rows are committed and on disk; a batch that comes again is stored once.
    Thread-safe.

        with DBManager("sqlite:///katib.db") as db_manager:
            KatibReporter(db_manager.address, trial_name="trial").report({"accuracy": 0.9})

    Args:
        db: Where the rows lie: a SQLAlchemy URL. ``sqlite:///`` and a path, a file that is made if it does not exist;
            ``mysql://user:password@host:3306/katib``; ``postgresql://user:password@host:5432/katib``. A ``Path`` is an
            SQLite file.
        listen_address: ``host:port``, an IPv6 host in brackets; port 0 takes a free one. There is no authentication:
            whoever reaches the address can read, write and delete.
        max_connections: How many connections to the database there may be; at least 3.
        max_calls: How many calls may be worked on or wait at once; further ones are told to try again.
        connect_timeout_s: How long to wait at the start for a database server that does not answer yet.
        is_initialized: The table is there: make neither it nor the index.
        keep_duplicates: Store a batch that comes again a second time, as Katib's own manager does.
        metrics_address: ``host:port`` where Prometheus finds this server's own metrics; None for nowhere.
    """

    def __init__(
        self,
        db: str | PathLike[str] | URL = "sqlite:///katib.db",
        listen_address: str = "127.0.0.1:0",
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_calls: int = MAX_CALLS,
        connect_timeout_s: float = 0.0,
        is_initialized: bool = False,
        keep_duplicates: bool = False,
        metrics_address: str | None = None,
    ) -> None:
        self._listen_address = listen_address
        self._max_calls = max_calls
        self._metrics_address = metrics_address
        self._open_store = partial(
            ObservationLogStore,
            db,
            max_connections=max_connections,
            is_initialized=is_initialized,
            connect_timeout_s=connect_timeout_s,
            keep_duplicates=keep_duplicates,
        )
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

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the running server's metrics; None for nowhere."""
        return getattr(self._started().observer, "address", None)

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
                self._running = self._serve()
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
                running.health.stop()
                running.server.stop(grace_s).wait()
                running.close()

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

    def _serve(self) -> "_Running":
        check_address(self._listen_address)  # before the store is opened: an address in use leaves no new file behind
        keep_core_up()
        with ExitStack() as undo:
            store = self._open_store()
            undo.callback(store.close)
            monitor = HealthMonitor(store.check)
            undo.callback(monitor.close)
            observer: Observer = make_observer(self._metrics_address, monitor.is_serving)
            undo.callback(observer.close)
            workers = ThreadPoolExecutor(
                max_workers=self._max_calls + MAX_THREADS - MAX_CALLS, thread_name_prefix="katib-callbacks-db-manager"
            )
            undo.callback(workers.shutdown)
            server = grpc.server(
                workers,
                options=(
                    (
                        "grpc.so_reuseport",
                        0,
                    ),  # otherwise a second server on the port would silently take half the calls
                    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1_000),
                ),
            )
            health = Health(monitor)
            servicer = Servicer(store, Admission(self._max_calls), observer)
            server.add_generic_rpc_handlers(
                (
                    servicer.generic_handler(),
                    health.generic_handler(),
                    *(reflection.generic_handler(version) for version in reflection.VERSIONS),
                )
            )
            address = bind(server, self._listen_address)
            server.start()
            return _Running(address, server, store, health, observer, undo.pop_all().close)


@dataclass(frozen=True)
class _Running:
    address: str
    server: grpc.Server
    store: ObservationLogStore
    health: Health
    observer: Observer
    close: Callable[[], None]
