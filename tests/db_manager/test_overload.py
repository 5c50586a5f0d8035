"""The DB manager under clients that ask too much of it: the others are served, and memory stays bounded."""

import re
import select
import socket
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest
from http2 import open_streams

from katib_callbacks import KatibReporter
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.service import arrivals, limits
from katib_callbacks.wire import messages, methods, reflection

PATHS = [
    methods.REPORT_OBSERVATION_LOG,
    methods.HEALTH_CHECK,
    methods.HEALTH_WATCH,
    f"/{reflection.VERSIONS[0]}.ServerReflection/ServerReflectionInfo",
]

MAX_PEAK_MIB = 768
"""Without bounds these tests' requests and replies took gigabytes. The peak is about 400 MiB; how much of what is free
the allocators of Python and gRPC keep depends on the order of threads, and a busy machine has more of them waiting."""


def report_to(server, count):
    """Report as users do: on a busy machine a request may be taken for one that does not come, and is sent again."""
    with KatibReporter(server.address, trial_name="t", timeout_s=240) as reporter:
        for number in range(count):
            assert reporter.report({"loss": number}).delivered == 1


def send_until_taken(server, path, request):
    """Return the reply of a raw call, which is sent again where the server says that it has too much to do."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    with grpc.insecure_channel(server.address, options=options) as channel:
        for attempt in range(100):
            call = channel.unary_unary(path).future(request, timeout=240)
            if call.code() is grpc.StatusCode.OK:
                return call.result()
            assert call.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}, call
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError("it was never taken")


@pytest.mark.parametrize("path", PATHS)
def test_calls_that_send_headers_alone_leave_room_for_others(server, raw, path):
    """One connection with more of them than the server has threads."""
    with open_streams(server.address, 800, path):
        report_to(server, 20)
    assert len(raw.get("t")) == 20


def test_many_connections_that_send_headers_alone_leave_room_for_others(server, raw):
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(open_streams(server.address, 99))
        report_to(server, 5)
    assert sorted(value for *_, value in raw.get("t")) == ["0", "1", "2", "3", "4"]


def test_a_connection_has_a_limited_number_of_calls_at_once(server, monkeypatch):
    with open_streams(server.address, 10 * limits.MAX_STREAMS) as connection:
        assert _ended(connection, 9 * limits.MAX_STREAMS)


def test_a_request_that_does_not_come_is_not_waited_for(db, monkeypatch):
    monkeypatch.setattr(arrivals, "REQUEST_TIMEOUT_S", 0.2)
    with DBManager(f"sqlite:///{db}") as server, open_streams(server.address, 1) as connection:
        assert _ended(connection, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_large_requests_that_come_at_once_are_all_stored_and_do_not_fill_the_memory(start_process):
    """30 of 28 MiB, of 30 clients that try again when they are told to."""
    server, value, trials = start_process(), "7" * 60_000, [f"t{number}" for number in range(30)]

    def send(trial):
        request = messages.ReportObservationLogRequest(trial_name=trial)
        for number in range(480):
            metric = messages.Metric(name="loss", value=value)
            request.observation_log.metric_logs.add(time_stamp=f"2026-01-31T12:00:00.{number:06}Z", metric=metric)
        send_until_taken(server, methods.REPORT_OBSERVATION_LOG, request.SerializeToString())

    with ThreadPoolExecutor(len(trials)) as threads:
        list(threads.map(send, trials))
    assert _peak_mib(server.process.pid) < MAX_PEAK_MIB
    with closing(sqlite3.connect(server.db)) as connection:
        counts = connection.execute("SELECT COUNT(*) FROM observation_logs GROUP BY trial_name").fetchall()
    assert counts == [(480,)] * 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_large_replies_that_are_asked_for_at_once_all_come_and_do_not_fill_the_memory(start_process):
    """Eight of 72 MiB, for clients that try again when they are told to; small reads go on meanwhile."""
    server, count = start_process(), 120_000
    with closing(sqlite3.connect(server.db)) as connection, connection:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
            "INSERT INTO observation_logs (trial_name, time, metric_name, value) "
            "SELECT 'large', strftime('%Y-%m-%d %H:%M:%S.000000', '2026-01-01', '+' || i || ' seconds'), 'loss', "
            "printf('%0600d', i) FROM n",
            (count,),
        )
        connection.execute(
            "INSERT INTO observation_logs VALUES ('small', NULL, '2026-01-01 00:00:00.000000', 'm', '1')"
        )

    def read(trial):
        request = messages.GetObservationLogRequest(trial_name=trial).SerializeToString()
        return send_until_taken(server, methods.GET_OBSERVATION_LOG, request)

    with ThreadPoolExecutor(8) as threads:
        reading = [threads.submit(read, "large") for _ in range(8)]
        small = messages.GetObservationLogReply.FromString(read("small"))
        assert [log.time_stamp for log in small.observation_log.metric_logs] == ["2026-01-01T00:00:00Z"]
        sizes = {len(call.result()) for call in reading}
    assert _peak_mib(server.process.pid) < MAX_PEAK_MIB
    logs = messages.GetObservationLogReply.FromString(read("large")).observation_log.metric_logs
    assert len(sizes) == 1
    assert [int(log.metric.value) for log in logs] == list(range(count))


def _peak_mib(pid: int) -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1_024


def _ended(connection: socket.socket, streams: int) -> bool:
    """Return whether so many calls, or all with their connection, are ended by the server."""
    seen, ended, end_s = b"", 0, time.monotonic() + 60
    while ended < streams and time.monotonic() < end_s:
        if not select.select([connection], [], [], 1)[0]:
            continue
        try:
            piece = connection.recv(65_536)
        except ConnectionResetError:
            return True
        if not piece:
            return True
        seen += piece
        while len(seen) >= 9 and len(seen) >= 9 + int.from_bytes(seen[:3], "big"):
            length, kind, flags = int.from_bytes(seen[:3], "big"), seen[3], seen[4]
            ended += kind == 3 or (kind == 1 and flags & 1)  # RST_STREAM, or HEADERS that end the stream
            if kind == 7:  # GOAWAY
                return True
            seen = seen[9 + length :]
    return ended >= streams
