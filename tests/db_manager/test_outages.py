"""Database servers that are killed, frozen, locked, and whose sessions an administrator ends, all under load."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from servers import STORES

from katib_callbacks import StoreError
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.store import mysql, postgresql
from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
PATIENCE_S = 90.0
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}

pytestmark = pytest.mark.parametrize("store", [store for store in STORES if store != "sqlite"])


@pytest.fixture
def database(store, database_server):
    server = database_server(store)
    yield server
    server.start()  # does nothing if it runs


@pytest.fixture
def url(database):
    return database.create_database()


@pytest.fixture
def connect(open_channel):
    def connect(db_manager):
        return DBManagerStub(open_channel(db_manager.address))

    return connect


def wait_until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


class Load:
    """Threads that each report batch after batch of a trial of its own, each batch until it is acknowledged."""

    def __init__(self, stubs):
        self._stubs = stubs
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(8)
        self.acknowledged = [0] * 8
        self.failures = Counter()
        self._running = []

    def __enter__(self):
        self._running = [self._threads.submit(self._report, number) for number in range(8)]
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._threads.shutdown()
        for running in self._running:
            running.result()

    def batch(self, trial, number):
        return [
            MetricLog(name, number, NOON + timedelta(microseconds=number))
            for name in ("loss", "accuracy", f"only-{trial}")
        ]

    def _report(self, trial):
        stub = self._stubs[trial % len(self._stubs)]
        while not self._stop.is_set():
            batch = self.batch(trial, self.acknowledged[trial])
            end = time.monotonic() + PATIENCE_S
            while True:
                try:
                    stub.report(f"trial-{trial}", batch, timeout_s=PATIENCE_S)
                    break
                except grpc.RpcError as error:
                    self.failures[error.code()] += 1
                    if error.code() not in RETRIED or time.monotonic() > end:
                        raise
                    time.sleep(0.02)
            self.acknowledged[trial] += 1

    def wait_for_more(self, batches=5):
        before = list(self.acknowledged)
        wait_until(lambda: all(now >= then + batches for now, then in zip(self.acknowledged, before, strict=True)))

    def check(self, stub):
        """Compare what is stored with what was acknowledged: nothing is lost, nothing doubled."""
        for trial, count in enumerate(self.acknowledged):
            stored = Counter((log.name, log.value, log.timestamp) for log in stub.get(f"trial-{trial}", timeout_s=60))
            sent = {
                (log.name, str(int(log.value)), log.timestamp) for n in range(count) for log in self.batch(trial, n)
            }
            assert stored == Counter(sent), f"trial {trial}"


def test_a_database_that_is_killed_and_comes_back_loses_and_doubles_nothing(database, url, connect):
    with DBManager(url) as db_manager:
        stub = connect(db_manager)
        with Load([connect(db_manager)] * 8) as load:
            for _ in range(2):
                load.wait_for_more()
                database.kill()
                wait_until(lambda: not stub.is_serving(timeout_s=60))
                with pytest.raises(grpc.RpcError) as caught:
                    stub.get("trial-0", timeout_s=60)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "p@ss" not in caught.value.details()
                database.start()
                wait_until(lambda: stub.is_serving(timeout_s=60))
            load.wait_for_more()
        assert load.failures[grpc.StatusCode.UNAVAILABLE] > 0
        load.check(stub)


def test_sessions_that_an_administrator_ends_lose_and_double_nothing(database, url, connect):
    with DBManager(url) as db_manager:
        stub = connect(db_manager)
        with Load([connect(db_manager)] * 8) as load:
            ended = 0
            for _ in range(20):
                ended += database.kill_connections()
                time.sleep(0.05)
                load.wait_for_more(1)
            wait_until(lambda: stub.is_serving(timeout_s=60))
        assert ended >= 20
        load.check(stub)
        assert database.kill_connections() > 0
        assert stub.is_serving(timeout_s=60)  # idle connections that died are replaced, and nobody notices
        assert len(stub.get("trial-0", timeout_s=60)) == 3 * load.acknowledged[0]


def test_two_managers_on_one_database_that_are_sent_the_same_store_each_row_once(url, connect, make_logs):
    batches = [(f"t{number % 3}", make_logs(*range(20), name=f"m{number}")) for number in range(30)]
    with DBManager(url) as first, DBManager(url) as second, ThreadPoolExecutor(16) as threads:
        stubs = [connect(first), connect(second)]

        def report(place):
            stub, (trial, batch) = stubs[place % 2], batches[place // 2 % 30]
            for start in (0, 5):
                stub.report(trial, batch[start:], timeout_s=60)

        list(threads.map(report, range(120)))
        for number in range(3):
            logs = stubs[number % 2].get(f"t{number}", timeout_s=60)
            assert len(logs) == 200
            assert len(set(logs)) == 200


class Proxy:
    """Stands before a database server, and is cut behind the next statement that has some words in it.

    No answer comes from there, nor does the server hear that its client gives up.
    """

    def __init__(self, port):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self.loses_next = None
        self._threads[0].start()

    def close(self):
        for opened in self._open:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                is_lost = threading.Event()
                for arguments in ((client, server, is_lost, True), (server, client, is_lost, False)):
                    self._threads.append(threading.Thread(target=self._copy, args=arguments))
                    self._threads[-1].start()

    def _copy(self, source, target, is_lost, is_from_client):
        with suppress(OSError):
            while data := source.recv(65_536):
                is_last = is_from_client and self.loses_next is not None and self.loses_next in data
                if is_last:
                    self.loses_next = None
                    is_lost.set()
                if is_last or not is_lost.is_set():
                    target.sendall(data)
        with suppress(OSError):
            if not is_lost.is_set():
                target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("statement", [b"COMMIT", b" INTO observation_logs", b"COPY observation_logs", b"LOCK("])
def test_a_lost_answer_does_not_lock_its_trial(database, url, connect, make_logs, monkeypatch, statement):
    """The server's session lives on with its locks: its end of the connection is as good as ever."""
    if database.dialect == ("mysql" if b"COPY" in statement else "postgresql" if b"INTO" in statement else ""):
        pytest.skip("the other database's statement")
    if database.dialect == "postgresql":
        statement = statement.replace(b"LOCK(", b"advisory_xact_lock(")
    monkeypatch.setattr(mysql, "ANSWER_TIMEOUT_S", 2)
    monkeypatch.setattr(postgresql, "ANSWER_TIMEOUT_S", 2)
    monkeypatch.setattr(postgresql, "LOST_AFTER_S", 600)  # nobody but this manager ends the session that it lost
    with (
        closing(Proxy(database.port)) as proxy,
        DBManager(url.replace(f":{database.port}/", f":{proxy.port}/")) as server,
    ):
        stub = connect(server)
        stub.report("t", make_logs(1), timeout_s=60)
        proxy.loses_next = statement
        stub.report("t", make_logs(1, 2), timeout_s=60)
        assert [log.value for log in stub.get("t", timeout_s=60)] == ["1", "2"]
        assert proxy.loses_next is None


