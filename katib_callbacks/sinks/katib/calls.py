"""Courier: calls to one DB manager within one budget, and what happens between a failure and the next try."""

import logging
from typing import Any

from katib_callbacks.errors import RejectedError
from katib_callbacks.net.deadline import Deadline
from katib_callbacks.sinks.katib.connection import Connection, FailedCallError

logger = logging.getLogger(__name__)

MAX_LOCAL_FAILURES = 10
"""In a row, over about six seconds: certificates and tokens that are being replaced are there again by then."""

WARNING_INTERVAL_S = 30.0


class Courier:
    """Makes one delivery's calls.

    Args:
        connection: The way to the DB manager; the caller closes it.
        address: What messages call the DB manager.
        budget: How long all of it may take.
    """

    def __init__(self, connection: Connection, address: str, budget: Deadline) -> None:
        self.address = address
        self.budget = budget
        self.last_failure: FailedCallError | None = None
        self._connection = connection
        self._failures = 0
        self._local_failures = 0
        self._warned_at_s: float | None = None

    @property
    def calls(self) -> int:
        """How many requests were sent."""
        return self._connection.calls

    def call(self, method: str, *arguments: object, **options: object) -> Any:
        """Call a method of ``DBManagerStub`` once.

        Raises:
            FailedCallError: It failed.
            ReporterClosedError: Closed, before or in the meantime.
            UnavailableError: The budget is spent.
        """
        timeout_s = self.budget.call_s()
        try:
            answer = self._connection.call(method, *arguments, timeout_s=timeout_s, **options)
        except FailedCallError as failure:
            self.last_failure = failure
            raise
        self._failures = self._local_failures = 0
        return answer

    def retry(self, failure: FailedCallError) -> None:
        """Say why a call is made again, and pause before it.

        Raises:
            RejectedError: Files of ours are at fault, and were not replaced.
            ReporterClosedError: Closed, before or in the meantime.
            UnavailableError: The budget is spent.
        """
        self._failures += 1
        self._local_failures = self._local_failures + 1 if failure.is_local else 0
        if self._local_failures >= MAX_LOCAL_FAILURES:
            raise RejectedError(f"tried {self._local_failures} times ({failure})") from failure
        elapsed_s = self.budget.elapsed_s
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
            self.budget.remaining_s,
        )
        self.budget.pause(self._failures)
