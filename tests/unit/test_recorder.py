"""The recorder without a framework: what it hands to the reporter."""

import logging
import pickle
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from katib_callbacks import ConfigurationError, KatibReporter, UnavailableError
from katib_callbacks.metrics import RESOLUTION
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.recording.rows import Values
from katib_callbacks.recording.voice import Voice
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.settings import Runtime
from katib_callbacks.testing import FakeReporter, RecordingSink

ZERO = framework_rank(is_global_zero=True)
POLICY = "medianstop,type=maximize"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Reporter(FakeReporter):
    @property
    def values(self):
        return [(row.name, row.value) for row in self.rows]


class Clock:
    """A wall clock that goes on by a second each time it is read."""

    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


class NoNumber:
    """A value that raises whenever it is read."""

    def __float__(self):
        raise RuntimeError("deleted")


def trained(recorder, *rows, start=True):
    if start:
        recorder.start(ZERO)
    for number, row in enumerate(rows):
        recorder.record(row, row=number)
    recorder.finish()
    recorder.deliver()


def test_final_keeps_the_latest_value_of_each_name():
    reporter = Reporter()
    trained(MetricRecorder(reporter=reporter), {"a": 1, "b": 2}, {"a": 3})
    assert reporter.values == [("a", 3), ("b", 2)]


@pytest.mark.parametrize("reporter", [KatibReporter, "127.0.0.1:6789"])
def test_what_is_no_reporter_is_refused_at_once(reporter):
    with pytest.raises(ConfigurationError, match="reporter must be a KatibReporter"):
        MetricRecorder(reporter=reporter)


def test_the_selection_renames_and_orders():
    reporter = Reporter()
    trained(MetricRecorder({"x": "b", "y": "a", "z": "a"}, reporter=reporter), {"a": 1, "b": 2, "c": 3})
    assert reporter.values == [("x", 2), ("y", 1), ("z", 1)]


def test_best_takes_the_first_of_equals_and_other_metrics_as_they_were_then():
    reporter = Reporter()
    recorder = MetricRecorder(["a", "b"], report="best", monitor="m", mode="min", reporter=reporter)
    trained(recorder, {"a": 1, "m": 5}, {"a": 2, "b": 7, "m": 3}, {"a": 3, "b": 8, "m": 3}, {"a": 4, "m": 9})
    assert reporter.values == [("a", 2), ("b", 7)]


def test_best_without_a_finite_monitor_reports_the_final_values_and_says_so(caplog):
    reporter = Reporter()
    recorder = MetricRecorder("a", report="best", monitor="m", mode="min", reporter=reporter)
    trained(recorder, {"a": 1, "m": float("nan")}, {"a": 2})
    assert reporter.values == [("a", 2)]
    assert "'m' never had a finite value" in caplog.text


def test_a_metric_that_the_best_row_lacks_is_named(caplog):
    reporter = Reporter()
    recorder = MetricRecorder(["a", "late"], report="best", monitor="m", mode="max", reporter=reporter)
    trained(recorder, {"a": 1, "m": 9}, {"a": 2, "m": 3, "late": 7})
    assert reporter.values == [("a", 1)]
    assert "Not reported: late. The row of the model that is reported has no value of it" in caplog.text


def test_history_has_each_rows_fresh_values_with_the_rows_own_time():
    reporter = Reporter(trial_name="trial-of-2026")
    recorder = MetricRecorder(report="history", reporter=reporter, _runtime=Runtime(now=Clock()))
    trained(recorder, {"a": 1, "b": 2}, {"a": 3})
    assert reporter.values == [("a", 1), ("b", 2), ("a", 3)]
    first, second, third = (log.timestamp for log in reporter.rows)
    assert (second - first, third - first) == (RESOLUTION, timedelta(seconds=1))


