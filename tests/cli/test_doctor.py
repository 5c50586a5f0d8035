"""``katib-callbacks doctor``: each finding, from the fault itself."""

import base64
import contextlib
import hashlib
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import pytest
from certificates import Authority
from status_server import StatusServer

from katib_callbacks.cli import main
from katib_callbacks.cli.doctor import network, status_server
from katib_callbacks.db_manager import DBManager, TrialListener
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

AUTHORITY = Authority()
VARIABLES = ("KATIB_", "KUBEFLOW_", "KUBERNETES_", "RANK", "WORLD_SIZE", "SLURM_", "HOSTNAME")


@pytest.fixture(autouse=True)
def trial(monkeypatch):
    """Be in a trial, and nowhere else; a loaded machine may take long to answer."""
    monkeypatch.setattr(network, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(status_server, "TIMEOUT_S", 60.0)
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")


@contextlib.contextmanager
def server(health=None, credentials=None, *, forgets=False):
    """Serve gRPC with this answer to a health check, or with none, at a port of localhost.

    One that ``forgets`` takes rows, and has none.
    """
    with ThreadPoolExecutor(4) as workers:
        grpc_server = grpc.server(workers)
        if health is not None:
            reply = messages.HealthCheckResponse(status=health).SerializeToString()
            handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: reply)
            service, method = methods.HEALTH_CHECK.strip("/").split("/")
            grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        if forgets:
            handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
            paths = (methods.REPORT_OBSERVATION_LOG, methods.GET_OBSERVATION_LOG, methods.DELETE_OBSERVATION_LOG)
            service = paths[0].strip("/").split("/")[0]
            handlers = {path.rpartition("/")[2]: handler for path in paths}
            grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if credentials is None:
            port = grpc_server.add_insecure_port("127.0.0.1:0")
        else:
            pair = grpc.ssl_server_credentials([tuple(credentials)])
            port = grpc_server.add_secure_port("127.0.0.1:0", pair)
        grpc_server.start()
        try:
            yield f"localhost:{port}"
        finally:
            grpc_server.stop(0).wait()


@pytest.fixture
def doctor(monkeypatch, capsys):
    """Return the exit status, and the findings by their checks, with some variables."""

    def run(*arguments, **environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, str(value))
        status = main(["doctor", "--json", *arguments])
        told = json.loads(capsys.readouterr().out)
        assert set(told) == {"version", "status", "findings"}
        assert (told["status"] == "problem") == (status == 1)
        assert all(set(one) == {"check", "status", "detail", "advice"} for one in told["findings"])
        assert all(one["advice"] for one in told["findings"] if one["status"] != "ok")
        worst_last = sorted(told["findings"], key=lambda one: ("ok", "note", "problem").index(one["status"]))
        return status, {one["check"]: (one["status"], one["detail"]) for one in worst_last}

    return run


def test_where_all_is_well_every_check_says_so(doctor, katib_db_manager):
    status, found = doctor("--write", KATIB_DB_MANAGER_ADDRESS=katib_db_manager.address)
    assert status == 0, found
    assert {check for check, (state, _) in found.items() if state == "ok"} >= {
        *("sinks", "trial", "rank", "address", "tcp", "health", "write", "versions")
    }
    assert "katib: this is a Katib trial in Push mode (KATIB_TRIAL_NAME=test-trial)" in found["sinks"]
    written = found["write"][1].split()[4]
    with grpc.insecure_channel(katib_db_manager.address) as channel:
        assert DBManagerStub(channel).get(written, timeout_s=60) == []


def test_text_has_a_line_for_each_finding_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "stdout")
    assert main(["doctor"]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if " rank " in line)
    assert line.startswith("problem  rank      this process reports nothing: rank 1 (SLURM_PROCID=1)")
    assert line.endswith("Unset SLURM_PROCID, or set KATIB_CALLBACKS_RANK=0.")


