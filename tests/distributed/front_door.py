"""FrontDoor: stands before the DB manager, and sees which process comes."""

import contextlib
import os
import socket
import threading
from pathlib import Path

GONE = 0
"""Stands for the process of a visitor that has closed its connection before it was looked for, as gRPC does with one
that it no longer needs: nobody can tell any more."""


class FrontDoor:
    """A TCP line to the DB manager that notes every visitor's process, and can keep them waiting.

    Args:
        address: The DB manager's, ``host:port``.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.visitors: list[int] = []
        self._is_open = threading.Event()
        self._is_open.set()
        self._is_closed = False
        self._lock = threading.Lock()
        self._lines: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self):
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._is_open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for line in self._lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def hold(self) -> None:
        """Let visitors in and serve them nothing, as a DB manager does that hangs."""
        self._is_open.clear()

    def open(self) -> None:
        """Serve everybody, those who wait included."""
        self._is_open.set()

    def _run(self, target, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                visitor, (_, port) = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._lines.add(visitor)
            self.visitors.append(_owner(port, self._listener.getsockname()[1]))
            self._run(self._serve, visitor)

    def _serve(self, visitor: socket.socket) -> None:
        self._is_open.wait()
        with contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            with self._lock:
                self._lines.add(server)
            back = threading.Thread(target=_pump, args=(server, visitor))
            back.start()
            _pump(visitor, server)
            back.join()
            with self._lock:
                self._lines.discard(server)
        with self._lock:
            self._lines.discard(visitor)
        visitor.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for line in (source, sink):
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)


def _owner(port: int, our_port: int) -> int:
    """Return the process at the other end of a connection on this machine."""
    ends = (f"0100007F:{port:04X}", f"0100007F:{our_port:04X}")
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, remote, *rest = line.split()
            if (local[-13:], remote[-13:]) == ends:  # IPv6 shows an IPv4 address in its last digits
                inode = rest[6]
                for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
                    with contextlib.suppress(OSError):
                        if os.readlink(descriptor) == f"socket:[{inode}]":  # noqa: PTH115  one call a descriptor
                            return int(descriptor.parts[2])
    return GONE
