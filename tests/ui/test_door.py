"""Who gets past the door, asked over HTTP of a real server."""

import asyncio
import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import httpx
import pytest
import served
from served import CLIENT, TOKEN

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net import web

LARGE_BYTES = 32 << 20

ASKING = f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


async def app(scope, receive, send):
    """Answer that the request has come through."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def test_nobody_gets_in_without_the_token(serve):
    url = serve(app)

    assert served.get(url).status_code == 401
    assert served.get(url, params={"token": "another"}).status_code == 401
    assert served.get(url, params={"token": ""}).status_code == 401
    assert served.get(url, headers={"Authorization": "Bearer another"}).status_code == 401
    assert served.get(url, headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
    assert served.get(url, headers={"Cookie": "not a cookie; =; katib"}).status_code == 401
    assert TOKEN not in served.get(url).text


def test_the_url_with_the_token_sets_a_cookie_that_lets_in_and_leads_to_the_url_without_it(serve):
    url = serve(app)

    with httpx.Client(**CLIENT) as browser:
        answer = browser.get(url, params={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "httponly" in answer.headers["set-cookie"].lower()
        assert "samesite=lax" in answer.headers["set-cookie"].lower()
        assert browser.get(url).text == "inside"


def test_cookies_of_other_programs_on_this_machine_do_not_lock_out(serve):
    url = serve(app)
    ours = f"katib-callbacks-{httpx.URL(url).port}={TOKEN}"

    for cookies in (f'{{"json": 1}}; {ours}', f'a[b]=1; {ours}; c="', ours):
        assert served.get(url, headers={"Cookie": cookies}).text == "inside"


def test_the_token_of_a_url_counts_for_the_page_only(serve):
    url = serve(app)

    assert served.get(f"{url}api/experiments", params={"token": TOKEN}).status_code == 401
    assert httpx.post(url, params={"token": TOKEN}, **CLIENT).status_code == 401


def test_two_servers_of_one_machine_do_not_log_each_other_out(serve):
    first, second = serve(app), serve(app)

    with httpx.Client(**CLIENT) as browser:
        for url in (first, second):
            browser.get(url, params={"token": TOKEN})
        assert [browser.get(url).text for url in (first, second)] == ["inside", "inside"]


def test_a_program_shows_the_token_in_a_header(serve):
    assert served.get(serve(app), headers={"Authorization": f"bearer {TOKEN}"}).text == "inside"


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:80", "127.0.0.1.attacker.example", "", "192.0.2.1", "[::2]"]
)
def test_a_name_that_another_site_leads_here_is_refused_even_with_the_token(serve, host):
    url = serve(app)

    answer = served.get(url, headers={"Host": host, "Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80"])
def test_the_names_of_this_machine_are_answered(serve, host):
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}

    assert served.get(serve(app), headers=headers).text == "inside"


@pytest.mark.parametrize(("host", "status"), [("192.0.2.1:80", 200), ("attacker.example", 403)])
def test_a_server_for_other_machines_answers_to_numbers_and_to_no_foreign_name(serve, host, status):
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}

    assert served.get(serve(app, host="0.0.0.0"), headers=headers).status_code == status  # noqa: S104  as a user may say


def test_who_asks_for_nothing_is_hung_up_on_and_who_is_answered_is_not(serve):
    silent_is_closed = threading.Event()

    async def slow(scope, receive, send):
        await asyncio.to_thread(silent_is_closed.wait)
        await app(scope, receive, send)

    url = httpx.URL(serve(slow, header_timeout_s=4.0))
    with ThreadPoolExecutor() as pool, closing(socket.create_connection((url.host, url.port), timeout=90)) as silent:
        answer = pool.submit(served.get, url, headers={"Authorization": f"Bearer {TOKEN}"})
        with closing(http.client.HTTPConnection(url.host, url.port, timeout=90)) as kept:
            kept.request("GET", "/")
            assert kept.getresponse().read()  # a refusal, after which the connection may be used again
            kept.sock.sendall(b"GET / HTTP/1.1\r\nHost: ")  # but not held by half a request
            assert kept.sock.recv(1) == b""
        assert silent.recv(1) == b""
        silent_is_closed.set()
        assert answer.result().text == "inside"


async def large(scope, receive, send):
    """Answer with more than the system buffers."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * LARGE_BYTES})


def test_a_slow_reader_gets_the_rest_of_its_answer(serve):
    url = httpx.URL(serve(large, header_timeout_s=0.1))
    with closing(socket.create_connection((url.host, url.port), timeout=90)) as slow:
        slow.sendall(ASKING)
        received = len(slow.recv(1))
        time.sleep(2)  # in which the connection is looked at again and again
        while piece := slow.recv(1 << 20):
            received += len(piece)
    assert received > LARGE_BYTES


def test_a_reader_who_never_takes_the_rest_is_hung_up_on(serve):
    url = httpx.URL(serve(large, most=1, header_timeout_s=0.1, send_timeout_s=0.1))
    with closing(socket.create_connection((url.host, url.port), timeout=90)) as mute:
        mute.sendall(ASKING)
        assert mute.recv(1)
        other = None
        while other is None:  # as long as the first one has the only place
            with suppress(httpx.TransportError):
                other = served.get(url)
        assert other.status_code == 401


def test_only_so_many_connections_are_open_at_a_time(serve):
    url = httpx.URL(serve(app, most=2))
    with ExitStack() as stack:
        first, second, third = (
            stack.enter_context(closing(socket.create_connection((url.host, url.port), timeout=90))) for _ in range(3)
        )
        assert third.recv(1) == b""
        first.close()
        second.sendall(ASKING)
        assert second.recv(12) == b"HTTP/1.1 200"


def test_a_port_that_is_taken_is_named():
    with web.listening_socket(web.LOOPBACK, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen at 127.0.0.1, port {port}"):
            web.listening_socket(web.LOOPBACK, port)


def test_each_token_is_another():
    assert web.new_token() != web.new_token()
    assert len(web.new_token()) >= 32


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n"], ids=["none", "two"])
def test_a_request_names_the_server_once(serve, hosts):
    url = httpx.URL(serve(app))
    with socket.create_connection((url.host, url.port), timeout=90) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n" + hosts + b"\r\n")
        with connection.makefile("rb") as answer:
            assert int(answer.readline().split()[1]) in {400, 403}
