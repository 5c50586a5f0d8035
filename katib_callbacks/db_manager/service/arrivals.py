"""Requests that are still arriving: how many at once, of which caller, and for how long.

gRPC hands a call to a thread once its headers are there, however large its request is. A client that sends only headers
keeps a thread, and a few dozen large requests would fill the memory before their bytes are counted. So a call takes one
of a few places before gRPC is asked for its request, except where its caller's last request was small.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice

import grpc

from katib_callbacks.db_manager.service.limits import Places
from katib_callbacks.db_manager.store.errors import BusyError

MAX_CALLS = 256
"""Calls whose request has not arrived; each keeps a thread. One more takes the place of the oldest of the caller that
has most: a whole request is there in no time, and what is not is no loss."""

MAX_ARRIVING = 4
MAX_ARRIVING_OF_ONE = 2
"""Places, of all callers and of one: each of these requests may be as large as a request may be."""

REQUEST_TIMEOUT_S = 20.0
"""How long a request may take to arrive: 32 MiB at 13 Mbit/s."""

SLOW_S, MIN_SLOW_S = 1.5, 0.5
"""After which a request that is arriving loses its place if others wait for one, and sooner where many callers do. Its
caller is then known to be slow."""

MAX_SLOW_ARRIVING = 2
"""Places of slow callers. These are given their time: the other places are left for the quick."""

SMALL_BYTES = 64 * 1024
"""A caller whose last request was smaller than this needs no place."""

MAX_KNOWN_CALLERS = 4_096
"""Callers that are known to be slow, and those that are known to send little."""

PLACE_TIMEOUT_S = 20.0
"""How long a call waits for a place, or for room among the bytes that are worked on."""

MAX_BYTES = 32 * 1024 * 1024
"""Requests that are worked on at once, by their size on the wire: one of the largest, or thousands of small ones. In
memory a request takes several times as much."""

_LOOK_INTERVAL_S = 0.1  # how often those that wait look for slow ones
_WATCH_INTERVAL_S = 0.25
_TOO_MANY = "too many requests are arriving; try again"


class Arrivals:
    """Receives the requests of all listeners. Thread-safe; has one thread, until it is closed."""

    def __init__(self) -> None:
        self._at_work = Places(MAX_BYTES, "large requests are being worked on; try again")
        # In the order of their headers. Each operation on a dict is one, so they need no lock, which a hundred threads
        # would wait for.
        self._calls: dict[int, _Call] = {}
        self._small: dict[str, None] = {}
        self._slow: dict[str, None] = {}
        self._lock = threading.Lock()  # of the places
        self._waiting: dict[int, _Call] = {}
        self._arriving: dict[int, _Call] = {}
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="katib-callbacks-arrivals", daemon=True)
        self._thread.start()

    @contextmanager
    def request(self, key: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[list[bytes]]:
        """Receive a call's request, and keep room for it as long as the block lasts; else BusyError.

        Yields a list with the request (empty where the client sent none). Take it out, and its bytes are given back
        while the block lasts. ``key`` is the caller or its connection.
        """
        with self.limit(key, context) as call, nullcontext() if key in self._small else self._place(call):
            received = list(islice(requests, 1))
            call.end()
            size = len(received[0]) if received else 0
            self._note(call, size)
            room = self._at_work.enter(weight=size, timeout_s=PLACE_TIMEOUT_S)
        with room:
            yield received

    def limit(self, key: str, context: grpc.ServicerContext) -> "_Call":
        """End a call, with CANCELLED, whose client keeps the ``with`` block waiting: nothing else wakes its handler."""
        if len(self._calls) >= MAX_CALLS:
            self._make_room()
        return _Call(key, context, self._calls)

    def close(self) -> None:
        """End the thread. May be called twice."""
        self._is_closed.set()
        self._thread.join()

    def _make_room(self) -> None:
        calls = list(self._calls.values())
        greatest = Counter(call.key for call in calls).most_common(1)
        for call in calls:
            if call.key == greatest[0][0]:
                self._end(call)
                return

    def _end(self, call: "_Call") -> None:
        call.end()
        call.context.cancel()  # its thread returns from gRPC

    def _run(self) -> None:
        while not self._is_closed.wait(_WATCH_INTERVAL_S):
            now_s = time.monotonic()
            for call in list(self._calls.values()):
                if call.since_s < now_s - REQUEST_TIMEOUT_S:
                    self._end(call)

    def _note(self, call: "_Call", size: int) -> None:
        """Remember what a caller's requests are like."""
        if not 0 < size <= SMALL_BYTES:
            self._small.pop(call.key, None)
        elif call.key not in self._small:
            _remember(self._small, call.key)
        if size and call.is_slow and time.monotonic() - call.since_s < SLOW_S:
            self._slow.pop(call.key, None)

    # -- places ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _place(self, call: "_Call") -> Iterator[None]:
        with self._lock:
            call.is_slow = call.key in self._slow
            self._waiting[id(call)] = call
            self._give_places()
        try:
            give_up_at_s = time.monotonic() + PLACE_TIMEOUT_S
            while not call.may_go.acquire(timeout=_LOOK_INTERVAL_S):
                self._end_slow_ones()
                if time.monotonic() > give_up_at_s or not call.context.is_active():
                    raise BusyError(_TOO_MANY)
            yield
        finally:
            with self._lock:
                self._waiting.pop(id(call), None)
                if self._arriving.pop(id(call), None) is not None:
                    self._give_places()

    def _give_places(self) -> None:
        """Let calls go on in their order, first those of callers that have no place."""
        while self._waiting and len(self._arriving) < MAX_ARRIVING:
            places = Counter(call.key for call in self._arriving.values())
            has_slow_places = sum(call.is_slow for call in self._arriving.values()) < MAX_SLOW_ARRIVING
            may_go = [call for call in self._waiting.values() if has_slow_places or not call.is_slow]
            call = min(may_go, key=lambda call: places[call.key], default=None)
            if call is None or places[call.key] >= MAX_ARRIVING_OF_ONE:
                return
            del self._waiting[id(call)]
            self._arriving[id(call)] = call
            call.since_s = time.monotonic()
            call.may_go.release()

    def _end_slow_ones(self) -> None:
        """Take places from quick callers' requests that have been arriving for long."""
        with self._lock:
            callers = len({call.key for call in self._waiting.values() if not call.is_slow})
            slow_since_s = time.monotonic() - max(MIN_SLOW_S, SLOW_S * min(1.0, MAX_ARRIVING / max(1, callers)))
            for call in self._arriving.values():
                if callers and not call.is_slow and call.since_s < slow_since_s:
                    _remember(self._slow, call.key)
                    self._end(call)
            for call in self._waiting.values():
                call.is_slow = call.key in self._slow


class _Call(AbstractContextManager["_Call"]):
    """A call whose client is waited for; one of ``calls`` until it ends."""

    __slots__ = ("_calls", "context", "is_slow", "key", "may_go", "since_s")

    def __init__(self, key: str, context: grpc.ServicerContext, calls: "dict[int, _Call]") -> None:
        self.key = key
        self.context = context
        self.since_s = time.monotonic()
        self.is_slow = False
        self.may_go = threading.Lock()  # held until it has a place
        self.may_go.acquire()
        self._calls = calls
        calls[id(self)] = self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Wait for the client no more. May be called twice."""
        self._calls.pop(id(self), None)


def _remember(callers: dict[str, None], key: str) -> None:
    """Add a caller, and forget the one that was added first where there are too many."""
    callers.pop(key, None)
    callers[key] = None
    if len(callers) > MAX_KNOWN_CALLERS:
        callers.pop(next(iter(callers)), None)
