"""Rows of an attempt before: looked for or deleted once, before the first write, and never rows of this process."""

import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import count

import pytest
from partners import NOON, FastClock, Fault, Proxy, ScriptedDBManager, stored_values

from katib_callbacks import DeliveryError, KatibReporter, MetricLog, RejectedError, UnavailableError, process_state
from katib_callbacks.db_manager import DBManager
from katib_callbacks.settings import DEFAULT_RUNTIME

TRIALS = map("attempted-{}".format, count())


@pytest.fixture
def trial(server: ScriptedDBManager) -> str:
    """A trial with two rows of an earlier attempt; each test's own, for what is done is done once per process."""
    trial = next(TRIALS)
    server.rows = [(trial, "loss", "9", "2026-01-31T12:00:00Z"), (trial, "loss", "8", "2026-01-31T13:00:00.5Z")]
    return trial


def reporter_of(server, trial, policy, **options) -> KatibReporter:
    options.setdefault("_runtime", FastClock().runtime)
    return KatibReporter(server.address, trial_name=trial, previous_attempt=policy, **options)


def test_by_default_nothing_is_read_and_everything_is_kept(server, trial):
    KatibReporter(server.address, trial_name=trial).report({"loss": 1})

    assert server.calls == ["report"]
    assert server.values(trial) == [("loss", "9"), ("loss", "8"), ("loss", "1")]


def test_a_warning_counts_the_rows_and_says_when_they_were_written_once(server, trial, caplog):
    with reporter_of(server, trial, "warn") as reporter:
        reporter.report({"loss": 1})
        reporter.report({"loss": 2})

    assert server.calls == ["get", "report", "report"]
    (record,) = caplog.records
    assert "2 rows from 2026-01-31T12:00:00.000000Z to 2026-01-31T13:00:00.500000Z" in record.message
    assert len(server.values(trial)) == 4


def test_a_first_attempt_is_not_warned_of(server, caplog):
    reporter_of(server, next(TRIALS), "warn").report({"loss": 1})

    assert server.calls == ["get", "report"]
    assert caplog.records == []


def test_clearing_deletes_once_and_only_what_was_there_before(server, trial):
    with reporter_of(server, trial, "clear") as reporter:
        reporter.report({"loss": 1})
        reporter.report({"loss": 2})
    reporter_of(server, trial, "clear").report({"loss": 3})

    assert server.calls == ["get", "delete", "report", "report", "report"]
    assert server.values(trial) == [("loss", "1"), ("loss", "2"), ("loss", "3")]


def test_nothing_is_deleted_where_nothing_is(server):
    trial = next(TRIALS)
    reporter_of(server, trial, "clear").report({"loss": 1})

    assert server.calls == ["get", "report"]
    assert server.values(trial) == [("loss", "1")]


def test_rows_that_another_reporter_of_the_process_wrote_are_not_cleared(server, trial):
    KatibReporter(server.address, trial_name=trial).report({"loss": 1})
    reporter_of(server, trial, "clear").report({"loss": 2})

    assert "delete" not in server.calls
    assert len(server.values(trial)) == 4


def test_a_first_report_that_failed_is_not_followed_by_clearing(server, trial):
    server.report_faults = [Fault("UNAVAILABLE", "Socket closed", is_stored=True), Fault("INVALID_ARGUMENT", "no")]
    server.get_faults = [Fault("UNAVAILABLE", "failed to connect to all addresses")] * 10_000
    with reporter_of(server, trial, "clear") as reporter:
        with pytest.raises(DeliveryError):
            reporter.report({"loss": 1})
        server.get_faults.clear()
        server.report_faults.clear()
        reporter.report({"loss": 2})

    assert "delete" not in server.calls
    assert len(server.values(trial)) == 3


@pytest.mark.parametrize("is_carried_out", [True, False])
def test_a_deletion_whose_reply_is_lost_is_looked_after(server, trial, is_carried_out):
    server.delete_faults = [Fault("UNAVAILABLE", "Socket closed", is_stored=is_carried_out)]

    reporter_of(server, trial, "clear").report({"loss": 1})

    assert server.calls.count("delete") == (1 if is_carried_out else 2)
    assert server.values(trial) == [("loss", "1")]


