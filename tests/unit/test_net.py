"""Addresses, and the one HTTP request: against name servers and servers that say nothing."""

import contextlib
import gc
import os
import select
import shlex
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks.net.addresses import URL, split_address, split_url
from katib_callbacks.net.http import ExchangeError, HTTPRequest

UNSHARE = shutil.which("unshare")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("katib-db-manager.kubeflow:6789", ("katib-db-manager.kubeflow", 6789)),
        ("[::1]:6789", ("::1", 6789)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65_535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text, parts):
    assert split_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["host", ":1", "host:", "host:0", "host:65536", "::1:6789", "dns:///host:1", "a b:1", "user@host:1", "h:\u0661"],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="host:port"):
        split_address(text)


def test_a_port_that_is_free_is_asked_for_with_0():
    assert split_address("127.0.0.1:0", lowest_port=0) == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("https://host", URL(True, "host", 443, "/"), "https://host:443/"),
        ("http://host:8080/a?b=c", URL(False, "host", 8080, "/a?b=c"), "http://host:8080/a?..."),
        ("https://[::1]:1/x", URL(True, "::1", 1, "/x"), "https://[::1]:1/x"),
    ],
)
def test_a_url_has_parts_and_is_shown_without_its_query(text, url, shown):
    assert split_url(text) == url
    assert str(url) == shown


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "https://host/", "http://user:pw@host/"]))
def test_whatever_is_no_url_is_refused_without_quoting_it(text, start):
    try:
        url = split_url(start + text)
    except ValueError as error:
        assert "pw" not in str(error)  # noqa: PT017  most texts raise
    else:
        assert url.host
        assert 1 <= url.port <= 65_535
        assert "pw" not in str(url) or "pw" in text


@contextlib.contextmanager
def silent_server():
    """Accept connections, and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_says_nothing_is_given_up(scheme):
    with silent_server() as server:
        request = HTTPRequest(split_url(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"), 0.3)
        with pytest.raises(ExchangeError, match=r"no answer within 0\.3 s"):
            request.send("GET", headers={})


def test_a_host_that_is_not_known_is_said():
    with pytest.raises(ExchangeError, match="gaierror"):
        HTTPRequest(split_url("http://no-such-host.invalid/"), 60).send("GET", headers={})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_is_ended_by_another_thread_or_before_it_begins(scheme):
    with silent_server() as server:
        url = split_url(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/")
        under_way, not_begun = HTTPRequest(url, 3_600), HTTPRequest(url, 3_600)

        def abort_when_connected():
            with server.accept()[0] as connection:
                connection.recv(1)
                under_way.abort()

        thread = threading.Thread(target=abort_when_connected)
        thread.start()
        with pytest.raises(ExchangeError, match="was given up"):
            under_way.send("GET", headers={})
        thread.join()
        not_begun.abort()
        with pytest.raises(ExchangeError, match="was given up"):
            not_begun.send("GET", headers={})


class _LateContext(ssl.SSLContext):
    """Wraps a socket that is connected only after its peer has reset the connection."""

    def wrap_socket(self, sock, *arguments, **options):
        select.select([sock], [], [], 60)  # ready at once where it is not connected
        return super().wrap_socket(sock, *arguments, **options)


def test_a_connection_that_is_reset_before_its_handshake_leaves_no_socket_open():
    context = _LateContext(ssl.PROTOCOL_TLS_CLIENT)
    with silent_server() as server:
        port = server.getsockname()[1]

        def reset():
            with server.accept()[0] as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        for send in (
            lambda: HTTPRequest(split_url(f"https://127.0.0.1:{port}/"), 60).send("GET", headers={}, context=context),
            lambda: HTTPRequest(split_url(f"https://127.0.0.1:{port}/"), 60).connected(context),
        ):
            thread = threading.Thread(target=reset)
            thread.start()
            gc.collect()  # what other tests have left warns before
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with pytest.raises((ExchangeError, OSError)):
                    send()
                thread.join()
                gc.collect()
            assert caught == []


LOOK_UP = """
import sys
from katib_callbacks.net.addresses import split_url
from katib_callbacks.net.http import ExchangeError, HTTPRequest
try:
    HTTPRequest(split_url("http://name.example/"), 0.5).send("GET", headers={})
except ExchangeError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0 or UNSHARE is None, reason="gives a process a name server of its own, as root")
def test_a_name_server_that_says_nothing_takes_no_more_than_the_deadline(tmp_path):
    """The resolver itself would wait for ten seconds, and then say that the name cannot be resolved."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.77\n")
    command = (
        f"mount --bind {shlex.quote(str(tmp_path / 'resolv.conf'))} /etc/resolv.conf && "
        f"exec {sys.executable} -c {shlex.quote(LOOK_UP)}"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.77", 53))
        done = subprocess.run(
            [UNSHARE, "--mount", "sh", "-c", command], capture_output=True, text=True, check=False, timeout=240
        )

    assert done.stdout == "no answer within 0.5 s\n", done.stderr