@pytest.mark.parametrize("report", ["kept", "final"])
def test_the_model_that_is_kept_last_is_reported_where_it_is_asked_for_or_put_back(report):
    reporter = Reporter()
    recorder = MetricRecorder(["a", "score"], report=report, reporter=reporter)
    recorder.start(ZERO)
    for number in range(3):
        recorder.record({"a": number}, row=number)
        if number < 2:
            recorder.keep(scores={"score": number * 10, "other": 5})
    recorder.finish(is_restored=report == "final")
    recorder.deliver()
    assert reporter.values == [("a", 1), ("score", 10)]


def test_a_kept_model_may_have_values_of_its_own_of_which_the_chosen_are_reported():
    reporter = Reporter()
    recorder = MetricRecorder("a", report="kept", reporter=reporter)
    recorder.start(ZERO)
    recorder.record({"a": 1, "b": 2}, row=0)
    recorder.keep(Values.of([{"a": 7, "b": 8}, {}, 0]))
    recorder.finish()
    recorder.deliver()
    assert reporter.values == [("a", 7)]


def test_a_model_that_is_not_kept_after_all_is_not_reported(caplog):
    reporter = Reporter()
    recorder = MetricRecorder("a", report="kept", reporter=reporter)
    recorder.start(ZERO)
    recorder.record({"a": 1}, row=0)
    recorder.keep()
    recorder.record({"a": 2}, row=1)
    recorder.keep_none()
    recorder.finish()
    recorder.deliver()
    assert reporter.values == [("a", 2)]
    assert "No model was kept in this training, so the final values are reported." in caplog.text


def test_values_without_a_row_belong_to_the_last_one():
    reporter = Reporter()
    recorder = MetricRecorder("a", report="best", monitor="m", mode="max", reporter=reporter)
    recorder.start(ZERO)
    recorder.record({"m": 2}, row=0)
    recorder.record({"a": 1})
    recorder.record({"m": 1, "a": 5}, row=1)
    recorder.finish()
    recorder.deliver()
    assert reporter.values == [("a", 1)]


def test_without_a_reporter_each_run_has_one_of_its_own(tmp_path):
    environ = {"KATIB_TRIAL_NAME": "t", "KATIB_CALLBACKS_SINKS": f"file://{tmp_path / 'rows'}"}
    recorder = MetricRecorder("a", _runtime=Runtime(environ=lambda: environ))
    for value in (1, 2):
        trained(recorder, {"a": value})
    assert (tmp_path / "rows").read_text().count('"a"') == 2


def test_a_new_run_forgets_the_one_before():
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter)
    recorder.start(ZERO)
    recorder.record({"old": 1}, row=0)
    trained(recorder, {"new": 2})
    assert reporter.values == [("new", 2)]


def test_an_abandoned_run_delivers_nothing_now_or_later():
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter)
    recorder.start(ZERO)
    recorder.record({"a": 1}, row=0)
    recorder.abandon()
    recorder.finish()
    recorder.deliver()
    recorder.evaluated({"a": 1}, is_validation=True)
    assert reporter.values == []


def test_what_was_delivered_is_not_delivered_again():
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter)
    trained(recorder, {"a": 1})
    recorder.deliver()
    assert reporter.values == [("a", 1)]


def test_a_value_that_cannot_be_read_is_named_and_the_others_go_out(caplog):
    reporter = Reporter()
    trained(MetricRecorder(reporter=reporter), {"a": 1, "bad": NoNumber(), "word": "x", "pair": [1, 2]})
    assert reporter.values == [("a", 1)]
    for name in ("bad", "word", "pair"):
        assert f"metric '{name}'" in caplog.text