def test_several_managers_may_start_on_one_new_database_at_once(url, connect, make_logs):
    start = threading.Barrier(4)

    def run(number):
        start.wait()
        with DBManager(url) as server:
            connect(server).report("t", make_logs(number, name=f"m{number}"), timeout_s=60)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    with DBManager(url) as server:
        assert sorted(log.name for log in connect(server).get("t", timeout_s=60)) == ["m0", "m1", "m2", "m3"]


def test_a_frozen_database_is_not_serving_and_a_thawed_one_is(database, url, connect):
    with DBManager(url) as db_manager:
        stub = connect(db_manager)
        assert stub.is_serving(timeout_s=60)
        database.freeze()
        try:
            assert not stub.is_serving(timeout_s=60)
        finally:
            database.thaw()
        wait_until(lambda: stub.is_serving(timeout_s=60))


def test_those_that_watch_are_told_when_the_database_goes_and_comes(database, url, open_channel):
    with DBManager(url) as db_manager:
        watch = open_channel(db_manager.address).unary_stream(
            methods.HEALTH_WATCH, response_deserializer=messages.HealthCheckResponse.FromString
        )
        statuses = watch(b"", timeout=PATIENCE_S)
        assert next(statuses).status == messages.SERVING
        database.kill()
        assert next(statuses).status == messages.NOT_SERVING
        database.start()
        assert next(statuses).status == messages.SERVING
        db_manager.stop()
        assert next(statuses).status == messages.NOT_SERVING
        assert list(statuses) == []


