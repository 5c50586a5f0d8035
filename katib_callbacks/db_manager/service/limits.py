"""How much of the server its callers may have, for both listeners: places for calls and bytes, tokens, connections."""

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from ipaddress import IPv6Network, ip_address
from urllib.parse import unquote

from katib_callbacks.db_manager.store.errors import BusyError

MAX_STREAMS = 100
"""Calls on one connection at once; further ones wait at the client (RFC 9113, 6.5.2, wants no fewer)."""

MAX_CONNECTIONS = 4_096
"""To one listener at once; further ones are closed before their handshake, by gRPC from 1.64 on. (1.62 lets all in.)"""

CONNECTION_SHARE = 0.375
"""Of the files that the process may have open, one listener's part: the other one and the database need some, too."""

HANDSHAKE_TIMEOUT_S = 20
"""After which a connection that hangs in its handshake is closed."""

MAX_IDLE_S = 300
"""After which a connection without calls is closed. Clients connect anew without noticing."""

MAX_PEERS = 4_096
"""Buckets kept at once; the one that was not used for longest is forgotten, which refills it."""

CONNECTION_BURST, CONNECTION_PER_S = 10, 1.0
"""Refused calls on one connection."""

HOST_BURST, HOST_PER_S = 100, 10.0
"""Refused calls from one address. Below it each connection may fail once."""

_IPV6_SITE_BITS = 64  # what one customer or machine has for itself


class Places:
    """A number of places, of which each key may have a share. Thread-safe, and keeps nothing of keys that have none.

    Without a ``total`` there are any number, without a ``share`` one key may have all.
    """

    def __init__(self, total: int | None, refusal: str, *, share: int | None = None) -> None:
        self._total = math.inf if total is None else total
        self._share = self._total if share is None else share
        self._refusal = refusal
        self._changed = threading.Condition()
        self._taken = 0
        self._counts: dict[str, int] = {}

    def enter(self, key: str = "", *, weight: int = 1, timeout_s: float = 0.0) -> AbstractContextManager[None]:
        """Take a place of a key's share for as long as the ``with`` block lasts; BusyError if none is free in time.

        One that weighs more than there are may come in by itself.
        """
        with self._changed:
            if not self._has_place(key, weight) and not self._changed.wait_for(
                lambda: self._has_place(key, weight), timeout_s
            ):
                raise BusyError(self._refusal)
            self._taken += weight
            self._counts[key] = self._counts.get(key, 0) + weight
        return _Place(self, key, weight)

    def give_back(self, key: str, weight: int) -> None:
        """End what :meth:`enter` began."""
        with self._changed:
            self._taken -= weight
            count = self._counts.pop(key, 0) - weight
            if count:
                self._counts[key] = count
            self._changed.notify_all()

    def _has_place(self, key: str, weight: int) -> bool:
        return (not self._taken or self._taken + weight <= self._total) and self._counts.get(
            key, 0
        ) + weight <= self._share


class _Place(AbstractContextManager[None]):
    """A place that is taken. A class, which costs a call half of what a generator would."""

    __slots__ = ("_key", "_places", "_weight")

    def __init__(self, places: Places, key: str, weight: int) -> None:
        self._places = places
        self._key = key
        self._weight = weight

    def __exit__(self, *_exception: object) -> None:
        self._places.give_back(self._key, self._weight)


def call_places(max_calls: int) -> Places:
    """Return the places of calls that are worked on or wait at once."""
    return Places(max_calls, f"{max_calls} calls are being worked on; try again")


class Buckets:
    """A bucket of ``burst`` tokens for each key, filling ``per_s``. Thread-safe, and its memory is bounded."""

    def __init__(self, burst: int, per_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Take one out; return whether there was one."""
        with self._lock:
            level, now_s = self._level(key)
            is_there = level >= 1
            self._levels[key] = (level - 1 if is_there else level, now_s)
            self._levels.move_to_end(key)
            if len(self._levels) > MAX_PEERS:
                self._levels.popitem(last=False)
            return is_there

    def is_empty(self, key: str) -> bool:
        """Return whether there is none to take."""
        with self._lock:
            return self._level(key)[0] < 1

    def is_full(self, key: str) -> bool:
        """Return whether nothing was taken that has not been filled again."""
        with self._lock:
            return self._level(key)[0] >= self._burst

    def _level(self, key: str) -> tuple[float, float]:
        now_s = self._monotonic()
        level, then_s = self._levels.get(key, (self._burst, now_s))
        return min(self._burst, level + (now_s - then_s) * self._per_s), now_s


class FailureLimit:
    """The calls that are refused unjudged, because others on their connection were refused. Thread-safe.

    Trials share the address of their node or gateway, and one that guesses must not lock out the others. So the limit
    is on a connection. Where an address has many failures, each of its connections may fail once: a guess costs a TLS
    handshake, and a rightful caller's first call on its own connection is always judged.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connections = Buckets(CONNECTION_BURST, CONNECTION_PER_S, monotonic)
        self._hosts = Buckets(HOST_BURST, HOST_PER_S, monotonic)

    def is_over(self, peer: str) -> bool:
        """Return whether a call is refused unjudged, by its connection as gRPC names it: address and port."""
        if self._connections.is_empty(peer):
            return True
        return self._hosts.is_empty(host_of(peer)) and not self._connections.is_full(peer)

    def add(self, peer: str) -> None:
        """Take note that a call was judged and refused."""
        self._connections.take(peer)
        self._hosts.take(host_of(peer))


def connection_options() -> tuple[tuple[str, int], ...]:
    """Return gRPC's options that bound a listener's connections and their streams."""
    return (
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.http2.bdp_probe", 0),  # it would let megabytes of each call come before anybody has asked for them
        ("grpc.max_connection_idle_ms", MAX_IDLE_S * 1_000),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_S * 1_000),
        ("grpc.max_allowed_incoming_connections", max_connections()),
    )


def max_connections() -> int:
    """Return how many connections a listener may have."""
    try:
        import resource  # noqa: PLC0415  not on Windows
    except ImportError:
        return MAX_CONNECTIONS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        MAX_CONNECTIONS
        if limit == resource.RLIM_INFINITY
        else max(1, min(MAX_CONNECTIONS, int(limit * CONNECTION_SHARE)))
    )


def host_of(peer: str) -> str:
    """Return where a connection comes from: an IPv4 address, or the network of an IPv6 one."""
    match = re.fullmatch(r"ipv[46]:(.+):\d+", unquote(peer))
    if match is None:
        return peer
    try:
        address = ip_address(match[1].strip("[]").partition("%")[0])
    except ValueError:
        return match[1]
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    return str(address) if address.version == 4 else str(IPv6Network((int(address), _IPV6_SITE_BITS), strict=False))  # noqa: PLR2004
