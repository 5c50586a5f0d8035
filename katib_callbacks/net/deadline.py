"""Deadline: one deadline over everything that a delivery does, and the pauses in it."""

import threading
from typing import Any

from katib_callbacks.errors import ReporterClosedError, UnavailableError
from katib_callbacks.settings import Runtime

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
"""So that a server that is back is noticed within about this time."""

LONGEST_ANSWERED_PAUSE_S = 10.0
"""After a call that a server got: one that is in trouble, or that the call itself breaks, is left alone for longer."""

LONGEST_CALL_S = 30.0
"""One call must not take all of the time when a server hangs; Katib's DB manager answers in milliseconds to seconds."""

SHORTEST_CALL_S = 0.5
CALL_SHARE = 0.25

SHORTEST_PATIENCE_S = 2.0
LONGEST_PATIENCE_S = 10.0


def patience_s(call_took_s: float) -> float:
    """Return how long after a call failed its effect may still show: as long again as it took, within bounds."""
    return min(max(call_took_s, SHORTEST_PATIENCE_S), LONGEST_PATIENCE_S)


class Closing(threading.Event):
    """Tells that a sink was closed, and ends its pauses. Pickles, with what it tells."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _closing, (self.is_set(),)


def _closing(is_closed: bool) -> Closing:
    closing = Closing()
    if is_closed:
        closing.set()
    return closing


class Deadline:
    """Measures one delivery with a monotonic clock; ``closing`` ends every pause when it is set."""

    def __init__(self, total_s: float, closing: threading.Event, runtime: Runtime) -> None:
        self.total_s = total_s
        self._closing = closing
        self._runtime = runtime
        self._start_s = runtime.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._runtime.monotonic() - self._start_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.total_s - self.elapsed_s)

    def call_s(self) -> float:
        """Return how long the next call may take: a part of what is left, so that time remains to ask what it did."""
        self.check()
        return min(self.remaining_s, LONGEST_CALL_S, max(self.remaining_s * CALL_SHARE, SHORTEST_CALL_S))

    def pause(self, failures: int, longest_s: float = LONGEST_PAUSE_S) -> None:
        """Sleep a random while (full jitter), longer after more failures in a row; never beyond the deadline."""
        self.sleep(self._runtime.uniform(0.0, min(longest_s, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))))

    def sleep(self, duration_s: float) -> None:
        """Sleep; raises as :meth:`pause` does."""
        self.check()
        self._runtime.wait(self._closing, min(duration_s, self.remaining_s))
        self.check()

    def check(self) -> None:
        """Raise as :meth:`pause` does if there is nothing left, or it was closed."""
        if self._closing.is_set():
            raise ReporterClosedError("the reporter was closed while it delivered")
        if self.remaining_s <= 0:
            raise UnavailableError(f"the deadline of {self.total_s:.4g} s has passed")