@contextmanager
def locked_table(database, url):
    """Hold the lock that an administrator's backup does, in a session of its own."""
    name = url.rpartition("/")[2]
    with ExitStack() as stack:
        if database.dialect == "mysql":
            import pymysql  # noqa: PLC0415

            session = stack.enter_context(
                pymysql.connect(unix_socket=f"{database.folder}/socket", user="root", database=name)
            )
            session.cursor().execute("LOCK TABLES observation_logs WRITE")
        else:
            import psycopg  # noqa: PLC0415

            session = stack.enter_context(
                psycopg.connect(host=str(database.folder), port=database.port, user="postgres", dbname=name)
            )
            session.execute("LOCK TABLE observation_logs IN ACCESS EXCLUSIVE MODE")
        yield


def test_a_burst_against_a_locked_table_waits_or_is_told_to_try_again_and_takes_few_connections(
    database, url, connect, make_logs
):
    with DBManager(url, max_connections=6, max_calls=100) as db_manager, ThreadPoolExecutor(200) as threads:
        stub = connect(db_manager)

        def report(number):
            try:
                stub_of_client = connect(db_manager)
                stub_of_client.report(f"t{number}", make_logs(number), timeout_s=60)
            except grpc.RpcError as error:
                return error.code()
            return None

        with locked_table(database, url):
            calls = [threads.submit(report, number) for number in range(200)]
            wait_until(lambda: sum(call.done() for call in calls) >= 100)
            refusals = Counter(call.result() for call in calls if call.done())
            assert database.connections() <= 6
        outcomes = Counter(call.result(timeout=60) for call in calls)
        assert refusals[grpc.StatusCode.RESOURCE_EXHAUSTED] > 0
        # A busy machine may take a request for one that does not come, and end its call.
        busy = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert set(outcomes) <= {None, *busy}
        assert outcomes[None] > 0
        stored = [number for number in range(200) if stub.get(f"t{number}", timeout_s=60)]
        assert set(stored) >= {number for number, call in enumerate(calls) if call.result() is None}
        assert database.connections() <= 6


def test_a_trial_that_another_manager_is_writing_does_not_hold_up_the_others(url, connect, make_logs):
    with DBManager(url) as db_manager, DBManager(url) as other, ThreadPoolExecutor(2) as threads:
        stub, store = connect(db_manager), other._running.store._database
        with store.writing() as connection:
            assert store.lock(connection, ["taken"], is_patient=False) == frozenset()
            waiting = [
                threads.submit(stub.report, "taken", make_logs(1), timeout_s=60),
                threads.submit(stub.delete, "taken", timeout_s=60),
            ]
            for number in range(5):
                stub.report("free", make_logs(number, name=f"m{number}"), timeout_s=60)
            assert len(stub.get("free", timeout_s=60)) == 5
            assert stub.get("taken", timeout_s=60) == []
            assert not any(call.done() for call in waiting)
        for call in waiting:
            call.result(timeout=60)


def test_a_manager_waits_for_its_database_at_the_start(database, url, connect):
    database.kill()
    db_manager = DBManager(url, connect_timeout_s=PATIENCE_S)
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(db_manager.start)
        time.sleep(0.2)
        assert not starting.done()
        database.start()
        with starting.result(timeout=PATIENCE_S):
            assert connect(db_manager).is_serving(timeout_s=60)


def test_a_database_that_stays_away_is_an_error_without_a_password(database, url):
    database.kill()
    with pytest.raises(StoreError, match="cannot open the database") as caught:
        DBManager(url).start()
    assert "p@ss" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["password", "database"])
def test_who_is_not_let_in_does_not_wait(url, wrong):
    url = url.replace("p%40ss", "wrong") if wrong == "password" else f"{url}_missing"
    with pytest.raises(StoreError, match="cannot open the database"):
        DBManager(url, connect_timeout_s=3_600).start()
