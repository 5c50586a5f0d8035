"""An experiment that is looked at while it runs, and how it is drawn."""

import io
import re
import threading
import time

import pytest
from homes import SUBMITTED, experiment, wait_until
from rich.console import Console

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.local.state.watch import Watch
from katib_callbacks.pictures.live import RunningTrial, drawn, duration, eta_s, news_lines, summary
from katib_callbacks.pictures.sparkline import sparkline, text_plot, thinned

TRIAL = f"""
{SUBMITTED}
from katib_callbacks.recording.recorder import MetricRecorder

recorder = MetricRecorder(["loss"])
recorder.start(None)
recorder.begin_progress(lambda: 0.0)
recorder.record({{"loss": 0.5}}, row=(3, None, 0))
recorder.progress.show(0.25)
while not (submitted / "go").exists():
    time.sleep(0.02)
recorder.finish()
recorder.deliver()
"""

PRINTS = f"{SUBMITTED}print('loss=0.75', flush=True)\nwhile not (submitted / 'go').exists(): time.sleep(0.02)\n"


@pytest.fixture
def started(local):
    """Return what starts an experiment in a thread and watches it."""
    stores, runners = [], []

    def start(one):
        name = local.store(one)
        runner = Runner(local.home, name)
        runners.append(runner)
        stores.append(ExperimentStore(database(local.home)))
        runner.start()
        return Watch(stores[-1], local.home, name)

    yield start
    (local.folder / "go").touch()
    for runner in runners:
        runner.join()
    for store in stores:
        store.close()


def text_of(snapshot, width, height=40):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(drawn(snapshot, width, height))
    return console.file.getvalue()


def test_a_running_trials_epoch_and_values_are_seen_and_then_its_end(local, started):
    watch = started(experiment(TRIAL, parallelTrialCount=1, maxTrialCount=2))
    wait_until(lambda: any(one.fraction == 0.25 for one in watch.look().running))

    snapshot = watch.look()
    (running,) = snapshot.running
    assert (running.epoch, running.latest) == (3, {"loss": 0.5})
    assert (snapshot.done, snapshot.budget, snapshot.best, snapshot.is_over) == (0, 2, None, False)
    shown = text_of(snapshot, 80)
    assert re.search(r"│ 25%\S* .*│ +3 │ +0\.5 │ x=0\.\d+ ", shown)
    assert "0 of 2 trials: none finished yet, 1 running, ETA " in shown

    (local.folder / "go").touch()
    lines = []

    def is_over():
        now = watch.look()
        lines.extend(news_lines(now))
        return now.is_over

    wait_until(is_over)
    last = watch.look()
    assert [line.partition("]")[0] for line in lines] == ["[1/2", "[2/2"]
    assert all(re.fullmatch(r"\[\d/2\] one-\w{8} Succeeded, loss 0\.5: Trial has succeeded.*", line) for line in lines)
    assert (last.state, last.counts, last.best_so_far) == ("Succeeded", {"Succeeded": 2}, [0.5, 0.5])
    assert (last.running, list(last.news), summary(last)) == ([], [], "2 of 2 trials: 2 Succeeded")
    assert "best loss 0.5  ▄▄  one-" in text_of(last, 160)


def test_of_a_trial_without_a_callback_the_printed_values_are_seen(started):
    spec = {"metricsCollectorSpec": {"collector": {"kind": "StdOut"}}, "parallelTrialCount": 1, "maxTrialCount": 1}
    watch = started(experiment(PRINTS, **spec))

    wait_until(lambda: any(one.latest == {"loss": 0.75} for one in watch.look().running))
    (running,) = watch.look().running
    assert (running.fraction, running.epoch) == (None, None)


def test_a_failed_trial_says_why_and_no_line_is_too_wide(local, started):
    (local.folder / "go").touch()
    watch = started(experiment("import sys; sys.exit('out of memory')", maxFailedTrialCount=3, maxTrialCount=3))
    wait_until(lambda: watch.look().is_over)
    last = watch.look()

    assert last.counts == {"Failed": 3}
    assert last.best is None
    for width in (60, 80, 160):
        shown = text_of(last, width)
        assert max(map(len, shown.splitlines())) <= width
        assert shown.count("Failed") == 1 + 3 + 1, "of the experiment, each trial, their sum"
    assert shown.count("out of memory") == 3


def test_what_has_ended_is_not_read_again(local, started, monkeypatch):
    (local.folder / "go").touch()
    watch = started(experiment(TRIAL, maxTrialCount=3))
    wait_until(lambda: watch.look().is_over)
    asked = []
    trials = ExperimentStore.trials
    monkeypatch.setattr(ExperimentStore, "trials", lambda self, *a, **k: asked.append(k) or trials(self, *a, **k))
    with ExperimentStore(database(local.home)) as store:
        store.update_experiment("one", delete_by_s=0.0)
    watch.look()

    assert asked == [{"first": 3}]


def test_an_experiment_that_is_gone_is_an_error(local, started):
    (local.folder / "go").touch()
    watch = started(experiment(TRIAL))
    wait_until(lambda: watch.look().is_over)
    with ExperimentStore(database(local.home)) as store:
        store.delete_experiment("one")

    with pytest.raises(ExperimentError, match="no experiment 'one'"):
        watch.look()


def test_the_eta_goes_by_trials_that_have_ended_and_by_what_running_ones_say():
    def running(elapsed_s, remaining_s=None):
        return RunningTrial("t", {}, time.time() - elapsed_s, remaining_s=remaining_s)

    assert eta_s([], [running(1)], 3, 1) is None
    assert eta_s([10.0, 20.0], [], 4, 2) == pytest.approx(30)
    assert eta_s([10.0], [running(4)], 1, 1) == pytest.approx(16, abs=1)
    assert eta_s([10.0], [running(4, 40.0)], 1, 2) == pytest.approx(40)
    assert eta_s([], [running(5, 5.0)], 2, 1) == pytest.approx(25, abs=1)
    assert (duration(9.4), duration(3_725)) == ("0:09", "1:02:05")


def test_curves_in_text():
    assert sparkline([1, 2, 3], 10) == "▁▅█"
    assert sparkline([5, 5], 10) == "▄▄"
    assert sparkline([-1.7e308, 0.0, 1.7e308], 10) == "▁▅█"
    assert sparkline(range(1_000), 4) == "▁▃▆█"
    points = [(n, float(n % 7)) for n in range(10_000)]
    points[5_000] = (5_000, 99.0)
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert (5_000, 99.0) in kept
    assert kept[-1] == points[-1]

    lines = text_plot([(1, 1.0), (2, 0.5), (10, 0.25)], 40, 6)
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("         1 ┤⢣")
    assert lines[5].startswith("      0.25 ┤")
    assert lines[-1].split() == ["1", "10"]
    assert len(text_plot([(1, 2.0)], 40, 6)) == 8
    assert len(text_plot([(1, -1.7e308), (2, 1.7e308)], 40, 6)) == 8


def test_many_looks_from_a_thread_of_its_own_do_no_harm(local, started):
    watch = started(experiment(TRIAL, maxTrialCount=3))
    stop = threading.Event()

    def look():
        while not stop.is_set():
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        (local.folder / "go").touch()
        wait_until(lambda: local.queries.is_experiment_succeeded("one"))
    finally:
        stop.set()
        thread.join()
    assert watch.look().counts == {"Succeeded": 3}
