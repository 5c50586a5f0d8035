"""Sinks of one's own that keep to nothing: what they do to a report, to the other sinks and to a training."""

import copy
import pickle
import subprocess
import sys
import threading
import time

import pytest
from http_partners import wait_until

from katib_callbacks import KatibReporter, SinkOutcome
from katib_callbacks.errors import ConfigurationError, RejectedError, UnavailableError
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting import background
from katib_callbacks.reporting.ranks import framework_rank
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks import registry

TRAINJOB = {"KUBEFLOW_TRAINER_SERVER_URL": "http://127.0.0.1:1/status"}


class Sink:
    """``act`` is called with the rows, and ``on_close`` when it is closed."""

    def __init__(self, act=lambda logs: None, on_close=lambda: None):
        self.act, self.on_close = act, on_close
        self.names = []

    def send(self, trial_name, logs, *, deadline_s):
        self.names += [log.name for log in logs]
        self.act(logs)
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self):
        self.on_close()


class Shows(Sink):
    def progress(self, fraction, remaining_s, latest):
        self.act(latest)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def exits(_logs):
    sys.exit(3)


class OddError(Exception):
    """Has attributes that a DeliveryError has, too."""

    attempts, pending = "many", None


def raises_oddly(_logs):
    raise OddError("odd")


@pytest.mark.parametrize(("act", "error"), [(exits, "SystemExit: 3"), (raises_oddly, "OddError: odd")])
def test_whatever_a_sink_raises_it_gets_the_next_report_and_one_line_says_so(katib_db_manager, caplog, act, error):
    sink = Sink(act)
    with KatibReporter(sinks=["katib", sink]) as reporter:
        outcomes = [reporter.report({name: 1}).sinks["Sink"] for name in ("first", "second")]

    assert outcomes == [SinkOutcome(delivered=0, attempts=0, error=error)] * 2
    assert sink.names == ["first", "second"]
    assert [line.partition("depend on it: ")[2] for line in lines(caplog)] == [error]
    assert [log.name for log in katib_db_manager.metrics()] == ["first", "second"]


class QuotaError(RejectedError):
    """An error of a plug-in's own, made of other things than ours."""

    def __init__(self, store, quota):
        super().__init__(f"{store} takes {quota} rows")
        self.quota = quota


def is_down(_logs):
    raise UnavailableError("down")


def is_full(_logs):
    raise QuotaError("mystore", 7)


@pytest.mark.parametrize(("act", "kind"), [(is_down, UnavailableError), (is_full, QuotaError)])
def test_an_error_that_does_not_say_how_many_rows_are_pending_means_all_of_them(katib_db_manager, act, kind):
    with KatibReporter(sinks=["katib", Sink(act)]) as reporter:
        outcome = reporter.report({"loss": 1, "accuracy": 0.5}).sinks["Sink"]
    with KatibReporter(sinks=[Sink(act)]) as reporter, pytest.raises(kind) as caught:
        reporter.report({"loss": 1, "accuracy": 0.5})

    assert (outcome.delivered, outcome.error.partition(":")[0]) == (0, kind.__name__)
    assert type(caught.value) is kind
    assert caught.value.pending == 2
    assert "loss=1, accuracy=0.5" in str(caught.value)
    copied = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own bytes
    assert (type(copied), str(copied), vars(copied)) == (kind, str(caught.value), vars(caught.value))


def test_an_error_that_says_how_many_rows_are_pending_is_believed():
    def takes_one(logs):
        raise UnavailableError("down", attempts=2, pending=len(logs) - 1)

    with KatibReporter(trial_name="trial", sinks=[Sink(takes_one)]) as reporter, pytest.raises(UnavailableError) as it:
        reporter.report({"loss": 1, "accuracy": 0.5})

    assert (it.value.attempts, it.value.pending) == (2, 1)
    assert "loss=1" not in str(it.value)


def test_a_sink_cannot_take_rows_from_the_first():
    is_cleared = threading.Event()

    def clear(logs):
        try:
            logs.clear()
        finally:
            is_cleared.set()

    first, other = Sink(lambda _logs: is_cleared.wait(60)), Sink(clear)
    with KatibReporter(trial_name="trial", sinks=[first, other]) as reporter:
        receipt = reporter.report({"loss": 1, "accuracy": 2})

    assert receipt.delivered == 2


