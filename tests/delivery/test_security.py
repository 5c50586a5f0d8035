"""TLS, client certificates and tokens: what works, what is refused, and that errors name the file and the cause."""

import logging
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from certificates import Authority, encrypted_key
from partners import FastClock, Fault, ScriptedDBManager

from katib_callbacks import ConfigurationError, KatibReporter, RejectedError, UnavailableError
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.sinks.katib.calls import MAX_LOCAL_FAILURES

AUTHORITY = Authority()
STRANGER = Authority("stranger")
EXPIRED = timedelta(days=-1)


def secure_server(pair=None, client_authority: Authority | None = None) -> ScriptedDBManager:
    return ScriptedDBManager(
        credentials=grpc.ssl_server_credentials(
            [tuple(pair or AUTHORITY.issue())],
            root_certificates=client_authority and client_authority.certificate,
            require_client_auth=client_authority is not None,
        )
    )


class Files:
    """Writes PEM files and hands out their paths as a reporter's arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def ca(self, authority: Authority = AUTHORITY) -> dict[str, Path]:
        return {"tls_ca": self.write("ca.pem", authority.certificate)}

    def client(self, pair) -> dict[str, Path]:
        return {"tls_cert": self.write("cert.pem", pair.certificate), "tls_key": self.write("key.pem", pair.key)}


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)


def reporter_to(server, **options) -> KatibReporter:
    options.setdefault("_runtime", FastClock().runtime)
    return KatibReporter(f"localhost:{server.port}", trial_name="trial", **options)


# -- what works --------------------------------------------------------------------------------------------------------


def test_a_report_travels_over_tls(files):
    with secure_server() as server:
        reporter_to(server, **files.ca()).report({"loss": 1})

        assert server.values() == [("loss", "1")]


def test_a_client_certificate_is_shown(files):
    with secure_server(client_authority=STRANGER) as server:
        reporter_to(server, **files.ca(), **files.client(STRANGER.issue("me"))).report({"loss": 1})

        assert server.values() == [("loss", "1")]


def test_options_come_from_the_environment_too(files):
    variables = {
        "KATIB_CALLBACKS_TLS_CA": str(files.ca()["tls_ca"]),
        "KATIB_CALLBACKS_TOKEN_PATH": str(files.write("token", b"s3cret\n")),
    }
    with secure_server() as server:
        reporter_to(server, _runtime=FastClock(variables).runtime).report({"loss": 1})

        assert server.authorizations == ["Bearer s3cret"]


def test_a_reporter_with_tls_pickles_to_another_process(files):
    options = {**files.ca(), **files.client(STRANGER.issue("me")), "token_path": files.write("token", b"s3cret")}
    with secure_server(client_authority=STRANGER) as server:
        reporter = KatibReporter(f"localhost:{server.port}", trial_name="trial", **options)
        pickled = pickle.dumps(reporter)
        files.write("reporter", pickled)
        code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).report({'loss': 1})"
        subprocess.run([sys.executable, "-c", code, files.folder / "reporter"], check=True, timeout=240)

        assert server.values() == [("loss", "1")]
        assert server.authorizations == ["Bearer s3cret"]
    assert b"s3cret" not in pickled
    assert b"PRIVATE KEY" not in pickled


def test_certificates_are_read_again_when_a_channel_opens(files):
    reporter = None
    with secure_server() as server:
        reporter = reporter_to(server, **files.ca(STRANGER))
        files.ca()
        reporter.report({"loss": 1})

        assert server.values() == [("loss", "1")]


def test_a_token_is_read_again_for_every_call(files):
    token = files.write("token", b"first")
    with secure_server() as server:
        reporter = reporter_to(server, **files.ca(), token_path=token)
        reporter.report({"loss": 1})
        token.write_text("second")
        server.report_faults = [Fault("UNAVAILABLE", "failed to connect")]
        server.on_report = lambda: token.write_text("third")
        reporter.report({"loss": 2})

        assert server.authorizations == ["Bearer first", "Bearer second", "Bearer third"]


def test_a_token_that_has_expired_is_tried_again_until_it_is_replaced(files):
    token = files.write("token", b"old")
    with secure_server() as server:
        server.report_faults = [Fault("UNAUTHENTICATED", "token expired")] * 2
        server.on_report = lambda: token.write_text("new")
        receipt = reporter_to(server, **files.ca(), token_path=token).report({"loss": 1})

        assert receipt.attempts == 3
        assert server.authorizations == ["Bearer old", "Bearer new", "Bearer new"]


def test_a_token_may_travel_in_plaintext_where_that_is_allowed_by_name(server, files, clock):
    token = files.write("token", b"s3cret")
    with pytest.raises(ConfigurationError, match="without TLS; set tls_ca, or allow_insecure_token"):
        KatibReporter(server.address, trial_name="trial", token_path=token)

    KatibReporter(server.address, trial_name="trial", token_path=token, allow_insecure_token=True).report({"loss": 1})

    assert server.authorizations == ["Bearer s3cret"]


# -- files that cannot be right, found before training -----------------------------------------------------------------

GOOD = AUTHORITY.issue()
OTHER = AUTHORITY.issue()
GARBAGE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("contents", "named", "cause"),
    [
        ({"tls_ca": None}, "tls_ca", "No such file"),
        ({"tls_ca": b""}, "tls_ca", "is empty"),
        ({"tls_ca": b"hello"}, "tls_ca", "no certificate in PEM"),
        ({"tls_ca": GARBAGE}, "tls_ca", "no certificate in PEM"),
        ({"tls_cert": None, "tls_key": GOOD.key}, "tls_cert", "No such file"),
        ({"tls_cert": GOOD.certificate, "tls_key": None}, "tls_key", "No such file"),
        ({"tls_cert": b"hello", "tls_key": GOOD.key}, "tls_cert", "no certificate in PEM"),
        ({"tls_cert": GOOD.certificate, "tls_key": b"hello"}, "tls_key", "no private key in PEM"),
        ({"tls_cert": GOOD.certificate, "tls_key": encrypted_key()}, "tls_key", "is encrypted"),
        ({"tls_cert": GOOD.certificate, "tls_key": OTHER.key}, "tls_key", "do not fit"),
        ({"tls_cert": GARBAGE, "tls_key": GOOD.key}, "tls_cert", "damaged"),
        ({"tls_ca": AUTHORITY.certificate, "token_path": None}, "token_path", "No such file"),
        ({"tls_ca": AUTHORITY.certificate, "token_path": b" \n"}, "token_path", "is empty"),
        ({"tls_ca": AUTHORITY.certificate, "token_path": b"two words"}, "token_path", "no token"),
        ({"tls_ca": AUTHORITY.certificate, "token_path": "gehöim".encode()}, "token_path", "no token"),
    ],
)
def test_a_file_that_cannot_be_right_is_named_with_its_cause_at_once(files, contents, named, cause):
    options = {}
    for option, content in contents.items():
        options[option] = files.folder / option if content is None else files.write(option, content)

    with pytest.raises(ConfigurationError) as caught:
        KatibReporter("localhost:1", trial_name="trial", **options)

    message = str(caught.value)
    assert str(options[named]) in message
    assert named in message
    assert cause in message
    assert not any(word in message for word in ("hello", "two words", "gehöim"))


@pytest.mark.parametrize("path", ["folder", "a\0b"])
def test_a_path_that_is_no_file_is_named(files, path):
    (files.folder / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"tls_ca.* (cannot be read|has a NUL)"):
        KatibReporter("localhost:1", trial_name="trial", tls_ca=str(files.folder / path))


@pytest.mark.parametrize("option", ["tls_ca", "tls_cert", "tls_key"])
def test_an_empty_path_does_not_turn_tls_off(server, option):
    with pytest.raises(ConfigurationError, match=option):
        KatibReporter(server.address, trial_name="trial", **{option: ""})


@pytest.mark.parametrize("option", ["tls_cert", "tls_key"])
def test_a_client_certificate_needs_both_files(files, option):
    with pytest.raises(ConfigurationError, match=f"{option} is set without"):
        KatibReporter("localhost:1", trial_name="trial", **{option: files.client(GOOD)[option]})


# -- what only the server can tell -------------------------------------------------------------------------------------


def failure(reporter: KatibReporter, kind=RejectedError) -> str:
    with pytest.raises(kind) as caught:
        reporter.report({"loss": 1})
    return str(caught.value)


def test_a_certificate_of_another_authority_is_said_to_be_one(files):
    with secure_server(STRANGER.issue()) as server:
        message = failure(reporter_to(server, **files.ca()))

    assert f"not accepted by tls_ca {files.folder / 'ca.pem'}" in message
    assert "unable to get local issuer certificate" in message
    assert f"tried {MAX_LOCAL_FAILURES} times" in message


def test_an_expired_certificate_is_said_to_be_one(files):
    with secure_server(AUTHORITY.issue(valid_for=EXPIRED)) as server:
        message = failure(reporter_to(server, **files.ca()))

    assert f"tls_ca {files.folder / 'ca.pem'}" in message
    assert "certificate has expired" in message


def test_a_certificate_for_another_host_is_said_to_be_one(files):
    with secure_server(AUTHORITY.issue("elsewhere.example")) as server:
        message = failure(reporter_to(server, **files.ca()))

    assert "not valid for 'localhost'" in message
    assert f"tls_ca {files.folder / 'ca.pem'}" in message


def test_a_server_without_tls_is_said_to_be_one(server, files):
    assert "does not speak TLS, for which tls_ca" in failure(reporter_to(server, **files.ca()))


def test_a_missing_client_certificate_is_said_to_be_missing(files):
    with secure_server(client_authority=STRANGER) as server:
        assert "tls_cert, which is not set" in failure(reporter_to(server, **files.ca()))


def test_a_client_certificate_of_another_authority_is_named(files):
    with secure_server(client_authority=STRANGER) as server:
        message = failure(reporter_to(server, **files.ca(), **files.client(AUTHORITY.issue("me"))))

    assert f"may not accept the certificate in tls_cert {files.folder / 'cert.pem'}" in message


def test_an_expired_client_certificate_is_said_to_be_one(files):
    with secure_server(client_authority=STRANGER) as server:
        pair = STRANGER.issue("me", valid_for=EXPIRED)
        message = failure(reporter_to(server, **files.ca(), **files.client(pair)))

    assert f"the certificate in tls_cert {files.folder / 'cert.pem'}" in message
    assert "has expired on 20" in message


def test_a_server_that_wants_tls_is_suspected(files):
    with secure_server() as server:
        message = failure(reporter_to(server, timeout_s=5), UnavailableError)

    assert "does it want TLS? tls_ca is not set" in message


@pytest.mark.parametrize("name", ["ca.pem", "key.pem", "token"])
def test_a_file_that_has_gone_after_training_is_named(files, name):
    options = {**files.ca(), **files.client(STRANGER.issue("me")), "token_path": files.write("token", b"s3cret")}
    with secure_server(client_authority=STRANGER) as server:
        reporter = reporter_to(server, **options)
        (files.folder / name).unlink()
        message = failure(reporter)

        assert server.calls == []
    assert str(files.folder / name) in message
    assert "No such file" in message


def test_a_recorder_resolves_its_options_once_so_that_a_file_may_be_rotated_when_training_ends(server, files, caplog):
    token = files.write("token", b"old")
    clock = FastClock(
        {
            "KATIB_TRIAL_NAME": "trial",
            "KATIB_DB_MANAGER_ADDRESS": server.address,
            "KATIB_CALLBACKS_TOKEN_PATH": str(token),
            "KATIB_CALLBACKS_ALLOW_INSECURE_TOKEN": "1",
            "KATIB_CALLBACKS_SPOOL_DIR": str(files.folder / "spool"),
        }
    )
    recorder = MetricRecorder("loss", _runtime=clock.runtime)
    recorder.start(framework_rank(is_global_zero=True))
    recorder.record({"loss": 0.5}, row=0)
    recorder.finish()

    clock.runtime.environ().update(KATIB_DB_MANAGER_ADDRESS="no address")
    token.unlink()
    recorder.deliver()

    assert "No such file" in caplog.text  # tried again, as by any reporter, and then kept
    assert len(list((files.folder / "spool").iterdir())) == 1
    files.write("token", b"new")
    recorder.start(framework_rank(is_global_zero=True))
    recorder.record({"loss": 0.25}, row=0)
    recorder.finish()
    recorder.deliver()
    assert server.values() == [("loss", "0.25")]
    assert server.authorizations == ["Bearer new"]


def test_a_refused_token_is_given_up_and_its_file_named(files):
    token = files.write("token", b"s3cret")
    with secure_server() as server:
        server.report_faults = [Fault("UNAUTHENTICATED", "who are you?")] * 100
        message = failure(reporter_to(server, **files.ca(), token_path=token))

        assert len(server.calls) == MAX_LOCAL_FAILURES
    assert "who are you?" in message
    assert str(token) in message


def test_no_secret_is_in_a_log_a_repr_or_an_error(files, caplog):
    caplog.set_level(logging.DEBUG)
    token = files.write("token", b"s3cret")
    with secure_server() as server:
        reporter = reporter_to(server, **files.ca(), token_path=token)
        server.report_faults = [Fault("UNAUTHENTICATED", "no")] * 100
        with pytest.raises(RejectedError) as caught:
            reporter.report({"loss": 1})

    chain, error = [], caught.value
    while error is not None:
        chain += [str(error), repr(error), repr(getattr(error, "args", ()))]
        error = error.__cause__ or error.__context__
    assert len(chain) > 3
    assert "s3cret" not in "\n".join([*chain, caplog.text, repr(reporter), repr(vars(reporter))])
