"""Warnings of metrics that an evaluation after training may still bring: given when the process ends, if none did."""

import atexit
import logging
import os
from collections.abc import Collection, Mapping

from katib_callbacks.settings import Runtime

logger = logging.getLogger(__name__)

_waiting: dict[tuple[int, int, str], tuple[str, Runtime | None]] = {}
"""What is to be said, by process, callback and metric, and in whose termination message as well."""


def hold_back(owner: object, messages: Mapping[str, str], *, explain_to: Runtime | None = None) -> None:
    """Log these messages, each of a metric, when the process ends, unless they are withdrawn until then.

    The termination message of ``explain_to`` gets them as well; None outside a trial.
    """
    if messages and not _waiting:
        atexit.unregister(_say)  # once, however often
        atexit.register(_say)
    _waiting.update({(os.getpid(), id(owner), name): (message, explain_to) for name, message in messages.items()})


def withdraw(owner: object, names: Collection[str]) -> None:
    """Take back what was to be said of these metrics, which have come."""
    for name in names:
        _waiting.pop((os.getpid(), id(owner), name), None)


def _say() -> None:
    waiting = {name: said for (pid, _, name), said in _waiting.items() if pid == os.getpid()}
    messages = dict.fromkeys(message for (pid, *_), (message, _) in _waiting.items() if pid == os.getpid())
    if messages:
        logger.warning("%s", " ".join(messages))
    for name, (message, runtime) in waiting.items():
        if runtime is not None:
            from katib_callbacks.reporting import termination  # noqa: PLC0415  only where a number is missing

            termination.explain(runtime, name, message)
