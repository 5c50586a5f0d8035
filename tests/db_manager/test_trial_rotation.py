"""Keys, certificates, authorities and tokens are replaced under load: no rightful call fails, and the old ones end."""

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from cryptography import x509
from trials import Authority, hashed, new_token, refusal

from katib_callbacks import KatibReporter
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.trials import server as trial_server
from katib_callbacks.metrics import MetricLog

NAME = "trial.team-a.katib-trial"
ROTATIONS = 6


@contextmanager
def load(*callers):
    """Call each of these over and over, in a thread of its own; at the end every one must have succeeded."""
    stop = threading.Event()
    counts = [0] * len(callers)

    def run(index):
        while not stop.is_set():
            callers[index](counts[index])
            counts[index] += 1

    def go_on():
        """Wait until each caller has begun and ended a call from now on."""
        wanted = [count + 2 for count in counts]
        while any(count < least for count, least in zip(counts, wanted, strict=True)):
            for thread in threads:
                if thread.done():
                    thread.result()
                    raise AssertionError("a caller ended")
            time.sleep(0.01)

    with ThreadPoolExecutor(len(callers)) as pool:
        threads = [pool.submit(run, index) for index in range(len(callers))]
        try:
            go_on()
            yield go_on
            go_on()
        finally:
            stop.set()
        for thread in threads:
            thread.result(timeout=60)


def reporter(server, trials, **files):
    """Return a caller that delivers as a callback does, on a connection of its own each time, and at the first try."""
    made = KatibReporter(server.trial_address, trial_name="trial", tls_ca=trials.path("ca.pem"), **files)

    def report(number):
        attempts = made.report({"loss": number}).attempts
        assert attempts == 1 or "tls_cert" in files  # whose two files are replaced one after the other

    return report


def open_connection(client):
    """Return a caller that keeps its connection."""
    return lambda number: client.report("trial", (f"2026-01-31T12:00:00.{number:06}Z", "kept", str(number)))


def wait_until_refused(call, code):
    """Wait until a call is refused; it may be answered until then, and nothing else."""
    end = time.monotonic() + 60
    number = 0
    while True:
        try:
            call(number)
        except Exception as error:
            if error.code().name != code:
                raise
            return
        number += 1
        assert time.monotonic() < end, "still answered after a minute"
        time.sleep(0.05)


@pytest.fixture
def short_connections(monkeypatch):
    """Connections that end after a second, so that a test need not wait for half a minute."""
    monkeypatch.setattr(trial_server, "MAX_CONNECTION_AGE_S", 1)


def test_a_connection_with_an_old_certificate_ends_within_a_minute():
    assert trial_server.MAX_CONNECTION_AGE_S * 1.1 + trial_server.MAX_CONNECTION_GRACE_S < 60


def test_the_servers_certificate_and_key_are_replaced_one_after_the_other(
    trials, token, db, open_raw, short_connections
):
    trials.write_tokens(hashed("a", token, "trial"))
    trials.write("token", token.encode())
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        callers = [reporter(server, trials, token_path=trials.path("token")) for _ in range(2)]
        with load(*callers, open_connection(trials.client(server, token))) as go_on:
            for number in range(ROTATIONS):
                new = trials.server_authority.issue("localhost", f"name-{number}")
                names = [("server.pem", new.certificate), ("server.key", new.key)]
                for name, content in names[:: 1 if number % 2 else -1]:
                    trials.write(name, content)
                    go_on()
                assert shown_names(server) == ("localhost", f"name-{number}")
        rows = open_raw(server).get("trial")
    assert len(rows) == len(set(rows)) >= 3 * ROTATIONS


def shown_names(server):
    """Return the names of the certificate that a new connection is shown."""
    host, _, port = server.trial_address.rpartition(":")
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(names.get_values_for_type(x509.DNSName))


def test_tokens_are_replaced(trials, token, db, caplog):
    trials.write_tokens(hashed("0", token, "trial"))
    trials.write("token", token.encode())
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        client = trials.client(server, token)
        callers = [reporter(server, trials, token_path=trials.path("token")) for _ in range(2)]
        with load(*callers, open_connection(client)) as go_on:
            for number in range(1, ROTATIONS + 1):
                old, new = client.token, new_token()
                trials.write_tokens(hashed("old", old, "trial"), hashed(str(number), new, "trial"))
                go_on()
                trials.write("token", new.encode())
                client.token = new
                go_on()
                trials.write_tokens(hashed(str(number), new, "trial"))
                assert refusal(trials.client(server, old).report, "trial")[0] == "UNAUTHENTICATED"
    assert caplog.text.count("refused /api") == ROTATIONS


