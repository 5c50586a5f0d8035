"""What is stored and how it comes back, over gRPC."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.service import replies
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore
from katib_callbacks.metrics import MetricLog, StoredMetricLog

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
T0, T1, T2 = (f"2026-01-31T12:00:00.00000{digit}Z" for digit in "123")

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255)
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)
times = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001  hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001  as above
    timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=-9, minutes=-30))]),
)


def test_rows_come_ordered_by_time_and_then_by_arrival(raw):
    raw.report("t", (T2, "loss", "late"), (T1, "loss", "first of two"))
    raw.report("t", (T0, "loss", "early"), (T1, "loss", "second of two"))
    assert [value for _, _, value in raw.get("t")] == ["early", "first of two", "second of two", "late"]


def test_times_keep_their_microseconds_and_nanoseconds_are_cut(raw):
    raw.report("t", ("2026-01-31T12:00:00.123456Z", "a", "1"), ("2026-01-31T12:00:00.123457999Z", "b", "1"))
    assert [time for time, _, _ in raw.get("t")] == ["2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123457Z"]


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.000000Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.120000Z", "2026-01-31T12:00:00.12Z"),
        ("2026-01-31T12:00:00.000001Z", "2026-01-31T12:00:00.000001Z"),
        ("2026-01-31T12:00:10Z", "2026-01-31T12:00:10Z"),
        ("2026-01-31T14:30:00.5+02:30", "2026-01-31T12:00:00.5Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_come_back_as_go_prints_them(raw, sent, returned):
    raw.report("t", (sent, "a", "1"))
    assert raw.get("t") == [(returned, "a", "1")]


def test_a_servers_own_time_zone_changes_no_time(raw, monkeypatch):
    try:
        with monkeypatch.context() as zone:
            zone.setenv("TZ", "IST-5:30")
            time.tzset()
            raw.report("t", (T0, "a", "0"), (T1, "a", "1"))
            assert raw.get("t", start_time=T1) == [(T1, "a", "1")]
    finally:
        time.tzset()
    assert raw.get("t", end_time=T0) == [(T0, "a", "0")]


def test_start_and_end_are_inclusive(raw):
    raw.report("t", (T0, "a", "0"), (T1, "a", "1"), (T2, "a", "2"))
    assert [value for _, _, value in raw.get("t", start_time=T1)] == ["1", "2"]
    assert [value for _, _, value in raw.get("t", end_time=T1)] == ["0", "1"]
    assert [value for _, _, value in raw.get("t", start_time=T1, end_time=T1)] == ["1"]
    assert raw.get("t", start_time=T2, end_time=T0) == []


def test_bounds_are_read_with_their_offset(raw):
    raw.report("t", (T0, "a", "0"), (T1, "a", "1"))
    assert [value for _, _, value in raw.get("t", start_time="2026-01-31T14:00:00.000002+02:00")] == ["1"]


def test_names_are_compared_exactly(raw):
    others = ["Loss", "löss", "loss ", "los%", "los_", "lo\u0308ss"]
    raw.report("t", *((T0, name, name) for name in ["loss", *others]))
    for name in ["loss", *others]:
        assert [value for _, _, value in raw.get("t", metric_name=name)] == [name]
    raw.report("T", (T0, "loss", "another trial"))
    assert [value for _, _, value in raw.get("T")] == ["another trial"]


def test_a_first_report_is_told_of_rows_from_before_its_own_and_of_no_others(stub, make_logs):
    stub.report("other", [MetricLog("loss", 1, NOON - timedelta(seconds=1))], timeout_s=60)
    both = make_logs(1, 2)
    assert not stub.report_first("t", both, timeout_s=60)
    assert not stub.report_first("t", both[:1], timeout_s=60)
    assert stub.report_first("t", both[1:], timeout_s=60)


def test_an_unknown_trial_has_no_rows(raw):
    assert raw.get("nobody") == []


def test_deleting_takes_one_trials_rows_alone(stub, make_logs):
    stub.report("t", make_logs(1, 2), timeout_s=60)
    stub.report("other", make_logs(3), timeout_s=60)
    stub.delete("t", timeout_s=60)
    stub.delete("nobody", timeout_s=60)
    assert stub.get("t", timeout_s=60) == []
    assert [log.value for log in stub.get("other", timeout_s=60)] == ["3"]


def test_ids_tell_the_order_of_arrival_even_after_a_deletion(stub, db, make_logs):
    stub.report("t", make_logs(1, 2), timeout_s=60)
    stub.delete("t", timeout_s=60)
    stub.report("t", make_logs(3), timeout_s=60)
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("SELECT id, value FROM observation_logs").fetchall() == [(3, "3")]


def test_a_batch_that_comes_again_whole_or_in_part_is_stored_once(raw):
    batch = [(T0, "a", "0"), (T1, "a", "1"), (T1, "b", "1"), (T2, "a", "0")]
    raw.report("t", *batch[:2])
    for _ in range(2):
        raw.report("t", *batch)
    raw.report("t", *batch[1:])
    assert raw.get("t") == batch
    raw.report("other", *batch)
    assert raw.get("other") == batch


def test_one_time_in_three_writings_is_one_row(raw):
    for time_ in ("2026-01-31T12:00:00.000000Z", "2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00Z"):
        raw.report("t", (time_, "loss", "1"))
    assert raw.get("t") == [("2026-01-31T12:00:00Z", "loss", "1")]


def test_katibs_way_stores_a_batch_as_often_as_it_comes(database_url, open_raw):
    with DBManager(database_url, keep_duplicates=True) as server:
        raw = open_raw(server)
        for _ in range(2):
            raw.report("t", (T0, "a", "0"), (T1, "a", "1"))
        assert [value for _, _, value in raw.get("t")] == ["0", "0", "1", "1"]


def test_equal_rows_of_one_batch_are_all_stored_and_not_again(raw):
    """Katib's StdOut collector gives the time 0001-01-01 to every line without one."""
    row, other = ("0001-01-01T00:00:00Z", "loss", "0.5"), ("0001-01-01T00:00:00Z", "loss", "0.25")
    raw.report("t", row, row, other)
    raw.report("t", other, row, row)
    raw.report("t", row)
    assert sorted(raw.get("t")) == [other, row, row]
    raw.report("t", row, row, row)
    assert sorted(raw.get("t")) == [other, row, row, row]


