"""The trial listener over real TLS connections: each trial to its own rows, and nobody else to anything."""

import logging
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from beside import said
from trials import ROW, TEMPLATE, URI_TEMPLATE, Authority, hashed, new_token, refusal

from katib_callbacks import ConfigurationError, KatibReporter, RejectedError, UnavailableError
from katib_callbacks.cli.db_manager import main
from katib_callbacks.db_manager import DBManager, TrialListener
from katib_callbacks.db_manager.authentication.certificates import CertificateNames
from katib_callbacks.db_manager.authentication.grant import RefusedError
from katib_callbacks.db_manager.trials import servicer
from katib_callbacks.settings import Runtime
from katib_callbacks.wire import messages, methods

NOT_ACCEPTED = "the credential is not accepted; the DB manager's audit log says why"
NOT_ALLOWED = "the credential does not allow this call; the DB manager's audit log says why"


@pytest.fixture(params=["token", "token_hash", "dns", "uri"])
def way(request, trials, token, db):
    """A server, and a client that may report for trial-a, by each way to authenticate."""
    pair = None
    if request.param == "token":
        trials.write_tokens({"name": "team-a", "token": token, "trials": ["trial-a"]})
        listener = trials.listener()
    elif request.param == "token_hash":
        trials.write_tokens(hashed("team-a", token, "trial-a", namespace="team-a"))
        listener = trials.listener()
    elif request.param == "dns":
        token, pair = None, trials.client_authority.issue("trial-a.team-a.katib-trial")
        listener = trials.certificate_listener()
    else:
        token = None
        pair = trials.client_authority.issue(uris=["spiffe://cluster.local/ns/team-a/katib-trial/trial-a"])
        listener = trials.certificate_listener(URI_TEMPLATE)
    with DBManager(f"sqlite:///{db}", trial_listener=listener) as server:
        yield server, trials.client(server, token, pair)


def test_a_trial_writes_and_reads_its_own_rows_and_no_others(way, open_raw):
    server, client = way
    open_raw(server).report("trial-b", ROW)

    client.report("trial-a")

    assert client.get("trial-a") == [ROW]
    denied = ("PERMISSION_DENIED", NOT_ALLOWED)
    assert refusal(client.report, "trial-b") == denied
    assert refusal(client.get, "trial-b") == denied
    assert refusal(client.delete, "trial-a") == denied
    assert refusal(client.delete, "trial-b") == denied
    assert open_raw(server).get("trial-a") == [ROW]
    assert open_raw(server).get("trial-b") == [ROW]


@pytest.mark.parametrize(
    "other", ["trial-a ", "trial-aa", "xtrial-a", "TRIAL-A", "trial-\u0430", "trial-?", "*", "", "trial-a\n"], ids=ascii
)
def test_a_name_that_is_nearly_the_trials_is_another_one(way, other):
    _, client = way
    assert refusal(client.report, other) == ("PERMISSION_DENIED", NOT_ALLOWED)
    assert refusal(client.get, other) == ("PERMISSION_DENIED", NOT_ALLOWED)


def test_the_plaintext_listener_behaves_as_before(trials, token_server, token, open_raw, stub_of):
    trials.client(token_server, token).report("trial-a")
    raw = open_raw(token_server)
    raw.report("trial-b", ROW)
    assert (raw.get("trial-a"), raw.get("trial-b")) == ([ROW], [ROW])
    stub_of(token_server).delete("trial-a", timeout_s=60)
    assert (raw.get("trial-a"), raw.get("trial-b")) == ([], [ROW])


def test_without_a_trial_listener_there_is_none(db):
    with DBManager(f"sqlite:///{db}") as server:
        assert server.trial_address is None


@pytest.mark.parametrize(
    ("metadata", "details"),
    [
        ((), "there is no credential; the trial listener wants a bearer token"),
        ((("authorization", ""),), NOT_ACCEPTED),
        ((("authorization", "Bearer"),), NOT_ACCEPTED),
        ((("authorization", "Bearer {token} {token}"),), NOT_ACCEPTED),
        ((("authorization", "Basic {token}"),), NOT_ACCEPTED),
        ((("authorization", "{token}"),), NOT_ACCEPTED),
        ((("authorization", "Bearer {token}"), ("authorization", "Bearer {token}")), NOT_ACCEPTED),
        ((("authorization", "Bearer {token}x"),), NOT_ACCEPTED),
        ((("authorization", "Bearer *"),), NOT_ACCEPTED),
        ((("x-authorization", "Bearer {token}"),), "there is no credential; the trial listener wants a bearer token"),
    ],
)
def test_a_caller_without_a_good_token_is_refused(trials, token_server, token, metadata, details, open_raw):
    client = trials.client(token_server)
    filled = tuple((key, value.format(token=token)) for key, value in metadata)
    assert refusal(client.report, "trial-a", metadata=filled) == ("UNAUTHENTICATED", details)
    assert open_raw(token_server).get("trial-a") == []


