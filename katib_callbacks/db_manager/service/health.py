"""gRPC health that follows the database: asked when a client asks, and told to those that watch."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from katib_callbacks.errors import StoreError
from katib_callbacks.wire import messages, methods

CHECK_TIMEOUT_S = 3.0
"""How long the database may take to answer: a frozen one is not serving, though no connection has failed."""

WATCH_INTERVAL_S = 1.0
"""How often the database is asked for those that watch."""

MAX_WATCHERS = 16
"""Each keeps a thread of the server busy."""

SERVICES = frozenset({"", methods.DB_MANAGER_SERVICE, methods.HEALTH_SERVICE})
"""Whose health may be asked. Katib's own manager answers for the empty name and its health service's."""

LIVENESS = "liveness"
"""By this name the process itself is asked for, whatever its database does: to restart it would not help that."""

_logger = logging.getLogger(__name__)


class UnforeseenError(Exception):
    """A health check failed with an error that is a mistake of ours; the message is its type."""


class HealthMonitor:
    """Asks the store whether it serves: one question at a time, however many want to know and however long it takes."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._condition = threading.Condition()
        self._asked = self._answered = 0
        self._answer: bool | str = True
        self._is_closed = False
        self._away_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="katib-callbacks-health", daemon=True)
        self._thread.start()

    def is_serving(self) -> bool:
        """Return whether the database answers a question that is asked from now on, within a few seconds.

        UnforeseenError where the check failed in a way that it was not written for; the log says more.
        """
        with self._condition:
            self._asked += 1
            mine = self._asked
            self._condition.notify_all()
            is_answered = self._condition.wait_for(
                lambda: self._answered >= mine or self._is_closed, timeout=CHECK_TIMEOUT_S
            )
            if not is_answered:
                _logger.warning("not serving: the database has not answered for %g s", CHECK_TIMEOUT_S)
            if isinstance(self._answer, str):
                raise UnforeseenError(self._answer)
            return is_answered and self._answer and not self._is_closed

    def close(self) -> None:
        """End the thread, unless the database holds it. May be called twice."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join(CHECK_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._asked > self._answered or self._is_closed)
                if self._is_closed:
                    return
                number = self._asked
            answer = self._ask()
            if answer is not True and self._away_since_s is None:
                self._away_since_s = time.monotonic()
            elif answer is True and self._away_since_s is not None:
                _logger.warning("serving again, after %.0f s", time.monotonic() - self._away_since_s)
                self._away_since_s = None
            with self._condition:
                self._answered, self._answer = number, answer
                self._condition.notify_all()

    def _ask(self) -> bool | str:
        try:
            self._check()
        except StoreError as error:
            _logger.warning("not serving: %s", str(error))  # the text alone: a kept record would keep the call
            return False
        except Exception as error:
            _logger.exception("a health check failed in a way that was not foreseen")
            return type(error).__name__  # not itself: it would keep whatever call it is raised in
        return True


class Health:
    """The service ``grpc.health.v1.Health``: probes use its ``Check``, load balancers its ``Watch``."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor
        self._lock = threading.Lock()
        self._watchers: set[threading.Event] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """Tell those that watch, and end their calls: a server waits for calls that are under way."""
        with self._lock:
            self._is_stopping = True
            for wake in self._watchers:
                wake.set()

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        """Answer whether the database can be used now."""
        if request.service == LIVENESS:
            return _response(messages.SERVING)
        if request.service not in SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _response(self._status(context))

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802  gRPC's name
        """Answer whether the database can be used, now and whenever that changes."""
        wake = threading.Event()
        with self._lock:
            if len(self._watchers) >= MAX_WATCHERS:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} clients are watching; use Check")
            self._watchers.add(wake)
            if self._is_stopping:
                wake.set()
        if not context.add_callback(wake.set):  # the call is over already
            wake.set()
        try:
            yield from self._changes(request.service, wake, context)
        finally:
            with self._lock:
                self._watchers.discard(wake)

    def _changes(self, service: str, wake: threading.Event, context: grpc.ServicerContext) -> Iterator[Any]:
        if service not in SERVICES:  # as the protocol has it: the name might become known later
            yield _response(messages.SERVICE_UNKNOWN)
            wake.wait()
            return
        last = None
        while not wake.is_set():
            status = self._status(context)
            if status != last:
                yield _response(status)
                last = status
            wake.wait(WATCH_INTERVAL_S)
        if context.is_active() and last == messages.SERVING:
            yield _response(messages.NOT_SERVING)

    def _status(self, context: grpc.ServicerContext) -> int:
        try:
            return messages.SERVING if self._monitor.is_serving() else messages.NOT_SERVING
        except UnforeseenError as error:
            context.abort(grpc.StatusCode.INTERNAL, f"{error}; the DB manager's log says more")
            raise


def _response(status: int) -> Any:
    return messages.HealthCheckResponse(status=status)
