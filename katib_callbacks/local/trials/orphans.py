"""Processes of trials whose runner was killed, or that left their sessions: found, and ended.

They have the attempt's mark in their environment or, where they cleared that, write to the trial's log. Only Linux
shows either of other processes. Elsewhere they are left running, and it is said.
"""

import logging
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from katib_callbacks.settings import LOCAL_ATTEMPT

_PROC = Path("/proc")
_ROUNDS = 200
_INTERVAL_S = 0.02

_logger = logging.getLogger(__name__)


def end_orphans(attempts: Collection[str], logs: Collection[str] = ()) -> int:
    """Kill every process of these attempts, whose logs' paths begin so, wait for their end, and return how many."""
    if not attempts:
        return 0
    if not (_PROC / "self" / "environ").exists():
        _logger.warning("this system does not show which processes a killed runner left behind; they go on")
        return 0
    found: set[int] = set()
    for _ in range(_ROUNDS):
        left = _processes_of(attempts, logs)
        _kill(left)
        if not left and found:
            break
        found |= left
        # Once more even if there was none: a process that its runner was just starting has no mark yet.
        time.sleep(_INTERVAL_S)
        if not left and not found and not _processes_of(attempts, logs):
            break
    return len(found)


def end_strays(attempt: str, logs: str, first_pid: int) -> None:
    """Kill what an ended attempt left running in sessions of its own, with pids above its first unless they wrapped."""
    for _ in range(_ROUNDS):
        try:
            latest = int((_PROC / "loadavg").read_bytes().split()[-1])
        except OSError:  # no Linux
            return
        left = _processes_of([attempt], [logs], first_pid if latest >= first_pid else 0)
        if not left:
            return
        _kill(left)
        time.sleep(_INTERVAL_S)


def _kill(pids: Collection[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _processes_of(attempts: Collection[str], logs: Collection[str], first_pid: int = 0) -> set[int]:
    marks = {f"{LOCAL_ATTEMPT}={attempt}".encode() for attempt in attempts}
    prefixes = tuple(map(os.path.realpath, logs))
    found = set()
    for name in os.listdir(_PROC):  # noqa: PTH208  at each trial's end, and five times as fast
        if name.isdecimal() and int(name) > first_pid and int(name) != os.getpid():
            with suppress(OSError):  # another user's, or gone; a zombie shows nothing, and holds nothing any more
                environ = (_PROC / name / "environ").read_bytes()
                if marks.intersection(environ.split(b"\0")) or _writes_to(name, prefixes):
                    found.add(int(name))
    return found


def _writes_to(pid: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether the standard output or error of a process is one of these logs."""
    for number in (1, 2):
        with suppress(OSError):
            if os.readlink(f"{_PROC}/{pid}/fd/{number}").startswith(prefixes):  # noqa: PTH115  as above
                return True
    return False
