"""A history is kept below what Katib's controller and UI can read, and what Katib computes of it stays."""

import math
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from katib_callbacks import MetricLog
from katib_callbacks.recording import thinning
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.recording.thinning import readable
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.wire.client import DBManagerStub

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(("names", "epochs"), [(["loss"], 70_000), ([f"metric_{i}" for i in range(10)], 7_000)])
def test_a_long_history_is_read_by_a_client_with_grpcs_default_bound(katib_db_manager, caplog, names, epochs):
    recorder = MetricRecorder(names, report="history")
    recorder.start(framework_rank(is_global_zero=True))
    for epoch in range(epochs):
        recorder.record({name: math.sin(epoch) for name in names}, row=epoch)
    recorder.finish()
    recorder.deliver()

    with grpc.insecure_channel(katib_db_manager.address) as channel:  # 4 MiB, as Katib's controller has it
        rows = DBManagerStub(channel).get(katib_db_manager.trial_name, timeout_s=60)
    values = [math.sin(epoch) for epoch in range(epochs)]
    for name in names:
        stored = [float(row.value) for row in rows if row.name == name]
        assert (stored[:100], stored[-1]) == (values[:100], values[-1])
        assert (min(stored), max(stored)) == (min(values), max(values))
        assert len(stored) > 50_000 / len(names)
    assert [record.levelname for record in caplog.records if "more than Katib's controller" in record.message] == [
        "WARNING"
    ]


def test_a_history_that_can_be_read_is_whole(caplog):
    epochs = [[MetricLog("loss", number, NOON)] for number in range(10_000)]

    assert readable(epochs) == [log for epoch in epochs for log in epoch]
    assert caplog.records == []


@given(st.lists(st.lists(st.sampled_from("ab"), unique=True, max_size=2), min_size=1, max_size=400), st.data())
def test_any_history_is_short_enough_and_keeps_what_katib_computes(shown, data):
    epochs = [
        [MetricLog(name, data.draw(st.integers(0, 50)), NOON + timedelta(seconds=index)) for name in names]
        for index, names in enumerate(shown)
    ]
    rows = [log for epoch in epochs for log in epoch]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thinning, "MAX_ANSWER_BYTES", 5_000)
        patch.setattr(thinning, "FIRST_ROWS", 10)
        kept = readable(epochs)

    assert [row for row in rows if row in kept] == kept
    assert len(kept) * (thinning.ROW_BYTES + 1) <= 5_000
    for name in {row.name for row in rows}:
        before, after = ([row.value for row in logs if row.name == name] for logs in (rows, kept))
        assert (min(before), max(before), before[-1]) == (min(after), max(after), after[-1])


def test_the_middle_is_thinned_evenly():
    epochs = [[MetricLog("loss", number, NOON + timedelta(seconds=number))] for number in range(200_000)]

    kept = [int(log.value) for log in readable(epochs)]
    steps = {later - earlier for earlier, later in pairwise(kept[100:-1])}
    assert steps <= {3, 4}


def test_epochs_without_a_row_take_no_place_from_others(monkeypatch):
    monkeypatch.setattr(thinning, "MAX_ANSWER_BYTES", 40_000)
    rows = [MetricLog("val_acc", number / 10_000, NOON + timedelta(seconds=number)) for number in range(10_000)]
    validated_each_tenth = [[row] if number % 10 == 0 else [] for number, row in enumerate(rows)]

    assert len(readable(validated_each_tenth)) == len(readable([[row] for row in rows])) > 500


def test_what_counts_stays_even_where_it_is_too_much(monkeypatch):
    monkeypatch.setattr(thinning, "MAX_ANSWER_BYTES", 200)
    epochs = [[MetricLog(f"metric_{number}", 0.5, NOON)] for number in range(8)]
    between = [[], *([MetricLog("metric_7", 0.5, NOON)] for _ in range(200))]
    assert readable([*epochs, *between]) == [log for epoch in (*epochs, between[-1]) for log in epoch]
