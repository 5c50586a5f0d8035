"""What an attacker or a bad neighbour does over real connections: others go on, and the log neither tells nor fills."""

import itertools
import resource
import socket
import ssl
import threading
from contextlib import ExitStack
from datetime import timedelta

import certificates
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID
from http2 import frame, request_headers
from trials import ROW, TIMEOUT_S, Pair, hashed, new_token, refusal

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.service import limits
from katib_callbacks.db_manager.trials import server as trial_server
from katib_callbacks.wire import methods

NAME = "trial-a.team-a.katib-trial"
LIMITS_CONNECTIONS = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 64)


def connect(server) -> socket.socket:
    host, _, port = server.trial_address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


# -- neighbours --------------------------------------------------------------------------------------------------------


def test_a_namespace_whose_requests_never_end_leaves_room_for_others(trials, db, monkeypatch):
    """Each call keeps a thread from the moment that its caller is known, and sends nothing."""
    monkeypatch.setattr(trial_server, "MORE_THREADS", 0)
    bad, good = new_token(), new_token()
    trials.write_tokens(hashed("bad", bad, "*", namespace="team-a"), hashed("good", good, "*", namespace="team-b"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener(max_calls=4)) as server:
        neighbour = trials.client(server, bad)
        report = neighbour.channel.stream_unary(methods.REPORT_OBSERVATION_LOG)
        is_over = threading.Event()
        metadata = (("authorization", f"Bearer {bad}"),)
        calls = [report.future(_nothing_until(is_over), timeout=TIMEOUT_S, metadata=metadata) for _ in range(8)]
        try:
            client = trials.client(server, good)
            client.report("trial-b")
            assert client.get("trial-b") == [ROW]
            code, details = refusal(neighbour.report, "trial-a")
            assert (code, "of this namespace" in details) == ("RESOURCE_EXHAUSTED", True)
        finally:
            is_over.set()
        codes = [call.code() for call in calls]
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 6
        neighbour.report("trial-a")  # whose places are free again


def _nothing_until(is_over):
    is_over.wait(TIMEOUT_S)
    yield from ()


@pytest.mark.skipif(not LIMITS_CONNECTIONS, reason="gRPC before 1.64 cannot limit connections")
def test_connections_that_say_nothing_do_not_take_all_files(trials, token, db, open_raw, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", 10 * TIMEOUT_S)
    trials.write_tokens(hashed("a", token, "*"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(server))
        with connect(server) as one_more:
            assert is_closed(one_more)
        open_raw(server).report("trial", ROW)
        stack.close()
        reply = trials.client(server, token).get("trial")
        assert reply == [ROW]


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_each_listener_leaves_files_for_the_other_and_the_database():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 1_000
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        assert limits.max_connections() == few * 3 // 8
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- headers -----------------------------------------------------------------------------------------------------------


def test_a_header_that_is_no_utf_8_is_refused_and_quoted_nowhere(trials, token_server, token, caplog):
    """No client library sends one. gRPC would log its bytes, with a traceback, as often as it comes."""
    context = ssl.create_default_context(cafile=trials.path("ca.pem"))
    context.set_alpn_protocols(["h2"])
    with connect(token_server) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        headers = request_headers(methods.GET_OBSERVATION_LOG, authorization=b"Bearer \xff\xfe" + token.encode())
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4))
        connection.sendall(frame(1, 0x4, 1, headers))
        connection.sendall(frame(0, 0x1, 1, b"\0\0\0\0\0"))
        answer = b""
        while b"the credential is not accepted" not in answer:
            piece = connection.recv(4_096)
            assert piece, answer
            answer += piece
    assert token not in caplog.text
    (record,) = caplog.records
    assert record.getMessage().endswith("the authorization header is not one bearer token")


# -- certificates that TLS accepts, or must not ------------------------------------------------------------------------


DAYS = timedelta(days=5)


class Chain:
    """Certificates below an authority of the listener's, as no authority should sign them."""

    _numbers = itertools.count()

    def __init__(self, authority) -> None:
        self.name, self.key = authority._name, authority._key

    def issue(self, *extensions, valid_for=DAYS):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = certificates._name(f"subject {next(self._numbers)}")
        builder = certificates._builder(subject, self.name, key, valid_for)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return key, builder.sign(self.key, hashes.SHA256())

    def below(self, *extensions, **options):
        """Return a chain of an intermediate authority, and its certificate."""
        key, certificate = self.issue(*extensions, **options)
        chain = object.__new__(Chain)
        chain.name, chain.key = certificate.subject, key
        return chain, certificate


def pair_of(key, *chain) -> Pair:
    return Pair(certificates.pem(key), b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain))


@pytest.fixture
def chain(trials):
    return Chain(trials.client_authority)


@pytest.fixture
def certificate_server(trials, db):
    with DBManager(f"sqlite:///{db}", trial_listener=trials.certificate_listener()) as server:
        yield server


NAMES = x509.SubjectAlternativeName([x509.DNSName(NAME)])
IS_AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)


def test_an_intermediate_authority_counts_if_the_client_shows_it(trials, certificate_server, chain):
    lower, intermediate = chain.below(IS_AUTHORITY)
    key, leaf = lower.issue(NAMES)
    trials.client(certificate_server, pair=pair_of(key, leaf, intermediate)).report("trial-a")
    assert refusal(trials.client(certificate_server, pair=pair_of(key, leaf)).report, "trial-a")[0] == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("extensions", "options"),
    [
        ([IS_AUTHORITY], {"valid_for": timedelta(days=-1)}),
        ([x509.BasicConstraints(ca=False, path_length=None)], {}),
        ([NAMES], {}),
        ([IS_AUTHORITY, x509.NameConstraints([x509.DNSName("team-b.katib-trial")], None)], {}),
    ],
    ids=["expired", "no authority", "a trial's own", "for other names"],
)
def test_a_certificate_below_one_that_may_not_sign_it_gets_no_connection(
    trials, certificate_server, chain, extensions, options
):
    lower, intermediate = chain.below(*extensions, **options)
    key, leaf = lower.issue(NAMES)
    client = trials.client(certificate_server, pair=pair_of(key, leaf, intermediate))
    assert refusal(client.report, "trial-a")[0] == "UNAVAILABLE"


def test_a_certificate_for_servers_alone_gets_no_connection(trials, certificate_server, chain):
    key, leaf = chain.issue(NAMES, x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]))
    client = trials.client(certificate_server, pair=pair_of(key, leaf))
    assert refusal(client.report, "trial-a")[0] == "UNAVAILABLE"


def test_a_certificate_that_tls_reads_and_nobody_else_is_refused(trials, certificate_server, chain, caplog):
    no_ascii = b"\x30\x04\x82\x02a\xff"  # a DNS name of two bytes
    key, leaf = chain.issue(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, no_ascii))
    client = trials.client(certificate_server, pair=pair_of(key, leaf))
    assert refusal(client.report, "trial-a")[0] == "UNAUTHENTICATED"
    assert "cannot be read" in caplog.text
