"""SideDelivery: the sinks after the first one, which never fail a report and delay it by a moment at most."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from katib_callbacks.sinks import MetricSink, SinkOutcome, checked_outcome

if TYPE_CHECKING:
    from katib_callbacks.metrics import MetricLog

logger = logging.getLogger(__name__)

GRACE_S = 2.0
"""How long a report that is done waits for the sinks beside the first."""


class SideDelivery:
    """One report on its way to one sink, in a daemon thread of its own.

    Args:
        name: The sink's, for the receipt.
        sink: The sink.
        trial_name: The trial.
        logs: The rows.
        deadline_s: What the sink is given; it goes on in the background after the report has returned.
    """

    def __init__(
        self, name: str, sink: MetricSink, trial_name: str, logs: "Sequence[MetricLog]", deadline_s: float
    ) -> None:
        self.name = name
        self._sink = sink
        self._arguments = (trial_name, logs, deadline_s)
        self._outcome: SinkOutcome | None = None
        self._thread = threading.Thread(target=self._run, name=f"katib-callbacks-{name}", daemon=True)
        self._thread.start()

    def finish(self, grace_s: float) -> SinkOutcome:
        """Wait up to ``grace_s`` and return what became of it."""
        self._thread.join(grace_s)
        return self._outcome or SinkOutcome(delivered=0, attempts=0, error="still sending when the report was done")

    def _run(self) -> None:
        trial_name, logs, deadline_s = self._arguments
        try:
            self._outcome = checked_outcome(self._sink.send(trial_name, logs, deadline_s=deadline_s))
        except Exception as error:  # noqa: BLE001  whatever a sink raises is its own affair
            attempts = int(getattr(error, "attempts", 0))
            delivered = len(logs) - int(getattr(error, "pending", len(logs)))
            self._outcome = SinkOutcome(delivered, attempts, error=f"{type(error).__name__}: {error}")
            logger.warning("The sink %r failed; the report does not depend on it: %s", self.name, error)


def finish_all(deliveries: Sequence[SideDelivery]) -> dict[str, SinkOutcome]:
    """Wait for all of them together, up to ``GRACE_S``, and return their outcomes by name."""
    end_s = time.monotonic() + GRACE_S
    return {delivery.name: delivery.finish(max(0.0, end_s - time.monotonic())) for delivery in deliveries}