def test_rows_that_differ_in_one_field_alone_are_different(raw):
    rows = [(T0, "loss", "1"), (T1, "loss", "1"), (T0, "Loss", "1"), (T0, "löss", "1"), (T0, "loss ", "1")]
    rows += [(T0, "loss", "1.0"), (T0, "loss", "1 "), (T0, "loss", "")]
    for row in rows:
        raw.report("t", row)
    for row in rows:
        raw.report("t", row)
    assert sorted(raw.get("t")) == sorted(rows)
    raw.report("T", rows[0])
    assert raw.get("T") == rows[:1]


def test_a_batch_that_is_sent_by_many_at_once_is_stored_once(stub, make_logs):
    batches = [make_logs(*range(50), name=f"m{number}") for number in range(4)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: stub.report("t", batches[number % 4], timeout_s=60), range(32)))
    logs = stub.get("t", timeout_s=60)
    assert len(logs) == 200
    assert len(set(logs)) == 200


def test_one_batch_of_many_that_is_refused_does_not_touch_the_others(raw, stub, make_logs):
    def report(number):
        if number % 5:
            return stub.report(f"t{number}", make_logs(number), timeout_s=60)
        with pytest.raises(grpc.RpcError):
            raw.report(f"t{number}", (T0, "loss", "x" * 65_536))
        return None

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(report, range(40)))
    assert [len(stub.get(f"t{number}", timeout_s=60)) for number in range(40)] == [bool(n % 5) for n in range(40)]


def test_the_longest_names_and_values_that_katib_stores_are_kept(raw):
    trial_name, name, value = "\N{GRINNING FACE}" * 255, "ß" * 255, "ü" * 32_767 + "x"
    raw.report(trial_name, (T0, name, value), (T1, name, ""))
    assert raw.get(trial_name) == [(T0, name, value), (T1, name, "")]


def test_requests_and_replies_may_exceed_grpcs_four_mebibytes(raw):
    rows = [(T0, f"m{index}", "x" * 65_535) for index in range(80)]
    raw.report("t", *rows)
    assert raw.get("t") == rows


