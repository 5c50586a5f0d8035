"""Settlement: one report's rows on their way to a DB manager, until each is stored once or the deadline has passed.

A call whose outcome is unclear is settled by reading back. A batch is one atomic INSERT, so one row proves it. A row
that is found is proof; one that is not may still be on its way, so absence is asked again, for as long as the call had
waited and at least some seconds, before the same rows with the same timestamps are sent again.
"""

import logging
from collections.abc import Callable, Sequence

from katib_callbacks.errors import DeliveryError, RejectedError, ReporterClosedError, UnavailableError, retold
from katib_callbacks.metrics import MetricLog, format_value
from katib_callbacks.net.deadline import LONGEST_PATIENCE_S, SHORTEST_PATIENCE_S, patience_s
from katib_callbacks.settings import PREVIOUS_ATTEMPT, PreviousAttempt, Runtime
from katib_callbacks.sinks import SinkOutcome
from katib_callbacks.sinks.katib.calls import Calls, FailedCallError
from katib_callbacks.sinks.katib.fates import Fate
from katib_callbacks.sinks.katib.previous_attempt import first_delivery, handle_previous_attempt

logger = logging.getLogger(__name__)

MAX_BATCH_ROWS = 1_000
"""Katib takes 16,383 rows a request at most, and its cost grows with their square."""

ABSENCE_S = 1.0
"""How far apart the answers are that say that rows are absent."""

MAX_QUESTION_BACKOFF = 4
"""Questions come at most 0.8 s apart: often enough to see a late commit, seldom enough for a table without an index."""

PROGRESS_INTERVAL_S = 5.0