def test_a_sink_cannot_change_the_metrics_that_another_shows():
    shown = []
    sinks = [Shows(dict.clear), Shows(lambda latest: shown.append(dict(latest)))]
    with KatibReporter(trial_name="trial", sinks=sinks) as reporter:
        reporter.report_progress(0.5, {"loss": 1})

    assert shown == [{"loss": 1}]


def train(recorder):
    """Do what an adapter does."""
    recorder.start(framework_rank(is_global_zero=True))
    recorder.begin_progress(lambda: 0.0)
    recorder.record({"loss": 0.5}, row=0)
    recorder.finish()
    recorder.deliver()


def named(monkeypatch, sinks):
    """Make sinks of one's own known by names, so that they are closed."""
    makers = {name: (lambda options, sink=sink: sink) for name, sink in sinks.items()}
    monkeypatch.setattr(registry, "_MAKERS", {**registry._MAKERS, **makers})


@pytest.mark.parametrize("kind", [Sink, Shows])
def test_a_sink_that_cannot_be_closed_breaks_no_training(katib_db_manager, monkeypatch, caplog, kind):
    def fail():
        raise ValueError("cannot")

    closed = threading.Event()
    named(monkeypatch, {"unruly": kind(on_close=fail), "other": Sink(on_close=closed.set)})
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "katib,unruly,other")
    recorder = MetricRecorder("loss", on_error="raise")
    train(recorder)
    assert recorder.receipt.sinks["unruly"].delivered == 1
    assert closed.wait(60)
    recorder.start(framework_rank(is_global_zero=True))
    recorder.begin_progress(lambda: 0.0)
    recorder.abandon()

    expected = {"The sink 'unruly' cannot be closed: ValueError: cannot"}
    wait_until(lambda: lines(caplog), "nobody says so")
    assert set(lines(caplog)) == expected
    assert katib_db_manager.latest() == {"loss": 0.5}


@pytest.mark.parametrize("kind", [Sink, Shows])
def test_a_training_does_not_wait_for_a_sink_that_does_not_return_from_close(katib_db_manager, monkeypatch, kind):
    released, closing = threading.Event(), []

    def hang():
        closing.append(threading.current_thread())
        if closing[-1] is not threading.main_thread():
            released.wait(60)

    named(monkeypatch, {"unruly": kind(on_close=hang)})
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "katib,unruly")
    recorder = MetricRecorder("loss")
    train(recorder)
    assert recorder.receipt.sinks["unruly"].delivered == 1
    wait_until(lambda: len(closing) == 1, "it is not closed")
    if kind is Shows:  # nothing is sent there
        recorder.start(framework_rank(is_global_zero=True))
        recorder.begin_progress(lambda: 0.0)
        recorder.abandon()
        wait_until(lambda: len(closing) == 2, "it is not closed")

    assert threading.main_thread() not in closing
    released.set()


