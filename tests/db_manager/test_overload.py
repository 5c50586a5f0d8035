"""The DB manager under clients that ask too much of it: the others are served, and memory stays bounded."""

import select
import socket
import time
from contextlib import ExitStack

import pytest
from http2 import open_streams
from trials import ROW

from katib_callbacks.db_manager import DBManager, arrivals, limits
from katib_callbacks.wire import methods, reflection

PATHS = [
    methods.REPORT_OBSERVATION_LOG,
    methods.HEALTH_CHECK,
    methods.HEALTH_WATCH,
    f"/{reflection.VERSIONS[0]}.ServerReflection/ServerReflectionInfo",
]


@pytest.mark.parametrize("path", PATHS)
def test_calls_that_send_headers_alone_leave_room_for_others(server, raw, path):
    """One connection with more of them than the server has threads."""
    with open_streams(server.address, 800, path):
        for number in range(20):
            raw.report("t", (ROW[0], "loss", str(number)))
        assert len(raw.get("t")) == 20


def test_many_connections_that_send_headers_alone_leave_room_for_others(server, raw):
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(open_streams(server.address, 99))
        for number in range(5):
            raw.report("t", (ROW[0], "loss", str(number)))
        assert len(raw.get("t")) == 5


def test_a_connection_has_a_limited_number_of_calls_at_once(server, monkeypatch):
    with open_streams(server.address, 10 * limits.MAX_STREAMS) as connection:
        assert _ended(connection, 9 * limits.MAX_STREAMS)


def test_a_request_that_does_not_come_is_not_waited_for(db, monkeypatch):
    monkeypatch.setattr(arrivals, "REQUEST_TIMEOUT_S", 0.2)
    with DBManager(f"sqlite:///{db}") as server, open_streams(server.address, 1) as connection:
        assert _ended(connection, 1)


def _ended(connection: socket.socket, streams: int) -> bool:
    """Return whether so many calls, or all with their connection, are ended by the server."""
    seen, ended, end_s = b"", 0, time.monotonic() + 60
    while ended < streams and time.monotonic() < end_s:
        if not select.select([connection], [], [], 1)[0]:
            continue
        try:
            piece = connection.recv(65_536)
        except ConnectionResetError:
            return True
        if not piece:
            return True
        seen += piece
        while len(seen) >= 9 and len(seen) >= 9 + int.from_bytes(seen[:3], "big"):
            length, kind, flags = int.from_bytes(seen[:3], "big"), seen[3], seen[4]
            ended += kind == 3 or (kind == 1 and flags & 1)  # RST_STREAM, or HEADERS that end the stream
            if kind == 7:  # GOAWAY
                return True
            seen = seen[9 + length :]
    return ended >= streams