@pytest.mark.parametrize(
    ("options", "rows", "said"),
    [
        (
            {"metrics": "val_acc"},
            [{"loss": 1, "val_accuracy": 2, "val_ac": 2}],
            "Metric 'val_acc' never appeared. Seen: loss, val_ac, val_accuracy. Did you mean 'val_ac'?",
        ),
        (
            {"metrics": "accuracy"},
            [{"loss": 1, "acc": 2}],
            "Metric 'accuracy' never appeared. Seen: acc, loss. Did you mean 'acc'?",
        ),
        ({"metrics": "val_acc"}, [{0: 1}, {0: 1}], "Metric 'val_acc' has not appeared so far. Seen: nothing."),
        (
            {"metrics": "a", "report": "best", "monitor": "m", "mode": "min"},
            [{"a": 1}],
            "Metric 'm' never appeared. Seen: a.",
        ),
    ],
)
def test_a_missing_metric_is_told_with_what_was_seen_and_the_nearest_name(options, rows, said, caplog):
    trained(MetricRecorder(reporter=Reporter(), **options), *rows)
    (message,) = [message for message in caplog.messages if "appeared" in message]
    assert message == said


def test_what_two_recorders_with_one_voice_would_both_say_is_said_once(caplog):
    voice = Voice(is_shared=True)
    for _ in range(2):
        recorder = MetricRecorder("b", reporter=Reporter())
        recorder.speak_with(voice)
        trained(recorder, {"a": 1})
    assert caplog.text.count("Metric 'b' never appeared") == 1


def test_a_final_value_that_is_older_than_the_model_is_told(caplog):
    trained_in = [((1, 10, 0), {"a": 1}), ((2, 20, 0), {"b": 2})]
    recorder = MetricRecorder(["a", "b"], reporter=Reporter())
    recorder.start(ZERO)
    for row, values in trained_in:
        recorder.record(values, row=row)
    recorder.finish()
    assert "A final value is older than the trained model: a=1 is from epoch 1 of 2." in caplog.text


class Shown(RecordingSink):
    """Keeps what it was shown of a training."""

    def __init__(self):
        super().__init__()
        self.told = []

    def progress(self, fraction, remaining_s, latest):
        self.told.append((fraction, latest))


def test_progress_begins_with_what_was_done_before_and_ends_with_the_delivery():
    sink = Shown()
    reporter = KatibReporter(trial_name="t", sinks=[sink], _runtime=Runtime(environ=dict))
    recorder = MetricRecorder({"x": "a"}, reporter=reporter)
    assert recorder.shows_progress
    recorder.start(ZERO)
    recorder.begin_progress(lambda done, steps: done / steps, 1, 4)
    recorder.record({"a": 0.5, "b": 7}, row=0)
    assert sink.told == [(0.25, {}), (0.25, {"x": 0.5})]
    recorder.finish()
    recorder.deliver()
    assert sink.told[2:] == [(1.0, {"x": 0.5})]
    assert recorder.progress is None


def test_a_sink_that_is_to_be_told_late_is_shown_the_end_alone():
    sink = Shown()
    recorder = MetricRecorder(reporter=KatibReporter(trial_name="t", sinks=[sink], _runtime=Runtime(environ=dict)))
    recorder.start(ZERO, late=["Shown"])
    recorder.begin_progress(lambda: 0.0)
    trained(recorder, {"a": 1}, start=False)
    assert sink.told == [(1.0, {"a": 1.0})]


def test_where_no_sink_shows_progress_nothing_waits_for_a_value_before_the_end():
    class OnDevice:
        is_read = False

        def __float__(self):
            self.is_read = True
            return 0.5

    value = OnDevice()
    recorder = MetricRecorder(reporter=Reporter())
    recorder.start(ZERO)
    recorder.record({"a": value}, row=0)
    recorder.record({"b": 1}, row=1)
    assert not value.is_read
    recorder.finish()
    assert value.is_read


@pytest.mark.logs_error("Internal error while recording metrics; training goes on.")
def test_a_share_that_cannot_be_computed_stays_away_from_the_training():
    sink = Shown()
    recorder = MetricRecorder(reporter=KatibReporter(trial_name="t", sinks=[sink], _runtime=Runtime(environ=dict)))
    recorder.start(ZERO)
    recorder.begin_progress(lambda: 1 / 0)
    trained(recorder, {"a": 1}, start=False)
    assert [row.name for row in sink.rows] == ["a"]
    assert sink.told == []


