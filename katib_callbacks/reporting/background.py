"""BackgroundSender: deliveries to a sink after the first one, which never fail a report, nor delay it."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillSendingError
from typing import Any, NamedTuple

from katib_callbacks.errors import DeliveryError, KatibCallbacksError
from katib_callbacks.metrics import MetricLog
from katib_callbacks.sinks import MetricSink, SinkOutcome, checked_outcome, close_quietly

logger = logging.getLogger(__name__)

GRACE_S = 2.0
"""How long a caller that asks for an outcome waits for it, and the end of the process waits: no longer in all."""

MAX_WAITING_REPORTS = 1_000
"""How many reports wait for a sink that is slower than they come; their rows lie in memory."""

_WATCH_INTERVAL_S = 0.1


class Outcomes(Mapping[str, SinkOutcome]):
    """The outcomes of all sinks by name, the later ones known when they are read, so that a report need not wait.

    To read one waits until ``GRACE_S`` have passed since the report.
    """

    def __init__(self, outcomes: "Mapping[str, SinkOutcome | Future[SinkOutcome]]") -> None:
        self._outcomes = outcomes
        self._patience_ends_s = time.monotonic() + GRACE_S

    def __getitem__(self, name: str) -> SinkOutcome:
        found = self._outcomes[name]
        if isinstance(found, SinkOutcome):
            return found
        try:
            return found.result(max(0.0, self._patience_ends_s - time.monotonic()))
        except StillSendingError:
            return SinkOutcome(delivered=0, attempts=0, error="still sending when it was asked for")

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (dict(self),))


class _Job(NamedTuple):
    trial_name: str
    logs: Sequence[MetricLog]
    ends_s: float
    outcome: "Future[SinkOutcome]"


class BackgroundSender:
    """Takes reports to one sink, one after the other, in a thread that lives while there are any.

    It is a daemon, because a sink that hangs must not keep the process alive; a watcher beside it, which is not, holds
    the end of the process back for a moment, so that a sink that works loses nothing. Where ``sink`` is an error, the
    sink cannot be made in this process, and every report to it fails with that.
    """

    def __init__(self, name: str, sink: MetricSink | Exception, *, is_own: bool = True) -> None:
        self.name = name
        self.sink = sink
        self._is_own = is_own
        self._lock = threading.RLock()  # a signal handler may close what its thread is sending to
        self._waiting: deque[_Job] = deque()
        self._is_running = False
        self._is_closed = False
        self._is_troubled = False
        self._is_late = False
        self._busy_since_s = 0.0

    def send(self, trial_name: str, logs: Sequence[MetricLog], deadline_s: float) -> "Future[SinkOutcome]":
        """Let a report be delivered within ``deadline_s`` from now, without waiting."""
        job = _Job(trial_name, logs, time.monotonic() + deadline_s, Future())
        with self._lock:
            if len(self._waiting) >= MAX_WAITING_REPORTS:
                return self._refuse(job, f"{MAX_WAITING_REPORTS:,} earlier reports still wait for it")
            self._waiting.append(job)
            if not self._is_running:
                reason = self._start()
                if reason is not None:
                    self._waiting.remove(job)
                    return self._refuse(job, reason)
        return job.outcome

    def close(self) -> None:
        """Close the sink, if it is one's own, once it has what was sent; waits for neither."""
        with self._lock:
            is_to_close = self._is_own and not self._is_running and not self._is_closed
            self._is_closed = True
            reason = self._start() if is_to_close else None
        if reason is not None:
            self._close_sink()

    def _start(self) -> str | None:
        """Let the thread run; return why that is impossible."""
        self._busy_since_s = time.monotonic()
        sender = threading.Thread(target=self._run, name=f"katib-callbacks-{self.name}", daemon=True)
        watcher = threading.Thread(
            target=self._watch, args=(sender,), name=f"katib-callbacks-{self.name}-watcher", daemon=False
        )
        self._is_running = True
        try:
            sender.start()
        except RuntimeError as error:  # the interpreter is ending, or there are too many threads
            self._is_running = False
            return f"no thread can be started: {error}"
        try:
            watcher.start()
        except RuntimeError as error:
            logger.debug("The end of the process will not wait for the sink %r: %s", self.name, error)
        return None

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    is_to_close = self._is_own and self._is_closed
                    break
                job = self._waiting.popleft()
            self._busy_since_s = time.monotonic()
            job.outcome.set_result(self._deliver(job))
        if is_to_close:
            self._close_sink()

    def _close_sink(self) -> None:
        if not isinstance(self.sink, Exception):
            close_quietly(self.name, self.sink)

    def _deliver(self, job: _Job) -> SinkOutcome:
        left_s = job.ends_s - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError("earlier reports took all of the time")  # noqa: TRY301  as any other failure
            if isinstance(self.sink, Exception):
                raise self.sink  # noqa: TRY301  as above
            outcome = checked_outcome(self.sink.send(job.trial_name, job.logs, deadline_s=left_s))
        except BaseException as error:  # noqa: BLE001  sys.exit() included: the thread is ours, and has more to send
            said = f"{type(error).__name__}: {error}"
            self._complain("failed", str(error) if isinstance(error, KatibCallbacksError) else said)
            if isinstance(error, DeliveryError):  # another's attributes of these names may be anything
                return SinkOutcome(len(job.logs) - error.pending_of(len(job.logs)), error.attempts, error=said)
            return SinkOutcome(delivered=0, attempts=0, error=said)
        if outcome.error is not None:
            self._complain("failed", f"it delivered {outcome.delivered} of {len(job.logs)} rows: {outcome.error}")
        else:
            self._is_troubled = False
        return outcome

    def _watch(self, sender: threading.Thread) -> None:
        main = threading.main_thread()
        end_s = float("inf")
        while sender.is_alive() and time.monotonic() < end_s:
            sender.join(_WATCH_INTERVAL_S)
            if sender.is_alive() and time.monotonic() > self._busy_since_s + GRACE_S:
                if not self._is_late:  # once for all of its reports, however slow it is
                    self._is_late = True
                    self._complain(
                        "is late", f"it has not answered for {GRACE_S:g} s, and the end of the process will not wait"
                    )
                if not main.is_alive():
                    return
            if not main.is_alive():
                end_s = min(end_s, time.monotonic() + GRACE_S)

    def _refuse(self, job: _Job, reason: str) -> "Future[SinkOutcome]":
        self._complain("failed", reason)
        job.outcome.set_result(SinkOutcome(delivered=0, attempts=0, error=reason))
        return job.outcome

    def _complain(self, what: str, reason: str) -> None:
        """Log one line, and then no other before the sink has worked again."""
        level = logging.DEBUG if self._is_troubled else logging.WARNING
        self._is_troubled = True
        logger.log(level, "The sink %r %s; the report does not depend on it: %s", self.name, what, reason)
