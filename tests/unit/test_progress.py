"""How far a training is and how long it will take, whatever the framework."""

import json
import math
import pickle

import pytest

from katib_callbacks import KatibReporter, MetricValueError, ReporterClosedError
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.recording.shares import largest, share_of_epochs
from katib_callbacks.reporting import progress_file
from katib_callbacks.reporting.progress import ALMOST_DONE, Place, Progress
from katib_callbacks.reporting.progress_file import ProgressFile, ProgressReader
from katib_callbacks.settings import Runtime
from katib_callbacks.testing import RecordingSink


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


class Told(list):
    def progress(self, fraction, remaining_s, latest):
        self.append((fraction, remaining_s, latest))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def progress(clock, told):
    return Progress([("told", told)], clock)


def test_what_remains_is_estimated_from_what_this_process_has_done(progress, clock, told):
    progress.begin(0.5)
    clock.now_s += 10
    progress.show(0.6)
    clock.now_s += 30
    progress.finish()

    assert told == [(0.5, None, {}), (0.6, pytest.approx(40), {}), (1.0, 0.0, {})]


def test_it_never_falls_and_is_one_at_the_end_alone(progress, told):
    progress.begin(0.2)
    for fraction in (0.1, 0.4, None, 0.3, 1.0, 7.0):
        progress.show(fraction)

    assert [fraction for fraction, *_ in told] == [0.2, 0.2, 0.4, 0.4, 0.4, ALMOST_DONE, ALMOST_DONE]


def test_it_is_due_once_a_second(progress, clock):
    progress.begin(0.0)

    assert not progress.is_due()
    clock.now_s += 1
    assert progress.is_due()
    progress.show(0.1)
    assert not progress.is_due()


def test_what_a_sink_was_given_is_not_changed_later(progress, told):
    progress.begin(0.0, {"a": 1.0})
    progress.update({"b": 2.0})
    progress.update({})

    assert [latest for *_, latest in told] == [{"a": 1.0}, {"a": 1.0, "b": 2.0}]


@pytest.mark.logs_error("Internal error while computing")
def test_a_share_that_cannot_be_computed_ends_the_showing_and_nothing_else(progress, told):
    progress.begin(0.0)
    progress.show_share(lambda: 1 / 0)
    progress.show_share(lambda: 0.5)
    progress.finish()

    assert len(told) == 1


@pytest.mark.parametrize(
    ("arguments", "share"),
    [
        ((1, 4, 1, 2), 0.375),
        ((1, 4, 9, 2), 0.5),
        ((1, 4, 1, None), 0.25),
        ((1, 4, 1, math.inf), 0.25),
        ((1, 4, 1, 0), 0.25),
        ((1, None, 1, 2), None),
        ((1, -1, 1, 2), None),
    ],
)
def test_the_share_of_epochs(arguments, share):
    assert share_of_epochs(*arguments) == share


def test_the_limit_that_comes_first_counts():
    assert largest([None, 0.2, 0.5]) == 0.5
    assert largest([None]) is None


# -- a loop of one's own ----------------------------------------------------------------------------------------------


class Shown(Told, RecordingSink):
    """A sink that shows progress."""

    def __init__(self):
        RecordingSink.__init__(self)


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def reporter(shown, clock):
    return KatibReporter(trial_name="t", sinks=[shown], _runtime=Runtime(environ=dict, monotonic=clock))


def test_a_loop_shows_its_progress_once_a_second_and_at_its_end(reporter, shown, clock):
    assert reporter.shows_progress
    reporter.report_progress(0.0, {"loss": 4})
    clock.now_s += 0.5
    reporter.report_progress(0.1, {"accuracy": 0.5})
    assert shown == [(0.0, None, {"loss": 4.0})]

    clock.now_s += 1
    reporter.report_progress(0.5, {"loss": 2.0, "nan": math.nan, "word": "many"})
    reporter.report_progress(0.75, {"accuracy": 0.75})
    reporter.report_progress(1, {"loss": 1.0})

    assert shown[1:] == [
        (0.5, 1.5, {"loss": 2.0, "accuracy": 0.5}),
        (ALMOST_DONE, pytest.approx(0, abs=0.01), {"loss": 1.0, "accuracy": 0.75}),
        (1.0, 0.0, {"loss": 1.0, "accuracy": 0.75}),
    ]


def test_a_share_that_is_a_little_lower_goes_on_and_one_that_is_lower_begins_another_training(reporter, shown, clock):
    reporter.report_progress(0.5, {"loss": 1.0})
    for fraction in (0.4995, 0.25, 0.75):
        clock.now_s += 10
        reporter.report_progress(fraction)

    assert shown == [
        (0.5, None, {"loss": 1.0}),
        (0.5, None, {"loss": 1.0}),
        (0.25, None, {}),
        (0.75, 5.0, {}),
    ]
    reporter.report_progress(0.0)  # within the second
    assert shown[-1] == (0.0, None, {})


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(reporter, shown, fraction):
    with pytest.raises(MetricValueError, match=rf"^a share of the training is from 0 to 1, not {fraction}$"):
        reporter.report_progress(fraction)
    assert shown == []


def test_a_closed_reporter_shows_no_progress_in_the_middle_of_a_second_either(reporter, shown):
    reporter.report_progress(0.5)
    reporter.close()
    with pytest.raises(ReporterClosedError):
        reporter.report_progress(0.6)
    assert len(shown) == 1


