"""Calls: the calls of one delivery to one DB manager, under one deadline, and the rule by which they are retried.

The one place where gRPC's errors are mapped.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from katib_callbacks.errors import ConfigurationError, RejectedError, ReporterClosedError
from katib_callbacks.metrics import MetricLog, StoredMetricLog
from katib_callbacks.metrics.names import shorten
from katib_callbacks.net.deadline import LONGEST_ANSWERED_PAUSE_S, LONGEST_PAUSE_S, Deadline
from katib_callbacks.sinks.katib.endpoint import Endpoint
from katib_callbacks.sinks.katib.fates import NO_CONNECTION, Fate, classify, may_be_replaced
from katib_callbacks.wire.forks import calling

if TYPE_CHECKING:
    from katib_callbacks.wire.client import DBManagerStub

logger = logging.getLogger(__name__)

MAX_LOCAL_FAILURES = 10
"""In a row, over about six seconds: certificates and tokens that are being replaced are there again by then."""

WARNING_INTERVAL_S = 30.0

_MAX_TEXT = 300

_NO_CONNECTION = re.compile(r"failed to connect", re.IGNORECASE)

_NO_ANSWER = re.compile(r"timed? ?out|deadline|unreachable|no route", re.IGNORECASE)
"""The network is why, and a look at TLS would only wait for it again. Whatever else is said (gRPC's releases have many
words for a certificate that is not accepted, and of several addresses only the last one's failure shows) may be TLS."""

_GIVEN_UP = re.compile(r"handshake|verification|socket closed|settings|http/2", re.IGNORECASE)
"""A connection that the other side gave up while it was made, as it does with one that should have begun with TLS."""

T = TypeVar("T")


class FailedCallError(Exception):
    """A call that failed.

    Args:
        is_local: Whether files of ours are at fault, or seem to be: these heal by rotation only, and soon.

    Attributes:
        is_seen: Whether a server may have got the call.
    """

    def __init__(self, status: str, text: str, fate: Fate, *, is_local: bool = False) -> None:
        super().__init__(f"{status}: {text}" if text else status)
        self.status = status
        self.fate = fate
        self.is_seen = not is_local and not (
            status == "UNAVAILABLE" and re.search(NO_CONNECTION, text, re.IGNORECASE | re.DOTALL)
        )
        self.is_local = is_local


class Calls:
    """One delivery's calls. :meth:`report`, :meth:`get` and :meth:`delete` make one call each.

    Every delivery has its own channel: nothing is left open between them, and no failure of one reaches another. A call
    that failed drops the channel, so that the next one resolves and connects anew; and so does a fork.
    """

    def __init__(self, endpoint: Endpoint, deadline: Deadline) -> None:
        self.address = endpoint.address
        self.deadline = deadline
        self.count = 0
        self.last_failure: FailedCallError | None = None
        self._endpoint = endpoint
        self._lock = threading.RLock()  # a signal handler that forks drops what its thread may be opening
        self._stub: DBManagerStub | None = None
        self._is_closed = False
        self._failures = 0
        self._local_failures = 0
        self._warned_at_s: float | None = None

    def report(self, trial_name: str, logs: Sequence[MetricLog]) -> None:
        """Store rows in one atomic batch."""
        self._call(lambda stub, timeout_s: stub.report(trial_name, logs, timeout_s=timeout_s))

    def report_first(self, trial_name: str, logs: Sequence[MetricLog]) -> bool:
        """Store rows, and return whether the DB manager tells of earlier ones; raises as :meth:`report` does."""
        return self._call(lambda stub, timeout_s: stub.report_first(trial_name, logs, timeout_s=timeout_s))

    def get(
        self, trial_name: str, *, metric_name: str = "", start: datetime | None = None, end: datetime | None = None
    ) -> list[StoredMetricLog]:
        """Return a trial's rows, ordered by time; raises as :meth:`report` does."""
        return self._call(
            lambda stub, timeout_s: stub.get(
                trial_name, metric_name=metric_name, start=start, end=end, timeout_s=timeout_s
            )
        )

    def delete(self, trial_name: str) -> None:
        """Delete all rows of a trial; raises as :meth:`report` does."""
        self._call(lambda stub, timeout_s: stub.delete(trial_name, timeout_s=timeout_s))

    def retry(self, failure: FailedCallError, *, troubles: int = 0) -> None:
        """Log why a call is made again, and pause before it: the deadline is the only bound.

        ``troubles`` is how often the same call got a server into trouble, whatever has succeeded in between. Files of
        ours that are at fault and were not replaced end the retries with a RejectedError.
        """
        self._failures += 1
        self._local_failures = self._local_failures + 1 if failure.is_local else 0
        if self._local_failures >= MAX_LOCAL_FAILURES:
            raise RejectedError(f"tried {self._local_failures} times ({failure})") from failure
        elapsed_s = self.deadline.elapsed_s
        # The first one, and then one each half minute, reach the stderr of a script that configured no logging.
        is_due = self._warned_at_s is None or elapsed_s - self._warned_at_s >= WARNING_INTERVAL_S
        if is_due:
            self._warned_at_s = elapsed_s
        logger.log(
            logging.WARNING if is_due else logging.INFO,
            "Delivery to %s is tried again (%s); %.1f s elapsed, %.1f s remaining.",
            self.address,
            str(failure),  # a handler that keeps records shall not keep the frames of the training alive
            elapsed_s,
            self.deadline.remaining_s,
        )
        longest_s = LONGEST_ANSWERED_PAUSE_S if failure.is_seen else LONGEST_PAUSE_S
        self.deadline.pause(max(self._failures, troubles), longest_s)

    def drop(self) -> None:
        """Close the channel; the next call opens another."""
        with calling(self):
            with self._lock:
                stub, self._stub = self._stub, None
            if stub is not None:
                stub.close()
            del stub  # what is left of it is freed here too, where no fork can meet it

    def close(self) -> None:
        """End the call in flight, and let no other begin. May be called by any thread, and twice."""
        self._is_closed = True
        self.drop()

    def _call(self, call: "Callable[[DBManagerStub, float], T]") -> T:
        import grpc  # noqa: PLC0415  only when something is sent

        timeout_s = self.deadline.call_s()
        try:
            with calling(self):
                stub = self._open()
                self.count += 1
                answer = call(stub, timeout_s)
        except ConfigurationError as error:  # a file of the credentials
            self.drop()
            self.last_failure = FailedCallError("UNAUTHENTICATED", str(error), Fate.NOT_WRITTEN, is_local=True)
            raise self.last_failure from error
        except (grpc.RpcError, ValueError) as error:  # ValueError: a closed channel, or an answer that is no time
            if self._is_closed:
                raise ReporterClosedError("the reporter was closed while it delivered") from error
            self.drop()
            self.last_failure = self._failed_call(error)
            raise self.last_failure from error
        self._failures = self._local_failures = 0
        return answer

    def _open(self) -> "DBManagerStub":
        with self._lock:
            if self._is_closed:
                raise ReporterClosedError("the reporter was closed while it delivered")
            if self._stub is None:
                self._stub = self._endpoint.open()
            return self._stub

    def _failed_call(self, error: Exception) -> FailedCallError:
        import grpc  # noqa: PLC0415  only when something is sent

        if not isinstance(error, grpc.Call):
            return FailedCallError("UNKNOWN", f"unreadable answer: {error}", Fate.UNCLEAR)
        status = error.code().name
        text = " ".join((error.details() or "").split())
        fate = classify(status, text)
        shown = shorten(text, _MAX_TEXT)
        credentials = self._endpoint.credentials
        if _NO_CONNECTION.search(text) and not _NO_ANSWER.search(text):
            if credentials.is_tls:
                from katib_callbacks.sinks.katib.tls_probe import explain  # noqa: PLC0415  with TLS, and after a failure

                reason = explain(self._endpoint)
                if reason is not None:
                    return FailedCallError(status, f"{reason}; gRPC says: {shown}", fate, is_local=True)
            elif _GIVEN_UP.search(text):
                shown += " (does it want TLS? tls_ca is not set)"
        if credentials.token_path is not None and status in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
            shown += f" (the token is that of token_path {credentials.token_path})"
            if may_be_replaced(status, text):
                return FailedCallError(status, shown, Fate.NOT_WRITTEN, is_local=True)
        return FailedCallError(status, shown, fate)
