"""Verdicts as Katib's controller gives them, and ends that leave nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from homes import REPORT, SUBMITTED, experiment

from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.algorithms.settings import choose, make
from katib_callbacks.local.algorithms.space import read_parameter
from katib_callbacks.local.api.models import V1beta1FeasibleSpace, V1beta1ParameterSpec
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.controller import Controller
from katib_callbacks.local.running.runner import LOCK_TIMEOUT_S, Runner, database, locked
from katib_callbacks.local.state.budget import edit_budget
from katib_callbacks.local.state.store import ExperimentStore

STDOUT = {"collector": {"kind": "StdOut"}}
LOSS = REPORT + "import os; report({'loss': float(os.environ['X'])})"

on_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows what is left")


def ending(done):
    last = done.status.conditions[-1]
    return last.type, last.reason


def container_of(one):
    return one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]


def unstartable(**spec):
    one = experiment(**spec)
    container_of(one)["command"] = ["no-such-command"]
    return one


# -- how many trials there are -------------------------------------------------------------------------------------


def test_a_command_that_cannot_be_started_makes_no_more_trials_than_may_fail(local):
    done = local.run(unstartable(maxFailedTrialCount=1, maxTrialCount=60))

    assert ending(done) == ("Failed", "ExperimentFailed")
    assert [trial.state for trial in local.trials()] == ["Failed"]


def test_an_experiment_without_a_budget_whose_command_cannot_be_started_is_stopped(local):
    one = unstartable()
    del one["spec"]["maxTrialCount"]
    begun = threading.Semaphore(0)
    own = Runner(local.home, local.store(one), lambda event: begun.release() if event.trial else None)
    own.start()
    for _ in range(20):
        assert begun.acquire(timeout=60)
    own.stop()

    assert local.queries.get_experiment("one").status.conditions[-1].type == "Running"


def test_without_metrics_a_trial_counts_as_failed_and_does_not_use_up_the_budget(local):
    done = local.run(
        experiment("pass", metricsCollectorSpec=STDOUT, maxTrialCount=3, maxFailedTrialCount=3, parallelTrialCount=1)
    )

    assert ending(done) == ("Failed", "ExperimentFailed")
    assert done.status.conditions[-1].message == "Experiment has failed because max failed count has reached"
    assert done.status.trial_metrics_unavailable == 3


def test_one_success_among_failures_is_a_success_where_no_limit_says_otherwise(local):
    code = f"import os\nif float(os.environ['X']) > 0: raise SystemExit(1)\n{LOSS}"
    one = experiment(code, algorithm={"algorithmName": "grid"})
    one["spec"]["parameters"][0]["feasibleSpace"] = {"min": "0", "max": "2", "step": "1"}
    done = local.run(one)

    assert ending(done) == ("Succeeded", "ExperimentMaxTrialsReached")
    assert (done.status.trials_succeeded, done.status.trials_failed) == (1, 2)


def test_trials_that_were_stopped_after_the_goal_was_reached_run_when_it_is_resumed(local):
    code = f"{SUBMITTED}\nif float(os.environ['X']) > 0.5 and not (submitted / 'go').exists(): time.sleep(600)\n{LOSS}"
    one = experiment(code, maxTrialCount=9, algorithm={"algorithmName": "grid"})
    one["spec"]["objective"]["goal"] = 0.5
    one["spec"]["parameters"][0]["feasibleSpace"] = {"min": "0.4", "max": "3.1", "step": "0.3"}
    over = threading.Event()
    own = Runner(local.home, local.store(one), lambda event: over.set() if event.state == "Succeeded" else None)
    own.start()
    assert over.wait(120)
    own.stop()
    assert local.queries.get_experiment("one").status.trials_pending == 1

    (local.folder / "go").touch()
    done = local.resume()
    assert ending(done) == ("Succeeded", "ExperimentGoalReached")
    assert (done.status.trials, done.status.trials_succeeded) == (2, 2)


# -- the form of the status ----------------------------------------------------------------------------------------


def test_the_status_is_written_as_katib_writes_it(local):
    done = local.run(experiment(LOSS)).serialize()
    status = done["status"]

    assert set(status) == {
        "startTime", "completionTime", "conditions", "currentOptimalTrial", "succeededTrialList", "trials",
        "trialsSucceeded",
    }  # fmt: skip
    assert [(one["type"], one["status"], one["reason"]) for one in status["conditions"]] == [
        ("Created", "True", "ExperimentCreated"),
        ("Running", "False", "ExperimentRunning"),
        ("Succeeded", "True", "ExperimentMaxTrialsReached"),
    ]
    running, succeeded = status["conditions"][1:]
    assert running["lastUpdateTime"] == running["lastTransitionTime"] == succeeded["lastTransitionTime"]
    assert time.strptime(status["completionTime"], "%Y-%m-%dT%H:%M:%SZ")

    trial = local.queries.list_trials("one")[0].serialize()
    assert set(trial["status"]) == {"startTime", "completionTime", "conditions", "observation"}
    assert trial["status"]["conditions"][-1]["reason"] == "TrialSucceeded. Job reason: CompletionsReached"
    assert trial["status"]["conditions"][-1]["message"] == (
        "Trial has succeeded. Job message: Reached expected number of succeeded pods"
    )
    assert trial["spec"]["successCondition"] == 'status.conditions.#(type=="Complete")#|#(status=="True")#'
    assert trial["spec"]["failureCondition"] == 'status.conditions.#(type=="Failed")#|#(status=="True")#'


def test_a_trial_without_any_row_has_no_observation(local):
    local.run(experiment("pass", maxTrialCount=1, parallelTrialCount=1))

    assert local.queries.list_trials("one")[0].status.observation is None


def test_an_additional_metric_that_is_missing_is_unavailable_and_the_trial_succeeded(local):
    one = experiment(LOSS, maxTrialCount=1, parallelTrialCount=1)
    one["spec"]["objective"]["additionalMetricNames"] = ["accuracy"]
    local.run(one)

    (trial,) = local.queries.list_trials("one")
    assert trial.status.conditions[-1].type == "Succeeded"
    assert [metric.latest for metric in trial.status.observation.metrics if metric.name == "accuracy"] == [
        "unavailable"
    ]


# -- rows ----------------------------------------------------------------------------------------------------------


def test_pushed_rows_stay_beside_those_of_the_collector(local):
    push = "from katib_callbacks import KatibReporter\nKatibReporter(sinks=['katib']).report({'loss': 3, 'other': 1})"
    local.run(
        experiment(f"print('loss=5')\n{push}", metricsCollectorSpec=STDOUT, maxTrialCount=1, parallelTrialCount=1)
    )

    (trial,) = local.trials()
    assert sorted(local.rows(trial.name)) == [("loss", "3"), ("loss", "5"), ("other", "1")]
    assert trial.value == 3


def test_output_is_read_while_it_is_written(local):
    code = SUBMITTED + (
        "print('loss=7', flush=True)\nwhile not (submitted / 'go').exists(): time.sleep(0.05)\nprint('loss=8', end='')"
    )
    own = Runner(
        local.home, local.store(experiment(code, metricsCollectorSpec=STDOUT, maxTrialCount=1, parallelTrialCount=1))
    )
    own.start()
    while not (local.trials() and local.rows(local.trials()[0].name)):
        time.sleep(0.05)
    assert local.trials()[0].state == "Running"
    (local.folder / "go").touch()
    own.join()

    assert local.rows(local.trials()[0].name) == [("loss", "7"), ("loss", "8")]


def test_output_without_end_is_read_whole_and_others_have_their_turn(local):
    count = 300_000
    code = (
        f"import os\nif os.environ['X'] == '0.0':\n    for n in range({count}): print('loss=' + str(n))\n"
        "print('loss=0.5')"
    )
    one = experiment(code, metricsCollectorSpec=STDOUT, algorithm={"algorithmName": "grid"}, maxTrialCount=2)
    one["spec"]["parameters"][0]["feasibleSpace"]["step"] = "1"
    local.run(one)

    long = next(trial for trial in local.trials() if trial.assignments["x"] == "0.0")
    with ExperimentStore(database(local.home)) as store:
        rows = store.rows(long.name)
    assert [row.value for row in rows] == [*map(str, range(count)), "0.5"]
    assert long.observation[0] == {"name": "loss", "min": "0", "max": str(count - 1), "latest": "0.5"}


def test_a_workers_log_of_the_attempt_before_is_not_kept(local):
    one = experiment(
        f"{SUBMITTED}print('first', flush=True)\nif not (submitted / 'go').exists(): time.sleep(600)\n{LOSS}"
    )
    template = one["spec"]["trialTemplate"]
    pod = template["trialSpec"]["spec"]["template"]
    template["trialSpec"] = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Master": {"template": pod}, "Worker": {"template": pod}}},
    }
    one["spec"].update(maxTrialCount=1, parallelTrialCount=1)
    own = Runner(local.home, local.store(one))
    own.start()
    while not list((local.home / "one").glob("*.1.log")):
        time.sleep(0.02)
    (worker,) = (local.home / "one").glob("*.1.log")
    while "first" not in worker.read_text():
        time.sleep(0.02)
    own.stop()
    (local.folder / "go").touch()
    local.resume()

    assert worker.read_text() == "first\n"


# -- ends ----------------------------------------------------------------------------------------------------------

# Writes down SIGTERM; its child, in a session of its own and without the mark in its environment, ignores it.
STUBBORN = (
    SUBMITTED
    + """