def test_the_clients_authority_and_their_certificates_are_replaced(trials, db, short_connections):
    authority = trials.client_authority
    pair = authority.issue(NAME)
    files = trials.write_client(pair)
    with (
        DBManager(f"sqlite:///{db}", trial_listener=trials.certificate_listener()) as server,
        load(*(reporter(server, trials, **files) for _ in range(3))) as go_on,
    ):
        for number in range(3):
            kept = trials.client(server, pair=pair)
            kept.report("trial")
            new_authority = Authority(f"clients {number}")
            trials.write("clients.pem", authority.certificate + new_authority.certificate)
            go_on()
            old, pair = pair, new_authority.issue(NAME)
            trials.write_client(pair)
            go_on()
            trials.write("clients.pem", new_authority.certificate)
            assert refusal(trials.client(server, pair=old).report, "trial")[0] == "UNAVAILABLE"
            wait_until_refused(open_connection(kept), "UNAVAILABLE")
            authority = new_authority


def test_a_session_of_an_authority_that_was_replaced_is_not_resumed(trials, db):
    """A resumed session is not asked for its certificate again."""
    files = trials.write_client(trials.client_authority.issue(NAME))
    context = ssl.create_default_context(cafile=trials.path("ca.pem"))
    context.load_cert_chain(files["tls_cert"], files["tls_key"])
    context.set_alpn_protocols(["h2"])
    with DBManager(f"sqlite:///{db}", trial_listener=trials.certificate_listener()) as server:
        host, _, port = server.trial_address.rpartition(":")

        def connect(session):
            """Return whether a session was resumed, what the server said first, and the session for the next time."""
            with (
                socket.create_connection((host, int(port))) as plain,
                context.wrap_socket(plain, server_hostname=host, session=session) as encrypted,
            ):
                return encrypted.session_reused, encrypted.recv(100), encrypted.session

        _, first, session = connect(None)
        is_resumed, second, session = connect(session)
        assert is_resumed
        assert first
        assert second
        trials.write("clients.pem", Authority("new").certificate)
        is_resumed, third, _ = connect(session)
        assert (is_resumed, third) == (False, b"")


def test_a_certificate_that_expires_on_an_open_connection_is_refused(trials, db, open_raw):
    with DBManager(f"sqlite:///{db}", trial_listener=trials.certificate_listener()) as server:
        for valid_s in (6, 40):  # a loaded machine may need more than the first to connect
            pair = trials.client_authority.issue(NAME, valid_for=timedelta(seconds=valid_s))
            client = trials.client(server, pair=pair)
            with suppress(grpc.RpcError):
                client.report("trial")
                break
        wait_until_refused(open_connection(client), "UNAUTHENTICATED")
        assert ("2026-01-31T12:00:00.5Z", "loss", "1") in open_raw(server).get("trial")


def test_a_connection_is_replaced_without_a_call_that_fails(trials, token, db, short_connections):
    trials.write_tokens(hashed("a", token, "trial"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        client = trials.client(server, token)
        end = time.monotonic() + 2.5
        number = 0
        while time.monotonic() < end or number < 10:
            open_connection(client)(number)
            number += 1


@pytest.mark.logs_error(r"do not fit or are damaged: .*, for 11 s; what was read last stays in force")
def test_broken_files_leave_the_last_good_ones_in_force_and_are_told_once(trials, token, db, caplog):
    trials.write_tokens(hashed("a", token, "trial"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        files = server._running.trials.authenticator.files
        now_s = [0.0]
        files._reload_log._monotonic = lambda: now_s[0]
        trials.write("server.key", trials.server_authority.issue().key)
        for now_s[0] in (0.0, 1.0, 11.0, 12.0, 600.0):
            trials.client(server, token).report("trial")
        trials.write_server(trials.server_authority.issue("localhost", "mended"))
        trials.client(server, token).report("trial")
        assert shown_names(server) == ("localhost", "mended")
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == ["ERROR"]
    assert "the files are good again" in caplog.text


def test_a_secret_volumes_swapped_link_is_followed(trials, token, tmp_path, db):
    trials.write_tokens(hashed("a", token, "trial"))
    pairs = [trials.server_authority.issue("localhost", name) for name in ("first", "second")]
    for number, pair in enumerate(pairs):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key)
    (tmp_path / "..data").symlink_to("..0")
    for name, linked in (("server.pem", "tls.crt"), ("server.key", "tls.key")):
        trials.path(name).unlink()
        trials.path(name).symlink_to(f"..data/{linked}")
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        assert shown_names(server) == ("localhost", "first")
        (tmp_path / "..tmp").symlink_to("..1")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        assert shown_names(server) == ("localhost", "second")


def test_rows_of_a_rotation_are_all_there(trials, token, token_server, make_logs, open_raw):
    now = datetime.now(timezone.utc)
    made = KatibReporter(
        token_server.trial_address,
        trial_name="trial-a",
        tls_ca=trials.path("ca.pem"),
        token_path=trials.write("token", token.encode()),
    )
    made.report_logs([MetricLog("loss", 1.0, now)])
    trials.write_server(trials.server_authority.issue())
    made.report({"loss": 2.0})
    assert [value for _, _, value in open_raw(token_server).get("trial-a")] == ["1", "2"]
