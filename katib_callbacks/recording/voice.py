"""Voice: the log of one callback, or of all that autolog made, which then say nothing twice."""

import logging

logger = logging.getLogger(__name__)


class Voice:
    """Logs for the user. Pickles, with the memory of what was logged.

    Args:
        is_shared: Whether several callbacks log with it, each of which would say the same again.
    """

    def __init__(self, *, is_shared: bool = False) -> None:
        self._is_shared = is_shared
        self._keys: set[object] = set()

    def is_new(self, key: object) -> bool:
        """Return whether this is the first call with this key."""
        if key in self._keys:
            return False
        self._keys.add(key)
        return True

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Log; a shared voice logs each text once."""
        if not self._is_shared or self.is_new(message % arguments):
            logger.log(level, message, *arguments)

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning; a shared voice logs each text once."""
        self.log(logging.WARNING, message, *arguments)

    def warn_once(self, key: str, message: str, *arguments: object) -> None:
        """Log a warning, once for each key."""
        if self.is_new(key):
            logger.warning(message, *arguments)

    def forget(self) -> None:
        """Forget what was logged."""
        self._keys.clear()
