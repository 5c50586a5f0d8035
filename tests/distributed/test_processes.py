"""The runner itself: whatever hangs is shown and killed, wherever it has gone."""

import sys
import time

import pytest
from processes import Processes

LEAVES_A_CHILD = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""
HANGS = """
import time
def waits_for_nobody():
    print("ready", flush=True)
    time.sleep(600)
waits_for_nobody()
"""


@pytest.fixture
def processes(tmp_path):
    started = Processes(tmp_path, {}, limit_s=100)
    yield started
    started.close()


def test_a_child_in_a_session_of_its_own_does_not_outlive_the_test(processes):
    parent = processes.start("parent", sys.executable, "-c", LEAVES_A_CHILD)
    processes.until(lambda: parent.popen.poll() is not None, "the parent to end")
    assert len(list(processes._living())) == 1

    processes.close()

    assert list(processes._living()) == []


def test_a_child_that_goes_on_is_waited_for(processes):
    parent = processes.start("parent", sys.executable, "-c", LEAVES_A_CHILD)
    processes.until(lambda: parent.popen.poll() is not None, "the parent to end")
    processes._end = time.monotonic()

    with pytest.raises(pytest.fail.Exception, match="waited for the children of processes that have ended"):
        processes.wait()


def test_what_hangs_at_the_limit_shows_its_log_and_where_it_hangs(processes):
    process = processes.start("hanging", sys.executable, "-c", HANGS)
    processes.until(lambda: "ready" in process.output(), "its first word")
    processes._end = time.monotonic()

    with pytest.raises(pytest.fail.Exception, match=r"(?s)until the limit.*== hanging.*ready.*in waits_for_nobody"):
        processes.wait()


@pytest.fixture
def launched(monkeypatch):
    """Let this process look as if a launcher had started it."""
    for variable in ("RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.setenv(variable, "1")


def test_a_launchers_variables_do_not_get_through(launched, processes):
    process = processes.start("child", sys.executable, "-c", "import os; print(sorted(os.environ))", LOCAL_RANK="0")
    processes.wait()

    assert "'LOCAL_RANK'" in process.output()
    assert "'RANK'" not in process.output()
    assert "OMPI_COMM" not in process.output()
