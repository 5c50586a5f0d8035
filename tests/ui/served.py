"""Servers of this process, on ports of their own."""

import threading
from contextlib import contextmanager
from functools import partial

import httpx

from katib_callbacks.net import web

TOKEN = "the-token"  # noqa: S105  of a test alone


CLIENT = {"timeout": 90.0, "trust_env": False}
"""Of a client of httpx: patient with a busy machine, and without the proxy that the environment may name."""

get = partial(httpx.get, **CLIENT)


@contextmanager
def serving(app, host=web.LOOPBACK, most=web.MAX_CONNECTIONS, **options):
    """Serve an application behind the door, in a thread; yields its address without the token."""
    with web.listening_socket(host, 0) as listening:
        listening.most = most
        server = web.server(web.Door(app, token=TOKEN, listening=listening, host=host), **options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield web.url_of(listening)
        finally:
            server.should_exit = True
            thread.join()
