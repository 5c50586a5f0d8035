"""FakeReporter and RecordingSink, as tests of training code use them."""

import pickle

import pytest

from katib_callbacks import KatibReporter, MetricValueError, UnavailableError, sinks
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.testing import FakeReporter, RecordingSink


def train(reporter, **options):
    recorder = MetricRecorder(["loss", "acc"], reporter=reporter, **options)
    recorder.start(framework_rank(is_global_zero=True))
    for epoch in range(2):
        recorder.record({"loss": 1 / (epoch + 1), "acc": epoch}, row=epoch)
    recorder.finish()
    recorder.deliver()
    return recorder


def test_it_has_rows_latest_values_and_receipts():
    reporter = FakeReporter()
    recorder = train(reporter, report="history")
    reporter.report({"mean": 0.75})

    assert [(row.name, row.value) for row in reporter.rows] == [
        ("loss", 1),
        ("acc", 0),
        ("loss", 0.5),
        ("acc", 1),
        ("mean", 0.75),
    ]
    assert reporter.latest() == {"loss": 0.5, "acc": 1, "mean": 0.75}
    assert [receipt.delivered for receipt in reporter.receipts] == [4, 1]
    assert recorder.receipt is reporter.receipts[0]
    times = [row.timestamp for row in reporter.rows]
    assert times == sorted(set(times))


def test_it_fails_when_it_is_told_to(caplog):
    reporter = FakeReporter(error=UnavailableError("no DB manager", pending=2))
    recorder = train(reporter)

    assert recorder.receipt is None
    assert "no DB manager" in caplog.text
    assert (reporter.rows, reporter.receipts) == ([], [])
    with pytest.raises(UnavailableError, match="no DB manager"):
        train(reporter, on_error="raise")

    reporter.sink.error = None
    assert train(reporter).receipt.delivered == 2


def test_it_checks_what_a_reporter_checks():
    with FakeReporter() as reporter, pytest.raises(MetricValueError, match="'loss' is nan"):
        reporter.report({"loss": float("nan")})


def test_the_environment_does_not_reach_it(monkeypatch):
    for name, value in {"KATIB_TRIAL_NAME": "other", "KATIB_CALLBACKS_SINKS": "stdout", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    reporter = FakeReporter(trial_name="mine")

    assert reporter.report({"loss": 1}).trial_name == "mine"
    assert reporter.latest() == {"loss": 1}


def test_its_sink_stands_beside_others_and_both_pickle():
    first, second = RecordingSink(), RecordingSink()
    with KatibReporter(trial_name="trial", sinks=[first, second]) as reporter:
        receipt = reporter.report({"loss": 1})
        assert receipt.sinks["RecordingSink 2"].delivered == 1
    assert first.latest() == second.latest() == {"loss": 1}
    assert isinstance(first, sinks.MetricSink)

    used = FakeReporter()
    used.report({"loss": 2})
    copy = pickle.loads(pickle.dumps(used))  # noqa: S301  our own bytes
    copy.report({"loss": 3})
    assert (used.latest(), copy.latest()) == ({"loss": 2}, {"loss": 3})
    assert [len(each.receipts) for each in (used, copy)] == [1, 2]
