"""HTTP/2 by hand (RFC 9113), for what no client library sends."""

import socket
import struct

from katib_callbacks.wire import methods

SETTINGS, HEADERS, DATA, GOAWAY = 4, 1, 0, 7
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame (4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request_headers(path: str, **more: bytes) -> bytes:
    """Return a header block without compression (RFC 7541, 6.2.2)."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        **{name.encode(): value for name, value in more.items()},
    }
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())


def open_streams(address: str, count: int, path: str = methods.REPORT_OBSERVATION_LOG) -> socket.socket:
    """Return a connection on which so many calls have sent their headers, and send nothing else."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, 0x1))
    block = request_headers(path)
    connection.sendall(b"".join(frame(HEADERS, 0x4, 2 * number + 1, block) for number in range(count)))
    return connection
