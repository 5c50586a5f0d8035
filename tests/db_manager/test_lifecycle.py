"""Start and stop, in this process and as a process that is killed or asked to stop."""

import signal
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from beside import said

from katib_callbacks import KatibCallbacksError
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.store.group_commit import GroupCommit
from katib_callbacks.metrics import MetricLog
from katib_callbacks.settings.runtime import utc_now
from katib_callbacks.wire.client import DBManagerStub


def stored_values(db):
    with closing(sqlite3.connect(db)) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM observation_logs ORDER BY time, id")]


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not happen within a minute"
        time.sleep(0.01)


def test_starting_and_stopping_twice_is_once(db):
    server = DBManager(f"sqlite:///{db}")
    address = server.start().address
    assert server.start().address == address
    server.stop()
    server.stop()


def test_rows_are_there_after_another_start(db, open_channel, make_logs):
    server = DBManager(f"sqlite:///{db}")
    for number in range(2):
        with server:
            stub = DBManagerStub(open_channel(server.address))
            stub.report("t", make_logs(number), timeout_s=60)
            assert [log.value for log in stub.get("t", timeout_s=60)] == ["0", "1"][: number + 1]


def test_a_path_stands_for_itself(tmp_path, open_channel, make_logs):
    db = tmp_path / "a?b=%20#c.db"
    with DBManager(db) as server:
        DBManagerStub(open_channel(server.address)).report("t", make_logs(0), timeout_s=60)
    assert {path.name for path in tmp_path.iterdir()} == {db.name}


def test_a_stopped_server_has_no_address(db):
    server = DBManager(f"sqlite:///{db}")
    with pytest.raises(KatibCallbacksError, match="does not run"):
        _ = server.address
    with server:
        assert server.db_url == f"sqlite:///{db}"
    with pytest.raises(KatibCallbacksError, match="does not run"):
        _ = server.db_url


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_stop_leaves_no_thread_and_no_file_open(db, open_channel, make_logs):
    threads = set(threading.enumerate())
    with DBManager(f"sqlite:///{db}") as server:
        stub = DBManagerStub(open_channel(server.address))
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(lambda value: stub.report("t", make_logs(value), timeout_s=60), range(40)))
    files = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    assert not [name for name in files if name.startswith(str(db))]
    assert [path.name for path in db.parent.iterdir()] == ["katib.db"]  # no write-ahead log is left to fold in
    wait_until(lambda: {thread for thread in threading.enumerate() if not thread.daemon} <= threads)


def test_a_start_that_gets_no_thread_leaves_nothing_open(db, monkeypatch):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        DBManager(db).start()
    assert [path.name for path in db.parent.iterdir()] == ["katib.db"]  # no write-ahead log is left to fold in


def test_a_relative_path_means_the_folder_at_the_start(tmp_path, monkeypatch, open_channel, make_logs):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with DBManager() as server:
        monkeypatch.chdir(tmp_path / "elsewhere")
        stub = DBManagerStub(open_channel(server.address))
        with ThreadPoolExecutor(8) as callers:  # more connections than the one that the start opened
            list(callers.map(lambda value: stub.report("t", make_logs(value), timeout_s=60), range(16)))
    assert len(stored_values(tmp_path / "katib.db")) == 16
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_stop_finishes_the_calls_in_flight_and_refuses_new_ones(db, open_channel, make_logs):
    server = DBManager(f"sqlite:///{db}").start()
    stub = DBManagerStub(open_channel(server.address))
    with closing(sqlite3.connect(db, isolation_level=None)) as other, ThreadPoolExecutor(5) as threads:
        other.execute("BEGIN IMMEDIATE")
        workers = len(threading.enumerate())
        in_flight = [threads.submit(stub.report, "t", make_logs(value), timeout_s=60) for value in range(4)]
        wait_until(lambda: sum("db-manager" in thread.name for thread in threading.enumerate()) >= 4)
        assert workers < len(threading.enumerate())
        stopping = threads.submit(server.stop)

        def refused():
            try:
                stub.get("t", timeout_s=60)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        wait_until(refused)
        assert not any(call.done() for call in [*in_flight, stopping])
        other.execute("COMMIT")
        for call in [*in_flight, stopping]:
            call.result(timeout=60)
    assert sorted(stored_values(db)) == ["0", "1", "2", "3"]


def test_what_was_begun_is_committed_though_its_answer_came_too_late(db, open_channel, make_logs, monkeypatch):
    has_begun, submit = threading.Event(), GroupCommit.submit
    monkeypatch.setattr(GroupCommit, "submit", lambda commit, batch: (submit(commit, batch), has_begun.set()))
    server = DBManager(f"sqlite:///{db}").start()
    stub = DBManagerStub(open_channel(server.address))
    with closing(sqlite3.connect(db, isolation_level=None)) as other, ThreadPoolExecutor(2) as threads:
        other.execute("BEGIN IMMEDIATE")
        call = threads.submit(stub.report, "t", make_logs(7), timeout_s=60)
        assert has_begun.wait(60)
        stopping = threads.submit(server.stop, 0.1)
        with pytest.raises(grpc.RpcError) as caught:
            call.result(timeout=60)
        assert caught.value.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        other.execute("COMMIT")
        stopping.result(timeout=60)
    assert stored_values(db) == ["7"]


def test_an_answered_call_survives_sigkill(start_process, open_channel, make_logs, db):
    for number in range(3):
        server = start_process()
        stub = DBManagerStub(open_channel(server.address))
        assert len(stub.get("t", timeout_s=60)) == number
        stub.report("t", make_logs(number), timeout_s=60)
        server.process.kill()
        assert server.finish()[0] == -signal.SIGKILL
    assert sorted(stored_values(db)) == ["0", "1", "2"]


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_calls_loses_no_answered_row(start_process, open_channel, db, signal_):
    server = start_process()
    acknowledged = []
    enough = threading.Event()

    def report(thread):
        stub = DBManagerStub(open_channel(server.address))
        for number in range(100_000):
            try:
                stub.report("t", [MetricLog(f"{thread}-{number}", number, utc_now())], timeout_s=60)
            except grpc.RpcError as error:
                return error.code()
            acknowledged.append(f"{thread}-{number}")
            if len(acknowledged) >= 50:
                enough.set()
        return None

    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(report, thread) for thread in range(8)]
        assert enough.wait(60)
        server.process.send_signal(signal_)
        code, out, err = server.finish()
        # gRPC cancels the calls that it received in the moment of the stop and had not yet handed on.
        refusals = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert {call.result(timeout=60) for call in calls} <= refusals

    assert (code, said(err)) == (0, [])
    assert f"stopped by {signal_.name}" in out
    with closing(sqlite3.connect(db)) as connection:
        stored = [name for (name,) in connection.execute("SELECT metric_name FROM observation_logs")]
    assert len(acknowledged) >= 50
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))


def test_the_process_says_where_it_listens_and_where_the_rows_lie(start_process, db):
    server = start_process()
    assert server.first_line == f"DB manager: listening on {server.address}, database sqlite:///{db}\n"
    server.process.send_signal(signal.SIGTERM)
    code, out, err = server.finish()
    assert (code, out) == (0, "DB manager: stopped by SIGTERM; every answered call is on disk\n")
    assert said(err) == []


def test_a_server_whose_starter_no_longer_reads_stops_as_asked(start_process):
    server = start_process()
    server.process.stdout.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0
    assert said(server.process.stderr.read()) == []
    server.process.stdout = None
