"""DBManagerSink: the destination ``katib``, a Katib DB manager or the embedded one."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from katib_callbacks.errors import ConfigurationError, ReporterClosedError
from katib_callbacks.metrics import MetricLog, name_problem
from katib_callbacks.net.deadline import Closing, Deadline
from katib_callbacks.process_state import locked, started_at, trial_state
from katib_callbacks.settings import DEFAULT_RUNTIME, PreviousAttempt, Runtime, Verify
from katib_callbacks.sinks import SinkOutcome
from katib_callbacks.sinks.katib.calls import Calls, FailedCallError
from katib_callbacks.sinks.katib.endpoint import Endpoint
from katib_callbacks.sinks.katib.fates import Fate
from katib_callbacks.sinks.katib.previous_attempt import first_delivery
from katib_callbacks.sinks.katib.settling import Settlement
from katib_callbacks.wire.forks import is_core_inherited

if TYPE_CHECKING:
    from katib_callbacks.sinks.katib.fresh_process import FreshProcess

QUESTION_S = 20.0
"""Time for the one call that finds out whether a DB manager answers."""

logger = logging.getLogger(__name__)


class DBManagerSink:
    """Sends rows to a DB manager, each once.

    May be used by several threads at once: each delivery opens its own channel and closes it. In a process that was
    forked after gRPC had been loaded, it does so in a fresh interpreter. Pickles without anything live.

    Args:
        verify: ``"ambiguous"``: read back where a call's outcome is unclear. ``"always"``: successes too.
        spool_dir: Directory where rows lie from before the first attempt until they are known to be stored.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        verify: Verify = "ambiguous",
        previous_attempt: PreviousAttempt = "ignore",
        spool_dir: str | None = None,
        runtime: Runtime = DEFAULT_RUNTIME,
    ) -> None:
        self._endpoint = endpoint
        self._verify = verify
        self._previous_attempt: PreviousAttempt = previous_attempt
        self._spool_dir = spool_dir
        self._runtime = runtime
        self._closing = Closing()
        self._ways: set[Calls | FreshProcess] = set()

    def send(
        self,
        trial_name: str,
        logs: Sequence[MetricLog],
        *,
        deadline_s: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> SinkOutcome:
        """Deliver the rows, blocking, and count them after each batch; see :class:`katib_callbacks.MetricSink`."""
        deadline = self._deadline(trial_name, deadline_s)

        def send() -> SinkOutcome:
            if is_core_inherited():
                return self._send_in_fresh_process(trial_name, logs, deadline)
            with self._settlement(trial_name, logs, deadline, self._previous_attempt) as settlement:
                return settlement.run(on_progress=on_progress)

        if self._spool_dir is None:
            return send()
        from katib_callbacks.sinks.katib import spool  # noqa: PLC0415  only where one is used

        return spool.deliver(self._spool_dir, trial_name, logs, send)

    def latest_left_behind(self, trial_name: str) -> datetime | None:
        """Return the time of the latest row that an earlier process left in the spool; None when asked again."""
        known = trial_state(trial_name).known_spools
        if self._spool_dir is None or self._spool_dir in known:
            return None
        known.add(self._spool_dir)
        from katib_callbacks.sinks.katib import spool  # noqa: PLC0415  as above

        count, latest = spool.left_behind(self._spool_dir, trial_name)
        if count and self._previous_attempt == "clear":
            logger.warning(
                "%s holds %d undelivered reports of an earlier attempt of trial %r; previous_attempt='clear' leaves "
                "them there, and a replay would bring their rows back.",
                self._spool_dir,
                count,
                trial_name,
            )
        return latest

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

        ``abandoned_s`` is for how long nobody has been sending them any more while the DB manager answered.
        """
        deadline = self._deadline(trial_name, deadline_s)
        with self._settlement(trial_name, logs, deadline, "ignore") as settlement:
            return settlement.run(abandoned_s=abandoned_s, on_progress=on_progress)

    def answers(self) -> bool:
        """Ask the DB manager for a trial that there is not; return whether it answered, whatever it did."""
        deadline = Deadline(QUESTION_S, self._closing, self._runtime)
        calls = Calls(self._endpoint, deadline)
        with self._closable(calls):
            try:
                calls.get("katib-callbacks-replay", metric_name="none")
            except FailedCallError as failure:
                return failure.fate is Fate.REFUSED
            return True

    def close(self) -> None:
        """End the deliveries under way with ReporterClosedError. May be called by any thread, and twice."""
        self._closing.set()
        with locked():  # a signal handler may close what its thread is opening
            ways = list(self._ways)
        for way in ways:
            way.close()

    def _send_in_fresh_process(self, trial_name: str, logs: Sequence[MetricLog], deadline: Deadline) -> SinkOutcome:
        from katib_callbacks.sinks.katib.fresh_process import FreshProcess, Job  # noqa: PLC0415  after a fork alone

        with contextlib.ExitStack() as stack:
            is_first = stack.enter_context(first_delivery(trial_name, deadline))
            if not is_first or self._previous_attempt == "ignore":
                stack.close()  # nothing is deleted, so other deliveries need not wait for this one
            level = logging.getLogger("katib_callbacks").getEffectiveLevel()
            job = Job(
                self._endpoint,
                self._verify,
                self._previous_attempt,
                trial_name,
                logs,
                deadline.remaining_s,
                level,
                is_first=is_first,
                started_at=started_at(),
            )
            process = FreshProcess(job)
            stack.callback(process.release)
            stack.enter_context(self._closable(process))
            return process.deliver(deadline)

    @contextlib.contextmanager
    def _settlement(
        self, trial_name: str, logs: Sequence[MetricLog], deadline: Deadline, previous_attempt: PreviousAttempt
    ) -> Iterator[Settlement]:
        calls = Calls(self._endpoint, deadline)
        with self._closable(calls):
            yield Settlement(
                calls,
                trial_name,
                logs,
                previous_attempt=previous_attempt,
                is_always_verified=self._verify == "always",
                runtime=self._runtime,
            )

    def _deadline(self, trial_name: str, deadline_s: float) -> Deadline:
        problem = name_problem(trial_name)
        if problem:
            raise ConfigurationError(f"trial name {trial_name!r} {problem}")
        return Deadline(deadline_s, self._closing, self._runtime)

    @contextlib.contextmanager
    def _closable(self, way: "Calls | FreshProcess") -> Iterator[None]:
        """Let :meth:`close` end what goes that way, and close it in the end."""
        with locked():
            if self._closing.is_set():
                raise ReporterClosedError("the sink is closed")
            self._ways.add(way)
        try:
            yield
        finally:
            with locked():
                self._ways.discard(way)
            way.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ways": set()}
