"""How often a peer may fail, how many lines that may write, and how much of the server one caller may have."""

import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network, ip_address
from urllib.parse import unquote

MAX_PEERS = 4_096
"""Buckets kept at once; the one that was not used for longest is forgotten, which refills it."""

CONNECTION_BURST, CONNECTION_PER_S = 10, 1.0
"""Refused calls on one connection."""

HOST_BURST, HOST_PER_S = 100, 10.0
"""Refused calls from one address. Below it each connection may fail once."""

_IPV6_SITE_BITS = 64  # what one customer or machine has for itself


class Buckets:
    """A bucket of tokens for each key. Thread-safe, and its memory is bounded.

    Args:
        burst: What a full bucket holds.
        per_s: How fast it fills.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, burst: int, per_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Take one out; say whether there was one."""
        with self._lock:
            level, now_s = self._level(key)
            is_there = level >= 1
            self._levels[key] = (level - 1 if is_there else level, now_s)
            self._levels.move_to_end(key)
            if len(self._levels) > MAX_PEERS:
                self._levels.popitem(last=False)
            return is_there

    def is_empty(self, key: str) -> bool:
        """Say whether there is none to take."""
        with self._lock:
            return self._level(key)[0] < 1

    def is_full(self, key: str) -> bool:
        """Say whether nothing was taken that has not been filled again."""
        with self._lock:
            return self._level(key)[0] >= self._burst

    def _level(self, key: str) -> tuple[float, float]:
        now_s = self._monotonic()
        level, then_s = self._levels.get(key, (self._burst, now_s))
        return min(self._burst, level + (now_s - then_s) * self._per_s), now_s


class Shares:
    """How many calls each caller may have at work at once. Thread-safe, and keeps nothing of those that have none.

    Args:
        share: How many.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @contextmanager
    def enter(self, key: str) -> Iterator[bool]:
        """Take a place for as long as the block lasts; yields whether there was one. Nobody waits for one."""
        with self._lock:
            is_there = self._counts[key] < self._share
            self._counts[key] += is_there
        try:
            yield is_there
        finally:
            with self._lock:
                self._counts[key] -= is_there
                if not self._counts[key]:
                    del self._counts[key]


class FailureLimit:
    """Which calls are refused unjudged, because others on the same connection were refused. Thread-safe.

    The limit is on a connection and not on an address: trials share the address of their node or of a gateway, and one
    that guesses must not lock out the others. Where an address has many failures, each of its connections may fail
    once, so that a guess costs a TLS handshake; a rightful caller's first call on its own connection is always judged.

    Args:
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connections = Buckets(CONNECTION_BURST, CONNECTION_PER_S, monotonic)
        self._hosts = Buckets(HOST_BURST, HOST_PER_S, monotonic)

    def is_over(self, peer: str) -> bool:
        """Say whether a call is refused unjudged.

        Args:
            peer: The connection, as gRPC names it: address and port.
        """
        if self._connections.is_empty(peer):
            return True
        return self._hosts.is_empty(host_of(peer)) and not self._connections.is_full(peer)

    def add(self, peer: str) -> None:
        """Take note that a call was judged and refused."""
        self._connections.take(peer)
        self._hosts.take(host_of(peer))


def host_of(peer: str) -> str:
    """Return whose a connection is: an IPv4 address, or the network of an IPv6 one."""
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
