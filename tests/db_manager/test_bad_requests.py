"""Requests that Katib's own DB manager dies of or half understands: refused by row and field, and nothing is stored."""

import gc

import grpc
import pytest

from katib_callbacks.wire import messages, methods

GOOD_TIME = "2026-01-31T12:00:00Z"


def metric_log(time=GOOD_TIME, name="loss", value="0.5"):
    return messages.MetricLog(time_stamp=time, metric=messages.Metric(name=name, value=value))


def report(*logs, trial_name="t"):
    return messages.ReportObservationLogRequest(
        trial_name=trial_name, observation_log=messages.ObservationLog(metric_logs=logs)
    )


BAD_REPORTS = {
    "no observation log": (messages.ReportObservationLogRequest(trial_name="t"), "observation_log is not set"),
    "no rows": (report(), "observation_log.metric_logs is empty"),
    "an empty trial name": (report(metric_log(), trial_name=""), "trial_name is empty"),
    "a long trial name": (report(metric_log(), trial_name="x" * 256), "trial_name has 256 characters"),
    "a NUL in the trial name": (report(metric_log(), trial_name="a\0b"), "trial_name has a NUL"),
    "a row without a metric": (report(messages.MetricLog(time_stamp=GOOD_TIME)), "metric_logs[0].metric is not set"),
    "a second row without a metric": (
        report(metric_log(), messages.MetricLog(time_stamp=GOOD_TIME)),
        "observation_log.metric_logs[1].metric is not set",
    ),
    "an empty name": (report(metric_log(), metric_log(name="")), "metric_logs[1].metric.name is empty"),
    "a long name": (report(metric_log(name="ß" * 256)), "metric_logs[0].metric.name has 256 characters"),
    "a NUL in a name": (report(metric_log(name="a\0")), "metric_logs[0].metric.name has a NUL"),
    "a NUL in a value": (report(metric_log(value="\0")), "metric_logs[0].metric.value has a NUL"),
    "a long value": (report(metric_log(value="ü" * 32_768)), "metric_logs[0].metric.value has 65536 bytes"),
    "no timestamp": (report(metric_log(), metric_log(time="")), "metric_logs[1].time_stamp is empty"),
    "a naive timestamp": (report(metric_log(time="2026-01-31T12:00:00")), "metric_logs[0].time_stamp: '2026-01"),
    "a timestamp with a blank": (report(metric_log(time="2026-01-31 12:00:00Z")), "time_stamp: "),
    "a timestamp that is a word": (report(metric_log(time="yesterday")), "time_stamp: 'yesterday' is not an RFC 3339"),
    "a day that never was": (report(metric_log(time="2026-02-30T12:00:00Z")), "time_stamp: "),
    "a year before the first": (report(metric_log(time="0001-01-01T00:00:00+01:00")), "time_stamp: "),
    "a huge timestamp": (report(metric_log(time="9" * 100_000)), "time_stamp: '999"),
}


@pytest.mark.parametrize(("request_", "message"), BAD_REPORTS.values(), ids=BAD_REPORTS)
def test_a_bad_report_is_refused_whole_and_the_server_lives_on(raw, request_, message):
    with pytest.raises(grpc.RpcError) as caught:
        raw.send(methods.REPORT_OBSERVATION_LOG, request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()
    assert len(caught.value.details()) < 300
    assert raw.get("t") == []
    raw.report("t", (GOOD_TIME, "loss", "0.5"))
    assert raw.get("t") == [(GOOD_TIME, "loss", "0.5")]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"start_time": "today"}, "start_time: 'today' is not an RFC 3339"),
        ({"end_time": "2026-01-31"}, "end_time: '2026-01-31' is not"),
        ({"metric_name": "x" * 256}, "metric_name has 256 characters"),
        ({"trial_name": ""}, "trial_name is empty"),
    ],
)
def test_a_bad_get_is_refused(raw, filters, message):
    with pytest.raises(grpc.RpcError) as caught:
        raw.get(**{"trial_name": "t", **filters})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


def test_a_delete_without_a_trial_is_refused_and_deletes_nothing(raw):
    raw.report("t", (GOOD_TIME, "loss", "0.5"))
    with pytest.raises(grpc.RpcError) as caught:
        raw.send(methods.DELETE_OBSERVATION_LOG, messages.DeleteObservationLogRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raw.get("t") == [(GOOD_TIME, "loss", "0.5")]


def test_bytes_that_are_no_message_are_refused_and_the_server_lives_on(raw):
    not_utf8 = report(metric_log(name="AAAA")).SerializeToString().replace(b"AAAA", b"\xff\xfe\xfd\xfc")
    for data in (b"\xff" * 20, not_utf8):
        with pytest.raises(grpc.RpcError) as caught:
            raw.send(methods.REPORT_OBSERVATION_LOG, data)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not a ReportObservationLogRequest" in caught.value.details()
    assert raw.get("t") == []


def test_bytes_that_are_no_message_leave_nothing_behind(server, raw):
    """grpcio's own refusal keeps a call's state for as long as the client's connection lasts."""

    def send(times):
        for _ in range(times):
            with pytest.raises(grpc.RpcError):
                raw.send(methods.DELETE_OBSERVATION_LOG, b"\xff" * 20)
        gc.collect()
        return sum(str(type(thing)).startswith("<class 'grpc.") for thing in gc.get_objects())

    send(50)
    before = send(10)
    assert send(300) < before + 100


def test_the_health_of_the_server_and_of_its_service_can_be_asked(raw):
    assert raw.status() == messages.SERVING
    assert raw.status(methods.DB_MANAGER_SERVICE) == messages.SERVING
    assert raw.status(methods.HEALTH_SERVICE) == messages.SERVING  # the one name that Katib's own knows


def test_the_health_of_an_unknown_service_is_not_found(raw):
    with pytest.raises(grpc.RpcError) as caught:
        raw.status("another.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
