"""Locks on files, which a process holds until it has ended, however it ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from katib_callbacks.errors import ExperimentError, MissingDependencyError

try:
    import fcntl
except ImportError as error:
    raise MissingDependencyError(
        "local experiments need Linux or macOS: Windows has neither process groups nor this kind of file lock"
    ) from error

_INTERVAL_S = 0.02


@contextmanager
def held(path: Path, *, timeout_s: float, refusal: str, mode: int = 0o644) -> Iterator[int]:
    """Hold a file's lock; yields its descriptor. Free once all holders have ended; else ExperimentError(refusal)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        give_up_at_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= give_up_at_s:
                    raise ExperimentError(refusal) from error
                time.sleep(_INTERVAL_S)
        yield descriptor
    finally:
        os.close(descriptor)