def test_the_scheme_may_be_written_in_any_case(trials, token_server, token, open_raw):
    trials.client(token_server).report("trial-a", metadata=(("authorization", f"bearer  {token}"),))
    assert open_raw(token_server).get("trial-a") == [ROW]


def test_plaintext_does_not_reach_the_trial_listener(token_server, open_channel):
    channel = open_channel(token_server.trial_address)
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(methods.GET_OBSERVATION_LOG)(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_request_is_not_read_before_its_caller_is_known(trials, token_server, token):
    stranger, friend = trials.client(token_server, new_token()), trials.client(token_server, token)
    for size in (3, 40 * 1024 * 1024):  # no message at all, and one above the limit
        assert refusal(stranger.send, methods.REPORT_OBSERVATION_LOG, b"\xff" * size)[0] == "UNAUTHENTICATED"
    assert refusal(friend.send, methods.REPORT_OBSERVATION_LOG, b"\xff\xff\xff")[0] == "INVALID_ARGUMENT"
    assert refusal(friend.send, methods.REPORT_OBSERVATION_LOG, b"\xff" * 40 * 1024 * 1024)[0] == "RESOURCE_EXHAUSTED"


def test_what_cannot_be_stored_is_answered_as_on_the_other_listener(trials, token_server, token):
    client = trials.client(token_server, token)
    assert refusal(client.report, "trial-a", ("noon", "loss", "1"))[0] == "INVALID_ARGUMENT"
    code, details = refusal(
        client.send, methods.REPORT_OBSERVATION_LOG, messages.ReportObservationLogRequest(trial_name="trial-a")
    )
    assert (code, details) == ("INVALID_ARGUMENT", "observation_log is not set")


def test_health_is_told_to_anybody_and_nothing_else_is(trials, token_server, caplog):
    client = trials.client(token_server)
    reply = client.send(methods.HEALTH_CHECK, messages.HealthCheckRequest())
    assert messages.HealthCheckResponse.FromString(reply).status == messages.SERVING
    others = (
        methods.HEALTH_WATCH,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/api.v1.beta1.DBManager/DropAll",
        "/api.v1.beta1.EarlyStopping/SetTrialStatus",
    )
    for path in others:
        assert refusal(client.send, path, b"")[0] == "UNAUTHENTICATED"
    assert [path for path in others if path not in caplog.text] == []


def test_who_is_let_in_finds_no_other_method_either(trials, token_server, token):
    client = trials.client(token_server, token)
    for path in (methods.HEALTH_WATCH, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
        assert refusal(client.send, path, b"") == ("UNIMPLEMENTED", NOT_ALLOWED)


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate_server(trials, db):
    with DBManager(f"sqlite:///{db}", trial_listener=trials.certificate_listener()) as server:
        yield server


NAME = "trial-a.team-a.katib-trial"


def test_a_client_without_a_certificate_gets_no_connection(trials, certificate_server):
    assert refusal(trials.client(certificate_server).report, "trial-a")[0] == "UNAVAILABLE"


def test_a_certificate_of_another_authority_gets_no_connection(trials, certificate_server):
    pair = trials.server_authority.issue(NAME)
    assert refusal(trials.client(certificate_server, pair=pair).report, "trial-a")[0] == "UNAVAILABLE"


def test_an_expired_certificate_gets_no_connection(trials, certificate_server):
    pair = trials.client_authority.issue(NAME, valid_for=timedelta(days=-1))
    assert refusal(trials.client(certificate_server, pair=pair).report, "trial-a")[0] == "UNAVAILABLE"


def test_a_certificate_that_expires_on_an_open_connection_is_refused():
    day = datetime(2026, 1, 31, tzinfo=timezone.utc)
    now = [day]
    names = CertificateNames(TEMPLATE, lambda: now[0])
    pem = Authority().issue(NAME, valid_for=timedelta(days=3)).certificate
    grant = names.authenticate(pem)
    assert (grant.caller, grant.namespace, grant.covers("trial-a")) == (NAME, "team-a", True)
    now[0] = datetime.now(timezone.utc) + timedelta(days=4)
    for _ in range(2):
        with pytest.raises(RefusedError, match="the client's certificate has expired on "):
            names.authenticate(pem)


@pytest.mark.parametrize(
    "names",
    [
        ["localhost"],
        ["trial-a.katib-trial"],
        ["team-a.katib-trial"],
        ["*.team-a.katib-trial"],
        ["trial-a.team-a.katib-trial.example.com"],
        ["x-trial-a.team-a.katib-trials"],
        [NAME, "trial-b.team-a.katib-trial"],
        ["trial_a.team-a.katib-trial"],
        [".team-a.katib-trial"],
    ],
)
def test_a_certificate_for_another_name_is_refused(trials, certificate_server, names):
    client = trials.client(certificate_server, pair=trials.client_authority.issue(*names))
    for trial in ("trial-a", "*", "localhost"):
        assert refusal(client.report, trial) == ("UNAUTHENTICATED", NOT_ACCEPTED)


def test_a_certificate_with_names_for_other_purposes_counts(trials, certificate_server, open_raw):
    pair = trials.client_authority.issue("localhost", NAME, uris=["https://example.com/trial-b"])
    trials.client(certificate_server, pair=pair).report("trial-a")
    assert open_raw(certificate_server).get("trial-a") == [ROW]


def test_a_name_of_the_other_kind_does_not_count(trials, db):
    with DBManager(f"sqlite:///{db}", trial_listener=trials.certificate_listener(URI_TEMPLATE)) as server:
        client = trials.client(server, pair=trials.client_authority.issue(NAME))
        assert refusal(client.report, "trial-a") == ("UNAUTHENTICATED", NOT_ACCEPTED)


@pytest.mark.parametrize(
    ("template", "name", "expected"),
    [
        (TEMPLATE, "a.b.ns.katib-trial", ("a.b", "ns")),  # a namespace has no dots, a trial may
        ("{namespace}.{trial}.x", "ns.a.b.x", ("a.b", "ns")),
        ("{trial}.katib-trial", "a.ns.katib-trial", ("a.ns", None)),
        (URI_TEMPLATE, "spiffe://cluster.local/ns/n/katib-trial/t", ("t", "n")),
        (URI_TEMPLATE, "spiffe://cluster.local/ns/n/katib-trial/t/katib-trial/u", None),
        (URI_TEMPLATE, "spiffe://cluster.local/ns/../katib-trial/t", None),
        (URI_TEMPLATE, "spiffe://cluster.local/ns/n/katib-trial/T", None),
    ],
)
def test_a_template_is_read_in_one_way(trials, template, name, expected):
    names = {"uris": [name]} if "://" in name else {}
    hosts = [] if "://" in name else [name]
    pem = trials.client_authority.issue(*hosts, **names).certificate
    if expected is None:
        with pytest.raises(RefusedError):
            CertificateNames(template).authenticate(pem)
        return
    grant = CertificateNames(template).authenticate(pem)
    assert (next(iter(grant.trial_names)), grant.namespace) == expected


@pytest.mark.parametrize(
    "template",
    [
        "",
        "katib-trial",
        "{namespace}.x",
        "{trial}{namespace}",
        "{trial}-{namespace}",
        "{trial}.{trial}",
        "{trial}.{pod}",
    ],
)
def test_a_template_that_can_be_read_in_two_ways_or_not_at_all_is_refused(template):
    with pytest.raises(ConfigurationError, match="certificate name"):
        CertificateNames(template)


def test_where_clients_have_certificates_a_token_decides_if_there_is_one(trials, token, db):
    trials.write_tokens(hashed("b", token, "trial-b"))
    listener = trials.certificate_listener(token_file=trials.path("tokens.json"))
    pair = trials.client_authority.issue(NAME)
    with DBManager(f"sqlite:///{db}", trial_listener=listener) as server:
        both, certificate = trials.client(server, token, pair), trials.client(server, pair=pair)
        both.report("trial-b")
        assert refusal(both.report, "trial-a")[0] == "PERMISSION_DENIED"
        certificate.report("trial-a")
        assert refusal(certificate.report, "trial-b")[0] == "PERMISSION_DENIED"
        assert refusal(trials.client(server, new_token(), pair).report, "trial-a")[0] == "UNAUTHENTICATED"
        assert refusal(trials.client(server, token).report, "trial-b")[0] == "UNAVAILABLE"  # none was shown


# -- the callbacks' own client -----------------------------------------------------------------------------------------


def test_a_reporter_delivers_by_its_token(trials, token_server, token, open_raw):
    path = trials.write("token", token.encode())
    reporter = KatibReporter(
        token_server.trial_address, trial_name="trial-a", tls_ca=trials.path("ca.pem"), token_path=path, verify="always"
    )
    receipt = reporter.report({"loss": 0.5})
    assert (receipt.delivered, receipt.verified) == (1, True)
    assert [value for _, _, value in open_raw(token_server).get("trial-a")] == ["0.5"]


def test_a_reporter_delivers_by_its_certificate(trials, certificate_server, open_raw):
    files = trials.write_client(trials.client_authority.issue(NAME))
    reporter = KatibReporter(
        certificate_server.trial_address, trial_name="trial-a", tls_ca=trials.path("ca.pem"), **files
    )
    assert reporter.report({"loss": 0.5}).delivered == 1


def test_a_reporter_for_another_trial_is_refused_at_once(trials, token_server, token, open_raw):
    path = trials.write("token", token.encode())
    reporter = KatibReporter(
        token_server.trial_address, trial_name="trial-b", tls_ca=trials.path("ca.pem"), token_path=path
    )
    with pytest.raises(RejectedError, match="PERMISSION_DENIED: the credential does not allow this call") as caught:
        reporter.report({"loss": 0.5})
    assert caught.value.attempts == 1
    assert token not in str(caught.value)
    assert open_raw(token_server).get("trial-b") == []


def test_a_reporter_whose_token_comes_late_delivers(trials, token_server, token):
    path = trials.write("token", new_token().encode())
    waits = []

    def replace(event, timeout_s):
        waits.append(timeout_s)
        trials.write("token", token.encode())
        return event.is_set()

    reporter = KatibReporter(
        token_server.trial_address,
        trial_name="trial-a",
        tls_ca=trials.path("ca.pem"),
        token_path=path,
        _runtime=Runtime(wait=replace),
    )
    assert reporter.report({"loss": 0.5}).attempts == 2
    assert len(waits) == 1


def test_a_reporter_without_a_certificate_is_told_so(trials, certificate_server):
    reporter = KatibReporter(
        certificate_server.trial_address, trial_name="trial-a", tls_ca=trials.path("ca.pem"), timeout_s=60
    )
    with pytest.raises((RejectedError, UnavailableError), match="it may want tls_cert"):
        reporter.report({"loss": 0.5})


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no way to authenticate"),
        ({"client_ca": "ca.pem"}, "no way to authenticate"),
        ({"certificate_name": TEMPLATE}, "need client_ca"),
        ({"token_file": "tokens.json", "oidc_audience": "x"}, "without the issuer"),
        ({"token_file": "tokens.json", "namespaces": ()}, "namespaces must be patterns"),
        ({"token_file": "tokens.json", "max_calls": 0}, "max_calls"),
    ],
)
def test_a_listener_that_could_let_in_nobody_or_anybody_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        TrialListener("localhost:0", "cert.pem", "key.pem", **options)


