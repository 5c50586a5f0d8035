"""Whole experiments: states and their reasons, budgets, goals, strategies, going on."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from homes import REPORT, SUBMITTED, experiment, wait_until

from katib_callbacks.errors import ExperimentError
from katib_callbacks.local.running.runner import Runner, locked

LOSS = REPORT + "import os; report({'loss': float(os.environ['X'])})"


def names(done):
    return done.status.conditions[-1].type, done.status.conditions[-1].reason


def test_pushed_metrics_become_observations_and_the_best_is_found(local):
    done = local.run(experiment(LOSS))

    assert names(done) == ("Succeeded", "ExperimentMaxTrialsReached")
    assert (done.status.trials, done.status.trials_succeeded) == (3, 3)
    trials = local.trials()
    best = min(trials, key=lambda trial: float(trial.assignments["x"]))
    optimal = done.status.current_optimal_trial
    assert optimal.best_trial_name == best.name
    assert optimal.observation.metrics[0].latest == optimal.parameter_assignments[0].value == best.assignments["x"]
    for trial in trials:
        assert local.rows(trial.name) == [("loss", trial.assignments["x"])]


def test_output_is_parsed_in_stdout_mode(local):
    code = "import os; print('2026-01-31T12:00:00Z loss=3'); print('loss=' + os.environ['X'], 'accuracy=0.5 other=1')"
    one = experiment(code, metricsCollectorSpec={"collector": {"kind": "StdOut"}}, maxTrialCount=2)
    one["spec"]["objective"]["additionalMetricNames"] = ["accuracy"]
    done = local.run(one)

    assert names(done)[0] == "Succeeded"
    for trial in local.trials():
        assert local.rows(trial.name) == [("loss", "3"), ("loss", trial.assignments["x"]), ("accuracy", "0.5")]
        assert trial.value == float(trial.assignments["x"]), "the least, since it is minimised"
        assert [metric["name"] for metric in trial.observation] == ["loss", "accuracy"]


def test_a_strategy_decides_which_value_counts(local):
    code = "print('loss=1 loss=3 loss=2')"
    one = experiment(
        code, metricsCollectorSpec={"collector": {"kind": "StdOut"}}, maxTrialCount=1, parallelTrialCount=1
    )
    one["spec"]["objective"]["metricStrategies"] = [{"name": "loss", "value": "latest"}]
    local.run(one)

    assert local.trials()[0].value == 2.0


@pytest.mark.parametrize(("kind", "code"), [("Push", REPORT + "report({'speed': 1})"), ("StdOut", "print('speed=1')")])
def test_a_success_without_the_objective_is_metrics_unavailable(local, kind, code):
    done = local.run(experiment(code, metricsCollectorSpec={"collector": {"kind": kind}}, maxFailedTrialCount=3))

    assert names(done) == ("Failed", "ExperimentFailed"), "three of three"
    trial = local.trials()[0]
    assert trial.state == "MetricsUnavailable"
    assert trial.conditions[-1]["reason"] == "MetricsUnavailable. Job reason: CompletionsReached"
    assert "'loss' was not reported" in trial.conditions[-1]["message"]
    assert local.rows(trial.name)[0] == ("loss", "unavailable")
    assert done.status.metrics_unavailable_trial_list == [trial.name for trial in local.trials()]
    assert done.status.current_optimal_trial is None


def test_a_trials_termination_message_follows_on_why_it_has_no_number(local):
    train = (
        "from katib_callbacks.recording.recorder import MetricRecorder\n"
        "from katib_callbacks.reporting.ranks import framework_rank\n"
        "recorder = MetricRecorder('loss')\n"
        "recorder.start(framework_rank(is_global_zero=True)); recorder.record({'los': 1}, row=0)\n"
        "recorder.finish(); recorder.deliver()\n"
    )
    unreachable = "from katib_callbacks import KatibReporter\n"
    unreachable += "KatibReporter('127.0.0.1:1', timeout_s=0.5).report({'loss': 1})"
    local.run(experiment(train, name="unseen", maxTrialCount=1, parallelTrialCount=1))
    local.run(experiment(unreachable, name="unreachable", maxTrialCount=1, parallelTrialCount=1))

    unseen, failed = (local.trials(name)[0].conditions[-1] for name in ("unseen", "unreachable"))
    assert unseen["type"] == "MetricsUnavailable"
    words = "Metrics are not available: 'loss' was not reported; loss never appeared; seen: los. Did you mean 'los'?"
    assert unseen["message"].startswith(words)
    assert failed["type"] == "Failed"
    assert "; 1 of 1 rows of trial 'unreachable-" in failed["message"]
    assert "did not reach the DB manager at 127.0.0.1:1" in failed["message"]


def test_failures_are_counted_and_say_why(local):
    done = local.run(experiment("raise SystemExit('no GPU')", maxFailedTrialCount=2, parallelTrialCount=1))

    assert names(done) == ("Failed", "ExperimentFailed")
    assert [trial.state for trial in local.trials()] == ["Failed", "Failed"]
    last = local.trials()[0].conditions[-1]
    assert last["reason"] == "TrialFailed. Job reason: BackoffLimitExceeded"
    assert last["message"] == "Trial has failed. Job message: exit status 1; last output: no GPU"


def test_a_failed_trials_rows_do_not_count(local):
    code = LOSS + "; raise SystemExit(1)"
    done = local.run(experiment(code, maxTrialCount=1, parallelTrialCount=1))

    (trial,) = local.trials()
    assert (trial.state, trial.observation, trial.value) == ("Failed", None, None)
    assert names(done) == ("Failed", "ExperimentFailed")
    assert done.status.conditions[-1].message == "Experiment has failed because all trials have failed"


def test_a_command_that_cannot_be_started_fails_its_trial(local):
    one = experiment(maxTrialCount=2)
    container = one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["no-such-command"]
    local.run(one)

    assert [trial.state for trial in local.trials()] == ["Failed", "Failed"]
    assert "no-such-command" in local.trials()[0].conditions[-1]["message"]


def test_a_goal_ends_the_experiment_and_what_still_runs_finishes_and_counts(local):
    code = (
        f"{SUBMITTED}while float(os.environ['X']) > 0.5 and not (submitted / 'go').exists(): time.sleep(0.02)\n{LOSS}"
    )
    one = experiment(code, maxTrialCount=9)
    one["spec"]["objective"]["goal"] = 0.5
    one["spec"]["algorithm"] = {"algorithmName": "grid"}
    one["spec"]["parameters"][0]["feasibleSpace"] = {"min": "0.4", "max": "3.1", "step": "0.3"}
    reached = []

    def watch(event):
        if event.trial is None and event.state == "Succeeded":
            reached.append(local.queries.get_experiment("one").status)
            (local.folder / "go").touch()

    done = local.run(one, watch)

    assert names(done) == ("Succeeded", "ExperimentGoalReached")
    assert (reached[0].trials_running, reached[0].trials_succeeded) == (1, 1)
    assert [trial.state for trial in local.trials()] == ["Succeeded", "Succeeded"], "and no new one"
    assert (done.status.trials_succeeded, done.status.trials_killed) == (2, 0)


def test_a_grid_without_a_budget_ends_at_its_last_point(local):
    one = experiment(LOSS, algorithm={"algorithmName": "grid"}, parallelTrialCount=3)
    del one["spec"]["maxTrialCount"]
    one["spec"]["parameters"][0]["feasibleSpace"]["step"] = "0.5"
    done = local.run(one)

    assert names(done) == ("Succeeded", "ExperimentSuggestionEndReached")
    assert sorted(trial.assignments["x"] for trial in local.trials()) == ["0.0", "0.5", "1.0"]


def test_a_deadline_fails_the_trial(local):
    one = experiment(
        "import time; time.sleep(600)", job={"activeDeadlineSeconds": 1}, maxTrialCount=1, parallelTrialCount=1
    )
    local.run(one)

    last = local.trials()[0].conditions[-1]
    assert (last["type"], last["reason"]) == ("Failed", "TrialFailed. Job reason: DeadlineExceeded")


def test_no_more_trials_run_at_a_time_than_allowed(local):
    running, most = set(), []

    def watch(event):
        if event.trial is not None:
            (running.add if event.trial.state == "Running" else running.discard)(event.trial.name)
            most.append(len(running))

    local.run(experiment(LOSS, maxTrialCount=7, parallelTrialCount=3), watch)

    assert max(most) == 3
    assert len(local.trials()) == 7


def test_the_working_folder_is_kept_where_it_is_asked_for_or_the_trial_failed(local):
    code = f"import pathlib; pathlib.Path('model').write_text('weights')\n{LOSS}"
    for retain, ending, kept in ((True, "", True), (False, "", False), (False, "\nraise SystemExit(1)", True)):
        one = experiment(code + ending, maxTrialCount=1, parallelTrialCount=1)
        one["metadata"]["name"] = name = f"retain-{retain}-{kept}".lower()
        one["spec"]["trialTemplate"]["retain"] = retain
        local.run(one)
        (trial,) = local.trials(name)
        assert (local.home / name / trial.name / "model").exists() == kept


def test_trials_work_in_a_folder_of_the_users_if_it_is_asked_for(local):
    (local.folder / "data.txt").write_text("0.25")
    code = REPORT + "report({'loss': float(open('data.txt').read())})"
    local.run(experiment(code, maxTrialCount=1, parallelTrialCount=1), workdir=local.folder)

    assert local.trials()[0].value == 0.25


def test_a_stopped_experiment_goes_on_with_its_trials_cleared(local):
    code = f"{SUBMITTED}{LOSS}\nif not (submitted / 'go').exists(): time.sleep(600)"
    name = local.store(experiment(code, maxTrialCount=4))
    runner = Runner(local.home, name)
    runner.start()
    while sum(bool(local.rows(trial.name)) for trial in local.trials()) < 2:
        time.sleep(0.05)
    runner.stop()

    stopped = local.queries.get_experiment(name)
    assert stopped.status.trials_pending == 2
    assert names(stopped)[0] == "Running"
    (local.folder / "go").touch()
    done = local.resume()
    assert (done.status.trials, done.status.trials_succeeded) == (4, 4)
    for trial in local.trials():
        assert local.rows(trial.name) == [("loss", trial.assignments["x"])], "once"
    assert [len(trial.attempts) for trial in local.trials()] == [2, 2, 1, 1]


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes"])
def test_an_interrupted_search_tries_the_points_of_one_that_was_not(local, algorithm):
    code = f"{SUBMITTED}if (submitted / 'wait').exists(): time.sleep(600)\n{LOSS}"
    settings = [{"name": "random_state", "value": "5"}]
    spec = {
        "algorithm": {"algorithmName": algorithm, "algorithmSettings": settings},
        "parallelTrialCount": 1,
        "maxTrialCount": 6,
    }
    both = [experiment(code, name, **spec) for name in ("whole", "broken")]
    for one in both:
        one["spec"]["parameters"].append({**one["spec"]["parameters"][0], "name": "y"})
    local.run(both[0])

    finished = threading.Semaphore(0)

    def stop_after_three(event):
        if event.trial is not None and event.trial.state == "Succeeded" and event.trial.number == 2:
            (local.folder / "wait").touch()
        if event.trial is not None and event.trial.state == "Running" and event.trial.number == 3:
            finished.release()

    runner = Runner(local.home, local.store(both[1]), stop_after_three)
    runner.start()
    assert finished.acquire(timeout=120)
    runner.stop()
    (local.folder / "wait").unlink()
    local.resume("broken")

    whole, broken = ([trial.assignments for trial in local.trials(name)] for name in ("whole", "broken"))
    assert broken == whole


def test_a_point_that_another_optuna_would_draw_is_kept(local):
    """As after an upgrade of Optuna: the replayed answers differ from the stored ones."""
    from katib_callbacks.local.running.runner import database
    from katib_callbacks.local.state.store import ExperimentStore

    code = f"{SUBMITTED}if not (submitted / 'go').exists(): time.sleep(600)\n{LOSS}"
    one = experiment(code, algorithm={"algorithmName": "tpe"})
    name = local.store(one)
    started = threading.Semaphore(0)
    runner = Runner(local.home, name, lambda event: started.release() if event.trial else None)
    runner.start()
    for _ in range(2):
        assert started.acquire(timeout=120)
    runner.stop()
    with ExperimentStore(database(local.home)) as state:
        state.update_experiment(name, seed=state.experiment(name).seed + 1)
    before = [trial.assignments for trial in local.trials()]
    (local.folder / "go").touch()
    done = local.resume()

    assert done.status.trials_succeeded == 3
    assert [trial.assignments for trial in local.trials()][:2] == before
    for trial in local.trials():
        assert local.rows(trial.name) == [("loss", trial.assignments["x"])]


def test_resuming_a_finished_experiment_changes_nothing(local):
    local.run(experiment(LOSS, maxTrialCount=1, parallelTrialCount=1))
    before = local.trials(), local.queries.get_experiment("one")
    local.resume()

    assert (local.trials(), local.queries.get_experiment("one")) == before


def test_two_runners_do_not_run_one_experiment(local):
    name = local.store(experiment(LOSS))
    with locked(local.home, name), pytest.raises(ExperimentError, match="'one' is run by another process"):
        Runner(local.home, name).run(lock_timeout_s=0.1)


def test_a_name_is_taken_once(local):
    local.store(experiment())

    with pytest.raises(ExperimentError, match="an experiment 'one' already exists; resume or delete it"):
        local.store(experiment())


def test_a_name_may_be_made_up(local):
    one = experiment()
    one["metadata"] = {"generateName": "many-"}

    first, second = local.store(one), local.store(one)
    assert first != second
    assert first.startswith("many-")


def db_managers_of(home):
    """Return the numbers of the processes that are a home's DB managers."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes() if folder.name.isdecimal() else b""
            if b"db_manager_process import main" in command and str(home).encode() in command:
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_db_manager_that_is_killed_is_started_again_where_it_was(local):
    code = (
        f"{SUBMITTED}(submitted / 'begun').touch()\nwhile not (submitted / 'go').exists(): time.sleep(0.02)\n"
        f"{REPORT}report({{'loss': 1}})"
    )
    own = Runner(local.home, local.store(experiment(code, maxTrialCount=1, parallelTrialCount=1)))
    own.start()
    wait_until((local.folder / "begun").exists)
    (killed,) = db_managers_of(local.home)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: db_managers_of(local.home) not in ([], [killed]))
    (local.folder / "go").touch()
    own.join()

    (trial,) = local.trials()
    assert trial.state == "Succeeded"
    assert local.rows(trial.name) == [("loss", "1")]
    assert db_managers_of(local.home) == []
