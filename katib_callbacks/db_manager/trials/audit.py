"""A line for each call that the trial listener refuses, as many as a disk can bear."""

import logging
import threading
import time
from collections.abc import Callable

from katib_callbacks.db_manager.service.limits import Buckets, host_of

HOST_BURST, HOST_PER_S = 30, 1.0
TOTAL_BURST, TOTAL_PER_S = 300, 10.0
"""Lines: of one address, and altogether. At 300 bytes a line the latter come to 260 MB a day."""

MAX_TEXT_CHARACTERS = 200
MAX_REASON_CHARACTERS = 400

_logger = logging.getLogger(__name__)


class Audit:
    """Writes refusals to the log, with a caller's own words in ASCII, escaped and cut. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._hosts = Buckets(HOST_BURST, HOST_PER_S, monotonic)
        self._total = Buckets(TOTAL_BURST, TOTAL_PER_S, monotonic)
        self._lock = threading.Lock()
        self._unwritten = 0

    def write(
        self, method: str, peer: str, code: str, reason: str, *, caller: str | None = None, trial: str | None = None
    ) -> None:
        """Write a line, or count it where there were too many; the next line says how many.

        The reason has no part of a credential; ``caller`` and ``trial`` are there if they are known.
        """
        if not (self._hosts.take(host_of(peer)) and self._total.take("")):
            with self._lock:
                self._unwritten += 1
            return
        with self._lock:
            unwritten, self._unwritten = self._unwritten, 0
        fields = {
            "method": plain(method),
            "peer": plain(peer),
            "code": code,
            "reason": plain(reason, MAX_REASON_CHARACTERS),
            "caller": None if caller is None else plain(caller),
            "trial": None if trial is None else plain(trial),
            "unwritten": unwritten,
        }
        _logger.warning(
            "refused %s from %s with %s, caller %s, trial %s: %s%s",
            fields["method"],
            fields["peer"],
            fields["code"],
            "unknown" if fields["caller"] is None else f"'{fields['caller']}'",
            "unknown" if fields["trial"] is None else f"'{fields['trial']}'",
            fields["reason"],
            f" ({unwritten} refusals before this one were not written)" if unwritten else "",
            extra=fields,
        )

    def close(self) -> None:
        """Write how many lines are missing. May be called twice."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, 0
        if unwritten:
            _logger.warning("%d more refusals were not written", unwritten, extra={"unwritten": unwritten})


def plain(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return a text as one line of at most ``limit`` characters and three dots: ASCII, the rest and quotes escaped."""
    shown = text[:limit].encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return shown if len(shown) <= limit and len(text) <= limit else f"{shown[:limit]}..."
