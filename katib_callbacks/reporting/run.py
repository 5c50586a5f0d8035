"""LiveReporter: the reporter of one training run after another, from its first progress to its delivery."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from katib_callbacks.reporting.progress import Progress
    from katib_callbacks.reporting.reporter import KatibReporter


class LiveReporter:
    """Lends out the user's reporter and leaves it open, or copies of our own and closes them.

    What has shown a run's progress delivers its rows as well: its sinks have more to send, and nobody is to wait for
    both. Pickles without what is live: a copy does not train.

    Args:
        reporter: The user's, or one that is only copied.
        is_lent: Whether it is the user's.

    Attributes:
        progress: What tells the sinks how far the current run is; None where nobody is told.
        aside: Names of sinks that get nothing of the current run, and why.
    """

    def __init__(self, reporter: "KatibReporter", *, is_lent: bool) -> None:
        self._reporter = reporter
        self._is_lent = is_lent
        self._live: KatibReporter | None = None
        self.progress: Progress | None = None
        self.aside: dict[str, str] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether a sink shows how far a training is."""
        return getattr(self._reporter, "takes_progress", False)

    def begin(self, share: Callable[[], float | None], latest: Callable[[], Mapping[str, float]]) -> None:
        """Begin to show how far a run is.

        Args:
            share: Returns the share that was done before, 0 to 1; None if it cannot be known. Is asked only where
                somebody is told; so is the next.
            latest: Returns the values that are known already.
        """
        self._live = self._reporter if self._is_lent else copy.copy(self._reporter)
        progress = self._live.open_progress(aside=self.aside)
        if progress is not None:
            progress.begin(share(), latest())
        self.progress = progress

    def end(self) -> None:
        """Tell nobody anything more of the run."""
        self.progress, live, self._live = None, self._live, None
        if live is not None and not self._is_lent:
            live.close()

    @contextlib.contextmanager
    def for_delivery(self) -> "Iterator[KatibReporter]":
        """Lend out what is to deliver."""
        kept = self._reporter if self._is_lent else self._live
        reporter = copy.copy(self._reporter) if kept is None else kept
        try:
            yield reporter
        finally:
            if kept is None:
                reporter.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "progress": None, "_live": None}
