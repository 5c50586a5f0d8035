"""An HTTP server that does what it is told: answer, redirect, hang, drip, reset."""

import socket
import ssl
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HttpPartner:
    """Serves on a free port; ``requests`` has method, path, headers and body of each request.

    Set ``behave`` to a function of the handler. What waits ends when the server is closed.
    """

    def __init__(self, certificate=None):
        self.requests = []
        self.behave = answer(200)
        self.is_over = threading.Event()
        partner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                partner.requests.append((self.command, self.path, dict(self.headers), body))
                partner.behave(self)

            do_GET = do_PUT = do_POST  # noqa: N815  the library's names

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.partner = self
        self._server.handle_error = lambda *_: None  # whoever left while it hung
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self):
        return self._server.server_address[1]

    @property
    def origin(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(status, text="", **headers):
    def behave(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text.encode())

    return behave


def slowly(seconds, then):
    def behave(handler):
        handler.server.partner.is_over.wait(seconds)
        then(handler)

    return behave


def hang(handler):
    handler.server.partner.is_over.wait()


def drip(handler):
    """Send a header that never ends, a byte at a time: no single read takes long."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not handler.server.partner.is_over.wait(0.05):
        handler.wfile.write(b"x")


def reset(handler):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def wait_until(is_true, what, timeout_s=60):
    """Wait for what comes by itself, for as long as a loaded machine may need."""
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)