def test_a_missing_metric_may_raise_when_what_there_is_was_delivered():
    reporter = Reporter()
    with pytest.raises(ConfigurationError, match=r"^Metric 'b' never appeared. Seen: a.$"):
        trained(MetricRecorder(["a", "b"], on_missing="raise", reporter=reporter), {"a": 1})
    assert reporter.values == [("a", 1)]


@pytest.mark.logs_error(
    "^katib_callbacks.recording.recorder: Internal error while recording metrics; training goes on."
)
def test_a_mistake_of_ours_at_the_end_stays_away_from_the_training():
    reporter = Reporter()
    trained(MetricRecorder(reporter=reporter, _runtime=Runtime(now=lambda: 1 / 0)), {"a": 1})
    assert reporter.values == []


def test_a_tensor_is_let_go_of_by_its_graph():
    class Tensor:
        def detach(self):
            return 0.5

        def __float__(self):
            raise RuntimeError("its graph is still held")

    reporter = Reporter()
    trained(MetricRecorder(reporter=reporter), {"a": Tensor()})
    assert reporter.values == [("a", 0.5)]


def test_a_value_that_cannot_be_detached_is_read_as_it_is():
    class Attached:
        def detach(self):
            raise RuntimeError("no graph")

        def __float__(self):
            return 0.5

    reporter = Reporter()
    trained(MetricRecorder(reporter=reporter), {"odd": Attached(), "fine": 1})
    assert reporter.values == [("odd", 0.5), ("fine", 1)]


@pytest.mark.parametrize("metrics", [None, ["fine", "never"]])
def test_a_key_that_is_no_name_is_left_out_and_breaks_nothing(metrics, caplog):
    reporter = Reporter()
    trained(MetricRecorder(metrics, reporter=reporter), {0: 0.5, "fine": 1}, {0: 0.5, None: 1.0, "fine": 1})
    assert reporter.values == [("fine", 1)]
    for key in ("int: 0", "NoneType: None"):
        assert (f"a metric's name must be a str, not {key}" in caplog.text) == (metrics is None)
    assert "Internal error" not in caplog.text


def test_the_best_row_needs_a_mode():
    with pytest.raises(ConfigurationError, match="needs mode"):
        MetricRecorder("a", report="best", monitor="a", reporter=Reporter())


@pytest.mark.parametrize(
    ("policy", "is_disabled", "may"),
    [(None, False, False), (POLICY, False, True), (POLICY, True, False), (None, True, False)],
)
def test_epochs_end_with_a_question_only_where_a_policy_holds(policy, is_disabled, may, monkeypatch):
    if policy is not None:
        monkeypatch.setenv("KATIB_CALLBACKS_EARLY_STOPPING", policy)
    if is_disabled:
        monkeypatch.setenv("KATIB_CALLBACKS_DISABLE", "1")
    assert MetricRecorder("a", reporter=Reporter()).may_stop_early is may


def test_each_run_has_the_mode_that_its_framework_says():
    reporter = Reporter()
    recorder = MetricRecorder("a", report="best", monitor="a", reporter=reporter, is_mode_deferred=True)
    for mode in ("max", "min"):
        recorder.start(ZERO, mode=mode)
        trained(recorder, {"a": 1}, {"a": 3}, {"a": 2}, start=False)
    assert reporter.values == [("a", 3), ("a", 1)]
    with pytest.raises(ConfigurationError, match="needs mode"):
        recorder.start(ZERO)


@pytest.mark.parametrize(
    ("after_training", "sent"),
    [(None, [("b", 3)]), ("missing", [("b", 3)]), ("update", [("a", 2), ("b", 3)]), ("ignore", [])],
)
def test_an_evaluation_after_training_sends_what_is_asked_for(after_training, sent):
    reporter = Reporter()
    recorder = MetricRecorder(after_training=after_training, reporter=reporter)
    trained(recorder, {"a": 1})
    recorder.evaluated({"a": 8, "b": 9}, is_validation=False)
    recorder.evaluated({"a": 2, "b": 3}, is_validation=True)
    assert reporter.values == [("a", 1), *sent]


