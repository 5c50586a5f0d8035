"""What else happens on the machine that tests run on must not fail one: whose a port is, and what a process says."""

import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

GRPCS_CORE = re.compile(r"[IWE]\d{4} \d\d:\d\d:\d\d\.")
"""How a line of gRPC's core begins. It tells on stderr of strangers, too: those who look for a server that had the port
before, and do not speak as this one does."""


@contextmanager
def held_port() -> Iterator[int]:
    """Hold a port for as long as the block lasts: nobody is given it, connections are refused.

    A server may listen on it, and listen again after its death, if it binds with SO_REUSEADDR, as most do. A port that
    is let go, to be listened on later, is soon another suite's.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def low_port() -> int:
    """Return a free port below those that the kernel gives away, for a server that cannot be held one.

    Nothing that listens on port 0 or connects gets it between now and the moment when the server listens.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # not the generator that is seeded for each test
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def said(stderr: str) -> list[str]:
    """Return the lines that a process wrote, except those of gRPC's core."""
    return [line for line in stderr.splitlines() if not GRPCS_CORE.match(line)]
