"""The wire's bytes, held still: what Katib's Go server reads is decided here, not by what protobuf happens to do."""

from concurrent import futures
from datetime import datetime, timedelta, timezone

import google.protobuf.descriptor_pool
import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servicers import DBManagerServicer, HealthServicer

from katib_callbacks import MetricLog, StoredMetricLog
from katib_callbacks.metrics import format_timestamp, format_value
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub
from katib_callbacks.wire.encoding import report_request

METRIC = messages.Metric(name="loss", value="0.5")
LOG = messages.MetricLog(time_stamp="2026-01-31T12:00:00.123456Z", metric=METRIC)
OBSERVATION_LOG = messages.ObservationLog(metric_logs=[LOG])

# Written by hand from api.proto and health.proto: (field number << 3 | 2) and a length before each string or message.
METRIC_HEX = "0a046c6f73731203302e35"
LOG_HEX = "0a1b" + b"2026-01-31T12:00:00.123456Z".hex() + "120b" + METRIC_HEX
OBSERVATION_LOG_HEX = "0a2a" + LOG_HEX
GOLDEN = [
    (METRIC, METRIC_HEX),
    (LOG, LOG_HEX),
    (OBSERVATION_LOG, OBSERVATION_LOG_HEX),
    (
        messages.ReportObservationLogRequest(trial_name="t", observation_log=OBSERVATION_LOG),
        "0a0174" + "122c" + OBSERVATION_LOG_HEX,
    ),
    (messages.ReportObservationLogReply(), ""),
    (
        messages.GetObservationLogRequest(trial_name="t", metric_name="m", start_time="s", end_time="e"),
        "0a0174" + "12016d" + "1a0173" + "220165",
    ),
    (messages.GetObservationLogReply(observation_log=OBSERVATION_LOG), "0a2c" + OBSERVATION_LOG_HEX),
    (messages.DeleteObservationLogRequest(trial_name="t"), "0a0174"),
    (messages.DeleteObservationLogReply(), ""),
    (messages.HealthCheckRequest(service="s"), "0a0173"),
    (messages.HealthCheckResponse(status=messages.SERVING), "0801"),
    (messages.HealthCheckResponse(status=messages.NOT_SERVING), "0802"),
    # An empty text is not sent, an empty message is.
    (messages.Metric(name="", value=""), ""),
    (messages.MetricLog(metric=messages.Metric()), "1200"),
    (messages.ReportObservationLogRequest(observation_log=messages.ObservationLog()), "1200"),
    (messages.Metric(name="损"), "0a03e68d9f"),
]


@pytest.mark.parametrize(
    ("message", "golden"), GOLDEN, ids=lambda value: getattr(type(value), "DESCRIPTOR", None) and ""
)
def test_messages_have_katibs_bytes(message, golden):
    assert message.SerializeToString().hex() == golden
    assert type(message).FromString(bytes.fromhex(golden)) == message


def test_every_message_has_golden_bytes():
    defined = {
        value
        for value in vars(messages).values()
        if isinstance(value, type)
        and hasattr(value, "DESCRIPTOR")
        and value.DESCRIPTOR.file.name.startswith("katib_callbacks/")
    }

    assert {type(message) for message, _ in GOLDEN} == defined


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255)
logs = st.lists(st.builds(MetricLog, names, st.floats(), st.datetimes(timezones=st.just(timezone.utc))), max_size=20)


@given(names | st.just(""), logs)
@example("", [])
@example("t", [MetricLog("n" * size, 0.5, datetime(2026, 1, 31, tzinfo=timezone.utc)) for size in (84, 85, 127, 128)])
@example("t", [MetricLog("n" * 255, 0.5, datetime(2026, 1, 31, tzinfo=timezone.utc))] * 60)
def test_reports_are_written_as_protobuf_writes_them(trial_name, logs):
    request = messages.ReportObservationLogRequest(trial_name=trial_name)
    request.observation_log.SetInParent()
    for log in logs:
        metric = messages.Metric(name=log.name, value=format_value(log.value))
        request.observation_log.metric_logs.add(time_stamp=format_timestamp(log.timestamp), metric=metric)

    assert report_request(trial_name, logs) == request.SerializeToString()


def test_what_was_left_out_can_be_told_from_what_is_empty():
    unset = messages.ReportObservationLogRequest.FromString(b"")
    empty = messages.ReportObservationLogRequest.FromString(bytes.fromhex("1200"))

    assert not unset.HasField("observation_log")
    assert empty.HasField("observation_log")
    assert not messages.MetricLog.FromString(b"").HasField("metric")


def test_fields_of_a_later_katib_are_skipped():
    later = messages.Metric.FromString(bytes.fromhex(METRIC_HEX + "9a0603616263"))

    assert (later.name, later.value) == ("loss", "0.5")


