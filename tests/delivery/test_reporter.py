"""What a reporter promises whoever calls it."""

import copy
import logging
import math
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from partners import NOON, FastClock, Fault, ScriptedDBManager, stored_values

from katib_callbacks import (
    ConfigurationError,
    DeliveryError,
    KatibReporter,
    MetricLog,
    MetricValueError,
    ReporterClosedError,
    SinkOutcome,
    UnavailableError,
    report_metrics,
)
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.settings import Runtime

T = TypeVar("T")

TRIAL = {"KATIB_TRIAL_NAME": "trial"}


def pickled(thing: T) -> T:
    """Return what another process would get."""
    return pickle.loads(pickle.dumps(thing))  # noqa: S301  our own


def runtime_with(**environ: str) -> Runtime:
    return FastClock(environ).runtime


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"timeout_s": -1.0}, "timeout_s must be a positive number"),
        ({"tls_ca": "/absent.pem"}, "tls_ca: /absent.pem cannot be read"),
        ({"tls_cert": "/absent.pem"}, "tls_cert is set without tls_key"),
        ({"tls_key": "/absent.pem"}, "tls_key is set without tls_cert"),
        ({"verify": "perhaps"}, "verify must be one of 'ambiguous', 'always', not"),
        ({"previous_attempt": "perhaps"}, "previous_attempt must be one of 'ignore', 'warn', 'clear', not"),
    ],
)
def test_a_wrong_argument_is_named_and_a_pod_says_it(arguments, said, tmp_path, monkeypatch):
    message = tmp_path / "termination-log"
    message.touch()
    monkeypatch.setattr(termination, "_said", {})  # as in a new process
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("KATIB_CALLBACKS_TERMINATION_MESSAGE_PATH", str(message))

    with pytest.raises(ConfigurationError, match=f"^{said}") as raised:
        KatibReporter(**arguments)
    assert message.read_text() == f"katib-callbacks: {raised.value}\n"


def test_a_report_reaches_the_database_and_the_receipt_says_so(katib_db_manager):
    receipt = KatibReporter().report({"loss": 0.25, "accuracy": 1})

    assert [(log.name, log.value) for log in katib_db_manager.metrics()] == [("loss", "0.25"), ("accuracy", "1")]
    assert receipt.trial_name == katib_db_manager.trial_name
    assert (receipt.delivered, receipt.spooled, receipt.dropped, receipt.attempts) == (2, 0, 0, 1)
    assert receipt.skipped is None
    assert not receipt.verified
    assert receipt.elapsed_s > 0
    assert receipt.sinks == {"katib": SinkOutcome(delivered=2, attempts=1)}


def test_a_reporter_from_the_environment_is_one_without_arguments(katib_db_manager):
    KatibReporter.from_env().report({"loss": 0.25})

    assert katib_db_manager.latest() == {"loss": 0.25}


def test_report_metrics_takes_the_place_of_upstreams(katib_db_manager):
    report_metrics({"loss": 0.25})
    report_metrics({"loss": 0.125}, katib_db_manager.address, 60)
    report_metrics(metrics={"accuracy": 1}, db_manager_address=katib_db_manager.address, timeout=60)

    assert katib_db_manager.latest() == {"loss": 0.125, "accuracy": 1}


def test_report_metrics_takes_numbers_that_are_texts_as_upstreams_does(katib_db_manager):
    report_metrics({"accuracy": "0.912", "loss": " 1e-7 "})

    assert [(row.name, row.value) for row in katib_db_manager.metrics()] == [("accuracy", "0.912"), ("loss", "1e-07")]
    with pytest.raises(ValueError, match="metric 'loss': a str is not a number"):
        report_metrics({"accuracy": "0.5", "loss": "high"})
    assert len(katib_db_manager.metrics()) == 2