def test_an_evaluation_on_other_data_counts_where_the_metric_is_named_and_each_name_once():
    reporter = Reporter()
    recorder = MetricRecorder(["a", "b"], may_follow=lambda name: name == "b", reporter=reporter)
    trained(recorder, {"a": 1})
    recorder.evaluated({"b": 2}, is_validation=False)
    recorder.evaluated({"b": 3}, is_validation=False)
    assert reporter.values == [("a", 1), ("b", 2)]


def test_an_evaluation_before_the_end_of_training_reports_nothing():
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter)
    recorder.start(ZERO)
    recorder.record({"a": 1}, row=0)
    recorder.evaluated({"b": 2}, is_validation=True)
    assert reporter.values == []


def test_an_evaluation_with_a_key_that_is_no_name_breaks_nothing():
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter, is_bookkeeping=lambda name, _: name.endswith("_runtime"))
    trained(recorder, {"a": 1})
    recorder.evaluated({0: 0.5, "b": 2}, is_validation=True)
    assert reporter.values == [("a", 1), ("b", 2)]


@pytest.mark.logs_error("Internal error while recording metrics")
def test_a_mistake_of_ours_in_an_evaluation_stays_away_from_the_caller():
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter, is_bookkeeping=lambda name, _: {"a": False}[name])
    trained(recorder, {"a": 1})
    recorder.evaluated({"b": 2}, is_validation=True)
    assert reporter.values == [("a", 1)]


def test_a_name_that_katib_cannot_hold_is_left_out(caplog):
    reporter = Reporter()
    trained(MetricRecorder(reporter=reporter), {"a": 1, "b" * 256: 2})
    assert reporter.values == [("a", 1)]
    assert "256 characters" in caplog.text


@pytest.mark.logs_error("Internal error while reporting metrics")
@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), OSError("no disk")])
def test_a_foreign_error_in_delivery_never_breaks_training(error, caplog):
    class Mistaken(FakeReporter):
        def open_run(self, **options):
            def deliver(_):
                raise error

            run = super().open_run(**options)
            run.deliver = deliver
            return run

    recorder = MetricRecorder(reporter=Mistaken())
    trained(recorder, {"a": 1})
    assert recorder.receipt is None
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_text.endswith(f"{type(error).__name__}: {error}")


def test_where_no_metrics_were_named_those_that_are_reported_are_listed_once(caplog):
    recorder = MetricRecorder(reporter=Reporter())
    trained(recorder, {"a": 1, "b": 2})
    trained(recorder, {"a": 1})
    (message,) = caplog.messages
    assert message.startswith(
        "No metrics were named, so all are reported: a, b. Name those that the experiment declares:"
    )


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_a_delivery_that_failed_is_told_or_raised_as_is_asked_for_and_leaves_no_receipt(on_error, caplog):
    reporter = Reporter(error=UnavailableError("there is no DB manager"))
    recorder = MetricRecorder("a", on_error=on_error, reporter=reporter)
    with pytest.raises(UnavailableError) if on_error == "raise" else nullcontext():
        trained(recorder, {"a": 1})
    assert [message[:24] for message in caplog.messages] == (["there is no DB manager. "] if on_error == "warn" else [])
    assert recorder.receipt is None
    reporter.sink.error = None
    trained(recorder, {"a": 2})
    assert recorder.receipt.delivered == 1


@pytest.mark.parametrize(("trial_name", "whose"), [("t", " of trial t"), (None, "")])
def test_a_training_without_a_metric_says_so_in_a_trial_and_where_a_sink_needs_none(trial_name, whose, caplog):
    class Anywhere(RecordingSink):
        needs_trial = False

    reporter = KatibReporter(trial_name=trial_name, sinks=[Anywhere()], _runtime=Runtime(environ=dict))
    trained(MetricRecorder(reporter=reporter))
    assert caplog.messages == [f"Training{whose} ended without a metric to report."]


