"""The file's sink: whole rows, whatever they are called and whoever else writes, is killed or has no room."""

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from http_partners import wait_until
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from katib_callbacks import DeliveryError, KatibReporter, MetricLog, ReporterClosedError, UnavailableError
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import name_problem, parse_timestamp
from katib_callbacks.sinks.file import JsonLinesSink

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
NAMES = st.text(min_size=1, max_size=40).filter(lambda name: name_problem(name) is None)

WRITER = """
import sys
from katib_callbacks import KatibReporter
url, trial, reports, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with KatibReporter(trial_name=trial, sinks=[url]) as reporter:
    for report in range(reports):
        reporter.report({f"metric {report} {row}": row for row in range(rows)})
        print(report, flush=True)
"""


def logs(values):
    return [MetricLog(name, value, NOON + timedelta(microseconds=i)) for i, (name, value) in enumerate(values.items())]


def strict(line):
    return json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def rows_of(path):
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [strict(line) for line in content.decode("ascii").split("\n")[:-1]]


def writer(path, trial, reports, rows, **options):
    command = [sys.executable, "-c", WRITER, f"file://{path}", trial, str(reports), str(rows)]
    return subprocess.Popen(command, text=True, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "on the way" / "rows.jsonl"


@pytest.fixture
def sink(options, path):
    return JsonLinesSink(options(f"file://{path}".replace(" ", "%20")))


# -- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_is_an_object(sink, path):
    outcome = sink.send(
        "digits-1", logs({"val/acc": 0.9, "loss": math.nan, "up": math.inf, "down": -math.inf}), deadline_s=60
    )

    assert outcome.delivered == 4
    assert path.read_text().splitlines()[0] == (
        '{"trial": "digits-1", "name": "val/acc", "value": 0.9, "time": "2026-01-31T12:00:00.000000Z"}'
    )
    assert [row["value"] for row in rows_of(path)] == [0.9, "NaN", "Infinity", "-Infinity"]


@given(st.lists(st.tuples(NAMES, st.floats()), min_size=1, max_size=8), NAMES)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_whatever_a_row_is_called_it_comes_back(sink, path, values, trial):
    path.unlink(missing_ok=True)
    sent = [MetricLog(name, value, NOON + timedelta(microseconds=i)) for i, (name, value) in enumerate(values)]

    sink.send(trial, sent, deadline_s=60)

    back = rows_of(path)
    assert {row["trial"] for row in back} == {trial}
    assert [row["name"] for row in back] == [name for name, _ in values]
    assert [repr(float(row["value"])) for row in back] == [repr(value) for _, value in values]
    assert [parse_timestamp(row["time"]) for row in back] == [log.timestamp for log in sent]


# -- the URL -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("file:rows.jsonl", "absolute path"),
        ("file://rows.jsonl", "absolute path"),
        ("file://elsewhere/rows.jsonl", "absolute path"),
        ("file:", "absolute path"),
        ("file:///rows/", "a folder"),
        ("file:///tmp", "a folder"),
        ("file:///rows.jsonl?mode=w", "to be written %3F"),
        ("file:///rows.jsonl#1", "to be written %3F"),
        ("file:///rows%00.jsonl", "NUL"),
    ],
)
def test_a_url_that_cannot_be_right_is_said_before_the_training(name, problem):
    with pytest.raises(ConfigurationError, match=problem):
        KatibReporter(trial_name="trial", sinks=[name])


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "file:{}"])
@pytest.mark.parametrize(
    ("written", "called"), [("a%2Cb%20%3F%25.jsonl", "a,b ?%.jsonl"), ("ä%C3%A4.jsonl", "ää.jsonl")]
)
def test_a_path_is_decoded(tmp_path, options, form, written, called):
    JsonLinesSink(options(form.format(f"{tmp_path}/{written}"))).send("trial", logs({"loss": 1}), deadline_s=60)

    assert [path.name for path in tmp_path.iterdir()] == [called]


# -- many, killed, without room ------------------------------------------------------------------------------------


def test_many_processes_share_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    processes = [writer(path, f"trial-{number}", 20, 50, stdout=subprocess.DEVNULL) for number in range(6)]
    assert [process.wait(240) for process in processes] == [0] * 6

    rows = rows_of(path)
    assert Counter(row["trial"] for row in rows) == {f"trial-{number}": 1_000 for number in range(6)}
    assert len({(row["trial"], row["name"]) for row in rows}) == 6_000
    runs = [row["trial"] + row["name"].rpartition(" ")[0] for row in rows]
    assert sum(before != after for before, after in zip([None, *runs], [*runs, None], strict=True)) == 121, (
        "reports lie in one piece each"
    )