def test_the_end_of_a_process_does_not_wait_for_it_either(katib_db_manager):
    code = """
import time
from katib_callbacks import KatibReporter, SinkOutcome
from katib_callbacks.sinks import registry

class Hangs:
    def send(self, trial_name, logs, *, deadline_s):
        return SinkOutcome(len(logs), 1)
    def close(self):
        time.sleep(3_600)

registry._MAKERS["hangs"] = lambda options: Hangs()
with KatibReporter(sinks=["katib", "hangs"]) as reporter:
    reporter.report({"loss": 1})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 0, done.stderr
    assert "The sink 'hangs' is late" in done.stderr
    assert len(katib_db_manager.metrics()) == 1


def test_a_sink_that_is_always_late_is_complained_of_once(katib_db_manager, caplog, monkeypatch):
    monkeypatch.setattr(background, "GRACE_S", 0.1)
    monkeypatch.setattr(background, "_WATCH_INTERVAL_S", 0.01)
    caplog.set_level("DEBUG", logger="katib_callbacks.reporting.background")
    sink = Sink(lambda logs: time.sleep(0.5))
    with KatibReporter(sinks=["katib", sink]) as reporter:
        for _ in range(3):
            reporter.report({"loss": 1})
    wait_until(lambda: len(sink.names) == 3, "the sink does not get the rows")
    wait_until(lambda: "watcher" not in str(threading.enumerate()), "its threads go on")

    assert [record.levelname for record in caplog.records if "is late" in record.message] == ["WARNING"]


@pytest.mark.parametrize("sinks", [["katib"], None], ids=["with sinks of its own", "with itself"])
def test_a_sink_that_makes_a_reporter_when_it_is_made_does_not_lock_it_out(
    katib_db_manager, monkeypatch, tmp_path, sinks
):
    class Copies(Sink):
        def __init__(self, options):
            self.reporter = KatibReporter(trial_name="copy", sinks=sinks)
            self.reporter.report({"made": 1})
            super().__init__(self.reporter.report_logs, self.reporter.close)

    monkeypatch.setattr(registry, "_MAKERS", {**registry._MAKERS, "copies": Copies})
    monkeypatch.setenv("KATIB_CALLBACKS_SINKS", "katib,copies")
    if sinks is None:
        with pytest.raises(ConfigurationError, match=r"'copies' makes a reporter that has this sink again"):
            KatibReporter()
        return
    with copy.copy(KatibReporter()) as reporter:  # a copy makes its sinks when it reports
        assert reporter.report({"loss": 1}).sinks["copies"].delivered == 1

    assert [log.name for log in katib_db_manager.metrics("copy")] == ["made", "made", "loss"]


# -- other processes, other environments ---------------------------------------------------------------------------


def test_a_reporter_that_was_sent_to_another_process_takes_progress_there(monkeypatch):
    for name, value in TRAINJOB.items():
        monkeypatch.setenv(name, value)
    reporter = KatibReporter(sinks=["trainjob"])
    sent = pickle.loads(pickle.dumps(reporter))  # noqa: S301  our own

    assert sent.shows_progress
    sent.close()
    assert not sent.shows_progress


def test_a_sink_that_cannot_be_made_there_takes_no_progress_from_the_others(tmp_path, caplog):
    folder, shown = tmp_path / "rows.jsonl", []
    other = Shows(shown.append)
    reporter = KatibReporter(trial_name="trial", sinks=[other, f"file://{folder}"])
    moved = copy.copy(reporter)
    folder.mkdir()  # where the name can no longer be right

    with moved:
        moved.report_progress(0.5)
    assert shown == [{}]


def test_a_spool_of_the_whole_cluster_is_no_obstacle_where_rows_go_elsewhere(tmp_path):
    variables = {**TRAINJOB, "KATIB_CALLBACKS_SPOOL_DIR": str(tmp_path / "spool"), "KATIB_CALLBACKS_SINKS": "auto"}
    reporter = KatibReporter(_runtime=Runtime(environ=lambda: variables))
    assert reporter.idle_reason is None

    variables |= {"KATIB_TRIAL_NAME": "trial", "KATIB_CALLBACKS_SINKS": f"file://{tmp_path}/rows.jsonl,katib"}
    runtime = Runtime(environ=lambda: variables)
    with pytest.raises(ConfigurationError, match="has to be the first"):
        KatibReporter(spool_dir=tmp_path, _runtime=runtime)
    variables["KATIB_CALLBACKS_SINKS"] = f"file://{tmp_path}/rows.jsonl"
    recorder = MetricRecorder("loss", _runtime=runtime)
    recorder.start(framework_rank(is_global_zero=True))
    recorder.record({"loss": 0.5})
    recorder.finish()
    recorder.deliver()

    assert recorder.receipt.delivered == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_password_with_a_comma_is_not_shown():
    variables = {"KATIB_CALLBACKS_SINKS": "katib,prometheus+http://user:s3c,ret@host"}
    with pytest.raises(ConfigurationError, match=r"no sink '\*\*\*@host'"):
        KatibReporter(_runtime=Runtime(environ=lambda: variables))