def test_a_deletion_that_is_carried_out_late_does_not_meet_our_rows(trial, server, clock):
    server.delete_faults = [Fault("UNAVAILABLE", "Socket closed", stored_after_s=1.9)]

    reporter_of(server, trial, "clear", _runtime=clock.runtime).report({"loss": 1})
    server.carry_out_everything()

    assert server.values(trial) == [("loss", "1")]


@pytest.mark.parametrize("policy", ["warn", "clear"])
@pytest.mark.parametrize(
    "fault", [Fault("PERMISSION_DENIED", "RBAC: access denied"), Fault("UNKNOWN", "something new")], ids=repr
)
def test_a_look_that_fails_for_good_does_not_cost_the_report(server, trial, caplog, policy, fault):
    server.get_faults = [fault] * 5

    receipt = reporter_of(server, trial, policy).report({"loss": 1})

    assert receipt.delivered == 1
    assert len(server.values(trial)) == 3
    assert "are left" in caplog.text


def test_a_deletion_that_fails_for_good_does_not_cost_the_report(server, trial, caplog):
    server.delete_faults = [Fault("UNKNOWN", "something new")] * 5

    reporter_of(server, trial, "clear").report({"loss": 1})

    assert server.calls.count("delete") == 3
    assert len(server.values(trial)) == 3
    assert "are left" in caplog.text


def test_a_deletion_that_is_refused_while_the_database_takes_no_writes_is_waited_for(server, trial):
    server.delete_faults = [Fault("UNAVAILABLE", "cannot write to the database: database or disk is full")] * 12

    reporter_of(server, trial, "clear").report({"loss": 1})

    assert server.values(trial) == [("loss", "1")]


def test_an_outage_before_the_look_is_waited_out(server, trial):
    server.get_faults = [Fault("UNAVAILABLE", "failed to connect to all addresses")] * 20

    reporter_of(server, trial, "clear").report({"loss": 1})

    assert server.values(trial) == [("loss", "1")]


def test_an_outage_that_outlasts_the_look_leaves_all_rows_pending(server, trial):
    server.get_faults = [Fault("UNAVAILABLE", "failed to connect to all addresses")] * 1_000
    with pytest.raises(UnavailableError, match=r"^1 of 1 rows of trial '.*' did not reach the DB manager") as caught:
        reporter_of(server, trial, "warn").report({"loss": 1})

    assert caught.value.pending == 1
    assert "report" not in server.calls


def test_a_second_thread_waits_until_the_first_has_cleared(server, trial):
    server.delete_faults = [Fault(is_stored=True, hang_s=0.5)]
    with reporter_of(server, trial, "clear", _runtime=DEFAULT_RUNTIME) as reporter, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: reporter.report({"loss": number}), range(8)))

    assert server.calls[:2] == ["get", "delete"]
    assert sorted(value for _, value in server.values(trial)) == sorted(map(str, range(8)))


def test_a_reporter_that_was_used_and_sent_to_another_process_clears_no_more(server, trial, tmp_path):
    with KatibReporter(server.address, trial_name=trial, previous_attempt="clear") as reporter:
        reporter.report({"loss": 1})
        (tmp_path / "reporter").write_bytes(pickle.dumps(reporter))
    code = f"""
import pickle
from pathlib import Path
pickle.loads(Path({str(tmp_path / "reporter")!r}).read_bytes()).report({{"loss": 2}})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)

    assert server.values(trial) == [("loss", "1"), ("loss", "2")]


@pytest.mark.parametrize("is_used", [True, False])
def test_a_reporter_that_was_sent_clears_where_it_was_not_used_before(server, trial, monkeypatch, is_used):
    reporter = KatibReporter(server.address, trial_name=trial, previous_attempt="clear")
    if is_used:
        reporter.report({"loss": 1}, timestamp=NOON.replace(hour=14))  # before the process that it is sent to
    sent = pickle.dumps(reporter)
    monkeypatch.setattr(process_state, "_trials", {})  # as in a process that has done nothing yet

    pickle.loads(sent).report({"loss": 2})  # noqa: S301  our own bytes

    assert server.values(trial) == [("loss", "1"), ("loss", "2")][not is_used :]


def test_a_forked_child_clears_no_more(katib_db_manager):
    code = """