def test_the_pool_is_private():
    default = google.protobuf.descriptor_pool.Default()

    assert messages.POOL is not default
    with pytest.raises(KeyError):
        default.FindFileByName("katib_callbacks/katib.proto")


def test_the_services_are_described_as_katib_names_them():
    service = messages.POOL.FindServiceByName("api.v1.beta1.DBManager")

    assert {(m.name, m.input_type.full_name, m.output_type.full_name) for m in service.methods} == {
        (name, f"api.v1.beta1.{name}Request", f"api.v1.beta1.{name}Reply")
        for name in ("ReportObservationLog", "GetObservationLog", "DeleteObservationLog")
    }
    assert [m.name for m in messages.POOL.FindServiceByName("grpc.health.v1.Health").methods] == ["Check", "Watch"]


def test_paths_are_what_the_wire_sees():
    assert methods.REPORT_OBSERVATION_LOG == "/api.v1.beta1.DBManager/ReportObservationLog"
    assert methods.GET_OBSERVATION_LOG == "/api.v1.beta1.DBManager/GetObservationLog"
    assert methods.DELETE_OBSERVATION_LOG == "/api.v1.beta1.DBManager/DeleteObservationLog"
    assert methods.HEALTH_CHECK == "/grpc.health.v1.Health/Check"


class Recording(DBManagerServicer):
    """Keeps what it is asked and answers with two metrics, as MySQL does for names that differ in case alone."""

    def __init__(self):
        self.requests = []

    def ReportObservationLog(self, request, context):  # noqa: N802  Katib's name
        self.requests.append(request)
        return messages.ReportObservationLogReply()

    def GetObservationLog(self, request, context):  # noqa: N802  Katib's name
        self.requests.append(request)
        upper = messages.MetricLog(time_stamp="2026-01-31T12:00:01Z", metric=messages.Metric(name="Loss", value="x"))
        return messages.GetObservationLogReply(observation_log=messages.ObservationLog(metric_logs=[LOG, upper]))

    def DeleteObservationLog(self, request, context):  # noqa: N802  Katib's name
        self.requests.append(request)
        return messages.DeleteObservationLogReply()


class Health(HealthServicer):
    status = messages.SERVING

    def Check(self, request, context):  # noqa: N802  gRPC's name
        assert request.service == ""
        return messages.HealthCheckResponse(status=self.status)


@pytest.fixture
def partner():
    """Our stub on a channel to our servicer bases, over a real port."""
    servicer, health = Recording(), Health()
    with futures.ThreadPoolExecutor(max_workers=1) as workers:
        server = grpc.server(workers)
        server.add_generic_rpc_handlers((servicer.generic_handler(), health.generic_handler()))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield DBManagerStub(channel), servicer, health, channel
        server.stop(None).wait()


NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone.utc)


def test_rows_go_out_as_katib_reads_them(partner):
    stub, servicer, *_ = partner

    stub.report("t", [MetricLog("loss", 0.5, NOON)], timeout_s=60)

    (request,) = servicer.requests
    assert request.SerializeToString().hex() == "0a0174" + "122c" + OBSERVATION_LOG_HEX


def test_rows_come_back_as_values(partner):
    stub, servicer, *_ = partner

    rows = stub.get("t", timeout_s=60)

    assert rows == [
        StoredMetricLog("loss", "0.5", NOON),
        StoredMetricLog("Loss", "x", datetime(2026, 1, 31, 12, 0, 1, tzinfo=timezone.utc)),
    ]
    assert servicer.requests == [messages.GetObservationLogRequest(trial_name="t")]


def test_rows_of_one_metric_are_filtered_by_its_exact_name(partner):
    stub, servicer, *_ = partner

    rows = stub.get("t", metric_name="loss", start=NOON, end=NOON + timedelta(seconds=1), timeout_s=60)

    assert [row.name for row in rows] == ["loss"]
    (request,) = servicer.requests
    assert (request.metric_name, request.start_time, request.end_time) == (
        "loss",
        "2026-01-31T12:00:00.123456Z",
        "2026-01-31T12:00:01.123456Z",
    )


def test_a_trial_is_deleted_by_name(partner):
    stub, servicer, *_ = partner

    stub.delete("t", timeout_s=60)

    assert servicer.requests == [messages.DeleteObservationLogRequest(trial_name="t")]


@pytest.mark.parametrize(
    ("status", "is_serving"), [(messages.SERVING, True), (messages.NOT_SERVING, False), (0, False)]
)
def test_health_is_asked(partner, status, is_serving):
    stub, _, health, _ = partner
    health.status = status

    assert stub.is_serving(timeout_s=60) is is_serving


def test_a_method_that_the_service_has_not_is_unimplemented(partner):
    *_, channel = partner

    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/api.v1.beta1.DBManager/Watch")(b"", timeout=60)

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
