"""Servers of this process, on ports of their own."""

import threading
from contextlib import contextmanager

from katib_callbacks.net import web

TOKEN = "the-token"  # noqa: S105  of a test alone


@contextmanager
def serving(app, host=web.LOOPBACK):
    """Serve an application behind the door, in a thread; yields its address without the token."""
    with web.listening_socket(host, 0) as listening:
        server = web.server(web.Door(app, token=TOKEN, listening=listening, host=host))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield web.url_of(listening)
        finally:
            server.should_exit = True
            thread.join()
