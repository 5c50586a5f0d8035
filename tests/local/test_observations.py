"""A trial's rows: Katib's filter on its output, its reduction, and the log that a DB manager shares."""

import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest
from homes import experiment

from katib_callbacks.db_manager import DBManager
from katib_callbacks.errors import StoreError
from katib_callbacks.local.collectors.observation import objective_text, reduce
from katib_callbacks.local.collectors.stdout import parse_output
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.metrics import MetricLog, StoredMetricLog
from katib_callbacks.wire.client import DBManagerStub

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def found(*lines, metrics=("loss",), filters=()):
    return [(row.name, row.value) for row in parse_output(lines, metrics, filters, NOON)]


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("loss=0.5", [("loss", "0.5")]),
        ("loss = -1.5e-3", [("loss", "-1.5e-3")]),
        ("epoch 3: loss=0.25, accuracy=0.9", [("loss", "0.25")]),
        ("loss=1 loss=2", [("loss", "1"), ("loss", "2")]),
        ("loss=.5", [("loss", ".5")]),
        ("val-loss=1", []),
        ("loss: 0.5", []),
        ("loss=nan", []),
        ("loss=", []),
        ("{metricName: loss, metricValue: 1}", []),
        ("no metric here", []),
    ],
)
def test_lines_are_read_with_katibs_filter(line, rows):
    assert found(line) == rows


def test_other_names_need_to_be_declared():
    assert found("loss=1 val-acc=2 a|b=3 c=4", metrics=("loss", "val-acc", "a|b")) == [
        ("loss", "1"),
        ("val-acc", "2"),
        ("a|b", "3"),
    ]


def test_a_filter_of_ones_own_takes_the_place_of_katibs():
    assert found("loss=1", "loss is 2", filters=[r"(\w+) is (\d+)"]) == [("loss", "2")]


def test_a_line_has_the_time_that_it_begins_with_and_else_now_in_order():
    rows = parse_output(
        ["loss=1", "2026-01-30T08:00:00.5+01:00 loss=2", "loss=3", "yesterday loss=4"], ["loss"], [], NOON
    )

    assert [row.timestamp for row in rows] == [
        NOON,
        datetime(2026, 1, 30, 7, 0, 0, 500_000, tzinfo=timezone.utc),
        NOON + timedelta(microseconds=1),
        NOON + timedelta(microseconds=2),
    ]


def by_time(logs):
    """Return names and values as the log gives them."""
    with tempfile.TemporaryDirectory() as folder, ExperimentStore(Path(folder, "katib.db")) as store:
        store.add_rows("t", logs)
        with store.values("t") as values:
            return list(values)


def rows(*values):
    return [StoredMetricLog("m", value, NOON + timedelta(seconds=second)) for second, value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(0, "2"), (1, "1.0"), (2, "3e0")], ("1.0", "3e0", "3e0")),
        ([(2, "2"), (1, "1")], ("1", "2", "2")),
        ([(1, "2"), (1, "5")], ("2", "5", "5")),
        ([(0, "nan"), (1, "1")], ("nan", "nan", "1")),
        ([(0, "1"), (1, "n/a")], ("1", "1", "n/a")),
        ([], ("unavailable", "unavailable", "unavailable")),
    ],
)
def test_reduction_is_katibs(values, expected):
    (metric,) = reduce(by_time(rows(*values)), ["m"])

    assert (metric["min"], metric["max"], metric["latest"]) == expected


@pytest.mark.parametrize(("strategy", "text"), [("min", "1"), ("max", "3"), ("latest", "2")])
def test_the_objective_follows_its_strategy(strategy, text):
    observation = reduce(by_time(rows((0, "1"), (1, "3"), (2, "2"))), ["m"])

    assert objective_text(observation, "m", strategy) == text


def test_a_store_and_a_db_manager_read_and_write_the_same_rows(tmp_path):
    path = tmp_path / "katib.db"
    written = rows(*((second, str(second)) for second in range(2_500)))
    local = experiment("pass")
    with ExperimentStore(path) as store, DBManager(f"sqlite:///{path}") as db_manager:
        store.add_experiment("one", local, seed=1, folder=tmp_path)
        store.add_trial(trial_row())
        with grpc.insecure_channel(db_manager.address) as channel:
            stub = DBManagerStub(channel)
            stub.report("t", [MetricLog("n", 7, NOON - timedelta(seconds=1))], timeout_s=60)
            store.update_trial("t", rows=written, state="Succeeded")

            assert stub.get("t", timeout_s=60) == store.rows("t")
            assert store.rows("t") == [StoredMetricLog("n", "7", NOON - timedelta(seconds=1)), *written]
            store.delete_experiment("one")
            assert stub.get("t", timeout_s=60) == []


def test_a_db_manager_that_made_the_file_is_read(tmp_path):
    path = tmp_path / "katib.db"
    with DBManager(f"sqlite:///{path}") as db_manager, grpc.insecure_channel(db_manager.address) as channel:
        DBManagerStub(channel).report("t", [MetricLog("n", 7, NOON)], timeout_s=60)
        with ExperimentStore(path) as store:
            assert store.rows("t") == [StoredMetricLog("n", "7", NOON)]


def test_rows_are_written_together_with_what_is_decided_from_them(tmp_path):
    with ExperimentStore(tmp_path / "katib.db") as store:
        store.add_experiment("one", experiment("pass"), seed=1, folder=tmp_path)
        store.add_trial(trial_row())
        with pytest.raises(StoreError, match="no such column"):
            store.update_trial("t", rows=rows((0, "1")), verdict="Succeeded")
        assert store.rows("t") == []


def trial_row():
    return TrialRow("t", "one", 0, {}, {}, 0, None, None, "Running", [], None, [], 0.0, None, None)