import os
from katib_callbacks import KatibReporter
with KatibReporter(previous_attempt="clear") as reporter:
    reporter.report({"parent": 1})
    pid = os.fork()
    if pid == 0:
        reporter.report({"child": 1})
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
    KatibReporter().report({"before": 1})
    time.sleep(0.1)  # no container is started again sooner; Linux tells a process's start to 10 ms
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)

    assert [log.name for log in katib_db_manager.metrics()] == ["parent", "child"]


def test_our_db_manager_tells_once_of_rows_from_before_this_process(katib_db_manager, monkeypatch, caplog):
    KatibReporter().report_logs([MetricLog("before", 1, NOON)])
    monkeypatch.setattr(process_state, "_trials", {})  # as in a process that has done nothing yet
    caplog.clear()

    now = datetime.now(timezone.utc)
    KatibReporter().report_logs([MetricLog("loss", number, now) for number in range(1_001)])  # in two batches
    KatibReporter().report({"loss": 0})

    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith(
        f"Trial {KatibReporter().trial_name!r} had rows when this process began to report, and Katib"
    )
    assert "set previous_attempt='clear' (KATIB_CALLBACKS_PREVIOUS_ATTEMPT) to have them deleted." in message


def test_a_refused_report_still_counts_as_the_first(server, trial):
    server.report_faults = [Fault("INVALID_ARGUMENT", "no")]
    with reporter_of(server, trial, "clear") as reporter:
        with pytest.raises(RejectedError):
            reporter.report({"loss": 1}, timestamp=NOON)
        reporter.report({"loss": 2})

    assert server.calls.count("delete") == 1
    assert server.values(trial) == [("loss", "2")]


REPORTER = """
import os, sys
from katib_callbacks import KatibReporter
reporter = KatibReporter(sys.argv[1], trial_name="trial")
reporter.report({"loss": 1})
reporter.report({"loss": 2})
if hasattr(os, "fork"):
    pid = os.fork()
    if pid == 0:
        reporter.report({"loss": 3})
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("loses_a_reply", [False, True])
def test_our_db_manager_tells_a_later_process_that_the_trial_had_rows(tmp_path, loses_a_reply):
    with DBManager(f"sqlite:///{tmp_path / 'katib.db'}") as db_manager, Proxy(db_manager.address) as line:

        def run() -> str:
            line.is_swallowing_replies = loses_a_reply
            with subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", REPORTER, line.address], stderr=subprocess.PIPE, text=True
            ) as process:
                before = len(stored_values(db_manager.address))
                while len(stored_values(db_manager.address)) == before:
                    time.sleep(0.01)
                line.heal()
                if loses_a_reply:
                    line.cut()
                return process.communicate(timeout=240)[1]

        first, second = run(), run()

    assert "had rows when this process began" not in first
    assert second.count("Trial 'trial' had rows when this process began to report") == (not loses_a_reply)


SIBLING = """
import sys, time
from katib_callbacks import KatibReporter
import grpc
address, trial, number, delay_s = sys.argv[1:]
with KatibReporter(address, trial_name=trial, previous_attempt="clear", timeout_s=60) as reporter:
    print("ready", flush=True)
    sys.stdin.readline()
    time.sleep(float(delay_s))
    print(reporter.report({"loss": int(number)}).delivered)
"""


@pytest.mark.parametrize("apart_s", [0.0, 0.02, 0.5])
def test_of_eight_living_processes_none_clears_what_another_delivered(server, trial, apart_s):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SIBLING, server.address, trial, str(number), str(number * apart_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outs = [process.communicate(timeout=240) for process in processes]

    assert [out for out, _ in outs] == ["1\n"] * 8
    assert sorted(int(value) for _, value in server.values(trial)) == list(range(8))
    assert all("nothing is deleted" in err for _, err in outs if err)