def test_files_that_cannot_be_used_are_named_at_the_start_and_no_database_is_made(trials, token, db):
    trials.write_tokens(hashed("a", token, "*"))
    good = trials.listener()

    def start(message, **changes):
        options = {name: getattr(good, name) for name in ("listen_address", "tls_cert", "tls_key", "token_file")}
        with pytest.raises(ConfigurationError, match=message):
            DBManager(f"sqlite:///{db}", trial_listener=TrialListener(**options | changes)).start()

    start("tls certificate .*missing.pem cannot be read: No such file", tls_cert=trials.path("missing.pem"))
    start("do not fit or are damaged", tls_cert=trials.path("ca.pem"))
    start("do not fit or are damaged", tls_key=trials.path("tokens.json"))
    start("client ca .* holds no certificate", client_ca=trials.path("tokens.json"))
    start("token file .*server.key: is not JSON", token_file=trials.path("server.key"))
    start("is not an address to listen on", listen_address="6790")
    assert not db.exists()


def command(trials, *arguments):
    return [
        *("--trial-tls-cert", str(trials.path("server.pem")), "--trial-tls-key", str(trials.path("server.key"))),
        *("--trial-token-file", str(trials.path("tokens.json")), *arguments),
    ]


def test_the_command_serves_trials(trials, token, tmp_path):
    trials.write_tokens(hashed("a", token, "digits-*", namespace="team-a"))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"),
            *("--db", f"sqlite:///{tmp_path}/k.db", "--trial-listen-address", "localhost:0"),
            *command(trials, "--trial-namespaces", "team-*, other"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "listening on" in process.stdout.readline()
        address = re.fullmatch(r"DB manager: listening for trials on (\S+)\n", process.stdout.readline())[1]
        client = trials.client(address, token)
        client.report("digits-1")
        assert client.get("digits-1") == [ROW]
        assert refusal(client.report, "other-1")[0] == "PERMISSION_DENIED"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert len(said(err)) == 1, err
    (line,) = said(err)
    assert "refused /api.v1.beta1.DBManager/ReportObservationLog from ipv" in line
    assert "with PERMISSION_DENIED, caller 'a', trial 'other-1': the credential is for other trials" in line
    assert token not in err


@pytest.mark.parametrize("missing", ["--trial-listen-address", "--trial-tls-cert", "--trial-tls-key"])
def test_the_command_names_what_a_trial_listener_needs(trials, missing, capsys, tmp_path):
    arguments = ["--trial-listen-address", "localhost:0", *command(trials)]
    position = arguments.index(missing)
    del arguments[position : position + 2]
    assert main(["--db", f"sqlite:///{tmp_path}/k.db", *arguments]) == 2
    assert f"a trial listener needs {missing}, too" in capsys.readouterr().err


# -- one server, two listeners -----------------------------------------------------------------------------------------


def test_namespaces_that_may_not_report_are_refused(trials, db, caplog):
    tokens = [new_token() for _ in range(3)]
    trials.write_tokens(
        hashed("a", tokens[0], "*", namespace="team-a"),
        hashed("b", tokens[1], "*", namespace="other"),
        hashed("c", tokens[2], "*"),
    )
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener(namespaces=("team-*",))) as server:
        trials.client(server, tokens[0]).report("trial")
        for token in tokens[1:]:
            assert refusal(trials.client(server, token).report, "trial-2") == ("PERMISSION_DENIED", NOT_ALLOWED)
    assert "caller 'b', trial 'trial-2': its namespace may not report" in caplog.text
    assert "caller 'c', trial 'trial-2': the credential names no namespace" in caplog.text


