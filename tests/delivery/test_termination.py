"""The pod's termination message: each reason for no number, as the fault makes it, and what is never written there."""

import os
import subprocess
import sys

import pytest
from partners import FastClock, Fault, ScriptedDBManager

from katib_callbacks import ConfigurationError, DeliveryError, KatibReporter
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.ranks import framework_rank

ZERO = framework_rank(is_global_zero=True)
VARIABLE = "KATIB_CALLBACKS_TERMINATION_MESSAGE_PATH"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """Begin as a new process does."""
    monkeypatch.setattr(termination, "_said", {})


@pytest.fixture
def message(tmp_path):
    path = tmp_path / "termination-log"
    path.touch()
    return path


def runtime(message, **environ):
    return FastClock({"KATIB_TRIAL_NAME": "trial", VARIABLE: str(message), **environ}).runtime


def train(recorder, values):
    recorder.start(ZERO)
    recorder.record(values, row=0)
    recorder.finish()
    recorder.deliver()


def test_a_metric_that_never_appeared_is_named_with_those_that_did(server, message):
    recorder = MetricRecorder("val_accc", _runtime=runtime(message, KATIB_DB_MANAGER_ADDRESS=server.address))
    train(recorder, {"val_acc": 0.5, "val_loss": 1.0})
    assert (
        "katib-callbacks: val_accc never appeared; seen: val_acc, val_loss. Did you mean 'val_acc'?"
        in message.read_text()
    )


def test_a_metric_that_a_later_training_reports_is_missing_no_more(server, message):
    recorder = MetricRecorder("a", _runtime=runtime(message, KATIB_DB_MANAGER_ADDRESS=server.address))
    train(recorder, {"b": 1})
    assert "a never appeared; seen: b" in message.read_text()
    train(recorder, {"a": 1})
    assert server.values() == [("a", "1")]
    assert message.read_text() == ""


def test_a_metric_that_an_evaluation_brings_after_all_is_missing_no_more(server, message):
    recorder = MetricRecorder("a", _runtime=runtime(message, KATIB_DB_MANAGER_ADDRESS=server.address))
    train(recorder, {"b": 1})
    recorder.evaluated({"a": 1}, is_validation=True)
    assert server.values() == [("a", "1")]
    assert message.read_text() == ""


def test_a_training_without_any_metric_says_so(server, message):
    train(MetricRecorder(_runtime=runtime(message, KATIB_DB_MANAGER_ADDRESS=server.address)), {})
    assert message.read_text() == "katib-callbacks: training ended without a metric to report\n"


def test_a_value_that_katib_cannot_compare_is_named(server, message):
    recorder = MetricRecorder("loss", _runtime=runtime(message, KATIB_DB_MANAGER_ADDRESS=server.address))
    train(recorder, {"loss": float("nan")})
    assert message.read_text() == (
        "katib-callbacks: loss was nan, which Katib cannot compare, so it was not reported\n"
    )


def test_a_db_manager_that_is_not_there_is_named_with_the_time_and_the_rows(message, closed_port):
    reporter = KatibReporter(f"127.0.0.1:{closed_port}", _runtime=runtime(message))
    with pytest.raises(DeliveryError):
        reporter.report({"loss": 1})
    told = message.read_text()
    assert told.startswith("katib-callbacks: 1 of 1 rows of trial 'trial' did not reach the DB manager at 127.0.0.1:")
    assert "480" in told
    assert "loss=1" in told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KATIB_CALLBACKS_SINKS", "nonsense", "there is no sink 'nonsense'"),
        ("KATIB_CALLBACKS_TLS_CA", "/no/such/ca", "/no/such/ca cannot be read"),
        ("KATIB_CALLBACKS_TIMEOUT_S", "soon", "KATIB_CALLBACKS_TIMEOUT_S"),
    ],
)
def test_a_reporter_that_cannot_be_made_says_why_until_one_delivers(server, message, name, value, told):
    with pytest.raises(ConfigurationError):
        KatibReporter(server.address, _runtime=runtime(message, **{name: value}))
    assert message.read_text().startswith("katib-callbacks: ")
    assert told in message.read_text()
    KatibReporter(server.address, _runtime=runtime(message)).report({"loss": 1})
    assert message.read_text() == ""


