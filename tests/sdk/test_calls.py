"""Upstream's SDK and this package against one server: each reads what the other wrote, and is called the same way."""

import inspect
from datetime import datetime, timedelta, timezone

import pytest
from kubeflow import katib
from kubernetes.client import Configuration

from katib_callbacks import KatibReporter, MetricLog, report_metrics, settings
from katib_callbacks.metrics import format_timestamp, parse_timestamp

NOON = datetime(2026, 1, 31, 12, 0, 0, 120_000, tzinfo=timezone.utc)


@pytest.fixture
def client():
    """Upstream's client without a cluster."""
    return katib.KatibClient(client_configuration=Configuration())


@pytest.fixture
def read(client, katib_db_manager):
    """Read the trial's rows through upstream's client, as (name, value, time)."""

    def rows():
        logs = client.get_trial_metrics(katib_db_manager.trial_name, db_manager_address=katib_db_manager.address)
        return [(log.metric.name, log.metric.value, parse_timestamp(log.time_stamp)) for log in logs]

    return rows


def test_upstreams_report_arrives_in_our_server(katib_db_manager, pod_namespace):
    katib.report_metrics({"accuracy": 0.9, "loss": 1e-7}, katib_db_manager.address)

    rows = katib_db_manager.metrics()
    assert [(row.name, row.value) for row in rows] == [("accuracy", "0.9"), ("loss", "1e-07")]
    assert abs(datetime.now(timezone.utc) - rows[0].timestamp) < timedelta(minutes=5)


def test_upstreams_client_reads_a_report(katib_db_manager, read):
    KatibReporter().report({"accuracy": 0.9, "loss": 1e-7}, timestamp=NOON)

    assert read() == [("accuracy", "0.9", NOON), ("loss", "1e-07", NOON + timedelta(microseconds=1))]


def test_upstreams_client_reads_a_history(katib_db_manager, read):
    sent = [MetricLog("loss", 1 / (epoch + 1), NOON + timedelta(seconds=epoch)) for epoch in range(2_500)]
    KatibReporter().report_logs(sent)

    assert [(name, float(value), time) for name, value, time in read()] == [
        (log.name, log.value, log.timestamp) for log in sent
    ]


def test_upstreams_client_reads_times_as_katib_writes_them(client, katib_db_manager):
    KatibReporter().report({"accuracy": 0.9}, timestamp=NOON)

    (log,) = client.get_trial_metrics(katib_db_manager.trial_name, db_manager_address=katib_db_manager.address)

    assert format_timestamp(NOON) == "2026-01-31T12:00:00.120000Z"
    assert log.time_stamp == "2026-01-31T12:00:00.12Z"


def test_both_reports_stand_in_one_trial(katib_db_manager, pod_namespace, read):
    katib.report_metrics({"theirs": 0.1}, katib_db_manager.address)
    report_metrics({"ours": 0.2}, katib_db_manager.address)

    assert sorted((name, value) for name, value, _ in read()) == [("ours", "0.2"), ("theirs", "0.1")]


def test_upstreams_client_reads_a_trial_without_rows(read):
    assert read() == []


def test_reports_are_called_the_same_way():
    ours, theirs = inspect.signature(report_metrics).parameters, inspect.signature(katib.report_metrics).parameters

    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    assert ours["timeout"].default == theirs["timeout"].default


BOTH = pytest.mark.parametrize("report", [report_metrics, katib.report_metrics], ids=["ours", "upstream's"])


@BOTH
def test_without_a_trial_name_both_raise_a_value_error(report, katib_db_manager, pod_namespace, monkeypatch):
    monkeypatch.delenv("KATIB_TRIAL_NAME")

    with pytest.raises(ValueError, match=r"(?i)trial name"):
        report({"accuracy": 0.9}, katib_db_manager.address)


@BOTH
def test_of_a_value_that_is_no_number_both_raise_a_value_error(report, katib_db_manager, pod_namespace):
    with pytest.raises(ValueError, match="high"):
        report({"accuracy": "high"}, katib_db_manager.address)

    assert katib_db_manager.metrics() == []


@BOTH
def test_of_a_port_that_is_closed_both_raise_a_runtime_error(report, pod_namespace, monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial-1")

    with pytest.raises(RuntimeError, match=r"(?i)connect"):
        report({"accuracy": 0.9}, "127.0.0.1:1", timeout=1)


def test_the_names_that_upstream_reads_are_ours():

    assert settings.DEFAULT_DB_MANAGER_ADDRESS == katib.constants.constants.DEFAULT_DB_MANAGER_ADDRESS
