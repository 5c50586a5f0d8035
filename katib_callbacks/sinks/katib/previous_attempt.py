"""Rows of an attempt before this process: looked for, or deleted, once per trial and before the first write.

Katib can only delete all rows of a trial. So that none of this process's own are ever among them, the first delivery to
a trial decides, whatever its reporter's policy and whether or not it succeeds; every later one leaves the rows alone.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from katib_callbacks.metrics import StoredMetricLog, format_timestamp
from katib_callbacks.net.deadline import Deadline, patience_s
from katib_callbacks.settings import PreviousAttempt, Runtime
from katib_callbacks.sinks.katib.calls import Courier
from katib_callbacks.sinks.katib.connection import FailedCallError
from katib_callbacks.sinks.katib.fates import Fate

logger = logging.getLogger(__name__)

MAX_ANSWERED_FAILURES = 3
"""How often a look or a deletion may fail for another reason than that no connection comes about. What is to be
reported matters more than what was."""

_TURN_S = 0.1  # how often a delivery that waits for another one's deletion looks at its own budget


@dataclass
class _Attempt:
    lock: threading.Lock = field(default_factory=threading.Lock)
    has_begun: bool = False


_guard = threading.Lock()
_attempts: dict[str, _Attempt] = {}


@contextlib.contextmanager
def first_delivery(trial_name: str, budget: Deadline) -> Iterator[bool]:
    """Yield whether this is the process's first delivery to the trial; until it is left, no other one begins.

    Raises:
        ReporterClosedError: Closed while another delivery was about it.
        UnavailableError: The budget was spent in that.
    """
    attempt = _attempt(trial_name)
    while not attempt.lock.acquire(timeout=_TURN_S):
        budget.check()
    try:
        is_first, attempt.has_begun = not attempt.has_begun, True
        yield is_first
    finally:
        attempt.lock.release()


def handle_previous_attempt(courier: Courier, trial_name: str, policy: PreviousAttempt, runtime: Runtime) -> None:
    """Warn of, or delete, every row that the trial has. Failures are warned of.

    Args:
        courier: Makes the calls.
        trial_name: The trial, to which this process has written nothing yet.
        policy: ``"warn"`` or ``"clear"``.
        runtime: Clock.

    Raises:
        ReporterClosedError: Closed by another thread.
        UnavailableError: The budget was spent.
        RejectedError: Files of ours are at fault.
    """
    failures = 0
    while True:
        deleted_at_s: float | None = None
        try:
            # Looked at again after a failed deletion: it may have been carried out all the same.
            found: list[StoredMetricLog] = courier.call("get", trial_name)
            if not found:
                return
            span = f"{len(found):,} rows from {format_timestamp(found[0].timestamp)} to "
            span += format_timestamp(found[-1].timestamp)
            if policy == "warn":
                logger.warning("Trial %r has %s, of an earlier attempt; Katib counts them too.", trial_name, span)
                return
            deleted_at_s = runtime.monotonic()
            courier.call("delete", trial_name)
        except FailedCallError as failure:
            if failure.fate is Fate.UNCLEAR and deleted_at_s is not None:
                # A deletion that is carried out late must not meet rows of ours.
                courier.budget.sleep(patience_s(runtime.monotonic() - deleted_at_s))
            failures += failure.fate is not Fate.NOT_WRITTEN
            if failure.fate is Fate.REFUSED or failures >= MAX_ANSWERED_FAILURES:
                logger.warning("Rows of an earlier attempt of trial %r, if any, are left: %s", trial_name, failure)
                return
            courier.retry(failure)
        else:
            logger.info("Deleted %s of trial %r, which an earlier attempt had left.", span, trial_name)
            return


def has_begun(trial_name: str) -> bool:
    """Say whether this process has begun to deliver to the trial."""
    return _attempt(trial_name).has_begun


def mark_begun(trial_name: str) -> None:
    """Note that rows of this attempt were delivered, here or in the process that this one was started by."""
    _attempt(trial_name).has_begun = True


def _attempt(trial_name: str) -> _Attempt:
    with _guard:
        return _attempts.setdefault(trial_name, _Attempt())


def _renew_locks() -> None:
    global _guard  # noqa: PLW0603  other threads may have held locks when the process forked
    _guard = threading.Lock()
    for attempt in _attempts.values():
        attempt.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_locks)
