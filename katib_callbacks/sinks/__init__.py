"""Destinations of metrics: the protocol that each one keeps, and what it answers.

A sink knows one destination and nothing of who sends.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from katib_callbacks.metrics import MetricLog
from katib_callbacks.settings import Runtime

__all__ = ["MetricSink", "SinkOptions", "SinkOutcome"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SinkOptions:
    """Options of a sink that has a name: the one argument of a plug-in's entry point.

    Args:
        name: The whole name, such as ``mystore://user:password@host/path``: what stands before the first colon chose
            the plug-in, the rest is its own. It may hold a password, so it is in no repr.
        label: The name without user, password and query, for messages.
        trial_name: The trial that the reporter reports for; None outside one, where nothing is ever sent.
        runtime: The environment (``runtime.variable("MYSTORE_TOKEN")``) and the clocks of this process.
    """

    name: str = field(repr=False)
    label: str
    trial_name: str | None
    runtime: Runtime = field(repr=False)


@dataclass(frozen=True)
class SinkOutcome:
    """Outcome of one delivery to one sink.

    Args:
        delivered: Rows known to be stored.
        attempts: Requests sent, the ones that read back included.
        verified: Whether every delivered row was read back from the destination.
        error: Why the rest was not delivered; None if all was.
        skipped: Why nothing was sent though nothing went wrong, such as a destination that is not there; None if it
            was.
        spooled: Rows that still lie in a spool of the sink's.
    """

    delivered: int
    attempts: int
    verified: bool = False
    error: str | None = None
    skipped: str | None = None
    spooled: int = 0


def checked_outcome(outcome: object) -> SinkOutcome:
    """Return what a sink answered.

    Raises:
        TypeError: It is no answer, as from a ``send`` without a ``return``.
    """
    if not isinstance(outcome, SinkOutcome):
        raise TypeError(f"send() must return a SinkOutcome, not a {type(outcome).__name__}")
    return outcome


def close_quietly(name: str, sink: "MetricSink") -> None:
    """Close a sink; what it raises is logged: the rows are where they are, and there are others to close."""
    try:
        sink.close()
    except Exception as error:  # noqa: BLE001  whatever a sink raises
        logger.warning("The sink %r cannot be closed: %s: %s", name, type(error).__name__, error)


@runtime_checkable
class MetricSink(Protocol):
    """One destination of metrics.

    A sink may also have ``progress(fraction, remaining_s, latest)``, which is called while training runs: the share
    that is done, from 0 to 1, and the seconds that it will take yet, each None where it is not known, and the latest
    value of each metric by its name in Katib. The training waits for it, so it must return at once, and never send
    anything itself. It is called about once a second at most, with 1 for the true end alone. What it raises is logged
    once; then it is not called any more in that training.
    """

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Deliver the rows, blocking.

        Args:
            trial_name: The trial that they belong to.
            logs: Rows with strictly increasing timestamps.
            deadline_s: Seconds that this call may take, all retries included.

        Raises:
            DeliveryError: Not all rows are known to be stored.
        """
        ...

    def close(self) -> None:
        """Release connections. May be called twice, and by another thread while ``send`` waits: then it ends."""
        ...
