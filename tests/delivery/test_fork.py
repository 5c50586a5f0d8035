"""A reporter after a fork: what gRPC cannot do in a child is done in a fresh interpreter, and a fork waits for calls.

The forks happen in interpreters of their own: this one has gRPC servers and threads in it.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from partners import Fault, ScriptedDBManager

if not hasattr(os, "fork"):
    pytest.skip("no fork here", allow_module_level=True)

DOWN = Fault("UNAVAILABLE", "failed to connect to all addresses")

PROGRAM = """
import itertools, logging, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork beside threads
from katib_callbacks import *
address = sys.argv[1]

def reporter(**options):
    return KatibReporter(address, trial_name="trial", **options)

def fork(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}; pending {getattr(error, 'pending', None)}", flush=True)
            os._exit(1)
        os._exit(0)
    return pid

def ends_well(*pids):
    return all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
"""


@pytest.fixture
def server():
    with ScriptedDBManager() as server:
        yield server


def start(server, code: str, *arguments: object) -> subprocess.Popen[str]:
    program = PROGRAM + textwrap.dedent(code)
    command = [sys.executable, "-c", program, server.address, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(server, code: str, *arguments: object) -> str:
    with start(server, code, *arguments) as process:
        out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out
    return out


def test_children_report_after_their_parent_has_and_so_do_theirs(server):
    run(
        server,
        """
        parent = reporter()
        parent.report({"parent": 0})
        pids = [fork(lambda: parent.report({"child": number})) for number in range(1, 4)]

        def work():
            assert ends_well(fork(lambda: parent.report({"grandchild": 4})))

        pids.append(fork(work))
        parent.report({"parent": 5})
        sys.exit(not ends_well(*pids))
        """,
    )

    assert sorted(int(value) for _, value in server.values()) == [0, 1, 2, 3, 4, 5]


def test_a_child_uses_grpc_itself_where_its_parent_had_not_loaded_it(server):
    run(
        server,
        """
        def work():
            reporter().report({"loss": 1})
            assert "grpc" in sys.modules

        assert "grpc" not in sys.modules
        sys.exit(not ends_well(fork(work)))
        """,
    )

    assert server.values() == [("loss", "1")]


def test_forking_beside_a_thread_that_reports_harms_neither(server):
    out = run(
        server,
        """
        numbers = itertools.count()
        reported = []
        is_over = False

        def keep_reporting():
            while not is_over:
                number = next(numbers)
                reporter().report({"loss": number})
                reported.append(number)

        threads = [threading.Thread(target=keep_reporting) for _ in range(2)]
        for thread in threads:
            thread.start()
        good = 0
        for _ in range(150):
            good += ends_well(fork(lambda: None))
        is_over = True
        for thread in threads:
            thread.join()
        print(good, *sorted(reported))
        """,
    )

    good, *reported = map(int, out.splitlines()[-1].split())
    assert good == 150
    assert sorted(int(value) for _, value in server.values()) == reported == list(range(len(reported)))


def test_calls_that_never_pause_are_neither_cut_short_by_a_fork_nor_made_by_its_child_as_well(server):
    """A child lives on here: one that is forked while a channel connects may send the parent's call itself."""
    out = run(
        server,
        """
        from katib_callbacks.wire import forks
        forks.PATIENCE_S = 10
        numbers = itertools.count()
        reported = []
        is_over = False

        def keep_reporting():
            while not is_over:
                reporter().report({"loss": next(numbers)})
                reported.append(0)

        threads = [threading.Thread(target=keep_reporting) for _ in range(6)]
        for thread in threads:
            thread.start()
        pids = []
        while len(pids) < 10:
            enough = len(reported) + 30
            while len(reported) < enough:
                time.sleep(0.001)
            pids.append(fork(lambda: time.sleep(0.2)))
        is_over = True
        for thread in threads:
            thread.join()
        print(ends_well(*pids), len(reported))
        """,
    )

    is_well, count = out.splitlines()[-1].split()
    assert is_well == "True"
    assert sorted(int(value) for _, value in server.values()) == list(range(int(count)))
    assert set(server.calls) == {"report"}  # none was unclear


def test_a_fork_ends_a_call_that_takes_long_and_its_rows_are_settled(server):
    server.report_faults = [Fault(is_stored=True, hang_s=5)]
    with start(
        server,
        """
        thread = threading.Thread(target=lambda: print(reporter(timeout_s=100).report({"loss": 1}).verified))
        thread.start()
        sys.stdin.readline()
        assert ends_well(fork(lambda: None))
        assert thread.is_alive()  # the server hangs longer than a fork waits
        thread.join()
        """,
    ) as process:
        while not server.calls:
            time.sleep(0.01)
        out, _ = process.communicate("go\n", timeout=200)

    assert out.splitlines()[-1] == "True"
    assert server.calls.count("report") == 1
    assert server.values().count(("loss", "1")) == 1


