"""Group commit by itself: who is written together, who is told what, and which rows are missing."""

import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks import StoreError
from katib_callbacks.db_manager.store import group_commit
from katib_callbacks.db_manager.store.errors import UnstorableError
from katib_callbacks.db_manager.store.group_commit import (
    MAX_GROUP_BATCHES,
    MAX_GROUP_ROWS,
    Batch,
    GroupCommit,
    missing_logs,
)

NOON = "2026-01-31 12:00:00.000000"  # as the table has it


def batch(trial, *values, name="loss"):
    return Batch(trial, [(f"2026-01-31 12:00:00.{value:06}", name, str(value)) for value in values])


class Writer:
    """Keeps the groups that it is given; waits while it is held, and fails as it is told."""

    def __init__(self):
        self.groups = []
        self.is_free = threading.Event()
        self.is_free.set()
        self.is_writing = threading.Event()
        self.failure = lambda group: None

    def __call__(self, group):
        self.is_writing.set()
        assert self.is_free.wait(60)
        self.groups.append(list(group))
        error = self.failure(group)
        if error is not None:
            raise error


@pytest.fixture
def writer():
    return Writer()


@pytest.fixture
def commit(writer):
    commit = GroupCommit(writer, refusals=(UnstorableError,))
    yield commit
    writer.is_free.set()
    commit.close()


def send_while_busy(writer, commit, batches):
    """Queue batches while another one is being written, so that they come together."""
    writer.is_free.clear()
    first = batch("busy", 0)
    commit.submit(first)
    assert writer.is_writing.wait(60)
    for waiting in batches:
        commit.submit(waiting)
    writer.is_free.set()
    first.wait()


def test_what_comes_while_the_last_was_written_is_written_together(writer, commit):
    batches = [batch(f"t{number}", number) for number in range(10)]
    send_while_busy(writer, commit, batches)
    for sent in batches:
        sent.wait()
    assert [len(group) for group in writer.groups] == [1, 10]
    assert writer.groups[1] == batches


def test_a_group_has_its_bounds(writer, commit):
    many = [batch(f"t{number}", number) for number in range(MAX_GROUP_BATCHES + 1)]
    large = [batch(f"large{rows}", *range(rows)) for rows in (MAX_GROUP_ROWS - 2, 1, 1)]
    send_while_busy(writer, commit, [*many, *large])
    for sent in [*many, *large]:
        sent.wait()
    assert [len(group) for group in writer.groups] == [1, MAX_GROUP_BATCHES, 3, 1]


@pytest.mark.parametrize(("coming", "together"), [(3, 4), (50, 1 + 5)])
def test_after_a_group_of_several_the_next_one_waits_while_others_come_but_not_for_long(
    writer, commit, monkeypatch, coming, together
):
    batches = [batch(f"t{number}", number) for number in range(1 + coming)]
    now_s = [0.0]

    def sleep(duration_s):
        now_s[0] += duration_s
        for sent in islice(late, 1):
            commit.submit(sent)

    monkeypatch.setattr(group_commit, "time", SimpleNamespace(monotonic=lambda: now_s[0], sleep=sleep))
    monkeypatch.setattr(group_commit, "QUIET_S", 1.0)
    monkeypatch.setattr(group_commit, "GATHER_S", 5.0)
    late = iter(batches)
    alone = batch("alone", 0)
    commit.submit(alone)
    alone.wait()
    assert now_s == [0.0], "one that reports alone waited"
    writer.is_writing.clear()
    several = [batch("a", 1), batch("b", 1)]
    send_while_busy(writer, commit, several)
    for sent in several:
        sent.wait()
    commit.submit(next(late))
    batches[0].wait()
    assert len(writer.groups[3]) == together


def test_nobody_is_told_before_the_group_is_written(writer, commit):
    writer.is_free.clear()
    sent = batch("t", 1)
    commit.submit(sent)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sent.wait)
        assert writer.is_writing.wait(60)
        assert not waiting.done()
        assert writer.groups == []
        writer.is_free.set()
        waiting.result(timeout=60)
    assert len(writer.groups) == 1


def test_a_refused_batch_is_found_and_the_others_are_written(writer, commit):
    batches = [batch(f"t{number}", number) for number in range(5)]
    writer.failure = lambda group: UnstorableError("no") if batches[2] in group else None
    send_while_busy(writer, commit, batches)
    for number, sent in enumerate(batches):
        if number == 2:
            with pytest.raises(UnstorableError, match="no"):
                sent.wait()
        else:
            sent.wait()
    assert writer.groups[2:] == [[sent] for sent in batches]


def test_a_failure_is_each_callers_own_error_and_the_thread_lives_on(writer, commit):
    batches = [batch(f"t{number}", number) for number in range(3)]
    writer.failure = lambda group: StoreError("away") if len(group) > 1 else None
    send_while_busy(writer, commit, batches)
    errors = []
    for sent in batches:
        with pytest.raises(StoreError, match="away") as caught:
            sent.wait()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    again = batch("t", 1)
    commit.submit(again)
    again.wait()


def test_an_error_that_nobody_foresaw_reaches_the_caller_and_the_thread_lives_on(writer, commit):
    writer.failure = lambda group: RuntimeError("the disk is on fire")
    sent = batch("t", 1)
    commit.submit(sent)
    with pytest.raises(RuntimeError, match="on fire"):
        sent.wait()
    writer.failure = lambda group: None
    again = batch("t", 1)
    commit.submit(again)
    again.wait()


def test_what_is_queued_at_the_end_is_written_and_nothing_comes_after_it(writer, commit):
    writer.is_free.clear()
    batches = [batch(f"t{number}", number) for number in range(5)]
    for sent in batches:
        commit.submit(sent)
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(commit.close)
        writer.is_free.set()
        closing.result(timeout=60)
    for sent in batches:
        sent.wait()
    commit.close()
    with pytest.raises(StoreError, match=r"^the store is closed$"):
        commit.submit(batch("t", 1))


def test_a_process_ends_though_nobody_closed_it():
    program = f"from {group_commit.__name__} import GroupCommit; GroupCommit(print, refusals=())"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


values = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(
    st.lists(st.tuples(st.sampled_from("tu"), values), max_size=5),
    st.lists(st.tuples(st.sampled_from("tu"), st.integers(0, 3)), max_size=6),
)
def test_of_equal_rows_as_many_are_added_as_a_batch_has_more(batches, stored):
    """As if each batch came alone and were compared with what is stored of its trial by then."""
    log = lambda value: (NOON, "loss", str(value))  # noqa: E731
    expected = Counter((trial_name, *log(value)) for trial_name, value in stored)
    added = []
    for trial_name, numbers in batches:
        here = Counter(expected)
        for value in numbers:
            row = (trial_name, *log(value))
            if here[row] > 0:
                here[row] -= 1
            else:
                added.append(row)
                expected[row] += 1
    sent = [Batch(trial_name, [log(value) for value in numbers]) for trial_name, numbers in batches]
    missing = missing_logs(sent, [(trial_name, *log(value)) for trial_name, value in stored])
    assert [(trial_name, *log) for trial_name, logs in missing for log in logs] == added
    assert all(logs for _, logs in missing), "a trial that lacks nothing is not written"
