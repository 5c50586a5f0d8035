"""Callers on this machine: whose process a connection to loopback is, as Linux tells it."""

import os
import socket
import sys
import time
from contextlib import suppress

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")  # the second one has connections that programs have made by IPv6's names
_ESTABLISHED = "01"  # a connection that was closed belongs to nobody any more, which is shown as root
_ROOT = 0

_KNOWN_S = 1.0
"""How long a connection counts as looked at: the table is read for milliseconds. Nobody else gets its port so soon."""


class OwnCallers:
    """The processes of one user, and of root; all that there are where the system does not tell whose they are."""

    def __init__(self, uid: int) -> None:
        self.port = 0
        """Of the server that they call."""
        self._users = {uid, _ROOT}
        self._known: dict[str, float] = {}  # {caller: until when}
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            found = _user_of(client.getsockname(), server.getsockname()[1])
        self._is_told = found is not None and found == getattr(os, "getuid", int)()

    def has(self, peer: str) -> bool:
        """Return whether a caller, as gRPC names it, is one of them."""
        now_s = time.monotonic()
        if not self._is_told or self._known.get(peer, now_s) > now_s:
            return True
        kind, host, port = peer.rsplit(":", 2)
        if kind != "ipv4" or _user_of((host, int(port)), self.port) not in self._users:
            return False
        self._known = {one: end_s for one, end_s in self._known.items() if end_s > now_s} | {peer: now_s + _KNOWN_S}
        return True


def _user_of(client: tuple[str, int], server_port: int) -> int | None:
    """Return the user who has opened a connection, from its client's address; None if it is not shown."""
    number = int.from_bytes(socket.inet_aton(client[0]), sys.byteorder)
    ours, theirs = f"{number:08X}:{client[1]:04X}", f":{server_port:04X}"
    for table in _TABLES:
        with suppress(OSError), open(table, encoding="ascii") as lines:  # noqa: PTH123  at each call, and faster
            for line in lines:
                _, local, remote, state, _, _, _, uid, *_ = line.split()
                if state == _ESTABLISHED and local.endswith(ours) and remote.endswith(theirs):
                    return int(uid)
    return None