def test_outside_a_trial_names_are_checked_and_nothing_else_is_said(caplog):
    environ = {}
    trained(MetricRecorder(_runtime=Runtime(environ=lambda: environ)), {"a": 1})
    assert caplog.messages == []
    trained(MetricRecorder("b", _runtime=Runtime(environ=lambda: environ)), {"a": 1})
    assert caplog.messages == ["Metric 'b' never appeared. Seen: a."]


def test_where_all_is_turned_off_a_reporter_that_is_handed_in_gets_nothing(caplog):
    reporter, environ = Reporter(), {"KATIB_CALLBACKS_DISABLE": "1"}
    recorder = MetricRecorder("a", reporter=reporter, _runtime=Runtime(environ=lambda: environ))
    trained(recorder, {"a": 1})
    assert reporter.values == []
    assert not recorder.is_active
    assert caplog.messages == []


def test_off_rank_zero_nothing_is_recorded_and_the_reason_is_said(caplog):
    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter, _runtime=Runtime(environ=lambda: {"RANK": "3", "WORLD_SIZE": "4"}))
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        trained(recorder, {"a": 1})
        trained(recorder, {"a": 2})
    assert reporter.values == []
    assert recorder.receipt is None
    assert not recorder.has_values
    line = "This process is rank 3 (RANK=3), not rank zero: it reports nothing."
    assert [record.getMessage() for record in caplog.records] == [line], "once, not for every run"


def test_a_framework_that_denies_is_no_news(caplog):
    recorder = MetricRecorder(reporter=Reporter(), _runtime=Runtime(environ=lambda: {"RANK": "3"}))
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        recorder.start(framework_rank(is_global_zero=False, rank=3))
    assert not recorder.is_active
    assert caplog.records == []


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_outside_a_trial_one_process_of_many_says_so(caplog, rank, lines):
    recorder = MetricRecorder(_runtime=Runtime(environ=lambda: {"RANK": rank}))
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        recorder.start(None)
    assert not recorder.is_active
    assert recorder.is_recording == (rank == "0")
    line = "Not in a Katib trial (KATIB_TRIAL_NAME is not set): nothing will be reported."
    assert caplog.messages == [line] * lines


def test_a_trial_out_of_reach_of_its_sink_says_so(caplog):
    environ = {"KATIB_TRIAL_NAME": "t", "KATIB_CALLBACKS_SINKS": "trainjob"}
    MetricRecorder(_runtime=Runtime(environ=lambda: environ)).start(None)
    (message,) = caplog.messages
    assert message.startswith(
        "Not in reach of a sink (KUBEFLOW_TRAINER_SERVER_URL is not set): nothing will be reported"
    )


def test_a_process_that_may_be_the_only_one_of_a_trial_is_warned(caplog):
    environ = {"RANK": "3"}
    MetricRecorder(reporter=Reporter(), _runtime=Runtime(environ=lambda: environ)).start(None)
    (message,) = caplog.messages
    assert "Only RANK says so" in message


def test_a_pickled_recorder_goes_on_where_it_was():
    recorder = MetricRecorder(reporter=Reporter())
    recorder.start(ZERO)
    recorder.record({"a": 1}, row=0)
    copy = pickle.loads(pickle.dumps(recorder))  # noqa: S301  our own bytes
    copy.finish()
    copy.deliver()
    assert copy._reporter.values == [("a", 1)]