@pytest.mark.parametrize(
    ("environ", "check", "state", "detail"),
    [
        ({"KATIB_TRIAL_NAME": ""}, "sinks", "note", "nothing is reported: KATIB_TRIAL_NAME is not set"),
        ({"KATIB_TRIAL_NAME": "", "KUBERNETES_SERVICE_HOST": "1"}, "sinks", "problem", "KATIB_TRIAL_NAME is not set"),
        ({"KATIB_CALLBACKS_SINKS": "nonsense"}, "sinks", "problem", "there is no sink 'nonsense'"),
        ({"KATIB_CALLBACKS_DISABLE": "1"}, "sinks", "note", "KATIB_CALLBACKS_DISABLE is set"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "rank", "note", "this process reports nothing: rank 1 (RANK=1)"),
        ({"KATIB_CALLBACKS_RANK": "one"}, "rank", "problem", "KATIB_CALLBACKS_RANK must be a whole number"),
        ({"KUBERNETES_SERVICE_HOST": "1", "HOSTNAME": "other-0"}, "trial", "note", "but the pod is 'other-0'"),
        ({"KATIB_DB_MANAGER_ADDRESS": "nowhere"}, "address", "problem", "must be host:port"),
        ({"KATIB_DB_MANAGER_ADDRESS": "no-such-host.invalid:1"}, "address", "problem", "cannot be found"),
        ({"KATIB_CALLBACKS_TLS_CA": "/no/such/file"}, "address", "problem", "/no/such/file cannot be read"),
    ],
)
def test_what_the_environment_says_wrong_is_found(doctor, environ, check, state, detail):
    with socket.socket() as bound:  # not listened on
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        _, found = doctor(**{"KATIB_DB_MANAGER_ADDRESS": address, **environ})
    assert found[check][0] == state
    assert detail in found[check][1]


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("REPORT", "last", "KATIB_CALLBACKS_REPORT must be one of"),
        ("VERIFY", "never", "KATIB_CALLBACKS_VERIFY must be one of"),
        ("PREVIOUS_ATTEMPT", "keep", "KATIB_CALLBACKS_PREVIOUS_ATTEMPT must be one of"),
        ("TIMEOUT_S", "5min", "KATIB_CALLBACKS_TIMEOUT_S must be a positive number of seconds"),
        ("METRICS", "F1(average=macro, k=5)", "KATIB_CALLBACKS_METRICS: it is unclear where the names end"),
        ("AUTOLOG", "perhaps", "KATIB_CALLBACKS_AUTOLOG must be 1 or 0"),
        ("EARLY_STOPPING", "median", "KATIB_CALLBACKS_EARLY_STOPPING: 'median' is not known"),
    ],
)
def test_a_variable_that_would_end_the_training_at_its_start_is_found(doctor, name, value, detail):
    status, found = doctor(**{"KATIB_CALLBACKS_SINKS": "stdout", f"KATIB_CALLBACKS_{name}": value})
    assert status == 1
    assert found["variables"][0] == "problem"
    assert detail in found["variables"][1]
    assert "variables" not in doctor(KATIB_CALLBACKS_DISABLE="1")[1]


def test_a_misspelt_variable_is_noted(monkeypatch, capsys):
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "stdout")
    monkeypatch.setenv("KATIB_CALLBACKS_METRIC", "loss")
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "note     variables KATIB_CALLBACKS_METRIC is not a variable of katib-callbacks" in told
    assert "Write KATIB_CALLBACKS_METRICS if that is meant." in told


def test_where_all_is_turned_off_the_advice_is_to_turn_it_on(monkeypatch, capsys):
    monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "KATIB_CALLBACKS_DISABLE is set. Unset KATIB_CALLBACKS_DISABLE if this training is to report." in told


def test_a_collector_of_output_beside_a_push_is_found(doctor, tmp_path):
    from katib_callbacks.sinks.collector import told  # noqa: PLC0415

    collector = told("StdOut", str(tmp_path / "log"), "TEXT", [])
    address = "127.0.0.1:1"
    _, found = doctor(
        KATIB_CALLBACKS_LOCAL_COLLECTOR=collector, KATIB_CALLBACKS_SINKS="katib", KATIB_DB_MANAGER_ADDRESS=address
    )
    assert found["collector"] == (
        "problem",
        "metrics are pushed, but Katib collects them in mode StdOut (KATIB_CALLBACKS_LOCAL_COLLECTOR is set)",
    )


def test_a_port_that_nobody_listens_on_is_found(doctor):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        status, found = doctor(KATIB_DB_MANAGER_ADDRESS=f"127.0.0.1:{bound.getsockname()[1]}")
    assert status == 1
    assert found["tcp"][0] == "problem"


@pytest.fixture
def ca(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.certificate)
    return path