class Settlement:
    """One report's rows, with strictly increasing timestamps, and one destination."""

    def __init__(
        self,
        calls: Calls,
        trial_name: str,
        logs: Sequence[MetricLog],
        *,
        previous_attempt: PreviousAttempt,
        is_always_verified: bool,
        runtime: Runtime,
    ) -> None:
        self._calls = calls
        self._trial_name = trial_name
        self._logs = logs
        self._previous_attempt = previous_attempt
        self._is_always_verified = is_always_verified
        self._runtime = runtime
        self._delivered = 0
        self._is_unclear = False
        self._told_at_s = self._runtime.monotonic()

    def run(self, *, abandoned_s: float | None = None, on_progress: Callable[[int], None] | None = None) -> SinkOutcome:
        """Deliver all rows, batch by batch, in order.

        ``abandoned_s`` is given where an earlier process may have sent these rows, in this order, so that the DB
        manager is asked first: for how long nobody has been sending them any more while it answered.
        """
        batches = [self._logs[at : at + MAX_BATCH_ROWS] for at in range(0, len(self._logs), MAX_BATCH_ROWS)]
        try:
            with first_delivery(self._trial_name, self._calls.deadline) as is_first:
                self._asks_for_earlier = is_first and self._previous_attempt == "ignore" and abandoned_s is None
                if is_first and self._previous_attempt != "ignore":
                    handle_previous_attempt(self._calls, self._trial_name, self._previous_attempt, self._runtime)
            first = 0 if abandoned_s is None else self._count_stored(batches)
            self._delivered = self._read_back = sum(map(len, batches[:first]))
            for batch in batches[first:]:
                abandoned_s = self._deliver(batch, abandoned_s)
                self._delivered += len(batch)
                self._tell_progress()
                if on_progress is not None:
                    on_progress(self._delivered)
        except DeliveryError as error:
            told = retold(error, self._describe(error))
            told.attempts, told.pending = self._calls.count, len(self._logs) - self._delivered
            raise told from (error.__cause__ or self._calls.last_failure)
        except ReporterClosedError as error:
            raise ReporterClosedError(self._describe(error)) from error
        return SinkOutcome(self._delivered, self._calls.count, verified=self._read_back == self._delivered)

    def _count_stored(self, batches: Sequence[Sequence[MetricLog]]) -> int:
        """Return how many batches are surely stored. They went out in order, so each one proves those before it."""
        low, high = 0, len(batches)
        while low < high:
            middle = (low + high) // 2
            if self._ask(batches[middle][0]):
                low = middle + 1
            else:
                high = middle
        return low

    def _deliver(self, batch: Sequence[MetricLog], abandoned_s: float | None) -> float | None:
        """Deliver one batch; return ``abandoned_s`` for the next one: None if none after this was ever sent."""
        self._is_unclear = abandoned_s is not None
        patient_until_s = self._runtime.monotonic() + SHORTEST_PATIENCE_S - (abandoned_s or 0.0)
        has_sent, troubles = False, 0
        while True:
            # A server that just woke up answers questions before it commits what it was sent: ask twice, apart.
            apart_s = 0.0 if not has_sent and (abandoned_s or 0.0) >= SHORTEST_PATIENCE_S else ABSENCE_S
            if self._is_unclear and self._is_stored(batch, patient_until_s, apart_s):
                self._read_back += len(batch)
                return None if has_sent else abandoned_s
            sent_at_s = self._runtime.monotonic()
            try:
                has_sent = True
                self._report(batch)
            except FailedCallError as failure:
                if failure.fate is Fate.REFUSED:
                    self._is_unclear = False
                    raise RejectedError(f"refused for good ({failure})") from failure
                if failure.fate is Fate.UNCLEAR:
                    self._is_unclear = True
                    now_s = self._runtime.monotonic()
                    # A call that a fork or a mesh cancelled does not tell how long the server still takes.
                    is_cut_short = failure.status == "CANCELLED"
                    patient_until_s = now_s + (LONGEST_PATIENCE_S if is_cut_short else patience_s(now_s - sent_at_s))
                troubles += failure.is_seen
                self._calls.retry(failure, troubles=troubles)
                continue
            if not self._is_always_verified:
                return None
            self._is_unclear = True
            patient_until_s = self._runtime.monotonic() + SHORTEST_PATIENCE_S

    def _report(self, batch: Sequence[MetricLog]) -> None:
        """Send a batch; the first one of this process lets a DB manager of ours tell what was there before."""
        if not self._asks_for_earlier:
            self._calls.report(self._trial_name, batch)
        elif self._calls.report_first(self._trial_name, batch):
            logger.warning(
                "Trial %r had rows when this process began to report, and Katib counts them too. If they are of an "
                "attempt that failed, set previous_attempt='clear' (%s) to have them deleted.",
                self._trial_name,
                PREVIOUS_ATTEMPT,
            )
        self._asks_for_earlier = False

    def _is_stored(self, batch: Sequence[MetricLog], patient_until_s: float, apart_s: float) -> bool:
        """Ask until a row of the batch is found, or none has been found for long enough."""
        first_absent_at_s: float | None = None
        absences = 0
        while not self._ask(batch[-1] if absences % 2 else batch[0]):
            now_s = self._runtime.monotonic()
            if first_absent_at_s is None:
                first_absent_at_s = now_s
            elif now_s - first_absent_at_s >= apart_s and now_s >= patient_until_s:
                return False
            absences += 1
            self._calls.deadline.pause(min(absences, MAX_QUESTION_BACKOFF))
        return True

    def _ask(self, row: MetricLog) -> bool:
        """Ask whether one row is stored, until there is an answer."""
        while True:
            try:
                stored = self._calls.get(self._trial_name, metric_name=row.name, start=row.timestamp, end=row.timestamp)
            except FailedCallError as failure:
                if failure.fate is Fate.REFUSED:
                    raise UnavailableError(f"they cannot be read back ({failure})") from failure
                self._calls.retry(failure)
                continue
            value = format_value(row.value)
            return any(log.timestamp == row.timestamp and log.name == row.name and log.value == value for log in stored)

    def _tell_progress(self) -> None:
        now_s = self._runtime.monotonic()
        if now_s - self._told_at_s >= PROGRESS_INTERVAL_S and self._delivered < len(self._logs):
            self._told_at_s = now_s
            logger.info("Delivered %d of %d rows to %s.", self._delivered, len(self._logs), self._calls.address)

    def _describe(self, error: Exception) -> str:
        pending = len(self._logs) - self._delivered
        did = "may not have reached" if self._is_unclear else "did not reach"
        text = (
            f"{pending:,} of {len(self._logs):,} rows of trial {self._trial_name!r} {did} the DB manager at "
            f"{self._calls.address}: {error}, after {self._calls.count} calls"
        )
        last = self._calls.last_failure
        return text if last is None or str(last) in text else f"{text}, of which the last to fail got {last}"