def test_rows_that_are_refused_are_explained_and_a_later_success_takes_it_back(server, message):
    server.report_faults = [Fault("INVALID_ARGUMENT", "no such trial")]
    reporter = KatibReporter(server.address, _runtime=runtime(message))
    with pytest.raises(DeliveryError):
        reporter.report({"loss": 1})
    assert "INVALID_ARGUMENT: no such trial" in message.read_text()
    reporter.report({"loss": 1})
    assert message.read_text() == ""


def test_a_process_that_may_take_itself_for_another_rank_says_which_variable_is_why(server, message):
    reporter = KatibReporter(server.address, _runtime=runtime(message, SLURM_PROCID="1"))
    assert reporter.report({"loss": 1}).delivered == 0
    assert "took itself for rank 1 because of SLURM_PROCID=1" in message.read_text()


def test_a_process_that_is_one_of_many_says_nothing(server, message):
    KatibReporter(server.address, _runtime=runtime(message, RANK="1", WORLD_SIZE="2")).report({"loss": 1})
    assert message.read_text() == ""


def test_what_an_evaluation_might_have_brought_is_said_when_the_process_ends(message):
    with ScriptedDBManager() as server:
        program = (
            "from katib_callbacks.recording.recorder import MetricRecorder\n"
            "from katib_callbacks.reporting.ranks import framework_rank\n"
            "recorder = MetricRecorder('eval', may_follow=lambda name: True)\n"
            "recorder.start(framework_rank(is_global_zero=True))\n"
            "recorder.record({'loss': 1}, row=0); recorder.finish(); recorder.deliver()\n"
        )
        environ = {**os.environ, "KATIB_TRIAL_NAME": "trial", VARIABLE: str(message)}
        environ["KATIB_DB_MANAGER_ADDRESS"] = server.address
        subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=240)
    assert "Metric 'eval' never appeared. Seen: loss" in message.read_text()


@pytest.mark.parametrize("written", ["my own words", "katib-callbacks: old\nand the program's\n"])
def test_what_the_program_has_written_stays(server, message, written):
    message.write_text(written)
    train(MetricRecorder("a", _runtime=runtime(message, KATIB_DB_MANAGER_ADDRESS=server.address)), {"b": 1})
    assert message.read_text() == written


def test_a_message_is_one_line_of_4_kib_at_most(message):
    termination.explain(runtime(message), "key", "\x1b[31m" + "ä\n" * 5_000)
    told = message.read_bytes()
    assert 4_000 < len(told) <= 4_096
    assert told.decode().count("\n") == 1
    assert "\x1b" not in told.decode()


def test_secrets_are_masked(message, tmp_path):
    token = tmp_path / "token"
    token.write_text("opaque-token\n")
    here = runtime(
        message,
        KATIB_CALLBACKS_TOKEN_PATH=str(token),
        KATIB_CALLBACKS_SINKS="prometheus+http://me:pass-word@gateway/?key=query-key",
    )
    jwt = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"
    text = f"opaque-token {jwt} Bearer abcdefgh mysql://u:hunter2@db pass-word query-key password=secret-word"
    termination.explain(here, "key", text)
    told = message.read_text()
    assert told
    for secret in ("opaque-token", jwt, "abcdefgh", "hunter2", "pass-word", "query-key", "secret-word"):
        assert secret not in told


def test_outside_a_pod_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(termination.settings, "TERMINATION_LOG", str(tmp_path / "log"))
    (tmp_path / "log").touch()
    termination.explain(FastClock().runtime, "key", "reason")
    assert (tmp_path / "log").read_text() == ""
    termination.explain(FastClock({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).runtime, "key", "reason")
    assert (tmp_path / "log").read_text() == "katib-callbacks: reason\n"


@pytest.mark.parametrize("make", [lambda path: None, os.mkfifo, os.mkdir])
def test_a_path_that_is_no_file_neither_raises_nor_waits(tmp_path, make):
    make(tmp_path / "log")
    termination.explain(runtime(tmp_path / "log"), "key", "reason")
