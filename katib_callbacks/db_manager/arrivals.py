"""Requests that are still arriving: how many at once, of which caller, and for how long.

gRPC hands a call to a thread as soon as its headers are there, and tells nobody how large its request is before all of
it has come. So what arrives at once is what may have to lie in memory, and a client that sends headers alone keeps a
thread. Here a call takes a place before gRPC is asked for its request, and keeps it until the request is counted among
the bytes that are worked on.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from katib_callbacks.db_manager.limits import Places, Watchdog
from katib_callbacks.db_manager.store.errors import BusyError

MAX_ARRIVING = 4
"""Requests that arrive at once; each may be as large as a request may be. One that is small is there in no time."""

MAX_ARRIVING_OF_ONE = 2
"""Of one connection or, where it is known, of one caller."""

MAX_ARRIVING_CALLS = 256
"""Calls whose request has not arrived, those that wait for a place included. Each keeps a thread."""

REQUEST_TIMEOUT_S = 20.0
"""How long a request may take to arrive, once it has a place: 32 MiB at 13 Mbit/s."""

SLOW_S = 1.5
"""After which a request that is arriving loses its place if others wait for one, and sooner the more callers wait. Its
caller is then known to be slow."""

LOOK_INTERVAL_S = 0.1
"""How often those that wait look for slow ones."""

MAX_SLOW_ARRIVING = 2
"""Requests of slow callers that arrive at once. They are given their time: the other places are left for the quick."""

MAX_SLOW_CALLERS = 4_096
"""Slow callers that are remembered, each until a request of its own has arrived quickly."""

PLACE_TIMEOUT_S = 10.0
"""How long a call waits for a place, or for room among the bytes that are worked on."""

MAX_BYTES = 32 * 1024 * 1024
"""Requests that are worked on at once, by their size on the wire: one of the largest, or thousands of small ones. In
memory a request takes several times as much."""

_TOO_MANY = "too many requests are arriving; try again"


class Arrivals:
    """The places for requests that are arriving at one listener. Thread-safe.

    Args:
        bytes_at_work: The room for requests that are worked on, shared by all listeners.
        watchdog: Ends calls whose requests take too long.
    """

    def __init__(self, bytes_at_work: Places, watchdog: Watchdog) -> None:
        self._bytes_at_work = bytes_at_work
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._waiting: dict[int, _Call] = {}  # in the order of their headers
        self._arriving: dict[int, _Call] = {}
        self._arriving_of: Counter[str] = Counter()
        self._slow: dict[str, None] = {}  # callers, the one that was slow last at the end
        self._number = 0

    @contextmanager
    def request(self, key: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[list[bytes]]:
        """Receive a call's request, and keep room for it as long as the block lasts.

        Yields a list with the request, to be taken out of it, so that its bytes can be given back while the block
        lasts. It is empty where the client sent none.

        Args:
            key: The caller, or its connection.
            requests: What gRPC hands to the call's handler.
            context: The call's.

        Raises:
            BusyError: There was no place for it.
        """
        call = self._enter(key, context)
        try:
            self._wait_for_place(call)
            with self._watchdog.limit(context, REQUEST_TIMEOUT_S):
                received = [data for data in (next(requests, None),) if data is not None]
            size = len(received[0]) if received else 0
            if call.is_slow and received and time.monotonic() - call.since_s < SLOW_S:
                self._slow.pop(key, None)
            with self._bytes_at_work.enter(weight=size, timeout_s=PLACE_TIMEOUT_S):
                self._leave(call)
                yield received
        finally:
            self._leave(call)

    def _enter(self, key: str, context: grpc.ServicerContext) -> "_Call":
        with self._lock:
            if len(self._waiting) + len(self._arriving) >= MAX_ARRIVING_CALLS:
                self._make_room(key)
            self._number += 1
            call = _Call(self._number, key, context, is_slow=key in self._slow)
            self._waiting[call.number] = call
            self._give_places()
            return call

    def _make_room(self, key: str) -> None:
        """Turn away the newest waiting call of the caller that has most, which may be this one."""
        if not self._waiting:  # all of the others are arriving
            raise BusyError(_TOO_MANY)
        greatest, count = Counter(call.key for call in self._waiting.values()).most_common(1)[0]
        if count <= sum(call.key == key for call in self._waiting.values()) + 1:
            raise BusyError(_TOO_MANY)
        call = next(call for call in reversed(self._waiting.values()) if call.key == greatest)
        del self._waiting[call.number]
        call.wait.release()

    def _wait_for_place(self, call: "_Call") -> None:
        give_up_at_s = time.monotonic() + PLACE_TIMEOUT_S
        while not call.wait.acquire(timeout=LOOK_INTERVAL_S):
            with self._lock:
                if not call.is_slow:
                    self._end_slow_ones()
            if time.monotonic() > give_up_at_s or not call.context.is_active():
                raise BusyError(_TOO_MANY)
        if not call.has_place:
            raise BusyError(_TOO_MANY)

    def _end_slow_ones(self) -> None:
        """Take places from quick callers' requests that have been arriving for long."""
        callers = len({call.key for call in self._waiting.values() if not call.is_slow})
        patience_s = min(SLOW_S, SLOW_S * MAX_ARRIVING / max(1, callers))
        slow_since_s = time.monotonic() - patience_s
        for call in self._arriving.values():
            if not call.is_slow and call.since_s < slow_since_s:
                self._slow[call.key] = None
                if len(self._slow) > MAX_SLOW_CALLERS:
                    del self._slow[next(iter(self._slow))]
                call.context.cancel()  # its thread returns from gRPC, and leaves
        for call in self._waiting.values():
            call.is_slow = call.key in self._slow

    def _give_places(self) -> None:
        """Let calls go on in their order, first those of callers that have no place."""
        while self._waiting and len(self._arriving) < MAX_ARRIVING:
            slow_places = MAX_SLOW_ARRIVING - sum(call.is_slow for call in self._arriving.values())
            call = None
            for waiting in self._waiting.values():
                places = self._arriving_of.get(waiting.key, 0)
                if waiting.is_slow and slow_places <= 0:
                    continue
                if not places:
                    call = waiting
                    break
                if call is None and places < MAX_ARRIVING_OF_ONE:
                    call = waiting
            if call is None:
                return
            del self._waiting[call.number]
            self._arriving[call.number] = call
            self._arriving_of[call.key] += 1
            call.has_place, call.since_s = True, time.monotonic()
            call.wait.release()

    def _leave(self, call: "_Call") -> None:
        with self._lock:
            self._waiting.pop(call.number, None)
            if self._arriving.pop(call.number, None) is not None:
                self._arriving_of[call.key] -= 1
                if not self._arriving_of[call.key]:
                    del self._arriving_of[call.key]
                self._give_places()


class _Call:
    """A call whose request has not arrived."""

    __slots__ = ("context", "has_place", "is_slow", "key", "number", "since_s", "wait")

    def __init__(self, number: int, key: str, context: grpc.ServicerContext, *, is_slow: bool) -> None:
        self.number = number
        self.key = key
        self.context = context
        self.is_slow = is_slow
        self.has_place = False
        self.since_s = 0.0
        self.wait = threading.Lock()  # held until the call has a place or is turned away
        self.wait.acquire()
