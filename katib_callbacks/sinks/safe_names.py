"""SafeNames: names that a destination can take for names that it cannot, each its own, and said once."""

import logging
import re
import threading
from collections.abc import Iterable, Mapping

logger = logging.getLogger(__name__)


class SafeNames:
    """Gives each metric a name made of the characters that a destination takes; the same one each time. Thread-safe.

    Args:
        unsafe: A character class: what is replaced by ``_``.
        where: The destination, for the log line.
    """

    def __init__(self, unsafe: str, where: str) -> None:
        self._unsafe = re.compile(unsafe)
        self._where = where
        self._safe: dict[str, str] = {}
        self._lock = threading.Lock()

    def of(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return the safe name of each, safe ones first, so that no other takes theirs; warn once of a new one."""
        with self._lock:
            new = [name for name in dict.fromkeys(names) if name not in self._safe]
            for name in sorted(new, key=lambda name: name != self._candidate(name)):
                self._safe[name] = self._unused(self._candidate(name))
            renamed = [(name, self._safe[name]) for name in new if name != self._safe[name]]
        if renamed:
            said = ", ".join(f"{name!r} as {safe!r}" for name, safe in renamed)
            logger.warning("Some names cannot be written to %s as they are. Written are %s.", self._where, said)
        return self._safe

    def _candidate(self, name: str) -> str:
        return self._unsafe.sub("_", name)

    def _unused(self, candidate: str) -> str:
        taken = set(self._safe.values())
        safe, number = candidate, 1
        while safe in taken:
            number += 1
            safe = f"{candidate}_{number}"
        return safe
