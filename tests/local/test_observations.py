"""A trial's rows: Katib's filter on its output, its reduction, and a DB manager that goes away."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import grpc
import pytest

from katib_callbacks.db_manager import DBManager
from katib_callbacks.local.observation_log import UNAVAILABLE_TIME, ObservationLog, objective_text, parse_output, reduce
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.wire import messages
from katib_callbacks.wire.server import DBManagerServicer

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
    (metric,) = reduce(rows(*values), ["m"])

    assert (metric["min"], metric["max"], metric["latest"]) == expected


@pytest.mark.parametrize(("strategy", "text"), [("min", "1"), ("max", "3"), ("latest", "2")])
def test_the_objective_follows_its_strategy(strategy, text):
    observation = reduce(rows((0, "1"), (1, "3"), (2, "2")), ["m"])

    assert objective_text(observation, "m", strategy) == text


@pytest.fixture
def db_url(tmp_path):
    return f"sqlite:///{tmp_path / 'katib.db'}"


def test_replacing_rows_twice_leaves_them_once(db_url):
    written = rows(*((second, str(second)) for second in range(2_500)))
    with DBManager(db_url) as db_manager, ObservationLog(db_manager.address) as log:
        log.replace("t", written)
        log.replace("t", written)
        assert log.get("t") == written
        log.replace("t", [])
        assert log.get("t") == []


def test_the_unavailable_row_is_katibs(db_url):
    with DBManager(db_url) as db_manager, ObservationLog(db_manager.address) as log:
        log.mark_unavailable("t", "m")

        assert log.get("t") == [StoredMetricLog("m", "unavailable", UNAVAILABLE_TIME)]


class LosesReplies(DBManagerServicer):
    """Stores what it is sent, and loses its first reply."""

    def __init__(self):
        self.rows = []
        self.calls = []

    def ReportObservationLog(self, request, context):  # noqa: N802  Katib's name
        self.calls.append("report")
        self.rows.extend(request.observation_log.metric_logs)
        if self.calls.count("report") == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return messages.ReportObservationLogReply()

    def GetObservationLog(self, request, context):  # noqa: N802  Katib's name
        self.calls.append("get")
        return messages.GetObservationLogReply(observation_log=messages.ObservationLog(metric_logs=self.rows))


def test_the_unavailable_row_is_there_once_though_the_reply_was_lost():
    servicer = LosesReplies()
    with ThreadPoolExecutor(2) as workers:
        server = grpc.server(workers)
        server.add_generic_rpc_handlers((servicer.generic_handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with ObservationLog(f"127.0.0.1:{port}") as log:
            log.mark_unavailable("t", "m")
        server.stop(None).wait()

    assert servicer.calls == ["report", "get"]
    assert [row.metric.value for row in servicer.rows] == ["unavailable"]


def test_a_db_manager_that_comes_back_is_asked_again(db_url):
    db_manager = DBManager(db_url).start()
    address = db_manager.address
    revived = []

    def revive():
        if not revived:
            revived.append(DBManager(db_url, address).start())

    with ObservationLog(address, revive) as log:
        log.replace("t", rows((0, "1")))
        db_manager.stop()
        try:
            assert [row.value for row in log.get("t")] == ["1"]
        finally:
            for one in revived:
                one.stop()
    assert revived
