"""ReportReceipt: the answer to one report."""

from collections.abc import Mapping
from dataclasses import dataclass

from katib_callbacks.sinks import SinkOutcome


@dataclass(frozen=True)
class ReportReceipt:
    """The answer to one report.

    Args:
        trial_name: The trial; None outside one.
        delivered: Rows that the first sink is known to have stored.
        spooled: Rows that still lie in the spool, for ``katib-callbacks replay``.
        dropped: Rows that are neither.
        attempts: Requests sent to the first sink, the ones that read back included.
        verified: Whether every row was read back from the first sink.
        elapsed_s: Seconds that the report took.
        skipped: Why nothing was sent, if so: the rank of this process and where that was read, that no rows came, or
            what each sink lacks.
        sinks: Each sink's outcome by its name, in which user, password and query of a URL are masked; a custom sink's
            name is its class. To read the outcome of a sink after the first waits until it is known, or until two
            seconds have passed since the report.
        stopped: Why the DB manager ended the training early, and when, such as ``0.61 at epoch 4, median of 7 trials is
            0.82 (medianstop)``; None if it did not.
    """

    trial_name: str | None
    delivered: int
    spooled: int
    dropped: int
    attempts: int
    verified: bool
    elapsed_s: float
    skipped: str | None
    sinks: Mapping[str, SinkOutcome]
    stopped: str | None = None
