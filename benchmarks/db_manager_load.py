"""The DB manager under load, on every store: ``--stores sqlite,mariadb,postgresql``.

Calls of one row from 100 clients, 100 calls of 100 rows from 100 clients, beside a grpcio server that answers and does
nothing; reads and deletions of 16,383 and of 96,000 rows; the server's peak memory so far; and reads of a trial of 100
rows among 2 million, which 20,000 trials sent ten at a time in turn. Then, on SQLite, how the server's time of the
processor grows: of a call with the clients and with its rows, of a read with the rows.
Servers and clients are processes of their own on one machine; every answer comes after the commit is on disk. Each load
is repeated, alternating with the server that does nothing. MariaDB, PostgreSQL and,
where it is named, MySQL are started on free ports, as the tests do.

Where other programs want the machine, its seconds say little: the processor's time that each server takes for a call,
and the clients, is shown beside them. Of a call of one row on SQLite, 2 busy cores, in times of what the server that
does nothing takes (160 to 250 us; a client 200 to 260): one with a hand-over to another thread and back, which each
call waits for, takes 1.2 to 1.5; the DB manager 1.8 to 2.3, in groups of 13 calls in place of 30 it took 2.4 to 2.8.
A group costs the writer's thread 600 us and each call in it 10; the handler takes 11 us by itself. The rest is changes
of threads (13 a call, 8 where nothing is done) and what a hundred threads cost each other. Two ways around them were
tried. If the writer's thread answered, a call would take 330 to 400 us: grpcio's threaded server has no public way to
that, and by its private ones MariaDB's calls took no less time. On grpc.aio, where a group's calls are answered in one
step of the event loop, it took 1.3 to 1.9 without any limit, metric or log, in about the seconds of the threads.
"""

import random
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
from figures import Figure, Growth, Size, run
from machine import cpu_s, db_manager, memory_mib, started

from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

sys.path.append(str(Path(__file__).parents[1] / "tests" / "db_manager"))
from servers import SERVERS

CLIENTS = 100
LOADS = {1: 50, 100: 1}
"""By the rows of a call: calls that each client makes one after the other."""

RATIOS = {1: 1.4, 100: 2.0}
"""By the rows of a call: how many times longer than the server that does nothing the store may take."""

BULK = {16_383: 0.35 / 0.26, 96_000: 1.8 / 0.26}
"""Rows of a trial, and what a read or a deletion of them may take by 100 calls of 100 rows of the server that does
nothing. Katib's own manager takes no more than the first in one call, and this long."""

PEAK_MIB = 130
READ_LIMIT_MS = 10
REPEAT = 3

ROWS = 2_000_000
TRIALS = 20_000
READS = 200
SETTLE_S = 5.0
"""Between writing those rows and reading."""

GROWN_CLIENTS = (1, 3, 10, 30, 100, 200)
GROWN_ROWS = (1, 10, 100, 1_000, 10_000)
READ_ROWS = (1, 10, 100, 1_000, 10_000, 100_000)
GROWN_CALLS = 2_000

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))

IDLE_SERVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from katib_callbacks.wire import messages, methods

