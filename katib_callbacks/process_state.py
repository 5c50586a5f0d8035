"""The state of this process: what it has done for each trial, under one lock, and what a forked child forgets.

:mod:`katib_callbacks.wire.forks` keeps forks and gRPC apart; everything else that a fork must not inherit is let go
here, by the one handler that the package registers for it.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from katib_callbacks.errors import DeliveryError

Forget = TypeVar("Forget", bound=Callable[[], None])


@dataclass
class TrialState:
    """The state of one trial in this process.

    Attributes:
        latest: The time of the latest row that was reported, for each DB manager's address.
        known_spools: The directories in which rows of an earlier process were looked for.
        has_begun: Whether the first delivery has begun, here or in the process that started this one.
        turn: Held by the first delivery while it deals with rows of an earlier attempt.
    """

    latest: dict[str, datetime] = field(default_factory=dict)
    known_spools: set[str] = field(default_factory=set)
    has_begun: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)


_imported_at = datetime.now(timezone.utc)
_lock = threading.RLock()
_trials: dict[str, TrialState] = {}
_reporting: set[int] = set()
_to_forget: list[Callable[[], None]] = []


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Keep the other threads away from what the process has; a thread may do so again within."""
    with _lock:  # the one of now: a child that is forked within gets another
        yield


def trial_state(trial_name: str) -> TrialState:
    """Return what this process has done for a trial."""
    with locked():
        return _trials.setdefault(trial_name, TrialState())


def started_at() -> datetime:
    """Return when this process started, or the one that forked it; where nobody tells, when it loaded this module."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as stat, open("/proc/uptime", encoding="utf-8") as uptime:  # noqa: PTH123  pathlib is not imported for this
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            age_s = float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        return min(_imported_at, datetime.now(timezone.utc) - timedelta(seconds=age_s))
    except (OSError, ValueError, IndexError):
        return _imported_at


def count_from(started: datetime) -> None:
    """Let this process count as started when the one did for which it works."""
    global _imported_at  # noqa: PLW0603  one for the process
    _imported_at = min(_imported_at, started)


@contextlib.contextmanager
def in_report(what_follows: Callable[[], str]) -> Iterator[None]:
    """Let a thread be in one report only: in a signal handler it would wait for what it has itself interrupted."""
    thread = threading.get_ident()
    if thread in _reporting:
        raise DeliveryError(
            "this report interrupts another one of the same thread, as in a signal handler, and would wait for it for "
            f"ever; report in another thread, or when the other report has returned. {what_follows()}"
        )
    try:
        _reporting.add(thread)
        yield
    finally:
        _reporting.discard(thread)


@contextlib.contextmanager
def out_of_report() -> Iterator[None]:
    """Take the thread out of its report, if it is in one, for code of somebody else that may report in turn."""
    thread = threading.get_ident()
    was_in_report = thread in _reporting
    _reporting.discard(thread)
    try:
        yield
    finally:
        if was_in_report:
            _reporting.add(thread)


def in_forked_child(forget: Forget) -> Forget:
    """Have a function called in every child that this process forks: decorates what lets go of the parent's things."""
    _to_forget.append(forget)
    return forget


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  another thread may have held it when the process forked
    _lock = threading.RLock()
    _reporting.clear()
    for state in _trials.values():
        state.turn = threading.Lock()
    for forget in _to_forget:
        forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
