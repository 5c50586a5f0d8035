"""Rows of an attempt before this process: looked for, or deleted, once per trial and before the first write.

Katib can only delete all rows of a trial. So that none of this process's own are among them, only the first delivery to
a trial looks, whatever its policy and whether or not it succeeds. So that none of a living sibling's are, rows written
after this process started stay, and all that come with them; and nothing is written before such siblings have deleted.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from katib_callbacks.metrics import StoredMetricLog, format_timestamp
from katib_callbacks.net.deadline import Deadline, patience_s
from katib_callbacks.process_state import started_at, trial_state
from katib_callbacks.settings import PreviousAttempt, Runtime
from katib_callbacks.sinks.katib.calls import Calls, FailedCallError
from katib_callbacks.sinks.katib.fates import Fate

logger = logging.getLogger(__name__)

MAX_ANSWERED_FAILURES = 3
"""How often a look or a deletion may fail for another reason than that nothing can be reached or written. What is to be
reported matters more than what was."""

WAITING_SHARE = 0.5
"""Of the deadline, for which a server that is UNAVAILABLE is waited for, as it is for the report."""

SIBLING_S = 2.0
"""After clearing nothing is written for so long: whoever has seen the same old rows has deleted them by then."""

SIBLING_SHARE = 0.25
"""Of what is left of the deadline, at most."""

_TURN_S = 0.1  # how often a delivery that waits for another one's deletion looks at its own deadline


@contextlib.contextmanager
def first_delivery(trial_name: str, deadline: Deadline) -> Iterator[bool]:
    """Yield whether this is the process's first delivery to the trial; until it is left, no other one begins."""
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
    """Warn of, or delete, every row of a trial to which this process has not written; failures are warned of."""
    failures = 0
    while True:
        deleted_at_s: float | None = None
        try:
            # Looked at again after a failed deletion: it may have been carried out all the same.
            found = calls.get(trial_name)
            if not found or policy == "warn" or found[-1].timestamp >= started_at():
                break
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
            logger.info("Deleted %s of trial %r, which an earlier attempt had left.", _span(found), trial_name)
            break
    if policy == "clear":
        calls.deadline.sleep(min(SIBLING_S, calls.deadline.remaining_s * SIBLING_SHARE))
    if found and policy == "warn":
        logger.warning("Trial %r has %s, of an earlier attempt; Katib counts them too.", trial_name, _span(found))
    elif found and deleted_at_s is None:
        logger.warning(
            "Trial %r has %s, the last of them written after this process started: nothing is deleted, because another "
            "process reports for the trial. previous_attempt='clear' is for trials of which one process reports.",
            trial_name,
            _span(found),
        )


def _span(found: Sequence[StoredMetricLog]) -> str:
    first, last = (format_timestamp(log.timestamp) for log in (found[0], found[-1]))
    return f"{len(found):,} rows from {first} to {last}"