def test_a_good_certificate_is_shown(doctor, ca):
    with server(messages.SERVING, AUTHORITY.issue()) as address:
        status, found = doctor(KATIB_DB_MANAGER_ADDRESS=address, KATIB_CALLBACKS_TLS_CA=ca)
    assert status == 0, found
    assert found["tls"][1].startswith("the certificate is for localhost, until ")


@pytest.mark.parametrize(
    ("pair", "detail"),
    [
        (AUTHORITY.issue("localhost", valid_for=timedelta(days=-1)), "expired"),
        (AUTHORITY.issue("another"), "localhost"),
        (Authority("stranger").issue(), "is not accepted"),
    ],
)
def test_a_bad_certificate_is_found(doctor, ca, pair, detail):
    with server(messages.SERVING, pair) as address:
        status, found = doctor(KATIB_DB_MANAGER_ADDRESS=address, KATIB_CALLBACKS_TLS_CA=ca)
    assert (status, found["tls"][0]) == (1, "problem")
    assert detail in found["tls"][1]


def test_tls_on_one_side_only_is_found(doctor, ca):
    with server(messages.SERVING, AUTHORITY.issue()) as address:
        _, found = doctor(KATIB_DB_MANAGER_ADDRESS=address)
        assert found["tls"] == ("problem", "the server speaks TLS, and this process does not")
    with server(messages.SERVING) as address:
        _, found = doctor(KATIB_DB_MANAGER_ADDRESS=address, KATIB_CALLBACKS_TLS_CA=ca)
        assert found["tls"][0] == "problem"


def jwt(**claims):
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, 0)
    )


@pytest.mark.parametrize(
    ("content", "state", "detail"),
    [
        ("opaque", "ok", "no JWT"),
        (jwt(exp=4_000_000_000, aud=["katib"]), "ok", "for the audience ['katib']"),
        (jwt(exp=1_000_000_000, aud=["katib"]), "problem", "expired on 2001-09-09 01:46 UTC"),
        (jwt(exp=-1e300, aud=["katib"]), "problem", "expired on 1970-01-01"),
    ],
)
def test_a_tokens_audience_and_expiry_are_read(doctor, ca, tmp_path, content, state, detail):
    (tmp_path / "token").write_text(content)
    with server(messages.SERVING, AUTHORITY.issue()) as address:
        _, found = doctor(
            KATIB_DB_MANAGER_ADDRESS=address,
            KATIB_CALLBACKS_TLS_CA=ca,
            KATIB_CALLBACKS_TOKEN_PATH=tmp_path / "token",
        )
    assert found["token"][0] == state
    assert detail in found["token"][1]


@pytest.mark.parametrize(
    ("health", "state", "detail"), [(messages.NOT_SERVING, "problem", "not serving"), (None, "note", "UNIMPLEMENTED")]
)
def test_a_server_without_health_is_found(doctor, health, state, detail):
    with server(health) as address:
        _, found = doctor(KATIB_DB_MANAGER_ADDRESS=address)
    assert found["health"][0] == state
    assert detail in found["health"][1]


def test_a_server_that_stores_nothing_is_found(doctor):
    with server(messages.SERVING) as address:
        status, found = doctor("--write", KATIB_DB_MANAGER_ADDRESS=address)
    assert (status, found["write"][0]) == (1, "problem")
    assert "UNIMPLEMENTED" in found["write"][1]


def test_what_is_installed_and_too_old_or_in_conflict_is_found(doctor, tmp_path, monkeypatch):
    installed = {"lightning": "1.9", "kubeflow_katib": "0.19.0", "protobuf": "6.31.0", "kubernetes": "32.0"}
    for name, version in installed.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    _, found = doctor(KATIB_CALLBACKS_SINKS="stdout")
    assert found["conflicts"] == ("note", "kubeflow-katib 0.19.0 wants protobuf<5, and 6.31.0 is installed")
    assert found["versions"] == ("problem", "lightning 1.9 is older than 2.0")