def test_stop_ends_both_listeners_and_start_begins_anew(trials, token, db):
    trials.write_tokens(hashed("a", token, "*"))
    server = DBManager(f"sqlite:///{db}", trial_listener=trials.listener())
    for _ in range(2):
        with server:
            client = trials.client(server, token)
            client.report("trial")
        assert refusal(client.report, "trial")[0] == "UNAVAILABLE"


def test_trials_that_are_worked_on_leave_katib_its_places(trials, token, db, open_raw):
    trials.write_tokens(hashed("a", token, "*"))
    with DBManager(f"sqlite:///{db}", max_calls=2, trial_listener=trials.listener(max_calls=2)) as server:
        client, raw = trials.client(server, token), open_raw(server)
        places = server._running.trials.service._servicer._places
        with places.enter(), places.enter():
            assert refusal(client.get, "t") == ("RESOURCE_EXHAUSTED", "2 calls are being worked on; try again")
            raw.report("t", ROW)
            assert raw.get("t") == [ROW]
        assert client.get("t") == [ROW]


def test_trials_that_read_leave_katib_connections_to_read_by(trials, token_server, token, open_raw, monkeypatch):
    monkeypatch.setattr(servicer, "POOL_TIMEOUT_S", 0.1)
    client, reads = trials.client(token_server, token), token_server._running.trials.service._reads
    client.report("trial-a")
    with ExitStack() as reading:
        for _ in range(4):  # half of the eight that read
            reading.enter_context(reads.enter())
        details = "too many trials are reading; try again"
        assert refusal(client.get, "trial-a") == ("RESOURCE_EXHAUSTED", details)
        assert open_raw(token_server).get("trial-a") == [ROW]
    assert client.get("trial-a") == [ROW]


@pytest.mark.logs_error("could not be judged in a way")
def test_an_error_of_ours_tells_the_caller_nothing(trials, token, db, monkeypatch, caplog):
    trials.write_tokens(hashed("a", token, "*"))
    with DBManager(f"sqlite:///{db}", trial_listener=trials.listener()) as server:
        authenticator = server._running.trials.authenticator
        monkeypatch.setattr(authenticator, "authenticate", lambda *_: int(token))
        code, details = refusal(trials.client(server, token).report, "trial")
        assert code == "INTERNAL"
        assert token not in details
        for record in caplog.records:
            record.exc_info = record.exc_text = None
    assert [r.levelno for r in caplog.records if r.name.endswith("trials.servicer")] == [logging.ERROR]