import signal, subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"],
    start_new_session=True, env={},
)
def end(*_):
    time.sleep(0.3)
    (submitted / "saved").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
(submitted / "new").write_text(str(child.pid))
(submitted / "new").rename(submitted / "child")
time.sleep(600)
"""
)


def is_alive(pid):
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def child_of(folder):
    path = folder / "child"
    while not path.exists() or not path.read_text():  # it is made before it is written
        time.sleep(0.02)
    return int(path.read_text())


def one_trial(code, **spec):
    return experiment(code, maxTrialCount=1, parallelTrialCount=1, **spec)


@on_linux
@pytest.mark.parametrize("how", ["stop", "delete", "deadline"])
def test_a_trial_is_asked_to_end_first_and_nothing_of_it_is_left(local, how):
    own = Runner(
        local.home, local.store(one_trial(STUBBORN, job={"activeDeadlineSeconds": 2} if how == "deadline" else None))
    )
    own.start()
    child = child_of(local.folder)
    if how == "stop":
        own.stop()
    elif how == "delete":
        runner.delete(local.home, "one")
    own.join()

    assert (local.folder / "saved").exists(), "it had the time to save its work"
    while is_alive(child):
        time.sleep(0.01)


def test_after_its_grace_period_a_trial_is_killed(local):
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = f"{SUBMITTED}{ignores}\n(submitted / 'child').write_text('1')\ntime.sleep(600)"
    one = one_trial(code)
    one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    own = Runner(local.home, local.store(one))
    own.start()
    child_of(local.folder)
    own.stop()

    assert local.queries.get_experiment("one").status.trials_pending == 1


@pytest.fixture
def killed(local):
    """An experiment whose runner was killed while its trial ran."""
    path = local.folder / "one.yaml"
    path.write_text(yaml.safe_dump({"kind": "Experiment", "apiVersion": "kubeflow.org/v1beta1", **one_trial(STUBBORN)}))
    command = [sys.executable, "-m", "katib_callbacks.cli", "experiment", "run", "one.yaml", "--home", str(local.home)]
    process = subprocess.Popen(command, cwd=local.folder, stdout=subprocess.DEVNULL)
    child = child_of(local.folder)
    process.kill()
    process.wait()
    yield child
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


@on_linux
def test_deleting_after_a_crash_ends_what_still_runs(local, killed):
    runner.delete(local.home, "one")

    while is_alive(killed):
        time.sleep(0.01)
    assert not (local.home / "one").exists()


@on_linux
def test_an_experiment_whose_runner_is_gone_is_said_to_be_stopped(local, killed):
    def experiment_command(*arguments):
        command = [sys.executable, "-m", "katib_callbacks.cli", "experiment", *arguments, "--home", str(local.home)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with locked(local.home, "one"):
        assert "one         Running" in experiment_command("list")
    assert "one         Stopped" in experiment_command("list")
    assert "no process runs it; go on with: katib-callbacks experiment resume one" in experiment_command(
        "status", "one"
    )
    runner.delete(local.home, "one")


def test_a_deletion_that_finds_no_end_of_the_runner_leaves_nothing_that_stops_a_resume(local, monkeypatch):
    monkeypatch.setattr(runner, "LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(runner, "TERMINATION_GRACE_S", 0.0)
    name = local.store(experiment(LOSS))
    with locked(local.home, name), pytest.raises(ExperimentError, match="'one' is run by another process"):
        runner.delete(local.home, name)

    assert ending(local.resume())[0] == "Succeeded"


def test_a_deleter_that_was_killed_does_not_stop_a_later_resume_for_ever(local):
    name = local.store(experiment(LOSS))
    with ExperimentStore(database(local.home)) as store:
        store.update_experiment(name, delete_by_s=time.time() - 1)

    assert ending(local.resume())[0] == "Succeeded"
    assert LOCK_TIMEOUT_S > 0


def test_a_runner_that_begins_when_its_experiment_is_being_deleted_ends(local):
    name = local.store(experiment("print('loss=1')", metricsCollectorSpec=STDOUT, parallelTrialCount=1))
    with ExperimentStore(database(local.home)) as store:
        store.update_experiment(name, delete_by_s=time.time() + 3600)

    assert Runner(local.home, name).run() == "Running"


# -- the client, budgets, algorithms -------------------------------------------------------------------------------


def test_waiting_for_what_can_no_longer_come_ends(local):
    local.run(experiment(LOSS))
    client = LocalKatibClient(home=local.home)

    with pytest.raises(RuntimeError, match="experiment 'one' is Succeeded, and will not be Failed"):
        client.wait_for_experiment_condition("one", expected_condition="Failed", timeout=3600)


def test_budgets_are_raised_while_an_experiment_runs_and_when_it_is_over(local, monkeypatch):
    monkeypatch.chdir(local.folder)
    code = (
        f"{SUBMITTED}\nwhile float(os.environ['X']) > 1 and not (submitted / 'go').exists(): time.sleep(0.02)\n{LOSS}"
    )
    one = experiment(
        code, maxTrialCount=2, resumePolicy="LongRunning", algorithm={"algorithmName": "grid"}, parallelTrialCount=2
    )
    one["spec"]["parameters"][0]["feasibleSpace"] = {"min": "1", "max": "5", "step": "1"}
    with LocalKatibClient(home=local.home) as client:
        client.create_experiment(one)
        while not client.list_trials("one"):
            time.sleep(0.02)
        client.edit_experiment_budget("one", max_trial_count=3)
        (local.folder / "go").touch()
        client.wait_for_experiment_condition("one", timeout=300)
        client.edit_experiment_budget("one", max_trial_count=4)
        done = client.wait_for_experiment_condition("one", timeout=300)

    assert done.status.trials_succeeded == 4


def test_a_budget_that_is_edited_while_a_run_begins_counts(local, monkeypatch):
    name = local.store(experiment(LOSS, maxTrialCount=2, parallelTrialCount=1))
    run = Controller.run

    def edit_and_run(controller):
        with ExperimentStore(database(local.home)) as store:
            edit_budget(store, name, max_trial_count=3)
        return run(controller)

    monkeypatch.setattr(Controller, "run", edit_and_run)
    Runner(local.home, name).run()

    assert len(local.trials()) == 3


def test_budget_edits_at_the_same_time_are_all_kept(local):
    name = local.store(experiment(LOSS, maxTrialCount=100))
    barrier = threading.Barrier(3)

    def edit(**counts):
        with ExperimentStore(database(local.home)) as store:
            barrier.wait()
            edit_budget(store, name, **counts)

    changes = ({"max_trial_count": 50}, {"parallel_trial_count": 5}, {"max_failed_trial_count": 7})
    threads = [threading.Thread(target=edit, kwargs=change) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    spec = local.queries.get_experiment(name).spec
    assert (spec.max_trial_count, spec.parallel_trial_count, spec.max_failed_trial_count) == (50, 5, 7)


def test_an_algorithm_that_fails_fails_the_experiment_and_says_why(local, monkeypatch):
    optuna = pytest.importorskip("optuna")

    class Broken(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            if trial.number == 1:
                raise FloatingPointError("the matrix is singular")
            return super().sample_independent(study, trial, param_name, param_distribution)

    monkeypatch.setattr(optuna.samplers, "RandomSampler", Broken)
    done = local.run(experiment(LOSS, parallelTrialCount=1))

    assert ending(done) == ("Failed", "ExperimentFailed")
    assert done.status.conditions[-1].message == "Suggestion has failed: FloatingPointError: the matrix is singular"
    assert done.status.trials_succeeded == 1


@pytest.mark.parametrize("seed", ["-1", str(1 << 32), "1e3"])
def test_a_seed_out_of_range_is_refused_at_the_start(local, seed):
    one = experiment(LOSS)
    one["spec"]["algorithm"]["algorithmSettings"] = [{"name": "random_state", "value": seed}]

    with pytest.raises(ConfigurationError, match=f"'{seed}' cannot be random_state of random"):
        local.store(one)


@pytest.mark.parametrize("seed", [{}, {"random_state": "3"}])
def test_a_grid_may_be_greater_than_memory(seed):
    space = V1beta1FeasibleSpace(min="0", max="1000000000")
    parameters = [read_parameter(V1beta1ParameterSpec(name, "int", space)) for name in "xy"]
    grid = make(choose("grid", seed), parameters, seed=0, maximize=False)

    assert len({tuple(grid.ask().values()) for _ in range(1000)}) == 1000