@pytest.mark.parametrize(
    ("name", "required", "conflict"),
    [
        ("tensorflow", "protobuf<8,>=6.31.1", "wants protobuf<5, and tensorflow 99.0 wants protobuf>=6.31.1"),
        ("wandb", "protobuf>=5", "wants protobuf<5, and wandb 99.0 wants protobuf>=5"),
        ("kubernetes", "six", "with kubernetes 99.0, create_experiment and tune of kubeflow-katib 0.19.0 fail"),
    ],
)
def test_what_does_not_work_beside_the_sdk_is_found(doctor, tmp_path, monkeypatch, name, required, conflict):
    installed = {"kubeflow-katib": ("0.19.0", "six"), "protobuf": ("4.25.0", "six"), "kubernetes": ("32.0", "six")}
    for package in ("tensorflow", "tensorboard", "wandb"):
        installed[package] = ("1.0", "protobuf>=3")
    for package, (version, needed) in {**installed, name: ("99.0", required)}.items():
        folder = tmp_path / f"{package.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Dist: {needed}\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    _, found = doctor(KATIB_CALLBACKS_SINKS="stdout")
    assert found["conflicts"][0] == "note"
    assert conflict in found["conflicts"][1]


@pytest.mark.parametrize(
    ("make", "state", "detail"),
    [
        (lambda path: path.touch(), "ok", "takes the reason if there is no number"),
        (lambda path: path.write_text("the program's words"), "note", "a termination message of its own"),
        (lambda _path: None, "note", "No such file"),
        (os.mkfifo, "note", "is no file"),
    ],
)
def test_a_termination_message_that_cannot_be_written_is_found(doctor, tmp_path, make, state, detail):
    make(tmp_path / "log")
    variables = {"KATIB_CALLBACKS_TERMINATION_MESSAGE_PATH": tmp_path / "log"}
    _, found = doctor(KATIB_CALLBACKS_SINKS="stdout", **variables)
    assert found["message"][0] == state
    assert detail in found["message"][1]


def test_the_default_address_is_found_to_be_nowhere_with_the_variable_to_set(capsys):
    assert main(["doctor"]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if " address " in line)
    assert line.startswith("problem  address   katib-db-manager.kubeflow:6789 has a host that cannot be found")
    assert line.endswith("If Katib is elsewhere, set KATIB_DB_MANAGER_ADDRESS.")


def test_a_port_that_does_not_answer_is_found(doctor, monkeypatch):
    monkeypatch.setattr(network, "TIMEOUT_S", 0.3)
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):  # a full backlog: the kernel answers no more connections
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        status, found = doctor(KATIB_DB_MANAGER_ADDRESS=f"127.0.0.1:{listening.getsockname()[1]}")
    assert (status, found["tcp"][0]) == (1, "problem")
    assert "timed out" in found["tcp"][1]


def test_rows_that_are_not_there_afterwards_are_found(doctor):
    with server(messages.SERVING, forgets=True) as address:
        status, found = doctor("--write", KATIB_DB_MANAGER_ADDRESS=address)
    assert (status, found["write"][0]) == (1, "problem")
    assert "was stored, and not read back" in found["write"][1]


def test_a_token_that_the_listener_for_trials_refuses_is_found(doctor, ca, tmp_path):
    pair = AUTHORITY.issue("localhost")
    files = {
        "server.pem": pair.certificate,
        "server.key": pair.key,
        "token": b"another-token-of-forty-letters-and-more",
    }
    entry = {"name": "team", "sha256": hashlib.sha256(b"first").hexdigest(), "trials": ["trial"]}
    files["tokens.json"] = json.dumps({"tokens": [entry]}).encode()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    listener = TrialListener(
        "localhost:0", tmp_path / "server.pem", tmp_path / "server.key", token_file=tmp_path / "tokens.json"
    )
    with DBManager(f"sqlite:///{tmp_path}/katib.db", "127.0.0.1:0", trial_listener=listener) as manager:
        status, found = doctor(
            "--write",
            KATIB_DB_MANAGER_ADDRESS=manager.trial_address,
            KATIB_CALLBACKS_TLS_CA=ca,
            KATIB_CALLBACKS_TOKEN_PATH=tmp_path / "token",
        )
    assert (status, found["write"][0]) == (1, "problem")
    assert "UNAUTHENTICATED" in found["write"][1]


