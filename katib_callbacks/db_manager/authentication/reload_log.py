"""The log of a file that cannot be used: nothing while it is being replaced, then one ERROR."""

import logging
import time
from collections.abc import Callable

GRACE_S = 10.0
"""How long files may not fit together before it is an error: they are replaced one after the other."""


class ReloadLog:
    """Says once that something has been wrong for a while. Its owner holds a lock."""

    def __init__(self, logger: logging.Logger, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._monotonic = monotonic
        self._since_s: float | None = None
        self._is_said = False

    def add(self, text: str) -> None:
        """Take note that something is wrong now."""
        now_s = self._monotonic()
        if self._since_s is None:
            self._since_s = now_s
            self._logger.info("%s; what was read last stays in force", text)
        elif not self._is_said and now_s - self._since_s >= GRACE_S:
            self._is_said = True
            self._logger.error("%s, for %.0f s; what was read last stays in force", text, now_s - self._since_s)

    def clear(self) -> None:
        """Take note that all is well."""
        if self._is_said:
            self._logger.warning("the files are good again")
        self._since_s, self._is_said = None, False
