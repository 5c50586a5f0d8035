"""``katib-callbacks report``: rows that a DB manager has afterwards, and exit statuses."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time

import grpc
import pytest
from beside import said

from katib_callbacks.cli import main
from katib_callbacks.wire.client import DBManagerStub


@pytest.fixture
def trial(katib_db_manager, monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "shell")
    monkeypatch.setenv("KATIB_DB_MANAGER_ADDRESS", katib_db_manager.address)
    return katib_db_manager


def rows(trial, name="shell"):
    with grpc.insecure_channel(trial.address) as channel:
        return [(row.name, float(row.value)) for row in DBManagerStub(channel).get(name, timeout_s=60)]


def run(*arguments, given="", **environ):
    command = [sys.executable, "-m", "katib_callbacks.cli", "report", *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=240, env={**os.environ, **environ}
    )


def test_what_is_given_is_delivered(trial, capsys):
    assert main(["report", "accuracy=0.9", "val=a=1e-3"]) == 0
    assert rows(trial) == [("accuracy", 0.9), ("val=a", 0.001)]
    assert capsys.readouterr().out == "reported 2 rows\n"


def test_options_come_before_variables(trial, monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "another")
    assert main(["report", "a=1", "--trial", "named", "--address", trial.address, "--timeout", "60"]) == 0
    assert rows(trial, "named") == [("a", 1)]


def test_lines_are_reported_in_order_of_their_times_and_others_are_passed_over(trial):
    lines = "epoch 1\n2026-01-01T00:00:02Z loss=0.5\n2026-01-01T00:00:01Z loss=0.75\nloss = 0.25\nloss=nan\n"
    done = run("--stdin", given=lines)
    assert (done.returncode, done.stdout) == (0, "reported 3 rows\n"), done.stderr
    assert rows(trial) == [("loss", 0.75), ("loss", 0.5), ("loss", 0.25)]


@pytest.mark.parametrize("policy", ["ignore", "warn", "clear"])
def test_rows_of_an_earlier_call_stay_and_are_not_taken_for_an_attempt_that_failed(trial, policy):
    for given in ("a=1", "b=2"):
        done = run(given, KATIB_CALLBACKS_PREVIOUS_ATTEMPT=policy)
        assert (done.returncode, said(done.stderr)) == (0, [])
    assert rows(trial) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("number", "status", "stored"),
    [(signal.SIGTERM, 0, [("loss", 1)]), (signal.SIGINT, 130, [])],
    ids=["SIGTERM", "SIGINT"],
)
def test_sigterm_delivers_what_there_is_and_an_interrupt_nothing(trial, number, status, stored):
    command = [sys.executable, "-m", "katib_callbacks.cli", "report", "--stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write("loss=1\n")
        process.stdin.flush()
        while not _waits_for_more(process):
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(120) == status
    assert rows(trial) == stored


def _waits_for_more(process):
    """Return whether the process has read all of its input, and sleeps: until there is more."""
    unread = int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123
        return not unread and stat.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to report"),
        (["accuracy"], "'accuracy' is not NAME=VALUE"),
        (["=1"], "'=1' is not NAME=VALUE"),
        (["a=nan"], "'a=nan' is not NAME=VALUE with a finite number"),
        (["a=1", "a=2"], "given twice"),
    ],
)
def test_what_cannot_be_reported_is_status_2(trial, arguments, message, capsys):
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert rows(trial) == []


def test_input_without_a_metric_is_status_2(trial):
    done = run("--stdin", given="hello\n")
    assert done.returncode == 2
    assert "no line of standard input" in done.stderr


def test_outside_a_trial_it_is_status_2(katib_db_manager, monkeypatch, capsys):
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    assert main(["report", "a=1", "--address", katib_db_manager.address]) == 2
    assert "trial name" in capsys.readouterr().err


def test_a_delivery_that_fails_is_status_1(trial, capsys):
    with socket.socket() as bound:  # not listened on
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        assert main(["report", "a=1", "--address", address, "--timeout", "0.5"]) == 1
    assert "a=1" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "status"), [("2", 0), ("", 1)])
def test_another_rank_is_fine_only_if_it_is_sure_that_there_are_several(trial, monkeypatch, capsys, size, status):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["report", "a=1"]) == status
    assert "rank 1 (RANK=1)" in capsys.readouterr().err
    assert rows(trial) == []


def test_standard_input_is_utf_8_and_a_line_that_is_not_is_passed_over(trial):
    command = [sys.executable, "-m", "katib_callbacks.cli", "report", "--stdin"]
    given = "größe=1\n".encode() + b"\xff\xfe=2\nStra\xdfe 3\nb=4\n"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=240, env=environ)
    assert (done.returncode, done.stdout) == (0, b"reported 2 rows\n"), done.stderr
    assert rows(trial) == [("größe", 1), ("b", 4)]


def test_a_standard_input_that_is_closed_is_said():
    command = f"{sys.executable} -m katib_callbacks.cli report --stdin <&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert done.stderr.startswith("katib-callbacks: error: --stdin: standard input is closed")
    assert "Traceback" not in done.stderr
