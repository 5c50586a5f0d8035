"""Progress: how far one training has come and how long it will take yet, for the sinks that show it.

It is the share of the whole training, also where this process does only a part of it, as after a checkpoint or with
Keras' ``initial_epoch``. It never falls, and is 1 only when the training has ended normally, early stopping included.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

INTERVAL_S = 1.0
"""How often the sinks are told at most, except of the beginning, new metrics and the end. They send less often."""

ALMOST_DONE = 0.999
"""What the last step of a training reaches: validation and the last checkpoint are still to come."""

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """A row of a training: its number, from 1, and what the framework calls it, as far as it does."""

    row: int
    epoch: int | None = None
    step: int | None = None


class Progress:
    """Tells the sinks of one training, each with its name for messages; those in ``late`` of its end only.

    Attributes:
        fraction: The share that was shown last, 0 to 1; None as long as none is known.
        latest: The latest value of each metric that was shown.
    """

    def __init__(
        self, sinks: Sequence[tuple[str, Any]], monotonic: Callable[[], float], *, late: Collection[str] = ()
    ) -> None:
        self._sinks = [named for named in sinks if named[0] not in late]
        self._late = [named for named in sinks if named[0] in late]
        self._monotonic = monotonic
        self.latest: dict[str, float] = {}
        self.fraction: float | None = None
        self._start_fraction = 0.0
        self._start_s = self._due_s = monotonic()

    @property
    def late(self) -> list[str]:
        """The names of the sinks that wait for the end."""
        return [name for name, _ in self._late]

    def begin(self, fraction: float | None, latest: Mapping[str, float] | None = None) -> None:
        """Begin a training, here or where another process has left it, with the values that are known already."""
        self.fraction = None if fraction is None else _almost(fraction)
        self._start_fraction = self.fraction or 0.0
        self._start_s = self._monotonic()
        self._due_s = self._start_s + INTERVAL_S
        self.latest = dict(latest or {})
        self._tell()

    def is_due(self) -> bool:
        """Return whether it is time to :meth:`show`; a hook asks in each step, before it computes anything."""
        return self._monotonic() >= self._due_s

    def show(self, fraction: float | None, latest: Mapping[str, float] | None = None) -> None:
        """Show the share that is done, 0 to 1; None if it cannot be known. And newer values, if there are any."""
        if latest:
            self.latest = {**self.latest, **latest}
        self._due_s = self._monotonic() + INTERVAL_S
        if fraction is not None:
            self.fraction = max(_almost(fraction), self.fraction or 0.0)
        self._tell()

    def show_share(self, compute: Callable[..., float | None], *arguments: Any) -> None:
        """Show what ``compute`` returns; a mistake of ours in it ends the showing, not the training."""
        try:
            self.show(compute(*arguments))
        except Exception:
            self._sinks.clear()
            logger.exception("Internal error while computing how far the training is; it goes on.")

    def update(self, latest: Mapping[str, float], place: Place | None = None) -> None:
        """Show newer values, by their names in Katib, and where they belong; those of other names stay."""
        if latest:
            self.latest = {**self.latest, **latest}
            for _, sink in self._sinks if place is not None else ():
                if hasattr(sink, "take_row"):
                    sink.take_row(place, latest)
            self._tell()

    def finish(self) -> None:
        """Show that the training has ended."""
        self.fraction = 1.0
        self._sinks, self._late = self._sinks + self._late, []
        self._tell()

    def _tell(self) -> None:
        now_s = self._monotonic()
        remaining_s = self._remaining_s(now_s)
        for named in list(self._sinks):
            name, sink = named
            try:
                sink.progress(self.fraction, remaining_s, dict(self.latest))  # its own, to keep or to change
            except Exception as error:  # noqa: BLE001  whatever a sink raises; the training goes on
                self._sinks.remove(named)
                logger.warning("The sink %r does not show progress: %s: %s", name, type(error).__name__, error)

    def _remaining_s(self, now_s: float) -> float | None:
        """Go on from what this process has done in its own time."""
        if self.fraction is None:
            return None
        if self.fraction >= 1:
            return 0.0
        done = self.fraction - self._start_fraction
        return (now_s - self._start_s) * (1 - self.fraction) / done if done > 0 else None


def _almost(fraction: float) -> float:
    return min(max(fraction, 0.0), ALMOST_DONE)
