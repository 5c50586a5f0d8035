"""Timestamps of a trial strictly increase, whatever the clock and the caller say."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partners import NOON

from katib_callbacks import KatibReporter, MetricLog, MetricValueError
from katib_callbacks.reporting.timestamps import put_in_order, start_after
from katib_callbacks.settings import Runtime

TRIALS = map("trial-{}".format, count())
US = timedelta(microseconds=1)


@pytest.fixture
def trial() -> str:
    return next(TRIALS)


def times(trial, *timestamps):
    return [log.timestamp for log in put_in_order(trial, "host:1", [MetricLog("loss", 0, at) for at in timestamps])]


def test_rows_keep_their_times_where_these_increase(trial):
    assert times(trial, NOON, NOON + US) == [NOON, NOON + US]
    assert times(trial, NOON + 5 * US) == [NOON + 5 * US]


def test_rows_of_one_time_follow_at_steps_of_a_microsecond_in_their_order(trial):
    logs = put_in_order(trial, "host:1", [MetricLog(name, 0, NOON) for name in "zaz"])

    assert [(log.name, log.timestamp) for log in logs] == [("z", NOON), ("a", NOON + US), ("z", NOON + 2 * US)]


def test_rows_go_out_in_order_of_time(trial):
    assert times(trial, NOON + timedelta(1), NOON) == [NOON, NOON + timedelta(1)]


def test_a_row_before_an_earlier_reports_last_one_follows_it_and_a_large_move_is_warned_of(trial, caplog):
    times(trial, NOON)

    assert times(trial, NOON - timedelta(hours=1), NOON) == [NOON + US, NOON + 2 * US]
    assert "1:00:00.000001" in caplog.text


def test_a_small_move_is_not_worth_a_warning(trial, caplog):
    times(trial, NOON, NOON)

    assert caplog.records == []


def test_a_clock_that_is_set_back_neither_doubles_nor_reorders(server, trial, caplog):
    clock = iter([NOON, NOON - timedelta(days=1), NOON - timedelta(days=1)])
    with KatibReporter(server.address, trial_name=trial, _runtime=Runtime(now=lambda: next(clock))) as reporter:
        for value in range(3):
            reporter.report({"loss": value})

    assert server.values(trial) == [("loss", "0"), ("loss", "1"), ("loss", "2")]
    assert len({row[3] for row in server.rows}) == 3
    assert "1 day, 0:00:00.000001" in caplog.text


def test_trials_and_db_managers_have_lines_of_their_own(trial):
    times(trial, NOON + timedelta(1))

    assert times(next(TRIALS), NOON) == [NOON]
    assert put_in_order(trial, "host:2", [MetricLog("loss", 0, NOON)])[0].timestamp == NOON


def test_times_begin_after_what_lies_in_the_spool(trial):
    start_after(trial, "host:1", NOON)
    start_after(trial, "host:1", NOON - US)

    assert times(trial, NOON - US) == [NOON + US]


def test_the_end_of_time_is_an_error_and_spoils_nothing(trial):
    end = datetime.max.replace(tzinfo=timezone.utc)
    times(trial, end - US)

    with pytest.raises(MetricValueError, match="no timestamp is later"):
        times(trial, NOON, NOON)
    assert times(trial, NOON) == [end]


@given(st.lists(st.lists(st.integers(-5, 5), max_size=6), max_size=6))
def test_any_reports_have_strictly_increasing_times(reports):
    trial = next(TRIALS)
    seen = [at for report in reports for at in times(trial, *(NOON + offset * US for offset in report))]

    assert all(earlier < later for earlier, later in pairwise(seen))
    assert len(seen) == sum(map(len, reports))


def test_threads_share_one_line(trial):
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: times(trial, *[NOON] * 50), range(40)))

    assert sorted(at for report in reports for at in report) == [NOON + number * US for number in range(2_000)]


def test_a_child_goes_on_after_its_parents_last_row():
    code = """
import os, threading
from datetime import datetime, timedelta, timezone
from katib_callbacks import MetricLog
from katib_callbacks import process_state
from katib_callbacks.reporting import timestamps
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
timestamps.put_in_order("trial", "host:1", [MetricLog("loss", 0, NOON)])
with process_state.locked():  # as another thread may hold it
    pid = os.fork()
    if pid == 0:
        (log,) = timestamps.put_in_order("trial", "host:1", [MetricLog("loss", 0, NOON)])
        os._exit(0 if log.timestamp == NOON + timedelta(microseconds=1) else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
