"""Stopping: one training's question at the end of an epoch, whether the DB manager wants it to stop."""

import logging
import math

from katib_callbacks.recording.numbers import Numbers
from katib_callbacks.recording.rows import RowBuffer
from katib_callbacks.sinks.katib.asking import GO_ON, Asker, Decision

logger = logging.getLogger(__name__)


class Stopping:
    """Asks about one training, on the process that reports it; ``name`` is the framework's of the objective."""

    def __init__(self, asker: Asker, name: str) -> None:
        self._asker = asker
        self._name = name
        self.decision = GO_ON

    def ask(self, step: int, rows: RowBuffer, numbers: Numbers) -> Decision:
        """Hand in the objective of the last row, and return the answer; go on where that row has no finite one."""
        if self.decision.stop or rows.since.get(self._name) != rows.last or self._name not in rows.latest:
            return self.decision
        number = numbers.number(self._name, rows.latest[self._name])
        if number is None or not math.isfinite(number):
            return GO_ON
        rows.latest[self._name] = number  # converted once
        self.decision = self._asker.ask(step, number)
        if self.decision.stop:
            logger.warning("The DB manager ends this training early, at %d: %s.", step, self.decision.reason)
        return self.decision

    def conclude(self) -> None:
        """Tell that the training ended and was reported, unless it was stopped."""
        if not self.decision.stop:
            self._asker.tell_end()
