"""Rows of an attempt before this process: looked for, or deleted, once per trial and before the first write.

Katib can only delete all rows of a trial. So that none of this process's own are ever among them, the first delivery to
a trial decides, whatever its reporter's policy and whether or not it succeeds; every later one leaves the rows alone.
"""

import contextlib
import logging
from collections.abc import Iterator

from katib_callbacks.metrics import format_timestamp
from katib_callbacks.net.deadline import Deadline, patience_s
from katib_callbacks.process_state import trial_state
from katib_callbacks.settings import PreviousAttempt, Runtime
from katib_callbacks.sinks.katib.calls import Calls, FailedCallError
from katib_callbacks.sinks.katib.fates import Fate

logger = logging.getLogger(__name__)

MAX_ANSWERED_FAILURES = 3
"""How often a look or a deletion may fail for another reason than that nothing can be reached or written. What is to be
reported matters more than what was."""

WAITING_SHARE = 0.5
"""Of the deadline, for which a server that is UNAVAILABLE is waited for, as it is for the report."""

_TURN_S = 0.1  # how often a delivery that waits for another one's deletion looks at its own deadline


@contextlib.contextmanager
def first_delivery(trial_name: str, deadline: Deadline) -> Iterator[bool]:
    """Yield whether this is the process's first delivery to the trial; until it is left, no other one begins.

    Raises:
        ReporterClosedError: Closed while another delivery was about it.
        UnavailableError: The deadline passed in that.
    """
    state = trial_state(trial_name)
    turn = state.turn  # the one of now: a child that is forked within gets another
    while not turn.acquire(timeout=_TURN_S):
        deadline.check()
    try:
        is_first, state.has_begun = not state.has_begun, True
        yield is_first
    finally:
        turn.release()


def handle_previous_attempt(calls: Calls, trial_name: str, policy: PreviousAttempt, runtime: Runtime) -> None:
    """Warn of, or delete, every row that the trial has. Failures are warned of.

    Args:
        calls: To the DB manager.
        trial_name: The trial, to which this process has written nothing yet.
        policy: ``"warn"`` or ``"clear"``.
        runtime: Clock.

    Raises:
        ReporterClosedError: Closed by another thread.
        UnavailableError: The deadline has passed.
        RejectedError: Files of ours are at fault.
    """
    failures = 0
    while True:
        deleted_at_s: float | None = None
        try:
            # Looked at again after a failed deletion: it may have been carried out all the same.
            found = calls.get(trial_name)
            if not found:
                return
            span = f"{len(found):,} rows from {format_timestamp(found[0].timestamp)} to "
            span += format_timestamp(found[-1].timestamp)
            if policy == "warn":
                logger.warning("Trial %r has %s, of an earlier attempt; Katib counts them too.", trial_name, span)
                return
            deleted_at_s = runtime.monotonic()
            calls.delete(trial_name)
        except FailedCallError as failure:
            if failure.fate is Fate.UNCLEAR and deleted_at_s is not None:
                # A deletion that is carried out late must not meet rows of ours.
                calls.deadline.sleep(patience_s(runtime.monotonic() - deleted_at_s))
            failures += failure.fate is not Fate.NOT_WRITTEN
            deadline = calls.deadline
            may_pass = failure.status == "UNAVAILABLE" and deadline.elapsed_s < deadline.total_s * WAITING_SHARE
            if failure.fate is Fate.REFUSED or (failures >= MAX_ANSWERED_FAILURES and not may_pass):
                logger.warning("Rows of an earlier attempt of trial %r, if any, are left: %s", trial_name, failure)
                return
            calls.retry(failure)
        else:
            logger.info("Deleted %s of trial %r, which an earlier attempt had left.", span, trial_name)
            return
