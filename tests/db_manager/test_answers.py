"""What a server says of itself, and what it does with clients that are slow, many or gone."""

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import datetime, timezone

import grpc
import pytest
from google.protobuf import descriptor_pb2

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.health import Health, HealthMonitor
from katib_callbacks.db_manager.service.katib_service import KatibService
from katib_callbacks.db_manager.service.limits import Places
from katib_callbacks.db_manager.service.replies import LargeReplies
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.stopping.judge import Judge
from katib_callbacks.db_manager.store.group_commit import GroupCommit
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages, methods, reflection
from katib_callbacks.wire.client import DBManagerStub

SERVICES = {
    "api.v1.beta1.DBManager",
    "grpc.health.v1.Health",
    "katib_callbacks.v1.EarlyStopping",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


# -- reflection ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=reflection.VERSIONS)
def reflect(request, server, open_channel):
    call = open_channel(server.address).stream_stream(
        f"/{request.param}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection.Response.FromString,
    )
    return lambda **question: next(iter(call(iter([reflection.Request(**question)]), timeout=60)))


def test_the_services_are_listed(reflect):
    response = reflect(host="here", list_services="*")
    assert {service.name for service in response.list_services_response.service} == SERVICES
    assert (response.valid_host, response.original_request.list_services) == ("here", "*")


@pytest.mark.parametrize(
    "symbol",
    [
        "api.v1.beta1.DBManager",
        "api.v1.beta1.DBManager.GetObservationLog",
        "api.v1.beta1.MetricLog",
        "api.v1.beta1.MetricLog.time_stamp",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
)
def test_a_symbol_is_found_in_its_file_and_the_file_by_its_name(reflect, symbol):
    (data,) = reflect(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    file = descriptor_pb2.FileDescriptorProto.FromString(data)
    assert symbol.startswith(file.package + ".")
    assert file.service
    (again,) = reflect(file_by_filename=file.name).file_descriptor_response.file_descriptor_proto
    assert again == data


@pytest.mark.parametrize(
    "question",
    [
        {"file_containing_symbol": "api.v1.beta1"},
        {"file_containing_symbol": "api.v1.beta1."},
        {"file_containing_symbol": "api.v1.beta1.DBManager.Nothing"},
        {"file_containing_symbol": "api.v1.beta1.Nothing"},
        {"file_containing_symbol": ""},
        {"file_by_filename": "nothing.proto"},
        {"file_containing_extension": {"containing_type": "api.v1.beta1.Metric", "extension_number": 1}},
        {"all_extension_numbers_of_type": "api.v1.beta1.Nothing"},
        {},
    ],
)
def test_what_there_is_not_is_not_found(reflect, question):
    assert reflect(**question).error_response.error_code == 5


def test_a_message_has_no_extensions(reflect):
    response = reflect(all_extension_numbers_of_type="api.v1.beta1.Metric").all_extension_numbers_response
    assert (response.base_type_name, list(response.extension_number)) == ("api.v1.beta1.Metric", [])


def test_grpcs_own_reflection_client_calls_the_server_by_what_it_was_told(server, open_channel):
    database_of = pytest.importorskip(
        "grpc_reflection.v1alpha.proto_reflection_descriptor_database", reason="`databases` has it"
    )
    from google.protobuf import descriptor_pool, message_factory  # noqa: PLC0415

    channel = open_channel(server.address)
    database = database_of.ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == SERVICES
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName("Check")
    request, reply = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    call = channel.unary_unary(methods.HEALTH_CHECK, response_deserializer=reply.FromString)
    assert call(request(service="").SerializeToString(), timeout=60).status == messages.SERVING


def test_grpcs_own_health_client_reads_check_and_watch(server, open_channel):
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="`databases` has it")
    stub = pytest.importorskip("grpc_health.v1.health_pb2_grpc", reason="`databases` has it").HealthStub(
        open_channel(server.address)
    )
    request = health.HealthCheckRequest(service=methods.DB_MANAGER_SERVICE)
    assert stub.Check(request, timeout=60).status == health.HealthCheckResponse.SERVING
    assert next(stub.Watch(request, timeout=60)).status == health.HealthCheckResponse.SERVING
    unknown = stub.Watch(health.HealthCheckRequest(service="another.Service"), timeout=60)
    assert next(unknown).status == health.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


# -- watching ------------------------------------------------------------------------------------------------------


def watch(channel, timeout_s=60):
    call = channel.unary_stream(methods.HEALTH_WATCH, response_deserializer=messages.HealthCheckResponse.FromString)
    return call(b"", timeout=timeout_s)


def test_those_that_watch_are_few_and_a_place_is_free_again_when_one_goes(server, open_channel):
    channel = open_channel(server.address)
    watching = [watch(channel) for _ in range(16)]
    for statuses in watching:
        assert next(statuses).status == messages.SERVING
    with pytest.raises(grpc.RpcError, match="16 clients are watching") as caught:
        next(watch(channel))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    watching.pop().cancel()
    end = time.monotonic() + 60
    while True:
        statuses = watch(channel)
        with contextlib.suppress(grpc.RpcError):
            assert next(statuses).status == messages.SERVING
            break
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_watch_does_not_hold_up_a_stop(database_url, open_channel):
    db_manager = DBManager(database_url).start()
    statuses = watch(open_channel(db_manager.address))
    unknown = open_channel(db_manager.address).unary_stream(methods.HEALTH_WATCH)(
        messages.HealthCheckRequest(service="x").SerializeToString()
    )
    assert next(statuses).status == messages.SERVING
    assert next(unknown)
    db_manager.stop(grace_s=3_600)
    assert [response.status for response in statuses] == [messages.NOT_SERVING]
    assert list(unknown) == []


# -- slow, many and gone -------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


def begin_a_report(address):
    """Open a connection, send the head of a report and a part of its message, and leave it at that."""
    host, _, port = address.rpartition(":")
    line = socket.create_connection((host, int(port)), timeout=60)
    head = b"\x83\x86" + b"".join(  # POST, http, then literal fields without an index
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in (
            (b":path", methods.REPORT_OBSERVATION_LOG.encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    data = b"\0" + (1_000_000).to_bytes(4, "big") + b"\x0a\x01t"  # the length of a message, and its first field
    frames = [(0x1, 0x4, head), (0x0, 0x0, data)]
    line.sendall(
        PREFACE
        + b"".join(
            len(payload).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + payload
            for kind, flags, payload in frames
        )
    )
    return line


def test_clients_that_send_slowly_do_not_hold_up_the_others(server, stub, raw, make_logs):
    with contextlib.ExitStack() as lines:
        for _ in range(100):
            lines.enter_context(begin_a_report(server.address))
        handlers = "katib-callbacks-db-manager"
        end = time.monotonic() + 60
        while sum(thread.name.startswith(handlers) for thread in threading.enumerate()) < 20:  # some have ended
            assert time.monotonic() < end, "the slow calls never began"
            time.sleep(0.05)
        for number in range(20):
            stub.report("t", make_logs(number, name=f"m{number}"), timeout_s=60)
        assert len(stub.get("t", timeout_s=60)) == 20
        assert raw.status() == messages.SERVING


def test_a_client_that_does_not_read_its_reply_does_not_hold_up_the_others(server, stub, open_channel, make_logs):
    stub.report("long", make_logs(*range(5_000)), timeout_s=60)  # more than the window of a stream
    request = messages.GetObservationLogRequest(trial_name="long").SerializeToString()
    call = open_channel(server.address).unary_stream(methods.GET_OBSERVATION_LOG)  # as a stream: read when one likes
    waiting = [call(request, timeout=120) for _ in range(20)]  # more than there are connections to read with
    for replies in waiting:
        replies.initial_metadata()  # comes with the reply: the rows are read, and stand in the way of nobody but gRPC
    for number in range(20):
        stub.report("t", make_logs(number, name=f"m{number}"), timeout_s=60)
    assert len(stub.get("t", timeout_s=60)) == 20
    for replies in waiting:
        assert not replies.done(), "a reply came whole that nobody read"
        replies.cancel()


def test_more_calls_than_there_is_room_for_are_told_to_try_again_and_health_is_answered(
    database_url, open_channel, make_logs, monkeypatch
):
    has_room, submit = threading.Event(), GroupCommit.submit
    monkeypatch.setattr(GroupCommit, "submit", lambda commit, batch: (has_room.wait(60), submit(commit, batch)))
    with DBManager(database_url, max_calls=4) as db_manager, ThreadPoolExecutor(32) as threads:
        stub = DBManagerStub(open_channel(db_manager.address))

        def attempt(call, *arguments):
            while True:
                try:
                    return call(*arguments, timeout_s=60)
                except grpc.RpcError as error:  # noqa: PERF203  seldom a second time
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        return error.details()
                    if error.code() is not grpc.StatusCode.CANCELLED:  # taken, under load, for one that does not come
                        raise

        logs = make_logs(*range(2_000))
        calls = [threads.submit(attempt, stub.report, f"t{number}", logs) for number in range(64)]
        wait(calls, return_when=FIRST_COMPLETED)  # one that was refused: four are held
        assert stub.is_serving(timeout_s=60)
        has_room.set()
        refusals = [call.result(timeout=60) for call in calls]
        assert {None, "4 calls are being worked on; try again"} <= set(refusals)
        assert all(refusal is None or refusal.endswith("; try again") for refusal in refusals)
        for number, refusal in enumerate(refusals):
            while isinstance(rows := attempt(stub.get, f"t{number}"), str):  # as a client would
                pass
            assert len(rows) == (0 if refusal else 2_000)


def test_readers_that_take_every_connection_hold_up_neither_writers_nor_health(database_url, open_channel, make_logs):
    with DBManager(database_url, max_connections=4) as db_manager, contextlib.ExitStack() as readers:
        stub = DBManagerStub(open_channel(db_manager.address))
        for _ in range(4 if database_url.startswith("sqlite") else 2):
            readers.enter_context(db_manager._running.store._database.reading())
        for number in range(3):
            stub.report("t", make_logs(number, name=f"m{number}"), timeout_s=60)
        assert stub.is_serving(timeout_s=60)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(stub.get, "t", timeout_s=60)
            assert not waiting.done()
            readers.close()
            assert len(waiting.result(timeout=60)) == 3


# -- metrics -------------------------------------------------------------------------------------------------------


def scrape(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_prometheus_sees_calls_rows_refusals_and_latencies(database_url, open_channel, open_raw, make_logs):
    pytest.importorskip("prometheus_client", reason="`databases` has it")
    with DBManager(database_url, metrics_address="127.0.0.1:0") as db_manager:
        stub, raw = DBManagerStub(open_channel(db_manager.address)), open_raw(db_manager)
        for number in range(3):
            stub.report("t", make_logs(1, 2, name=f"m{number}"), timeout_s=60)
        stub.get("t", timeout_s=60)
        with pytest.raises(grpc.RpcError):
            raw.report("t", ("soon", "loss", "1"))
        seen = scrape(db_manager.metrics_address)
    assert seen['katib_db_manager_calls_total{code="OK",method="ReportObservationLog"}'] == 3
    assert seen['katib_db_manager_calls_total{code="INVALID_ARGUMENT",method="ReportObservationLog"}'] == 1
    assert seen['katib_db_manager_rows_total{method="ReportObservationLog"}'] == 6
    assert seen['katib_db_manager_rows_total{method="GetObservationLog"}'] == 6
    assert seen['katib_db_manager_call_seconds_count{method="ReportObservationLog"}'] == 4
    assert seen["katib_db_manager_serving"] == 1


def test_readiness_follows_the_database_and_its_return_is_logged(db, open_raw, caplog):
    pytest.importorskip("prometheus_client", reason="`databases` has it")
    with DBManager(f"sqlite:///{db}", metrics_address="127.0.0.1:0") as db_manager:
        assert ready(db_manager) == (200, b"serving\n")
        db.rename(db.parent / "away")
        assert ready(db_manager) == (503, b"not serving\n")
        (db.parent / "away").rename(db)
        assert ready(db_manager) == (200, b"serving\n")
        assert "serving again, after 0 s" in caplog.text
        assert scrape(db_manager.metrics_address)["katib_db_manager_serving"] == 1


def ready(db_manager):
    try:
        with urllib.request.urlopen(f"http://{db_manager.metrics_address}/healthz", timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_without_an_address_there_are_no_metrics(server):
    assert server.metrics_address is None


class _Calls(ServerMetrics):
    def __init__(self):
        self.codes = []
        self.is_one_over = threading.Event()

    def call(self, method, code, elapsed_s, rows):
        self.codes.append((method, code))
        self.is_one_over.set()


class _Queue(Places):
    """Lets nobody in before it is opened."""

    def __init__(self):
        super().__init__(8, "full")
        self.is_open = threading.Event()

    @contextlib.contextmanager
    def enter(self, key="", *, timeout_s=0.0):
        self.is_open.wait(60)
        with super().enter(key, timeout_s=timeout_s):
            yield


def test_a_call_whose_client_gave_up_while_it_waited_is_not_carried_out_and_no_error(tmp_path):
    # The guard of all tests fails this one if gRPC logs an error.
    calls, line, contexts = _Calls(), _Queue(), []

    class Seen(Servicer):
        def report(self, request, context, *, namespace=None):
            contexts.append(context)
            return super().report(request, context, namespace=namespace)

    store = ObservationLogStore(f"sqlite:///{tmp_path / 'katib.db'}", max_connections=3)
    workers = ThreadPoolExecutor(2)
    server = grpc.server(workers)
    monitor = HealthMonitor(store.check)
    arrivals = Arrivals()
    server.add_generic_rpc_handlers(
        (KatibService(Seen(store, line, calls, LargeReplies(), Judge(store)), Health(monitor), arrivals),)
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(60)  # so that the call comes to the server at once
            client = DBManagerStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                client.report("trial", [MetricLog("loss", 1, datetime.now(timezone.utc))], timeout_s=3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            while contexts[0].is_active():  # the server has a clock of its own
                time.sleep(0.01)
            line.is_open.set()
            assert calls.is_one_over.wait(60)
            assert client.get("trial", timeout_s=60) == []
    finally:
        server.stop(0).wait()
        workers.shutdown()
        arrivals.close()
        monitor.close()
        store.close()
    assert calls.codes == [("ReportObservationLog", "CANCELLED"), ("GetObservationLog", "OK")]