@pytest.mark.parametrize("report", ["final", "best", "history"])
def test_the_state_resumes_to_the_same_report(report):
    options = {"monitor": "m", "mode": "max"} if report == "best" else {}
    rows = [{"m": 1, "a": 10}, {"m": 3, "a": 20}, {"m": 2}]
    whole, resumed = Reporter(), Reporter()
    trained(MetricRecorder(report=report, reporter=whole, **options), *rows)

    first = MetricRecorder(report=report, reporter=Reporter(), **options)
    first.start(ZERO)
    for number, row in enumerate(rows[:2]):
        first.record(row, row=number)
    second = MetricRecorder(report=report, reporter=resumed, **options)
    second.restore(first.state())
    second.start(ZERO)
    second.record(rows[2], row=2)
    second.finish()
    second.deliver()
    assert resumed.values == whole.values


def test_rows_of_another_trial_are_left_behind(caplog):
    first = MetricRecorder(reporter=Reporter(trial_name="first"))
    first.start(ZERO)
    first.record({"a": 1}, row=0)
    state = first.state()
    assert MetricRecorder(reporter=Reporter(trial_name="first")).restore(state)
    reporter = Reporter(trial_name="second")
    second = MetricRecorder(reporter=reporter)
    with caplog.at_level(logging.INFO, logger="katib_callbacks"):
        assert not second.restore(None)
        assert caplog.messages == []
        assert not second.restore(state)
    assert caplog.messages == ["The checkpoint has rows of trial 'first', which are left behind."]
    trained(second, {"b": 2})
    assert reporter.values == [("b", 2)]


def test_off_rank_zero_and_outside_a_trial_a_checkpoint_gets_nothing():
    for recorder, rank in [
        (MetricRecorder(reporter=Reporter()), framework_rank(is_global_zero=False, rank=1)),
        (MetricRecorder(_runtime=Runtime(environ=dict)), ZERO),
    ]:
        recorder.start(rank)
        recorder.record({"a": 1}, row=0)
        assert recorder.state() == {}


def test_a_policy_without_a_db_manager_that_could_judge_is_said_once(caplog, monkeypatch):
    monkeypatch.setenv("KATIB_TRIAL_NAME", "trial")
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "stdout")
    recorder = MetricRecorder("a", early_stopping="asha,type=minimize")
    for _ in range(2):
        recorder.start(ZERO)
        recorder.record({"a": 1}, row=0)
        assert not recorder.is_to_stop(1)
    recorder.start(ZERO)
    assert [text for text in caplog.messages if "not stopped early" in text] == [
        "This training is not stopped early: the DB manager judges that, and this training's metrics do not go to one."
    ]


def test_processes_that_cannot_agree_upon_stopping_go_on_and_say_so_once(caplog):
    reporter, environ = Reporter(), {"WORLD_SIZE": "2"}
    recorder = MetricRecorder("a", reporter=reporter, _runtime=Runtime(environ=lambda: environ))
    recorder.start(ZERO)
    assert [recorder.is_to_stop(step) for step in (1, 2)] == [False, False]
    assert caplog.messages == [
        "The processes of this training cannot agree upon early stopping, so it goes on to its end."
    ]
    caplog.clear()
    recorder = MetricRecorder("a", reporter=reporter, _runtime=Runtime(environ=lambda: environ))
    recorder.start(ZERO)
    assert not recorder.is_to_stop(1, jax=SimpleNamespace(process_count=lambda: 1))
    assert caplog.messages == [], "JAX knows of one process, which agrees with itself"


@pytest.mark.logs_error(
    "^katib_callbacks.recording.recorder: Internal error while recording metrics; training goes on."
)
def test_a_mistake_of_ours_stays_away_from_the_training():
    def is_bookkeeping(name, shown):
        if "bad" in shown:
            raise RuntimeError("a mistake of ours")
        return False

    reporter = Reporter()
    recorder = MetricRecorder(reporter=reporter, is_bookkeeping=is_bookkeeping)
    recorder.start(ZERO)
    recorder.record({"a": 1}, row=0)
    recorder.record({"bad": 2}, row=1)
    recorder.keep(scores={"bad": 3})
    recorder.finish()
    recorder.deliver()
    assert reporter.values == [("a", 1)]