def test_report_metrics_heeds_the_variable_where_its_argument_is_not_given(server, monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_CALLBACKS_TIMEOUT_S", "nonsense")

    with pytest.raises(ConfigurationError, match="KATIB_CALLBACKS_TIMEOUT_S must be a positive number of seconds"):
        report_metrics({"loss": 1}, server.address)
    report_metrics({"loss": 2}, server.address, 120)
    report_metrics({"loss": 3}, server.address, timeout=120.0)
    assert len(server.calls) == 2


@pytest.mark.parametrize("is_trial", [True, False])
def test_the_loop_in_the_readme_runs_in_a_trial_and_outside(katib_db_manager, monkeypatch, is_trial):
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"\*\*A loop of your own\*\*\n\n```python\n(.*?)```", page, re.DOTALL)
    if not is_trial:
        monkeypatch.delenv("KATIB_TRIAL_NAME")
    exec(code, {"accuracy": 0.9, "loss": 0.5})  # noqa: S102  our own page

    assert katib_db_manager.latest() == ({"accuracy": 0.9, "loss": 0.5} if is_trial else {})


def test_a_delivery_says_in_one_line_what_went_where(katib_db_manager, caplog):
    caplog.set_level(logging.INFO)
    with KatibReporter() as reporter:
        reporter.report({"accuracy": 0.9, "loss": 1})
        reporter.report({f"m{number}": number for number in range(7)})

    accuracy, seven = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    where = f"of trial 'test-trial' to the DB manager at {katib_db_manager.address} in"
    assert re.fullmatch(rf"Reported accuracy=0\.9, loss=1 {re.escape(where)} \d+\.\d\d s\.", accuracy)
    assert seven.startswith(f"Reported m0=0, m1=1, m2=2, m3=3, m4=4 and 2 more {where} ")


def test_arguments_come_before_the_environment(server, clock):
    runtime = runtime_with(KATIB_TRIAL_NAME="elsewhere", KATIB_DB_MANAGER_ADDRESS="127.0.0.1:1")

    KatibReporter(server.address, trial_name="trial", _runtime=runtime).report({"loss": 0.5})

    assert server.values("trial") == [("loss", "0.5")]


# -- what cannot be right ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("katib-db-manager", "host:", ":6789", "host:0", "host:65536", "host:port", "tcp://10.0.0.1:6789", "::1:6789"),
        *("dns:///host:6789", "unix:/tmp/socket", "host:6789/path", "host :6789", "", "[::1]", "hö:6789", 6789),
    ],
)
def test_an_address_that_is_none_is_refused_by_name(address):
    with pytest.raises(ConfigurationError, match="db_manager_address must be host:port"):
        KatibReporter(address, trial_name="trial")