def test_a_child_says_what_failed_as_any_process_does_and_its_handlers_get_the_log(server):
    server.report_faults = [Fault(is_stored=True), DOWN, Fault("INVALID_ARGUMENT", "no")]
    out = run(
        server,
        """
        import grpc
        from datetime import datetime, timezone
        logging.basicConfig(format="logged by %(name)s at %(levelname)s: %(message)s")
        logs = [MetricLog("loss", number, datetime.now(timezone.utc)) for number in range(2_500)]
        fork(lambda: reporter().report_logs(logs))
        os.wait()
        """,
    )

    assert "logged by katib_callbacks.sinks.katib.calls at WARNING: Delivery to" in out
    assert "RejectedError: 1,500 of 2,500 rows of trial 'trial' did not reach" in out
    assert "MetricsUnavailable for good" in out
    assert "pending 1500" in out


def test_what_lies_in_the_spool_is_deleted_by_the_child_that_delivered_it(server, tmp_path):
    run(
        server,
        """
        import grpc
        sys.exit(not ends_well(fork(lambda: reporter(spool_dir=sys.argv[2]).report({"loss": 1}))))
        """,
        tmp_path,
    )

    assert server.values() == [("loss", "1")]
    assert list(tmp_path.iterdir()) == []


def test_rows_of_an_earlier_attempt_are_cleared_by_the_first_report_of_all(server):
    server.rows = [("trial", "loss", "9", "2026-01-31T12:00:00Z")]
    run(
        server,
        """
        import grpc

        def work():
            with reporter(previous_attempt="clear") as child:
                child.report({"loss": 1})
                child.report({"loss": 2})
            assert ends_well(fork(lambda: reporter(previous_attempt="clear").report({"loss": 3})))

        sys.exit(not ends_well(fork(work)))
        """,
    )

    assert server.values() == [("loss", "1"), ("loss", "2"), ("loss", "3")]


def test_closing_ends_a_childs_report_at_once(server):
    server.report_faults = [Fault(hang_s=30)] * 10
    out = run(
        server,
        """
        import grpc

        def work():
            child = reporter()
            threading.Timer(2, child.close).start()
            child.report({"loss": 1})

        pid = fork(work)
        assert os.waitpid(pid, 0)[1] != 0
        """,
    )

    assert "ReporterClosedError: 1 of 1 rows" in out
    assert "may not have reached" in out


def test_a_budget_that_is_spent_is_said_to_be(server):
    server.report_faults = [DOWN] * 10_000
    out = run(server, 'import grpc; fork(lambda: reporter(timeout_s=3).report({"loss": 1})); os.wait()')

    assert "UnavailableError: 1 of 1 rows of trial 'trial' did not reach" in out
    assert "s has passed" in out


@pytest.mark.parametrize(
    ("executable", "message"),
    [("/bin/false", "ended with status 1"), ("/nowhere/python", "no fresh interpreter can be started: '/nowhere")],
)
def test_an_interpreter_that_does_not_come_up_is_an_error(server, executable, message):
    out = run(
        server,
        """
        import grpc
        sys.executable = sys.argv[2]
        fork(lambda: reporter(timeout_s=20).report({"loss": 1}))
        os.wait()
        """,
        executable,
    )

    assert "UnavailableError" in out
    assert message in out
    assert "pending 1" in out


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_nobody_sends_any_more_when_a_child_was_killed(server):
    server.report_faults = [DOWN] * 10_000
    with start(
        server,
        """
        import grpc
        from katib_callbacks.sinks.katib import fresh_process

        class FreshProcess(fresh_process.FreshProcess):
            def __init__(self, job):
                super().__init__(job)
                print(os.getpid(), self._process.pid, flush=True)

        fresh_process.FreshProcess = FreshProcess
        fork(lambda: reporter().report({"loss": 1}))
        os.wait()
        """,
    ) as process:
        child, interpreter = map(int, process.stdout.readline().split())
        while not server.calls:
            time.sleep(0.01)
        assert is_running(interpreter)
        os.kill(child, signal.SIGKILL)
        while is_running(interpreter):
            time.sleep(0.01)
        process.communicate(timeout=240)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
