"""The sink ``stdout``: lines of their own, on whatever stdout is."""

import contextlib
import fcntl
import io
import os
import re
import select
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from katib_callbacks import KatibReporter, MetricLog
from katib_callbacks.errors import DeliveryError, RejectedError
from katib_callbacks.sinks.stdout import StdoutSink

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)

REPORT = """
import sys, os
from katib_callbacks import KatibReporter
from katib_callbacks.errors import DeliveryError
reporter = KatibReporter(trial_name="trial", sinks=["stdout"], timeout_s=1)
def report(**values):
    try:
        reporter.report(values)
    except DeliveryError as error:
        print(type(error).__name__, error, error.pending, file=sys.stderr)
    else:
        print("delivered", file=sys.stderr)
"""

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [\w|-]+=\S+", re.ASCII)


def logs(*values):
    return [MetricLog(name, value, NOON + timedelta(microseconds=i)) for i, (name, value) in enumerate(values)]


def run(code, **options):
    command = [sys.executable, "-c", REPORT + code]
    return subprocess.run(
        command, **{"stdout": subprocess.PIPE, **options}, stderr=subprocess.PIPE, text=True, check=False, timeout=240
    )


@pytest.fixture
def sink(options):
    return StdoutSink(options("stdout"))


# -- lines ---------------------------------------------------------------------------------------------------------


def test_a_line_has_time_name_and_value(sink, capsys):
    outcome = sink.send("trial", logs(("loss", 0.5), ("lr", 1e-7), ("steps", 3)), deadline_s=60)

    assert outcome.delivered == 3
    assert capsys.readouterr().out == (
        "\n2026-01-31T12:00:00.000000Z loss=0.5\n"
        "2026-01-31T12:00:00.000001Z lr=1e-07\n"
        "2026-01-31T12:00:00.000002Z steps=3\n"
    )


def test_names_are_made_safe_and_that_is_said_once(sink, capsys, caplog):
    for _ in range(2):
        sink.send("trial", logs(("val/acc", 1), ("val acc", 2), ("val_acc", 3), ("ok|-1", 4)), deadline_s=60)

    lines = capsys.readouterr().out.split()
    assert lines[1::2] == ["val_acc_2=1", "val_acc_3=2", "val_acc=3", "ok|-1=4"] * 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'val/acc' as 'val_acc_2', 'val acc' as 'val_acc_3'" in record.getMessage()


def test_a_value_that_is_not_finite_is_an_error_and_the_others_are_printed(sink, capsys):
    with pytest.raises(RejectedError, match="'loss' are not finite") as caught:
        sink.send("trial", logs(("loss", float("nan")), ("accuracy", 1)), deadline_s=60)

    assert caught.value.pending == 1
    assert capsys.readouterr().out == "\n2026-01-31T12:00:00.000001Z accuracy=1\n"


# -- what stdout is ------------------------------------------------------------------------------------------------


def test_a_progress_bar_that_is_not_finished_spoils_no_line():
    done = run(
        "print('Epoch 1: 50% loss=3', end='\\r'); report(loss=1); "
        "print('Epoch 2', end=''); report(loss=2); print('end')"
    )

    lines = done.stdout.split("\n")
    assert [LINE.fullmatch(line) is not None for line in lines] == [False, True, False, True, False, False]
    assert lines[4] == "end"


def test_lines_keep_their_place_among_others_though_they_wait_in_a_buffer():
    done = run("print('before'); report(loss=1); print('after')")

    assert [line.rpartition("Z ")[2] for line in done.stdout.split("\n") if line] == ["before", "loss=1", "after"]


def test_many_rows_arrive_whole_through_a_pipe():
    done = run("report(**{f'metric-{i}': i for i in range(20_000)})")

    lines = [line for line in done.stdout.split("\n") if line]
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line.partition(" ")[2] for line in lines] == [f"metric-{i}={i}" for i in range(20_000)]


def test_what_stands_in_the_place_of_stdout_gets_the_lines(sink):
    with contextlib.redirect_stdout(io.StringIO()) as instead:
        sink.send("trial", logs(("loss", 1)), deadline_s=60)

    assert instead.getvalue() == "\n2026-01-31T12:00:00.000000Z loss=1\n"


def test_something_closed_in_its_place_gets_none(capfd):
    done = run("import io; sys.stdout = io.StringIO(); sys.stdout.close(); report(loss=1)")

    assert LINE.fullmatch(done.stdout.strip())
    assert done.stderr == "delivered\n"


@pytest.mark.parametrize("code", ["sys.stdout.close()", "sys.stdout = sys.__stdout__ = None"])
def test_no_stdout_at_all(code):
    done = run(f"{code}; report(loss=1)")

    assert done.returncode == 0
    assert done.stderr.startswith("DeliveryError stdout is closed")


def test_a_broken_pipe_is_an_error_and_does_not_spoil_the_exit_status():
    ours, theirs = os.pipe()
    os.close(ours)
    done = run("report(loss=1)", stdout=theirs)
    os.close(theirs)

    assert done.stderr.startswith("DeliveryError stdout: [Errno 32] Broken pipe")
    assert done.returncode == 0


def test_a_full_device_is_an_error():
    with open("/dev/full", "w") as full:  # noqa: PTH123  a device
        done = run("report(loss=1)", stdout=full)

    assert done.stderr.startswith("DeliveryError stdout: [Errno 28] No space left on device")
    assert done.returncode == 0


def test_a_broken_stdout_has_taken_no_row_that_it_could_not_have_taken():
    with open("/dev/full", "w") as full:  # noqa: PTH123  a device
        code = """
from datetime import datetime, timezone
from katib_callbacks import MetricLog
values = [1.0, float("nan"), 2.0, float("inf")]
logs = [MetricLog("loss", value, datetime.now(timezone.utc)) for value in values]
try:
    reporter.report_logs(logs)
except DeliveryError as error:
    print(type(error).__name__, error.pending, file=sys.stderr)
"""
        done = run(code, stdout=full)

    assert done.stderr == "DeliveryError 4\n"


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK], ids=["blocking", "non-blocking"])
def test_a_pipe_that_nobody_reads_is_given_up_at_the_end_of_the_budget(flags):
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETFL, fcntl.fcntl(theirs, fcntl.F_GETFL) | flags)
    done = run("report(**{f'metric-{i}': i for i in range(20_000)})", stdout=theirs)
    os.close(theirs)
    os.close(ours)

    assert done.stderr.startswith("UnavailableError stdout: nobody reads what is printed")
    assert 0 < int(done.stderr.split()[-1]) < 20_000
    assert done.returncode == 0


def test_what_the_training_has_printed_before_waits_no_longer_for_a_reader():
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, b"x" * select.PIPE_BUF)
    os.set_blocking(theirs, True)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    # Its own end would wait for the reader, too.
    code = "sys.stdout.write('epoch 1'); report(loss=1); sys.stderr.flush(); os._exit(0)"
    done = run(code, stdout=theirs, env=buffered)
    os.close(theirs)
    os.close(ours)

    assert done.stderr.startswith("UnavailableError stdout: nobody reads what is printed")


def test_a_report_to_a_closed_stdout_says_where_the_rows_are(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "__stdout__", None)

    reporter = KatibReporter(trial_name="trial", sinks=["stdout"])
    with reporter, pytest.raises(DeliveryError, match=r"stdout is closed.*loss=1"):
        reporter.report({"loss": 1})
