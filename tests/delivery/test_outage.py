"""A DB manager that really dies and comes back on its database file, and a line that really breaks."""

import contextlib
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from partners import NOON, DBManagerProcess, Proxy, stored_values

from katib_callbacks import KatibReporter, MetricLog, UnavailableError
from katib_callbacks.db_manager import DBManager


@pytest.fixture
def process(tmp_path):
    with DBManagerProcess(tmp_path / "katib.db") as process:
        yield process


@pytest.fixture
def line(tmp_path):
    with DBManager(f"sqlite:///{tmp_path / 'katib.db'}", keep_duplicates=True) as server, Proxy(server.address) as line:
        line.server_address = server.address
        yield line


def test_rows_are_delivered_when_the_db_manager_is_back(process):
    process.kill()
    with KatibReporter(process.address, trial_name="trial", timeout_s=240) as reporter, ThreadPoolExecutor(1) as pool:
        report = pool.submit(reporter.report, {"loss": 0.5})
        time.sleep(3)
        assert not report.done()
        process.start()
        receipt = report.result(240)

    assert receipt.attempts > 2
    assert stored_values(process.address) == [("loss", "0.5")]


def test_a_database_that_takes_no_writes_for_a_minute_gets_its_row_when_it_does(tmp_path, clock):
    with DBManager(f"sqlite:///{tmp_path / 'katib.db'}") as server, ThreadPoolExecutor(1) as pool:
        change(tmp_path, "CREATE TRIGGER full BEFORE INSERT ON observation_logs BEGIN SELECT RAISE(FAIL, 'full'); END")
        start_s = clock.now_s()
        with KatibReporter(server.address, trial_name="trial", _runtime=clock.runtime) as reporter:
            report = pool.submit(reporter.report, {"loss": 0.5})
            while clock.now_s() - start_s < 60:
                assert not report.done()
                time.sleep(0.001)
            change(tmp_path, "DROP TRIGGER full")
            receipt = report.result(240)

        assert receipt.attempts > 5
        assert stored_values(server.address) == [("loss", "0.5")]


def change(folder, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "katib.db", timeout=60, isolation_level=None)) as database:
        database.execute(statement)


def test_deaths_in_the_middle_of_deliveries_lose_and_double_nothing(process):
    numbers = iter(range(1_000_000))
    is_over = threading.Event()
    delivered: list[int] = []

    def keep_reporting(reporter: KatibReporter) -> None:
        while not is_over.is_set():
            number = next(numbers)
            reporter.report({"loss": number})
            delivered.append(number)

    with KatibReporter(process.address, trial_name="trial", timeout_s=240) as reporter, ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(keep_reporting, reporter) for _ in range(4)]
        for deaths in range(3):
            while len(delivered) < 5 * (deaths + 1) and not any(worker.done() for worker in workers):
                time.sleep(0.01)
            process.kill()
            time.sleep(0.2)
            process.start()
        is_over.set()
        for worker in workers:
            worker.result(240)

    assert sorted(int(value) for _, value in stored_values(process.address)) == sorted(delivered)


def test_a_history_survives_a_death_in_its_middle(process):
    logs = [MetricLog("loss", number, NOON) for number in range(20_000)]
    with KatibReporter(process.address, trial_name="trial", timeout_s=240) as reporter, ThreadPoolExecutor(1) as pool:
        report = pool.submit(reporter.report_logs, logs)
        while not stored_values(process.address):
            time.sleep(0.01)
        process.kill()
        process.start()
        receipt = report.result(240)

    assert receipt.delivered == 20_000
    assert [int(value) for _, value in stored_values(process.address)] == list(range(20_000))


def test_a_reply_that_never_arrives_is_settled_over_another_connection(line):
    line.is_swallowing_replies = True
    with KatibReporter(line.address, trial_name="trial", timeout_s=240) as reporter, ThreadPoolExecutor(1) as pool:
        report = pool.submit(reporter.report, {"loss": 0.5})
        while not stored_values(line.server_address):
            time.sleep(0.01)
        line.heal()
        line.cut()
        receipt = report.result(240)

    assert receipt.verified
    assert stored_values(line.server_address) == [("loss", "0.5")]


def test_a_line_that_breaks_within_the_request_is_tried_again(line):
    line.cut_after_request_bytes = 300
    logs = [MetricLog("loss", number, NOON) for number in range(500)]
    with KatibReporter(line.address, trial_name="trial", timeout_s=240) as reporter, ThreadPoolExecutor(1) as pool:
        report = pool.submit(reporter.report_logs, logs)
        time.sleep(0.5)
        line.heal()
        report.result(240)

    assert [int(value) for _, value in stored_values(line.server_address)] == list(range(500))


@pytest.mark.parametrize("fault", ["delay_s", "bytes_per_s"])
def test_a_slow_line_is_no_failure(line, fault):
    setattr(line, fault, {"delay_s": 0.1, "bytes_per_s": 4_000}[fault])
    with KatibReporter(line.address, trial_name="trial", timeout_s=240) as reporter:
        receipt = reporter.report({"loss": 0.5})

    assert receipt.attempts == 1
    assert stored_values(line.server_address) == [("loss", "0.5")]


def test_a_line_that_resets_every_connection_ends_with_the_budget(line):
    line.is_refusing = True
    reporter = KatibReporter(line.address, trial_name="trial", timeout_s=1)

    with pytest.raises(UnavailableError, match=r"the deadline of [\d.]+ s has passed"):
        reporter.report({"loss": 0.5})

    assert stored_values(line.server_address) == []


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 400, b""], ids=["HTTP/1", "NULs", "nothing"]
)
def test_a_server_of_another_kind_ends_with_the_budget_and_is_described(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    with line:
                        line.sendall(answer)

        pool.submit(serve)
        reporter = KatibReporter(f"127.0.0.1:{listener.getsockname()[1]}", trial_name="trial", timeout_s=2)
        with pytest.raises(UnavailableError, match="1 of 1 rows") as caught:
            reporter.report({"loss": 0.5})
        listener.shutdown(socket.SHUT_RDWR)

    assert "loss=0.5" in str(caught.value)
    assert "UNAVAILABLE" in str(caught.value)
