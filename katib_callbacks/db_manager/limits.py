"""Who may come in: a bounded number of calls is worked on or waits, and everybody else is told at once to try again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from katib_callbacks.db_manager.store.errors import BusyError


class Admission:
    """A bounded queue in front of the store. Thread-safe.

    Args:
        max_calls: How many calls may be inside at once, those that wait for their turn included.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._places = threading.BoundedSemaphore(max_calls)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Take a place for as long as the block lasts.

        Raises:
            BusyError: There is none. Nobody waits for one.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError(f"{self._max_calls} calls are being worked on; try again")
        try:
            yield
        finally:
            self._places.release()