def test_off_rank_zero_and_where_no_sink_shows_it_progress_is_nothing(clock):
    environ = {"RANK": "1"}
    other = Shown()
    for sinks, runtime in [
        ([other], Runtime(environ=lambda: environ, monotonic=clock)),
        ([RecordingSink()], Runtime(environ=dict, monotonic=clock)),
    ]:
        reporter = KatibReporter(trial_name="t", sinks=sinks, _runtime=runtime)
        for fraction in (0.0, 0.5, 1.0):
            reporter.report_progress(fraction, {"loss": 1.0})
    assert not reporter.shows_progress
    assert other == []


def test_a_reporter_that_travels_shows_the_latest_values_where_it_arrives(reporter, shown):
    reporter.report_progress(0.5, {"loss": 2.0, "accuracy": 0.5})
    reporter.report_progress(0.6, {"loss": 1.0, "word": "many"})

    sent, there = pickle.loads(pickle.dumps((reporter, shown)))  # noqa: S301  our own bytes
    sent.report_progress(0.7)

    assert there[len(shown) :] == [(0.7, None, {"loss": 1.0, "accuracy": 0.5})]


# -- the file of a local trial -----------------------------------------------------------------------------------------


def test_a_local_trial_writes_its_epochs_into_a_file_that_its_runner_reads(tmp_path, clock):
    path = tmp_path / "t.progress.jsonl"
    environ = {
        "KATIB_TRIAL_NAME": "t",
        "KATIB_DB_MANAGER_ADDRESS": "127.0.0.1:1",
        "KATIB_CALLBACKS_LOCAL_PROGRESS": str(path),
    }
    recorder = MetricRecorder({"accuracy": "acc"}, _runtime=Runtime(environ=lambda: environ, monotonic=clock))
    reader = ProgressReader(path)
    recorder.start(None)
    recorder.begin_progress(lambda: 0.0)
    before = reader.read()
    assert (before.fraction, before.place, before.latest) == (0.0, None, {})

    for epoch in (1, 2):
        recorder.record({"acc": epoch / 10, "other": 7.0}, row=(epoch, None, 0))
    clock.now_s += 1
    recorder.progress.show(0.25)
    recorder.record({"acc": 0.3})  # of the same row, as an adapter that sees validation later

    shown = reader.read()
    assert (shown.fraction, shown.place, shown.latest) == (0.25, Place(2, epoch=2), {"accuracy": 0.3})
    assert shown.rows == [{"accuracy": 0.1}, {"accuracy": 0.3}]
    assert shown.remaining_s == pytest.approx(3)
    recorder.abandon()


def test_no_file_is_written_outside_a_local_trial(tmp_path, monkeypatch, clock):
    monkeypatch.chdir(tmp_path)
    environ = {"KATIB_TRIAL_NAME": "t", "KATIB_DB_MANAGER_ADDRESS": "127.0.0.1:1"}
    recorder = MetricRecorder("acc", _runtime=Runtime(environ=lambda: environ, monotonic=clock))
    recorder.start(None)
    recorder.begin_progress(lambda: pytest.fail("nobody is told"))

    assert recorder.progress is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_stays_small_and_has_the_end(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(progress_file, "FREE_BYTES", 1_000)
    path = tmp_path / "t"
    file = ProgressFile(str(path), Runtime(monotonic=clock))
    progress = Progress([("file", file)], clock)
    progress.begin(0.0)
    for row in range(1, 1_001):
        progress.update({"loss": 1 / row}, Place(row))
        clock.now_s += 0.01
    progress.finish()

    shown = ProgressReader(path).read()
    assert path.stat().st_size < 2_000
    assert (shown.fraction, shown.latest["loss"]) == (1.0, 1 / 1_000)


def test_a_reader_goes_on_where_it_was_and_notices_another_attempt(tmp_path):
    path = tmp_path / "t"
    line = {"fraction": 0.5, "remaining_s": None, "row": 1, "epoch": None, "step": 10, "values": {"loss": 1.0}}
    text = json.dumps(line) + "\n"
    reader = ProgressReader(path)
    assert reader.read().rows == []

    path.write_text(text + "no JSON\n" + text.replace('"row": 1', '"row": 2')[:20])
    assert reader.read().rows == [{"loss": 1.0}]
    path.write_text(text + "no JSON\n" + text.replace('"row": 1', '"row": 2').replace("1.0", "0.5"))
    assert reader.read().rows == [{"loss": 1.0}, {"loss": 0.5}]
    path.write_text(text.replace("0.5", "0.1"))
    assert (reader.read().fraction, reader.shown.rows) == (0.1, [{"loss": 1.0}])


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "5",
        '{"fraction": 1}',
        '{"fraction": 1, "remaining_s": 1, "values": [1]}',
        "[" * 100_000,
        '{"fraction": 1, "remaining_s": 1, "values": {"loss": 1%s}}' % ("0" * 400),
    ],
    ids=["list", "number", "lacking", "other", "deep", "large"],
)
def test_a_line_of_another_program_is_passed_over(tmp_path, line):
    path = tmp_path / "t"
    ours = {"fraction": 0.5, "remaining_s": None, "row": 2, "epoch": 2, "step": 2, "values": {"loss": 1.0}}
    path.write_text(f"{line}\n{json.dumps(ours)}\n")

    assert ProgressReader(path).read().rows == [{"loss": 1.0}]


def test_a_file_that_cannot_be_written_leaves_the_training_alone(tmp_path, clock, caplog):
    file = ProgressFile(str(tmp_path / "missing" / "t"), Runtime(monotonic=clock))
    progress = Progress([("progress file", file)], clock)
    progress.begin(0.0)
    progress.update({"loss": 1.0}, Place(1))

    assert len(caplog.records) == 1
