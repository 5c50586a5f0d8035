"""``katib-callbacks doctor``: each finding, from the fault itself."""

import base64
import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import pytest
from certificates import Authority

from katib_callbacks.cli import main
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

AUTHORITY = Authority()
VARIABLES = ("KATIB_", "KUBEFLOW_", "KUBERNETES_", "RANK", "WORLD_SIZE", "SLURM_", "HOSTNAME")


@pytest.fixture(autouse=True)
def trial(monkeypatch):
    """Be in a trial, and nowhere else."""
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")


@contextlib.contextmanager
def server(health=None, credentials=None):
    """Serve gRPC with this answer to a health check, or with none, at a port of localhost."""
    with ThreadPoolExecutor(4) as workers:
        grpc_server = grpc.server(workers)
        if health is not None:
            reply = messages.HealthCheckResponse(status=health).SerializeToString()
            handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: reply)
            service, method = methods.HEALTH_CHECK.strip("/").split("/")
            grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
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
        assert DBManagerStub(channel).get(written, timeout_s=30) == []


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
    for name, version in (("lightning", "1.9"), ("kubeflow_katib", "0.19.0"), ("protobuf", "6.31.0")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    _, found = doctor(KATIB_CALLBACKS_SINKS="stdout")
    assert found["conflicts"] == ("note", "kubeflow-katib 0.19.0 wants protobuf<5, and 6.31.0 is installed")
    assert found["versions"] == ("problem", "lightning 1.9 is older than 2.0")
