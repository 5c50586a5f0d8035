"""gRPC and fork: forks that are safe during gRPC calls, and children that know not to use gRPC.

gRPC's core has threads, locks and an epoll descriptor of its own, none of which survives a fork as they were. Seen with
grpcio 1.62 and 1.85: a child that sends over the core that it inherited hangs, aborts, or crashes its parent, with
which it shares the descriptor; a child is aborted at once if another thread is in a call when it is forked; and a fork
hangs for ever in the parent itself if the core is just shutting down (https://github.com/grpc/grpc/issues/43055 and
https://github.com/grpc/grpc/issues/31885 have more). Hence three rules, each kept by one function:

- :func:`keep_core_up`: the core is never shut down;
- :func:`calling`: a fork waits while a thread is in gRPC, lets no other begin, ends calls that take long, and finds no
  channel open: a child that inherits one that is connecting may send the parent's call once more by itself;
- :func:`is_core_inherited`: a child that was forked after gRPC was loaded does not use it.
"""

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import grpc

PATIENCE_S = 1.0
"""How long a fork waits for calls in flight before it ends them: a DB manager that is well answers sooner."""

ENDING_S = 2.0
"""How long calls that were ended may take to return; after that the fork goes on, as it would without us."""

_CORE = "grpc._cython.cygrpc"


class Droppable(Protocol):
    """An object with a channel."""

    def drop(self) -> None:
        """Close the channel, which ends its calls; the next call opens another."""
        ...


_dormant_channel: "grpc.Channel | None" = None
_is_core_inherited = False
_turn = threading.Condition()
"""Held while a process forks, and to begin or end a call."""
_calls: dict[int, int] = {}
"""How many blocks of :func:`calling` each thread is in."""
_forking: list[int] = []
"""The thread that waits to fork, once for each of its forks: a signal handler may fork within one."""
_callers: "weakref.WeakSet[Droppable]" = weakref.WeakSet()


def keep_core_up() -> None:
    """Open a channel that never connects, and keep it: with its last channel and server gRPC's core would shut down."""
    import grpc  # noqa: PLC0415  only when something is sent

    global _dormant_channel  # noqa: PLW0603  one for the process; a second thread's would do no harm
    if _dormant_channel is None:
        _dormant_channel = grpc.insecure_channel("127.0.0.1:1")


def is_core_inherited() -> bool:
    """Return whether this process was forked from one, or from a child of one, in which gRPC had been loaded."""
    return _is_core_inherited


@contextlib.contextmanager
def calling(caller: Droppable) -> Iterator[None]:
    """Keep forks away while the block is in gRPC, for a while; then ``caller`` is dropped, so that its call fails.

    The opening of channels, calls and the closing of channels belong in such blocks; they may be nested.
    """
    thread = threading.get_ident()
    with _turn:
        # A fork that waits for calls lets go of the turn: were others to begin, it might wait for ever, or meet one.
        _turn.wait_for(lambda: thread in _calls or _may_fork(thread))
        _callers.add(caller)
        _calls[thread] = _calls.get(thread, 0) + 1
    pid = os.getpid()
    try:
        yield
    finally:
        with _turn:
            if pid == os.getpid():  # a signal handler may fork within a call; in its child none is in flight
                _calls[thread] -= 1
                if not _calls[thread]:
                    del _calls[thread]
                _turn.notify_all()


def _may_fork(thread: int) -> bool:
    """Return whether no other thread waits to fork."""
    return not _forking or _forking[-1] == thread


def _before_fork() -> None:
    thread = threading.get_ident()
    _turn.acquire()
    _turn.wait_for(lambda: _may_fork(thread))
    _forking.append(thread)
    _wait_for_calls(PATIENCE_S)
    for caller in list(_callers):
        caller.drop()
    _wait_for_calls(ENDING_S)


def _wait_for_calls(timeout_s: float) -> None:
    _turn.wait_for(lambda: not _calls, timeout_s)


def _after_fork_in_parent() -> None:
    _turn.notify_all()
    _forking.pop()
    _turn.release()


def _after_fork_in_child() -> None:
    global _turn, _is_core_inherited  # noqa: PLW0603  what the parent's threads held is held for ever
    _turn = threading.Condition()
    _calls.clear()
    _forking.clear()
    _callers.clear()
    _is_core_inherited = _is_core_inherited or _CORE in sys.modules


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