server = grpc.server(ThreadPoolExecutor(16))
answer = grpc.unary_unary_rpc_method_handler(
    lambda request, context: messages.ReportObservationLogReply(),
    request_deserializer=messages.ReportObservationLogRequest.FromString,
    response_serializer=lambda reply: reply.SerializeToString(),
)
service, _, method = methods.REPORT_OBSERVATION_LOG.strip("/").partition("/")
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: answer}),))
print(f"listening on 127.0.0.1:{server.add_insecure_port('127.0.0.1:0')},", flush=True)
server.start()
server.wait_for_termination()
"""

INSERT = "INSERT INTO observation_logs (trial_name, time, metric_name, value) SELECT "
FILL = {
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {rows}) "  # noqa: S608  numbers alone
    + INSERT
    + "'trial-' || (i / 10 % {trials}), strftime('%Y-%m-%d %H:%M:%S.000000', '2026-01-01', "
    "'+' || (i % 10 + i / 10 / {trials} * 10) || ' seconds'), 'loss', i FROM n",
    "mariadb": INSERT + "CONCAT('trial-', seq DIV 10 MOD {trials}), '2026-01-01' + INTERVAL "
    "(seq MOD 10 + seq DIV 10 DIV {trials} * 10) SECOND, 'loss', seq FROM seq_0_to_{last}",
    "mysql": "INSERT /*+ SET_VAR(cte_max_recursion_depth = {rows}) */ "
    "INTO observation_logs (trial_name, time, metric_name, value) "
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {rows}) "
    "SELECT CONCAT('trial-', i DIV 10 MOD {trials}), '2026-01-01' + INTERVAL "
    "(i MOD 10 + i DIV 10 DIV {trials} * 10) SECOND, 'loss', i FROM n",
    "postgresql": INSERT + "'trial-' || i / 10 % {trials}, timestamp '2026-01-01' + "
    "(i % 10 + i / 10 / {trials} * 10) * interval '1 second', 'loss', i FROM generate_series(0, {last}) AS i",
}


def measure(size: Size, stores: str) -> Iterator[Figure | Growth]:
    """Measure each store, then how its costs grow."""
    for store in stores.split(","):
        with ExitStack() as stack:
            url, fill = database(store, stack)
            server, address = stack.enter_context(db_manager(url))
            idle_server, idle = stack.enter_context(started([sys.executable, "-c", IDLE_SERVER]))
            for rows, calls in LOADS.items():
                used_s = cpu_s(idle_server.pid), cpu_s(server.pid)
                pairs = [(load(idle, calls, rows), load(address, calls, rows)) for _ in range(size(REPEAT))]
                count = len(pairs) * CLIENTS * calls / 1e6
                idle_us = (cpu_s(idle_server.pid) - used_s[0]) / count
                ours_us = (cpu_s(server.pid) - used_s[1]) / count
                nothing_s, store_s = zip(*pairs, strict=True)
                what = f"{store}: {CLIENTS * calls:,} x {rows} row{'s' * (rows > 1)}, {CLIENTS} clients"
                yield Figure(what, store_s, "s", "no-op server", nothing_s, ratio_at_most=RATIOS[rows])
                yield Figure(f"{what}, CPU of a call", [ours_us], "us", "no-op server", [idle_us])
            for what, took_s, limit in bulk(address, size(REPEAT)):
                beside = "no-op server, 100 x 100 rows"
                yield Figure(f"{store}: {what}", took_s, "s", beside, nothing_s, ratio_at_most=limit)
            yield Figure(f"{store}: peak memory so far", [memory_mib(server.pid)], "MiB", at_most=PEAK_MIB)
            rows = size(ROWS // (10 * TRIALS)) * 10 * TRIALS
            fill(FILL[store].format(rows=rows, last=rows - 1, trials=TRIALS))
            time.sleep(SETTLE_S)
            read_ms = reads(address, rows // TRIALS)
            what = f"{store}: read of a trial among {rows:,} rows"
            yield Figure(what, read_ms, "ms", at_most=READ_LIMIT_MS)
            if store == "sqlite":
                yield from growths((server.pid, address), (idle_server.pid, idle), size(GROWN_CALLS))


def growths(ours: tuple[int, str], idle: tuple[int, str], count: int) -> Iterator[Growth]:
    """Measure the processor's time of servers, ours and the one that does nothing."""
    clients: dict[str, dict[int, float]] = {}
    rows: dict[str, dict[int, float]] = {}
    for name, (pid, address) in {"ours": ours, "no-op server": idle}.items():
        clients[name] = {
            number: cpu_us(pid, count, lambda n=number: load(address, max(1, count // n), 1, n))  # noqa: B023  called at once
            for number in GROWN_CLIENTS
        }
        rows[name] = {
            number: cpu_us(pid, 50, lambda n=number: load(address, 50, n, 1)) / 1_000  # noqa: B023  called at once
            for number in GROWN_ROWS
        }
    yield Growth("sqlite: call of one row, CPU of the server", "clients", "us", clients, 0)
    yield Growth("sqlite: call, CPU of the server", "rows", "ms", rows, 1)
    pid, address = ours
    with grpc.insecure_channel(address, UNLIMITED) as channel:
        stub = DBManagerStub(channel)
        took_ms = {}
        for number in READ_ROWS:
            write(stub, f"read-{number}", number)
            times = max(5, 20_000 // number)
            took_ms[number] = cpu_us(pid, times, lambda n=number, t=times: read(channel, f"read-{n}", t)) / 1_000
    yield Growth("sqlite: read, CPU of the server", "rows", "ms", {"ours": took_ms}, 1)


def cpu_us(pid: int, count: int, act: Callable[[], object]) -> float:
    """Return the microseconds of the processor that a process uses for each of some calls."""
    used_s = cpu_s(pid)
    act()
    return max(cpu_s(pid) - used_s, 0.005) / count * 1e6


def database(store: str, stack: ExitStack) -> tuple[str, Callable[[str], object]]:
    """Return the URL of a new database, and what runs a statement in it."""
    if store == "sqlite":
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "katib.db")

        def execute(statement: str) -> None:
            with sqlite3.connect(path) as connection:
                connection.execute(statement)
            connection.close()

        return f"sqlite:///{path}", execute
    server = stack.enter_context(SERVERS[store]())
    url = server.create_database()
    return url, lambda statement: server.execute(statement, database=url.rpartition("/")[2])


def logs_of(rows: int, first: int = 0) -> list[MetricLog]:
    """Return rows of one metric, a microsecond apart."""
    now = datetime.now(timezone.utc)
    return [MetricLog("loss", row / 7, now + timedelta(microseconds=first + row)) for row in range(rows)]


def write(stub: DBManagerStub, trial: str, rows: int) -> None:
    """Report a trial's rows, in few calls."""
    logs = logs_of(rows)
    for start in range(0, rows, 16_000):
        stub.report(trial, logs[start : start + 16_000], timeout_s=300)


def read(channel: grpc.Channel, trial: str, times: int = 1) -> int:
    """Read a trial some times, without parsing all answers; returns how many rows it has."""
    get = channel.unary_unary(methods.GET_OBSERVATION_LOG)
    request = messages.GetObservationLogRequest(trial_name=trial).SerializeToString()
    for _ in range(times):
        answer = get(request, timeout=300)
    return len(messages.GetObservationLogReply.FromString(answer).observation_log.metric_logs)


def bulk(address: str, repeat: int) -> Iterator[tuple[str, list[float], float]]:
    """Read and delete much; yields what was done, its seconds, and the limit."""
    with grpc.insecure_channel(address, UNLIMITED) as channel:
        stub = DBManagerStub(channel)
        for rows, limit in BULK.items():
            took_s: dict[str, list[float]] = {"read": [], "delete": []}
            for number in range(repeat):
                trial = f"bulk-{rows}-{number}"
                write(stub, trial, rows)
                start_s = time.monotonic()
                assert read(channel, trial) == rows
                read_s = time.monotonic()
                stub.delete(trial, timeout_s=300)
                took_s["read"].append(read_s - start_s)
                took_s["delete"].append(time.monotonic() - read_s)
            yield from ((f"{what} of {rows:,} rows", times_s, limit) for what, times_s in took_s.items())


def load(address: str, calls: int, rows: int, clients: int = CLIENTS) -> float:
    """Return the seconds that all clients take together, once all are connected."""
    tag = uuid.uuid4().hex[:8]
    start = threading.Barrier(clients + 1)
    errors: list[BaseException] = []
    with ExitStack() as channels:
        stubs = []
        for _ in range(clients):
            channel = channels.enter_context(grpc.insecure_channel(address, UNLIMITED))
            grpc.channel_ready_future(channel).result(timeout=60)
            stubs.append(DBManagerStub(channel))

        def report(client: int) -> None:
            batches = [logs_of(rows, call * rows) for call in range(calls)]
            start.wait()
            try:
                for batch in batches:
                    stubs[client].report(f"{tag}-{client}", batch, timeout_s=300)
            except BaseException as error:  # noqa: BLE001  the main thread raises it
                errors.append(error)

        threads = [threading.Thread(target=report, args=(client,)) for client in range(clients)]
        for thread in threads:
            thread.start()
        start.wait()
        start_s = time.monotonic()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - start_s
    if errors:
        raise errors[0]
    return took_s


def reads(address: str, expected: int) -> list[float]:
    """Return the milliseconds of many reads."""
    chosen = random.Random(1)  # noqa: S311  the same trials each time
    took_ms = []
    with grpc.insecure_channel(address) as channel:
        stub = DBManagerStub(channel)
        for _ in range(READS):
            trial = f"trial-{chosen.randrange(TRIALS)}"
            start_s = time.monotonic()
            logs = stub.get(trial, timeout_s=60)
            took_ms.append((time.monotonic() - start_s) * 1_000)
            assert len(logs) == expected, (trial, len(logs))
    return took_ms


if __name__ == "__main__":
    run(__doc__, measure, stores="sqlite,mariadb,postgresql")
