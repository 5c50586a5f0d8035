"""DBManagerSink: the destination ``katib``, a Katib DB manager or the embedded one."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from katib_callbacks.errors import ConfigurationError, ReporterClosedError
from katib_callbacks.metrics import MetricLog, name_problem
from katib_callbacks.net.deadline import Deadline
from katib_callbacks.settings import DEFAULT_RUNTIME, PreviousAttempt, Runtime, Verify
from katib_callbacks.sinks import SinkOutcome
from katib_callbacks.sinks.katib.calls import Courier
from katib_callbacks.sinks.katib.connection import Connection
from katib_callbacks.sinks.katib.endpoint import Endpoint
from katib_callbacks.sinks.katib.previous_attempt import first_delivery
from katib_callbacks.sinks.katib.settling import Settlement
from katib_callbacks.wire.forks import is_core_inherited

if TYPE_CHECKING:
    from katib_callbacks.sinks.katib.fresh_process import FreshProcess


class DBManagerSink:
    """Sends rows to a DB manager, each once.

    May be used by several threads at once: each delivery opens its own channel and closes it. In a process that was
    forked after gRPC had been loaded, it does so in a fresh interpreter. Pickles without anything live.

    Args:
        endpoint: Where the DB manager listens.
        verify: ``"ambiguous"``: read back where a call's outcome is unclear. ``"always"``: successes too.
        previous_attempt: What to do about rows that the trial already has before this process's first write.
        runtime: For tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        verify: Verify = "ambiguous",
        previous_attempt: PreviousAttempt = "ignore",
        runtime: Runtime = DEFAULT_RUNTIME,
    ) -> None:
        self._endpoint = endpoint
        self._verify = verify
        self._previous_attempt = previous_attempt
        self._runtime = runtime
        self._closing = threading.Event()
        self._ways: set[Connection | FreshProcess] = set()
        self._lock = threading.Lock()

    def send(
        self,
        trial_name: str,
        logs: Sequence[MetricLog],
        *,
        deadline_s: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> SinkOutcome:
        """Deliver the rows, blocking; see :class:`katib_callbacks.MetricSink`.

        Args:
            trial_name: The trial.
            logs: Its rows.
            deadline_s: Seconds that this call may take.
            on_progress: Called with the number of rows delivered, after each batch.

        Raises:
            ConfigurationError: The trial's name cannot be stored.
            RejectedError: The DB manager refused rows for good.
            UnavailableError: The budget was spent.
            ReporterClosedError: Closed, before or in the meantime.
        """
        if is_core_inherited():
            return self._send_elsewhere(trial_name, logs, deadline_s)
        with self._delivery(trial_name, logs, deadline_s, self._previous_attempt) as delivery:
            return delivery.run(on_progress=on_progress)

    def resend(
        self,
        trial_name: str,
        logs: Sequence[MetricLog],
        *,
        deadline_s: float,
        abandoned_s: float = 0.0,
        on_progress: Callable[[int], None] | None = None,
    ) -> SinkOutcome:
        """Deliver rows that an earlier process may have delivered, in this order: ask before sending.

        Args:
            trial_name: The trial.
            logs: Its rows, as they were handed to :meth:`send`.
            deadline_s: Seconds that this call may take.
            abandoned_s: For how long nobody has been sending them any more while the DB manager answered.
            on_progress: Called with the number of rows delivered, after each batch.

        Raises:
            DeliveryError: As :meth:`send`, and so for the other errors.
        """
        with self._delivery(trial_name, logs, deadline_s, "ignore") as delivery:
            return delivery.run(abandoned_s=abandoned_s, on_progress=on_progress)

    def close(self) -> None:
        """End the deliveries under way with ReporterClosedError. May be called by any thread, and twice."""
        self._closing.set()
        with self._lock:
            ways = list(self._ways)
        for way in ways:
            way.close()

    def _send_elsewhere(self, trial_name: str, logs: Sequence[MetricLog], deadline_s: float) -> SinkOutcome:
        from katib_callbacks.sinks.katib.fresh_process import FreshProcess, Job  # noqa: PLC0415  after a fork alone

        budget = self._budget(trial_name, deadline_s)
        with contextlib.ExitStack() as stack:
            is_first = stack.enter_context(first_delivery(trial_name, budget))
            policy: PreviousAttempt = self._previous_attempt if is_first else "ignore"
            if policy == "ignore":
                stack.close()  # nothing is deleted, so other deliveries need not wait for this one
            level = logging.getLogger("katib_callbacks").getEffectiveLevel()
            job = Job(self._endpoint, self._verify, policy, trial_name, logs, deadline_s, level)
            interpreter = FreshProcess(job)
            stack.callback(interpreter.release)
            stack.enter_context(self._closable(interpreter))
            return interpreter.deliver(budget)

    @contextlib.contextmanager
    def _delivery(
        self, trial_name: str, logs: Sequence[MetricLog], deadline_s: float, previous_attempt: PreviousAttempt
    ) -> Iterator[Settlement]:
        budget = self._budget(trial_name, deadline_s)
        connection = Connection(self._endpoint)
        with self._closable(connection):
            yield Settlement(
                Courier(connection, self._endpoint.address, budget),
                trial_name,
                logs,
                previous_attempt=previous_attempt,
                is_always_verified=self._verify == "always",
                runtime=self._runtime,
            )

    def _budget(self, trial_name: str, deadline_s: float) -> Deadline:
        problem = name_problem(trial_name)
        if problem:
            raise ConfigurationError(f"trial name {trial_name!r} {problem}")
        return Deadline(deadline_s, self._closing, self._runtime)

    @contextlib.contextmanager
    def _closable(self, way: "Connection | FreshProcess") -> Iterator[None]:
        """Let :meth:`close` end what goes that way, and close it in the end."""
        with self._lock:
            if self._closing.is_set():
                raise ReporterClosedError("the sink is closed")
            self._ways.add(way)
        try:
            yield
        finally:
            with self._lock:
                self._ways.discard(way)
            way.close()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for live in ("_closing", "_ways", "_lock"):
            del state[live]
        return {**state, "is_closed": self._closing.is_set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_closed = state.pop("is_closed")
        self.__dict__.update(state)
        self._closing, self._ways, self._lock = threading.Event(), set(), threading.Lock()
        if is_closed:
            self._closing.set()
