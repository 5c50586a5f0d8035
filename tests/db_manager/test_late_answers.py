"""Reports wait for the disk without a thread each; the thread that wrote them answers."""

import logging
import threading
import time

import grpc
import pytest
from http2 import DATA, END_HEADERS, END_STREAM, HEADERS, connect, frame, request_headers

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.service import late_answers
from katib_callbacks.db_manager.store.group_commit import GroupCommit
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

REPORTS = 40


class Disk:
    """Keeps the writer waiting while it is held."""

    def __init__(self, monkeypatch):
        self.is_free = threading.Event()
        self.queued = []
        submit, finish = GroupCommit.submit, GroupCommit._finish
        monkeypatch.setattr(GroupCommit, "submit", lambda commit, batch: (submit(commit, batch), self.queued.append(1)))
        monkeypatch.setattr(
            GroupCommit, "_finish", lambda commit, group: (self.is_free.wait(300), finish(commit, group))
        )

    def wait_for(self, count):
        give_up_at_s = time.monotonic() + 120
        while len(self.queued) < count:
            assert time.monotonic() < give_up_at_s
            time.sleep(0.001)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(monkeypatch)
    yield disk
    disk.is_free.set()


def request(trial):
    message = messages.ReportObservationLogRequest(trial_name=trial)
    log = message.observation_log.metric_logs.add(time_stamp="2026-01-31T12:00:00.000001Z")
    log.metric.name, log.metric.value = "loss", "1"
    return message.SerializeToString()


def handlers():
    return sum(thread.name.startswith("katib-callbacks-db-manager_") for thread in threading.enumerate())


@pytest.mark.parametrize("is_known", [True, False])
def test_reports_that_wait_for_the_disk_keep_no_thread_where_grpc_can_do_that(db, disk, monkeypatch, is_known):
    monkeypatch.setattr(late_answers, "IS_KNOWN", is_known and late_answers.IS_KNOWN)
    with DBManager(f"sqlite:///{db}") as server, grpc.insecure_channel(server.address) as channel:
        report = channel.unary_unary(methods.REPORT_OBSERVATION_LOG)
        calls = []
        for number in range(REPORTS):
            calls.append(report.future(request(f"t{number}"), timeout=300))
            disk.wait_for(number + 1)
        assert (handlers() < REPORTS / 2) is is_known
        assert not any(call.done() for call in calls)
        disk.is_free.set()
        assert [call.result() for call in calls] == [b""] * REPORTS
        assert [len(DBManagerStub(channel).get(f"t{number}", timeout_s=60)) for number in range(REPORTS)] == [
            1
        ] * REPORTS


def test_a_client_that_takes_no_answer_keeps_nobody_waiting(db, disk):
    with DBManager(f"sqlite:///{db}") as server, grpc.insecure_channel(server.address) as channel:
        settings = b"\x00\x04" + bytes(4)  # SETTINGS_INITIAL_WINDOW_SIZE: not one byte of a reply
        with connect(server.address, settings) as connection:
            data = request("t")
            message = b"\x00" + len(data).to_bytes(4, "big") + data
            for number in range(REPORTS):
                connection.sendall(
                    frame(HEADERS, END_HEADERS, 2 * number + 1, request_headers(methods.REPORT_OBSERVATION_LOG))
                    + frame(DATA, END_STREAM, 2 * number + 1, message)
                )
            disk.wait_for(REPORTS)
            disk.is_free.set()
            report = channel.unary_unary(methods.REPORT_OBSERVATION_LOG)
            for number in range(3):
                assert report(request(f"other{number}"), timeout=60) == b""


def test_a_report_whose_client_gave_up_is_stored_and_the_next_one_answered(db, disk):
    with DBManager(f"sqlite:///{db}") as server, grpc.insecure_channel(server.address) as channel:
        report = channel.unary_unary(methods.REPORT_OBSERVATION_LOG)
        call = report.future(request("gone"), timeout=300)
        disk.wait_for(1)
        call.cancel()
        disk.is_free.set()
        assert report(request("t"), timeout=60) == b""
        assert len(DBManagerStub(channel).get("gone", timeout_s=60)) == 1


def test_an_answer_that_grpc_refuses_does_not_end_the_writer(db, monkeypatch, caplog):
    def refuse(*_):
        raise ValueError("no such call")

    with DBManager(f"sqlite:///{db}") as server, grpc.insecure_channel(server.address) as channel:
        report = channel.unary_unary(methods.REPORT_OBSERVATION_LOG)
        with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL):
            patch.setattr(late_answers, "_send", refuse)
            with pytest.raises(grpc.RpcError):
                report(request("t"), timeout=3)
        assert report(request("t"), timeout=60) == b""