@pytest.mark.parametrize("address", ["localhost:1", "10.0.0.1:65535", "[::1]:6789", "[fe80::1%eth0]:6789", "a_b-c.d:7"])
def test_an_address_that_can_be_one_is_taken(address):
    assert address in repr(KatibReporter(address, trial_name="trial"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KATIB_DB_MANAGER_ADDRESS", "tcp://10.0.0.1:6789"),
        ("KATIB_TRIAL_NAME", "x" * 256),
        ("KATIB_CALLBACKS_TIMEOUT_S", "soon"),
        ("KATIB_CALLBACKS_VERIFY", "never"),
        ("KATIB_CALLBACKS_PREVIOUS_ATTEMPT", "delete"),
        ("KATIB_CALLBACKS_SINKS", "katib,carrier-pigeon"),
        ("KATIB_CALLBACKS_ALLOW_INSECURE_TOKEN", "perhaps"),
    ],
)
def test_a_bad_variable_is_named(variable, value):
    with pytest.raises(ConfigurationError, match=variable):
        KatibReporter(_runtime=runtime_with(**{**TRIAL, variable: value}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trial_name": ""}, "trial_name is empty"),
        ({"trial_name": "a\0b"}, "trial_name has a NUL"),
        ({"trial_name": 7}, "trial_name is a int"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": math.nan}, "timeout_s"),
        ({"verify": "never"}, "verify"),
        ({"sinks": []}, "names no sink"),
        ({"sinks": "katib"}, "sinks must be several"),
        ({"sinks": ["carrier-pigeon"]}, "no sink 'carrier-pigeon'; known are 'katib'"),
        ({"sinks": ["katib", "katib"]}, "twice"),
        ({"sinks": [object()]}, "neither a sink's name nor"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        KatibReporter(**arguments)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "no metrics"),
        ([("loss", 1)], "metrics must map names to numbers; a list does not"),
        ({"good": 1, "": 1}, "is empty"),
        ({"good": 1, "x" * 256: 1}, "256 characters"),
        ({"good": 1, "a\0b": 1}, "NUL"),
        ({"good": 1, 7: 1}, "must be a str"),
        ({"good": 1, "bad": True}, "'bad'.*bool"),
        ({"good": 1, "bad": "0.5"}, "'bad'.*str"),
        ({"good": 1, "bad": None}, "'bad'.*None"),
        (
            {"good": 1, "bad": math.nan},
            r"'bad' is nan.*; if it is meant, send it with report_logs\(\[MetricLog\(...\)\]\)$",
        ),
        ({"good": 1, "bad": -math.inf}, "'bad' is -inf.*report_logs"),
        ({"good": 1, "bad": 10**400}, "'bad'"),
    ],
)
def test_a_bad_metric_is_named_and_nothing_is_sent(server, reporter, metrics, message):
    with pytest.raises(MetricValueError, match=message):
        reporter.report(metrics)

    assert server.calls == []


def test_a_timestamp_without_a_zone_is_refused(server, reporter):
    with pytest.raises(MetricValueError, match="timezone-aware"):
        reporter.report({"loss": 1}, timestamp=NOON.replace(tzinfo=None))

    assert server.calls == []


def test_rows_that_are_none_are_refused_before_any_is_sent(server, reporter):
    with pytest.raises(MetricValueError, match="tuple"):
        reporter.report_logs(iter([MetricLog("loss", 1, NOON), ("loss", 2)]))

    assert server.calls == []


def test_a_metric_log_may_be_nan_on_purpose(server, reporter):
    reporter.report_logs([MetricLog("loss", math.nan, NOON), MetricLog("loss", math.inf, NOON)])

    assert server.values() == [("loss", "nan"), ("loss", "inf")]


def test_no_rows_are_no_request(server, reporter):
    receipt = reporter.report_logs([])

    assert receipt.skipped == "no rows to report"
    assert server.calls == []


@pytest.mark.parametrize("name", [None, ""])
def test_without_a_trial_name_nothing_is_reported(server, name):
    environ = {} if name is None else {"KATIB_TRIAL_NAME": name}
    reporter = KatibReporter(server.address, _runtime=runtime_with(**environ))

    assert reporter.trial_name is None
    with pytest.raises(ConfigurationError, match="KATIB_TRIAL_NAME"):
        reporter.report({"loss": 1})
    assert server.calls == []


def test_report_metrics_raises_upstreams_kinds_of_errors(monkeypatch, closed_port):
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    with pytest.raises(ValueError, match="KATIB_TRIAL_NAME"):
        report_metrics({"loss": 1})
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    with pytest.raises(ValueError, match="bool"):
        report_metrics({"loss": True})
    address = f"127.0.0.1:{closed_port}"
    with pytest.raises(RuntimeError, match="Connection refused"):
        report_metrics({"loss": 1}, address, timeout=1.5)


# -- rank zero alone ---------------------------------------------------------------------------------------------------


def test_off_rank_zero_nothing_is_opened_and_the_receipt_says_why(server, caplog):
    caplog.set_level(logging.INFO, logger="katib_callbacks")
    threads = threading.active_count()
    reporter = KatibReporter(server.address, _runtime=runtime_with(RANK="3", WORLD_SIZE="4", **TRIAL))

    receipts = [reporter.report({"loss": 1}), reporter.report_logs([MetricLog("loss", 1, NOON)])]

    assert [receipt.skipped for receipt in receipts] == ["rank 3 (RANK=3)"] * 2
    assert receipts[0].delivered == receipts[0].attempts == 0
    assert server.calls == []
    assert threading.active_count() == threads
    assert [record.levelname for record in caplog.records] == ["INFO"]  # once, not for every report
    assert "rank 3 (RANK=3)" in caplog.text


@pytest.mark.parametrize(("trial", "level"), [(TRIAL, "WARNING"), ({}, "INFO")])
def test_a_process_that_may_be_the_only_one_warns_in_a_trial(server, caplog, trial, level):
    caplog.set_level(logging.INFO, logger="katib_callbacks")
    assert KatibReporter(server.address, _runtime=runtime_with(RANK="3", **trial)).report({"loss": 1}).delivered == 0
    assert [record.levelname for record in caplog.records if "not rank zero" in record.message] == [level]


def test_an_adapters_decision_stands(server):
    reporter = KatibReporter(server.address, trial_name="trial", _runtime=runtime_with(RANK="3"))

    run = reporter.open_run(rank=framework_rank(is_global_zero=True))
    receipt = run.deliver([MetricLog("loss", 1, NOON)])

    assert receipt.delivered == 1
    assert server.values() == [("loss", "1")]


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_closed_port_ends_with_the_budget_and_the_error_says_all(caplog, closed_port):
    address = f"127.0.0.1:{closed_port}"
    clock = FastClock()
    reporter = KatibReporter(address, trial_name="trial", _runtime=clock.runtime)

    with pytest.raises(UnavailableError) as caught:
        reporter.report({"loss": 0.5, "accuracy": 0.25})

    message = str(caught.value)
    assert f"2 of 2 rows of trial 'trial' did not reach the DB manager at {address}" in message
    assert re.search(r"the deadline of 4[78][\d.]+ s has passed", message)  # a loaded machine takes some of them
    assert "Connection refused" in message
    assert "MetricsUnavailable for good" in message
    assert "loss=0.5, accuracy=0.25" in message
    assert "KATIB_CALLBACKS_SPOOL_DIR" in message
    assert caught.value.pending == 2
    assert caught.value.attempts > 100
    assert caught.value.__cause__ is not None
    assert max(clock.pauses_s) == 2.0


def test_an_unknown_host_is_tried_until_the_budget_ends():
    reporter = KatibReporter("no-such-host.invalid:6789", trial_name="trial", timeout_s=3)

    with pytest.raises(UnavailableError, match=r"no-such-host\.invalid") as caught:
        reporter.report({"loss": 1})

    assert caught.value.attempts > 1


def test_each_retry_has_its_line_and_few_of_them_are_warnings(caplog, closed_port):
    caplog.set_level(logging.INFO, logger="katib_callbacks")
    address = f"127.0.0.1:{closed_port}"
    with pytest.raises(DeliveryError) as caught:
        KatibReporter(address, trial_name="trial", _runtime=FastClock().runtime).report({"loss": 1})

    lines = [record for record in caplog.records if "tried again" in record.message]
    assert len(lines) == caught.value.attempts
    assert all("Connection refused" in line.message for line in lines)
    assert re.search(r"4[78][\d.]+ s remaining", lines[0].message)
    assert lines[0].levelname == "WARNING"
    assert 10 <= sum(line.levelname == "WARNING" for line in lines) <= 17  # one each half minute of eight


def test_a_delivery_error_pickles(server, reporter):
    server.report_faults = [Fault("INVALID_ARGUMENT", "no")]
    with pytest.raises(DeliveryError) as caught:
        reporter.report({"loss": 1})

    error = pickled(caught.value)

    assert (str(error), error.pending) == (str(caught.value), 1)


# -- closing -----------------------------------------------------------------------------------------------------------


def test_a_closed_reporter_reports_no_more(server):
    reporter = KatibReporter(server.address, trial_name="trial")
    reporter.report({"loss": 1})
    assert repr(reporter) == f"<KatibReporter of trial 'trial' to {server.address}>"
    reporter.close()
    reporter.close()
    assert repr(reporter) == f"<KatibReporter of trial 'trial' to {server.address}, closed>"

    with pytest.raises(ReporterClosedError):
        reporter.report({"loss": 2})
    with pytest.raises(ReporterClosedError):
        pickled(reporter).report({"loss": 2})
    assert server.values() == [("loss", "1")]


def test_a_copy_is_closed_by_itself(server):
    reporter = KatibReporter(server.address, trial_name="trial")
    copy.copy(reporter).close()
    reporter.report({"loss": 1})

    assert server.values() == [("loss", "1")]


@pytest.mark.parametrize("fault", [Fault("UNAVAILABLE", "failed to connect to all addresses"), Fault(hang_s=3)])
def test_closing_ends_a_report_under_way_at_once(server, fault):
    server.report_faults = [fault] * 1_000
    is_reached = threading.Event()
    runtime = Runtime(uniform=lambda low, high: 3_600.0)
    with KatibReporter(server.address, trial_name="trial", _runtime=runtime) as reporter, ThreadPoolExecutor(1) as pool:
        report = pool.submit(reporter.report, {"loss": 1})
        while not server.calls:
            is_reached.wait(0.01)
        reporter.close()

        with pytest.raises(ReporterClosedError, match=r"^1 of 1 rows.*: the reporter was closed while it.*loss=1"):
            report.result(60)


# -- processes and threads ---------------------------------------------------------------------------------------------


def test_reports_of_many_threads_at_once_all_arrive_with_their_own_timestamps(katib_db_manager):
    with KatibReporter() as reporter, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda number: reporter.report({"a": number, "b": number}), range(40)))

    logs = katib_db_manager.metrics()
    assert sum(receipt.delivered for receipt in receipts) == len(logs) == 80
    assert len({log.timestamp for log in logs}) == 80
    assert {int(log.value) for log in logs} == set(range(40))


