"""Warnings of metrics that an evaluation after training may still bring: given when the process ends, if none did."""

import atexit
import logging
import os
from collections.abc import Collection, Mapping

logger = logging.getLogger(__name__)

_waiting: dict[tuple[int, int, str], str] = {}
"""What is to be said, by process, callback and metric."""


def hold_back(owner: object, messages: Mapping[str, str]) -> None:
    """Log these messages, each of a metric, when the process ends, unless they are withdrawn until then."""
    if messages and not _waiting:
        atexit.unregister(_say)  # once, however often
        atexit.register(_say)
    _waiting.update({(os.getpid(), id(owner), name): message for name, message in messages.items()})


def withdraw(owner: object, names: Collection[str]) -> None:
    """Take back what was to be said of these metrics, which have come."""
    for name in names:
        _waiting.pop((os.getpid(), id(owner), name), None)


def _say() -> None:
    message = " ".join(dict.fromkeys(message for (pid, *_), message in _waiting.items() if pid == os.getpid()))
    if message:
        logger.warning("%s", message)