def test_a_request_beyond_the_limit_is_refused_and_not_stored(raw):
    with pytest.raises(grpc.RpcError) as caught:
        raw.report("t", *((T0, "m", "x" * 65_535) for _ in range(513)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raw.get("t") == []


def test_a_request_of_too_many_rows_is_refused_and_not_stored(raw):
    with pytest.raises(grpc.RpcError, match=r"100001 rows, larger than max \(100000\)") as caught:
        raw.report("t", *((T0, "m", "") for _ in range(100_001)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raw.get("t") == []


def test_a_reply_that_would_be_too_large_is_refused_and_parts_of_it_are_not(raw, monkeypatch):
    monkeypatch.setattr(replies, "MAX_REPLY_BYTES", 4 * 1024 * 1024)
    value = "x" * 2_000
    for metric in range(5):
        raw.report("t", *((f"2026-01-31T12:00:00.{index:06}Z", f"m{metric}", value) for index in range(500)))
    with pytest.raises(grpc.RpcError, match="larger than max") as caught:
        raw.get("t")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(raw.get("t", metric_name="m0")) == 500
    assert len(raw.get("t", end_time="2026-01-31T12:00:00.000099Z")) == 500


def test_a_hundred_thousand_rows_come_back_in_order(stub, make_logs):
    logs = [MetricLog("loss", index, NOON + timedelta(microseconds=index)) for index in range(100_000)]
    stub.report("t", logs, timeout_s=240)  # as many as a request may have
    assert [log.value for log in stub.get("t", timeout_s=60)] == [str(index) for index in range(100_000)]
    middle = NOON + timedelta(microseconds=50_000)
    assert [log.value for log in stub.get("t", start=middle, end=middle, timeout_s=60)] == ["50000"]


def test_values_are_kept_as_they_were_written(raw):
    texts = [
        "unavailable",
        "1e-07",
        "0.10",
        "00",
        "nan",
        "12345678901234567890123",
        "line\nbreak",
        "tab\tand\rreturn",
        r"\N",
        r"\.",
        r"back\slash\\n",
        "'; DROP TABLE x; --",
    ]
    raw.report("t", *((T0, "m", text) for text in texts))
    assert [value for _, _, value in raw.get("t")] == texts


@given(st.lists(st.tuples(names, values, times), min_size=1, max_size=8), names)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_comes_back_as_it_was_sent(stub, raw, rows, trial_name):
    stub.delete(trial_name, timeout_s=60)
    raw.report(trial_name, *((time.isoformat().replace("+00:00", "Z"), name, value) for name, value, time in rows))
    sent = [StoredMetricLog(name, value, time) for name, value, time in rows]
    assert stub.get(trial_name, timeout_s=60) == sorted(sent, key=lambda log: log.timestamp)
    name, _, time = rows[0]
    same = stub.get(trial_name, metric_name=name, start=time, end=time, timeout_s=60)
    assert same == [log for log in sent if (log.name, log.timestamp) == (name, time)]


def test_calls_from_many_threads_are_all_stored(stub):
    def report(thread: int) -> None:
        for call in range(10):
            time = NOON + timedelta(seconds=thread, microseconds=call)
            stub.report("t", [MetricLog("loss", thread, time), MetricLog("acc", call, time)], timeout_s=60)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(report, range(20)))
    logs = stub.get("t", timeout_s=60)
    assert len(logs) == 400
    assert [(log.name, log.value) for log in logs[:4]] == [("loss", "0"), ("acc", "0"), ("loss", "0"), ("acc", "1")]
    assert len({(log.name, log.value, log.timestamp) for log in logs}) == 400


def test_readers_never_see_a_part_of_a_batch(stub, make_logs):
    with ThreadPoolExecutor(1) as threads:
        batches = [make_logs(*range(200), name=f"m{number}") for number in range(10)]
        writing = threads.submit(lambda: [stub.report("t", batch, timeout_s=60) for batch in batches])
        sizes = set()
        while not writing.done():
            sizes.add(len(stub.get("t", timeout_s=60)))
        writing.result()
    assert {size % 200 for size in sizes} <= {0}
    assert len(stub.get("t", timeout_s=60)) == 2_000


def test_the_table_has_katibs_columns_and_an_index_on_trial_and_time(server, stub, db, make_logs):
    stub.report("t", make_logs(0.5), timeout_s=60)
    with closing(sqlite3.connect(db)) as connection:
        columns = {
            name: (kind, not_null)
            for _, name, kind, not_null, *_ in connection.execute("PRAGMA table_info(observation_logs)")
        }
        rows = connection.execute("SELECT * FROM observation_logs").fetchall()
        (plan,) = connection.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM observation_logs WHERE trial_name = 't' AND time >= '2026' "
            "ORDER BY time, id"
        ).fetchall()
    assert columns == {
        "trial_name": ("VARCHAR(255)", 1),
        "id": ("INTEGER", 1),
        "time": ("DATETIME", 0),
        "metric_name": ("VARCHAR(255)", 1),
        "value": ("TEXT", 1),
    }
    assert rows == [("t", 1, "2026-01-31 12:00:00.000000", "loss", "0.5")]
    assert "USING INDEX idx_observation_logs_trial_time (trial_name=? AND time>?)" in plan[-1]


def test_a_relative_path_is_told_in_full(db, monkeypatch):
    monkeypatch.chdir(db.parent)
    with closing(ObservationLogStore(f"sqlite:///{db.name}", max_connections=1)) as store:
        assert store.url == f"sqlite:///{db}"


def test_every_connection_logs_ahead_and_syncs_at_each_commit(db):
    opened = ObservationLogStore(f"sqlite:///{db}", max_connections=20)
    try:
        with ExitStack() as stack:
            connections = [stack.enter_context(opened._database.writing())]
            connections += [stack.enter_context(opened._database.reading()) for _ in range(20)]
            for connection in connections:
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
                assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000  # for other processes
    finally:
        opened.close()
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