def test_a_kill_amid_writes_loses_nothing_that_was_confirmed(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    confirmed = {}
    for number in range(6):
        trial = f"trial-{number}"
        with writer(path, trial, 10_000, 2_000, stdout=subprocess.PIPE) as process:
            lines = [process.stdout.readline() for _ in range(1 + number)]
            process.send_signal(signal.SIGKILL)
            confirmed[trial] = lines + process.stdout.readlines()
    survivor = "after"
    with KatibReporter(trial_name=survivor, sinks=[f"file://{path}"]) as reporter:
        reporter.report({"loss": 1})

    seen = Counter((row["trial"], row["name"].split(" ")[1]) for row in rows_of(path) if row["trial"] != survivor)
    for trial, reports in confirmed.items():
        assert len(reports) > int(trial[-1])
        assert [seen[trial, report.strip()] for report in reports if report.endswith("\n")] == [2_000] * len(reports)


@pytest.mark.parametrize("cut", [1, 5, 12, 40, -1])
def test_a_row_that_was_cut_off_is_removed(sink, path, cut, caplog):
    sink.send("trial", logs({"loss": 1}), deadline_s=60)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])

    sink.send("trial", logs({"accuracy": 2}), deadline_s=60)

    assert [row["name"] for row in rows_of(path)] == (
        ["loss", "accuracy"] if cut != -1 else ["loss", "loss", "accuracy"]
    )
    assert ("was cut off" in caplog.text) == (cut != -1), "without its line end a row is whole"


@pytest.mark.parametrize("foreign", ["# a comment", '{"mine": 1}', "[1, 2", "x" * 20_000])
def test_somebody_elses_last_line_is_kept(sink, path, foreign):
    path.parent.mkdir(parents=True)
    path.write_text(foreign)

    sink.send("trial", logs({"loss": 1}), deadline_s=60)

    first, second = path.read_text().splitlines()
    assert first == foreign
    assert strict(second)["name"] == "loss"


def test_a_full_disk_leaves_whole_rows_and_says_so(tmp_path):
    # A limit of the process's own stops a write in its middle, as a full disk does.
    path = tmp_path / "rows.jsonl"
    code = """
import resource, signal, sys
from katib_callbacks import DeliveryError, KatibReporter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with KatibReporter(trial_name="trial", sinks=["file://" + sys.argv[1]]) as reporter:
    reporter.report({"loss": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
    try:
        reporter.report({f"metric {i}": i for i in range(100)})
    except DeliveryError as error:
        print(error, error.pending)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    reporter.report({"accuracy": 2})
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 0, done.stderr
    assert "rows.jsonl cannot be written: File too large" in done.stdout
    assert done.stdout.strip().endswith(" 100")
    assert [row["name"] for row in rows_of(path)] == ["loss", "accuracy"]


def test_a_file_that_cannot_be_written(tmp_path, options):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")

    for name, problem in [("file/rows.jsonl", "Not a directory|File exists"), ("fifo", "not a regular file")]:
        with pytest.raises(DeliveryError, match=problem) as caught:
            JsonLinesSink(options(f"file://{tmp_path}/{name}")).send("trial", logs({"loss": 1}), deadline_s=60)
        assert caught.value.pending == 1


# -- the lock ------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(sink, path):
    path.parent.mkdir(parents=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def test_a_lock_is_waited_for_within_the_budget(sink, path, held):
    with pytest.raises(UnavailableError, match="locked by another process"):
        sink.send("trial", logs({"loss": 1}), deadline_s=0.2)
    sent = threading.Thread(target=sink.send, args=("trial", logs({"loss": 1})), kwargs={"deadline_s": 120})
    sent.start()
    held.close()
    sent.join(120)

    assert [row["name"] for row in rows_of(path)] == ["loss"]


def test_close_ends_the_wait(path, held):
    reporter = KatibReporter(trial_name="trial", sinks=[f"file://{path}".replace(" ", "%20")])
    errors = []

    def report():
        try:
            reporter.report({"loss": 1})
        except (DeliveryError, ReporterClosedError) as error:
            errors.append(error)

    thread = threading.Thread(target=report)
    thread.start()
    reporter.close()
    thread.join(120)

    assert len(errors) == 1
    wait_until(lambda: not thread.is_alive(), "the report goes on")