def test_a_reporter_pickles_after_use(server):
    reporter = KatibReporter(server.address, trial_name="trial")
    reporter.report({"loss": 1})

    pickled(reporter).report({"loss": 2})

    assert server.values() == [("loss", "1"), ("loss", "2")]


def _report_elsewhere(reporter: KatibReporter) -> int:
    return reporter.report({"child": os.getpid()}).delivered


def test_a_reporter_goes_to_a_spawned_process(katib_db_manager):
    with KatibReporter() as reporter:
        reporter.report({"parent": 1})
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_report_elsewhere, (reporter,)) == 1
            pool.close()
            pool.join()

    assert [log.name for log in katib_db_manager.metrics()] == ["parent", "child"]


# -- custom sinks ------------------------------------------------------------------------------------------------------


class ListSink:
    def __init__(self, error: Exception | None = None, delivered: int | None = None) -> None:
        self.sent: list[tuple[str, list[MetricLog], float]] = []
        self.closed = 0
        self._error = error
        self._delivered = delivered

    def send(self, trial_name, logs, *, deadline_s):
        self.sent.append((trial_name, list(logs), deadline_s))
        if self._error is not None:
            raise self._error
        return SinkOutcome(len(logs) if self._delivered is None else self._delivered, 1, error="half of it")

    def close(self):
        self.closed += 1


