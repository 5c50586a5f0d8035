"""The DB manager's server: Katib's gRPC service and gRPC health on an observation log store."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike

import grpc
from sqlalchemy import URL

from katib_callbacks.db_manager.listening import bind, check_address, make_server
from katib_callbacks.db_manager.prometheus import ServerMetrics, open_metrics
from katib_callbacks.db_manager.retention import Retention, check_days
from katib_callbacks.db_manager.service.arrivals import MAX_CALLS as MAX_ARRIVING
from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.callers import OwnCallers
from katib_callbacks.db_manager.service.health import Health, HealthMonitor
from katib_callbacks.db_manager.service.katib_service import KatibService
from katib_callbacks.db_manager.service.limits import call_places
from katib_callbacks.db_manager.service.replies import LargeReplies
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.stopping.judge import Judge
from katib_callbacks.db_manager.store.database import RESERVED_CONNECTIONS
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.db_manager.trials.authenticator import Authenticator
from katib_callbacks.db_manager.trials.listener import TrialListener
from katib_callbacks.db_manager.trials.server import TrialServer
from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.wire.forks import keep_core_up

MAX_CONNECTIONS = 10
"""Connections to the database: one writes, one checks, the others read. PostgreSQL has 100 for everybody, and Katib's
own manager takes one for each client of a burst."""

MAX_CALLS = 512
"""Calls worked on or waiting at once; further ones are told to try again. Each has a thread, which costs little while
it waits, and its rows in memory."""

MORE_THREADS = MAX_ARRIVING + 64
"""Than calls: for those whose request has not arrived, for watchers, and for what never waits long, as refusals."""

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
        retention_days: Delete the rows of a trial whose newest row is older; None keeps all.
        metrics_address: ``host:port`` where Prometheus finds this server's own metrics; None for nowhere.
        trial_listener: A second address, with TLS and authentication, for trials alone; None for none.
        is_read_only: Answer no calls by which rows are written or deleted at ``listen_address``.
        is_own_users_only: Answer at ``listen_address``, an IPv4 loopback, only processes of this user and of root,
            where the system tells whose they are, as Linux does.
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
        retention_days: float | None = None,
        metrics_address: str | None = None,
        trial_listener: TrialListener | None = None,
        is_read_only: bool = False,
        is_own_users_only: bool = False,
    ) -> None:
        self._listen_address = listen_address
        check_days(retention_days)
        self._retention_days = retention_days
        self._max_calls = max_calls
        self._metrics_address = metrics_address
        self._trial_listener = trial_listener
        self._is_read_only = is_read_only
        self._is_own_users_only = is_own_users_only
        self._max_connections = max_connections
        self._open_store = partial(
            ObservationLogStore,
            db,
            max_connections=max_connections,
            is_initialized=is_initialized,
            connect_timeout_s=connect_timeout_s,
            keep_duplicates=keep_duplicates,
            keeps_namespaces=trial_listener is not None,
        )
        self._lock = threading.Lock()
        self._running: _Running | None = None

    @property
    def address(self) -> str:
        """Where the running server listens, such as ``127.0.0.1:43211``."""
        return self._started().address

    @property
    def trial_address(self) -> str | None:
        """Where the running server listens for trials; None for nowhere."""
        trials = self._started().trials
        return None if trials is None else trials.address

    @property
    def db_url(self) -> str:
        """The URL of the running server's database, with an absolute path and without a password."""
        return self._started().store.url

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the running server's metrics; None for nowhere."""
        return self._started().metrics.address

    def start(self) -> "DBManager":
        """Open the database and serve it; does nothing if it runs.

        Returns:
            Itself.

        Raises:
            ConfigurationError: The URL, an address or a file cannot be right, or an address is in use.
            MissingDependencyError: What the trial listener needs is not installed.
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
                stopped = [running.server.stop(grace_s)]
                if running.trials is not None:
                    stopped.append(running.trials.server.stop(grace_s))
                for event in stopped:
                    event.wait()
                running.close()

    def __enter__(self) -> "DBManager":  # noqa: PYI034  typing.Self came with Python 3.11
        return self.start()

    def __exit__(self, *_exception: object) -> None:
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
            authenticator = None if self._trial_listener is None else Authenticator(self._trial_listener)
            if authenticator is not None:
                undo.callback(authenticator.close)
            store = self._open_store()
            undo.callback(store.close)
            monitor = HealthMonitor(store.check)
            undo.callback(monitor.close)
            metrics = open_metrics(self._metrics_address, monitor.is_serving)
            undo.callback(metrics.close)
            judge = Judge(store)
            undo.callback(judge.close)
            if self._retention_days is not None:
                undo.callback(Retention(store, self._retention_days, judge.last_asked).close)
            arrivals, large_replies = Arrivals(), LargeReplies()
            undo.callback(arrivals.close)
            workers = ThreadPoolExecutor(
                max_workers=self._max_calls + MORE_THREADS, thread_name_prefix="katib-callbacks-db-manager"
            )
            undo.callback(workers.shutdown)
            server = make_server(workers)
            health = Health(monitor)
            servicer = Servicer(store, call_places(self._max_calls), metrics, large_replies, judge)
            callers = OwnCallers(os.getuid()) if self._is_own_users_only else None
            service = KatibService(servicer, health, arrivals, is_read_only=self._is_read_only, callers=callers)
            server.add_generic_rpc_handlers((service,))
            address = bind(server, self._listen_address)
            if callers is not None:
                callers.port = int(address.rpartition(":")[2])
            trials = None
            if authenticator is not None:
                servicer = Servicer(store, call_places(authenticator.listener.max_calls), metrics, large_replies, judge)
                reads = max(1, (self._max_connections - RESERVED_CONNECTIONS) // 2)
                trials = undo.enter_context(
                    TrialServer(authenticator, servicer, health, metrics, arrivals, max_reads=reads)
                )
            server.start()
            return _Running(address, server, trials, store, health, metrics, undo.pop_all().close)


@dataclass(frozen=True)
class _Running:
    address: str
    server: grpc.Server
    trials: TrialServer | None
    store: ObservationLogStore
    health: Health
    metrics: ServerMetrics
    close: Callable[[], None]
