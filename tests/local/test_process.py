"""A trial's processes: what they get, how they end, and what they leave."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from katib_callbacks.local.trials.orphans import end_orphans
from katib_callbacks.local.trials.process import RunningTrial, last_line, worker_log
from katib_callbacks.local.trials.template import ProcessPlan, TrialPlan
from katib_callbacks.settings import LOCAL_ATTEMPT

OWN = {"KATIB_TRIAL_NAME": "t", LOCAL_ATTEMPT: f"mark-{os.getpid()}"}  # another suite's trials are not this one's

# Starts a child in the same group, writes down its number, and waits.
PARENT = """
import subprocess, sys, pathlib, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; {ignore} time.sleep(600)"])
pathlib.Path("child").write_text(str(child.pid))
{then}
"""


def start(folder, *codes, deadline_s=None, environ=None):
    processes = tuple(ProcessPlan((sys.executable, "-c", code), environ or {}, None) for code in codes)
    return RunningTrial(TrialPlan(processes, deadline_s), own=OWN, folder=folder, log=folder / "t.log")


def finish(trial):
    """Do what the controller does, until the trial is over."""
    while not trial.is_over:
        timeout_s = 1.0 if trial.wake_at_s is None else max(0.0, min(1.0, trial.wake_at_s - time.monotonic()))
        for descriptor in select.select(trial.descriptors, [], [], timeout_s)[0]:
            trial.ended(descriptor)
        trial.tick()


def child_of(folder):
    """Return the number of the process that ``PARENT`` has started, as soon as it is written."""
    path = folder / "child"
    while not (path.exists() and path.read_text()):
        time.sleep(0.01)
    return int(path.read_text())


def is_alive(pid):
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid):
    while is_alive(pid):
        time.sleep(0.01)


def test_output_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("PET_NODE_RANK", "5")
    monkeypatch.setenv("MINE", "kept")
    code = """
import os, sys
print(*(os.environ.get(name) for name in ("RANK", "PET_NODE_RANK", "MINE", "X", "KATIB_TRIAL_NAME")))
print("to stderr", file=sys.stderr)
"""
    trial = start(tmp_path, code, environ={"X": "1"})
    finish(trial)

    assert trial.failure() is None
    assert trial.log.read_text() in {"None None kept 1 t\nto stderr\n", "to stderr\nNone None kept 1 t\n"}


def test_python_is_the_runners_own(tmp_path):
    plan = TrialPlan((ProcessPlan(("python", "-c", "import sys; print(sys.prefix)"), {}, None),), None)
    trial = RunningTrial(plan, own=OWN, folder=tmp_path, log=tmp_path / "t.log")
    finish(trial)

    assert trial.log.read_text().strip() == sys.prefix


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(3)", "exit status 3"),
        ("raise ValueError('no such layer')", "exit status 1; last output: ValueError: no such layer"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    ],
)
def test_a_failure_says_how_it_ended(tmp_path, code, message):
    trial = start(tmp_path, code)
    finish(trial)

    assert trial.failure() == ("BackoffLimitExceeded", message)


def test_a_command_that_is_not_there_raises(tmp_path):
    processes = (
        ProcessPlan((sys.executable, "-c", "import time; time.sleep(600)"), {}, None),
        ProcessPlan(("no-such-command",), {}, None),
    )
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        RunningTrial(TrialPlan(processes, None), own=OWN, folder=tmp_path, log=tmp_path / "t.log")


@pytest.mark.parametrize("ignore", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN);"])
def test_the_deadline_ends_the_whole_group(tmp_path, monkeypatch, ignore):
    monkeypatch.setattr("katib_callbacks.local.trials.process.TERMINATION_GRACE_S", 0.2)
    then = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)" if ignore else "time.sleep(600)"
    )
    trial = start(tmp_path, PARENT.format(ignore=ignore, then=then), deadline_s=1.0)
    child = child_of(tmp_path)
    finish(trial)

    assert trial.failure() == ("DeadlineExceeded", "Job was active longer than specified deadline")
    wait_until_gone(child)


def test_what_a_trial_leaves_running_ends_with_it(tmp_path):
    trial = start(tmp_path, PARENT.format(ignore="", then=""))
    finish(trial)

    assert trial.failure() is None
    wait_until_gone(child_of(tmp_path))


def test_one_worker_that_fails_ends_all(tmp_path):
    trial = start(tmp_path, "import time; time.sleep(600)", "import sys; print('worker'); sys.exit('out of memory')")
    finish(trial)

    assert trial.failure() == ("BackoffLimitExceeded", "exit status 1; last output: out of memory")
    assert worker_log(trial.log, 1).read_text().startswith("worker")


def test_the_primary_processs_success_is_the_trials(tmp_path, monkeypatch):
    monkeypatch.setattr("katib_callbacks.local.trials.process.WORKER_GRACE_S", 0.2)
    trial = start(tmp_path, "pass", "import time; time.sleep(600)")
    finish(trial)

    assert trial.failure() is None


def test_the_last_line_of_an_endless_log_is_found(tmp_path):
    log = tmp_path / "t.log"
    log.write_bytes(b"x" * 100_000 + b"\nlast \xff words\n\n \n")

    assert last_line(log) == "last \ufffd words"
    assert last_line(tmp_path / "none") == ""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows other processes' environments")
def test_orphans_are_found_by_their_mark_even_out_of_their_group(tmp_path):
    environ = {**os.environ, LOCAL_ATTEMPT: f"orphaned-{os.getpid()}"}
    sleep = "import time; time.sleep(600)"
    then = f"subprocess.Popen([sys.executable, '-c', '{sleep}'], start_new_session=True); time.sleep(600)"
    command = [sys.executable, "-c", PARENT.format(ignore="", then=then)]
    with subprocess.Popen(command, env=environ, cwd=tmp_path) as orphan:
        child = child_of(tmp_path)
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        try:
            assert end_orphans(["another", f"orphaned-{os.getpid()}"]) >= 2
            assert orphan.wait() == -signal.SIGKILL
            wait_until_gone(child)
            assert end_orphans([f"orphaned-{os.getpid()}"]) == 0
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()
