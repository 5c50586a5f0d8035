"""The logs of pods: what a trial's processes have written."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from katib_callbacks.local.api_server.protocol.errors import ApiError
from katib_callbacks.local.api_server.resources.katib import TRIAL_LABEL
from katib_callbacks.local.api_server.resources.resource import Object
from katib_callbacks.local.state.status import EXPERIMENT_LABEL
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.local.trials.process import shell_log, worker_log

COLLECTOR_CONTAINER = "metrics-logger-and-collector"
"""Katib's sidecar, which shows the output that it collects; its client reads that one's log."""

_FOLLOW_INTERVAL_S = 0.1
_PIECE_BYTES = 1 << 16


def log_files(home: Path, pod: Object, container: str | None) -> tuple[Path, ...]:
    """Return the files that have a pod's output; ApiError for a container that it has not."""
    name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
    known = [one["name"] for one in pod["spec"]["containers"]]
    if container and container not in {*known, COLLECTOR_CONTAINER}:
        raise ApiError("BadRequest", f"container {container} is not valid for pod {name}")
    log = TrialFiles(home, labels[EXPERIMENT_LABEL], labels[TRIAL_LABEL]).log
    number = int(name.rpartition("-")[2])
    return (worker_log(log, number),) if number else (shell_log(log), log)


async def stream(
    files: tuple[Path, ...], tail: int | None, *, is_over: Callable[[], bool], is_followed: bool
) -> AsyncIterator[bytes]:
    """Yield the output in files, of each its last ``tail`` lines; if it is followed until ``is_over``."""
    positions = dict.fromkeys(files, 0)
    if tail is not None:
        for path in files:
            lines, positions[path] = _tail(path, tail)
            yield b"".join(lines)
    while True:
        was_over = is_over() or not is_followed
        for path in files:
            while True:
                piece, position = _piece(path, positions[path])
                positions[path] = position + len(piece)
                if not piece:
                    break
                yield piece
                await asyncio.sleep(0)
        if was_over:
            return
        await asyncio.sleep(_FOLLOW_INTERVAL_S)


def _piece(path: Path, position: int) -> tuple[bytes, int]:
    """Return what a file has from a position on, and where that is."""
    try:
        with path.open("rb") as file:
            is_anew = file.seek(0, os.SEEK_END) < position  # of another attempt
            position = file.seek(0 if is_anew else position)
            return file.read(_PIECE_BYTES), position
    except OSError:  # not begun, or deleted
        return b"", position


def _tail(path: Path, count: int) -> tuple[list[bytes], int]:
    """Return a file's last lines, and where they end."""
    try:
        with path.open("rb") as file:
            lines = list(deque(file, maxlen=count))
            return lines, file.tell()
    except OSError:
        return [], 0