class OtherSink(ListSink):
    pass


class HangingSink(ListSink):
    def __init__(self) -> None:
        super().__init__()
        self.is_released = threading.Event()

    def send(self, trial_name, logs, *, deadline_s):
        self.is_released.wait(60)
        return super().send(trial_name, logs, deadline_s=deadline_s)


def test_a_sink_of_ones_own_can_be_the_only_one_and_is_not_closed():
    sink = ListSink()
    with KatibReporter(trial_name="trial", timeout_s=7, sinks=[sink]) as reporter:
        receipt = reporter.report({"loss": 1})

    ((trial_name, logs, deadline_s),) = sink.sent
    assert (trial_name, [(log.name, log.value) for log in logs]) == ("trial", [("loss", 1.0)])
    assert 0 < deadline_s <= 7
    assert list(receipt.sinks) == ["ListSink"]
    assert sink.closed == 0


def test_the_sinks_after_the_first_get_the_same_rows_and_the_receipt_names_each(server):
    sinks = [ListSink(), ListSink(), OtherSink()]
    with KatibReporter(server.address, trial_name="trial", sinks=["katib", *sinks]) as reporter:
        receipt = reporter.report({"loss": 1, "accuracy": 2})

    assert server.values() == [("loss", "1"), ("accuracy", "2")]
    assert list(receipt.sinks) == ["katib", "ListSink", "ListSink 2", "OtherSink"]
    assert all(outcome.delivered == 2 for outcome in receipt.sinks.values())
    assert len({tuple(sink.sent[0][1]) for sink in sinks}) == 1