@pytest.mark.parametrize(("days", "state"), [(365, "ok"), (5, "note"), (-1, "problem")])
def test_a_client_certificates_end_is_told(doctor, ca, tmp_path, days, state):
    pair = AUTHORITY.issue("client", valid_for=timedelta(days=days))
    (tmp_path / "client.pem").write_bytes(pair.certificate)
    (tmp_path / "client.key").write_bytes(pair.key)
    with server(messages.SERVING, AUTHORITY.issue(valid_for=timedelta(days=365))) as address:
        _, found = doctor(
            KATIB_DB_MANAGER_ADDRESS=address,
            KATIB_CALLBACKS_TLS_CA=ca,
            KATIB_CALLBACKS_TLS_CERT=tmp_path / "client.pem",
            KATIB_CALLBACKS_TLS_KEY=tmp_path / "client.key",
        )
    assert found["tls"][0] == state
    if state != "ok":
        assert found["tls"][1].startswith(f"the client certificate {tmp_path / 'client.pem'} is valid, until ")


def test_a_server_certificate_that_ends_soon_is_found(doctor, ca):
    with server(messages.SERVING, AUTHORITY.issue(valid_for=timedelta(days=5))) as address:
        status, found = doctor(KATIB_DB_MANAGER_ADDRESS=address, KATIB_CALLBACKS_TLS_CA=ca)
    assert (status, found["tls"][0]) == (0, "note")
    assert "days are left" in found["tls"][1]


@pytest.fixture
def train_job(tmp_path, monkeypatch):
    monkeypatch.delenv("KATIB_TRIAL_NAME")
    with StatusServer(tmp_path) as one:
        yield one


def test_a_status_server_that_takes_the_token_is_told_and_has_no_status_of_ours(doctor, train_job):
    status, found = doctor(**train_job.variables)
    assert status == 0, found
    assert "trainjob: this is a TrainJob that shows its status" in found["sinks"][1]
    assert found["status"][0] == "note", "its certificate ends soon"
    assert "the certificate is for localhost, until " in found["status"][1]
    assert [one.status for one in train_job.seen] == [422]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"KUBEFLOW_TRAINER_SERVER_URL": "ftp://localhost"}, "begins with neither http:// nor https://"),
        ({"KUBEFLOW_TRAINER_SERVER_TOKEN": "/no/such/token"}, "/no/such/token cannot be read"),
        ({"KUBEFLOW_TRAINER_SERVER_CA_CERT": "/no/such/ca"}, "/no/such/ca cannot be read"),
    ],
)
def test_wrong_variables_of_a_status_server_are_found(doctor, train_job, change, detail):
    status, found = doctor(**{**train_job.variables, **change})
    assert (status, found["status"][0]) == (1, "problem")
    assert detail in found["status"][1]


def test_a_status_server_that_refuses_is_found(doctor, train_job):
    train_job.tokens = {"another"}
    _, found = doctor(**train_job.variables)
    assert found["status"] == ("problem", f"{train_job.url} answers 403 Forbidden")
    train_job.tokens = {"first-token"}
    _, found = doctor(KUBEFLOW_TRAINER_SERVER_URL=train_job.url.replace("/job/", "/other/"))
    assert "answers 404" in found["status"][1]


def test_a_status_server_of_another_authority_is_found(doctor, train_job, ca):
    status, found = doctor(**{**train_job.variables, "KUBEFLOW_TRAINER_SERVER_CA_CERT": ca})
    assert (status, found["status"][0]) == (1, "problem")
    assert "certificate" in found["status"][1]


def test_a_status_server_that_hangs_or_is_away_is_found(doctor, train_job, monkeypatch):
    monkeypatch.setattr(status_server, "TIMEOUT_S", 0.5)
    train_job.behave("hang")
    assert doctor(**train_job.variables)[1]["status"][0] == "problem"
    train_job.release()
    train_job.stop()
    status, found = doctor(**train_job.variables)
    assert (status, found["status"][0]) == (1, "problem")
    assert found["status"][1].startswith(f"no answer from {train_job.url}: ")
    train_job.restart()


def test_a_status_server_without_a_token_is_noted(train_job, monkeypatch, capsys):
    for name, value in {**train_job.variables, "KUBEFLOW_TRAINER_SERVER_TOKEN": ""}.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "KUBEFLOW_TRAINER_SERVER_TOKEN is not set" in out
    assert f"{train_job.url} answers 403" in out


def test_a_status_servers_expired_token_is_found(doctor, train_job):
    train_job.rotate(jwt(exp=1_000_000_000, aud=["job"]))
    _, found = doctor(**train_job.variables)
    assert found["status"][0] == "problem"
    assert "has expired on 2001-09-09" in found["status"][1]