def test_a_failing_sink_beside_the_first_changes_nothing_but_the_receipt(server, caplog):
    with KatibReporter(server.address, trial_name="trial", sinks=["katib", ListSink(ValueError("no"))]) as reporter:
        receipt = reporter.report({"loss": 1})

    assert receipt.delivered == 1
    assert receipt.sinks["ListSink"] == SinkOutcome(delivered=0, attempts=0, error="ValueError: no")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_sink_that_answers_nothing_is_said_to(server):
    class Forgetful(ListSink):
        def send(self, trial_name, logs, *, deadline_s):
            super().send(trial_name, logs, deadline_s=deadline_s)

    with KatibReporter(server.address, trial_name="trial", sinks=["katib", Forgetful()]) as reporter:
        receipt = reporter.report({"loss": 1})
    assert receipt.delivered == 1
    assert receipt.sinks["Forgetful"].error == "TypeError: send() must return a SinkOutcome, not a NoneType"

    with pytest.raises(DeliveryError, match=r"'Forgetful' failed with TypeError: send\(\) must return"):
        KatibReporter(trial_name="trial", sinks=[Forgetful()]).report({"loss": 1})


def test_a_hanging_sink_beside_the_first_is_left_behind(server):
    sink = HangingSink()
    with KatibReporter(server.address, trial_name="trial", sinks=["katib", sink]) as reporter:
        receipt = reporter.report({"loss": 1})
    assert receipt.delivered == 1
    assert receipt.sinks["HangingSink"].error == "still sending when it was asked for"
    sink.is_released.set()


@pytest.mark.parametrize(
    ("sink", "message"),
    [(ListSink(ZeroDivisionError("oops")), "ZeroDivisionError: oops"), (ListSink(delivered=1), "1 of 2.*half of it")],
)
def test_a_first_sink_that_fails_fails_the_report(sink, message):
    reporter = KatibReporter(trial_name="trial", sinks=[sink])

    with pytest.raises(DeliveryError, match=message) as caught:
        reporter.report({"loss": 1, "accuracy": 0.5})

    assert caught.value.pending >= 1
    assert "accuracy=0.5" in str(caught.value)


def test_a_spool_is_for_the_db_manager_alone(tmp_path):
    with pytest.raises(ConfigurationError, match=r"spool_dir.*'katib'"):
        KatibReporter(trial_name="trial", spool_dir=tmp_path, sinks=[ListSink()])


# -- cost --------------------------------------------------------------------------------------------------------------


def test_a_spool_serves_the_db_manager_beside_other_sinks(server, clock, tmp_path):
    server.report_faults = [Fault("UNAVAILABLE", "failed to connect to all addresses")] * 1_000
    reporter = KatibReporter(
        server.address, trial_name="trial", sinks=["katib", ListSink()], spool_dir=tmp_path, _runtime=clock.runtime
    )
    with pytest.raises(UnavailableError, match=str(tmp_path)):
        reporter.report({"loss": 1})
    assert len(list(tmp_path.iterdir())) == 1


def test_making_a_reporter_loads_neither_grpc_nor_protobuf():
    code = """
import sys
from katib_callbacks import KatibReporter
KatibReporter("127.0.0.1:1", trial_name="trial")
heavy = {"grpc", "google.protobuf", "asyncio", "ssl", "tempfile", "http", "urllib.request"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_read_before_the_first_write_by_default(server: ScriptedDBManager, reporter):
    reporter.report({"loss": 1})

    assert server.calls == ["report"]
    assert stored_values(server.address) == [("loss", "1")]
