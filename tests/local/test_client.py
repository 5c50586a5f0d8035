"""The client: Katib's documented example, its arguments, and its answers."""

import logging
import subprocess
import sys
import textwrap

import pytest
from homes import REPORT, SUBMITTED, experiment

from katib_callbacks.errors import ConfigurationError, ExperimentError, WaitTimeoutError
from katib_callbacks.local import LocalKatibClient, TrainerResources, search
from katib_callbacks.local.api import models
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.local.trials.files import TrialFiles


def objective(parameters):
    from katib_callbacks import report_metrics

    result = 4 * int(parameters["a"]) - float(parameters["b"]) ** 2
    report_metrics({"result": result})


SPACE = {"a": search.int(min=10, max=20), "b": search.double(min=0.1, max=0.2)}


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LocalKatibClient(home=tmp_path / "home") as made:
        yield made


def test_katibs_documented_example(client):
    name = "tune-experiment"
    client.tune(
        name=name,
        objective=objective,
        parameters=dict(SPACE),
        objective_metric_name="result",
        max_trial_count=12,
        parallel_trial_count=3,
        resources_per_trial={"cpu": "2"},
        metrics_collector_config={"kind": "Push"},
    )
    done = client.wait_for_experiment_condition(name=name, timeout=300)

    assert client.is_experiment_succeeded(name)
    assert client.is_experiment_created(name)
    assert not client.is_experiment_running(name)
    best = client.get_optimal_hyperparameters(name)
    found = {one.name: one.value for one in best.parameter_assignments}
    (metric,) = best.observation.metrics
    assert float(metric.max) == float(metric.latest) == 4 * int(found["a"]) - float(found["b"]) ** 2
    details = client.get_success_trial_details(name)
    assert float(metric.latest) == max(float(one["metrics"][0].latest) for one in details)
    assert len({one["metrics"][0].latest for one in details}) > 1
    assert len(details) == 12 == done.status.trials_succeeded
    assert set(details[0]) == {"name", "parameter_assignments", "metrics"}
    (log,) = client.get_trial_metrics(best.best_trial_name)
    assert (log.metric.name, float(log.metric.value)) == ("result", float(metric.latest))
    assert log.time_stamp.endswith("Z")
    trial = client.get_trial(best.best_trial_name)
    assert trial.status.conditions[-1].type == "Succeeded"
    assert trial.metadata.labels == {"katib.kubeflow.org/experiment": name}
    assert [one.metadata.name for one in client.list_experiments()] == [name]
    assert len(client.list_trials(name)) == len(client.list_trials()) == 12


def test_a_suggestion_has_the_algorithms_answers(client):
    client.tune(
        name="asked",
        objective=objective,
        parameters=dict(SPACE),
        objective_metric_name="result",
        max_trial_count=3,
        metrics_collector_config={"kind": "Push"},
        algorithm_settings={"random_state": 1},
    )
    client.wait_for_experiment_condition("asked", timeout=300)
    suggestion = client.get_suggestion("asked")

    assert (suggestion.kind, suggestion.metadata.name, suggestion.api_version) == (
        "Suggestion",
        "asked",
        "kubeflow.org/v1beta1",
    )
    assert (suggestion.spec.requests, suggestion.spec.resume_policy) == (3, "Never")
    assert suggestion.spec.algorithm.algorithm_name == "random"
    answered = {one.name: one.parameter_assignments for one in suggestion.status.suggestions}
    assert answered == {trial.metadata.name: trial.spec.parameter_assignments for trial in client.list_trials("asked")}
    assert suggestion.status.suggestion_count == 3
    held = [(one.type, one.status) for one in suggestion.status.conditions]
    assert held == [("Created", "True"), ("Running", "False"), ("Succeeded", "True")]
    assert [one.metadata.name for one in client.list_suggestions()] == ["asked"]
    with pytest.raises(ExperimentError, match="none"):
        client.get_suggestion("none")


def printed(parameters):
    import os

    print("tuned", type(parameters["x"]).__name__, "given", parameters["epochs"], os.environ["GREETING"])
    print(f"score={parameters['x']}")


def test_stdout_is_the_default_and_every_argument_arrives(client, caplog):
    client.tune(
        name="printed",
        objective=printed,
        parameters={"x": search.double(min=1, max=2, step=0.5), "epochs": 3},
        env_per_trial={"GREETING": "hello"},
        algorithm_name="grid",
        objective_metric_name="score",
        objective_type="minimize",
        objective_goal=1.0,
        max_trial_count=3,
        parallel_trial_count=1,
        max_failed_trial_count=1,
        trial_active_deadline_seconds=600,
        packages_to_install=["pytest"],
        base_image="docker.io/mine",
        storage_config={"size": "1Gi"},
        namespace="team",
        retain_trials=True,
    )
    done = client.wait_for_experiment_condition("printed", timeout=300)

    assert done.metadata.namespace == "team"
    assert done.status.conditions[-1].reason == "ExperimentGoalReached"
    (trial,) = client.list_trials("printed")
    assert list(client.get_job_logs("printed", trial.metadata.name)) == ["tuned str given 3 hello", "score=1.0"]
    assert trial.spec.run_spec["spec"]["activeDeadlineSeconds"] == 600
    said = [record.message for record in caplog.records if "without effect" in record.message]
    assert said == ["without effect on one machine: storage_config, base_image, namespace"]


def ranks(parameters):
    import os
    import time
    from pathlib import Path

    from katib_callbacks import report_metrics

    mine = os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"], os.environ["GROUP_RANK"]
    Path(f"new-{mine[0]}").write_text(" ".join(mine))  # in the folder of the trial, which all share
    Path(f"new-{mine[0]}").rename(f"rank-{mine[0]}")
    if mine[0] == "0":
        while len(found := list(Path().glob("rank-*"))) < int(mine[1]):
            time.sleep(0.01)
        seen = sum(int(path.read_text().split()[0]) for path in found)
        report_metrics({"seen": seen})


def test_resources_decide_how_many_processes_a_trial_has(client):
    client.tune(
        "ranks",
        objective=ranks,
        parameters={"x": search.int(min=1, max=2)},
        objective_metric_name="seen",
        max_trial_count=1,
        parallel_trial_count=1,
        resources_per_trial=TrainerResources(num_workers=2, num_procs_per_worker=2),
        metrics_collector_config={"kind": "Push"},
    )
    client.wait_for_experiment_condition("ranks", timeout=300)

    assert client.get_optimal_hyperparameters("ranks").observation.metrics[0].latest == "6", "0 + 1 + 2 + 3"
    assert client.get_trial(client.list_trials()[0].metadata.name).spec.run_spec["kind"] == "PyTorchJob"


def tune(client, **changes):
    arguments = {
        "name": "one",
        "objective": objective,
        "parameters": dict(SPACE),
        "objective_metric_name": "result",
        "max_trial_count": 1,
        "metrics_collector_config": {"kind": "Push"},
    }
    client.tune(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics_collector_config": {"kind": "None"}}, "the kind None was renamed to Push"),
        ({"metrics_collector_config": {"kind": "PrometheusMetric"}}, "does not collect here"),
        ({"algorithm_name": "enas"}, "known: random, grid"),
        ({"algorithm_settings": {"seed": 1}}, "random has no setting 'seed'"),
        ({"objective_metric_name": None}, "objectiveMetricName: must be specified"),
        ({"objective": None}, "name, objective and parameters must be given"),
        ({"parameters": {}}, "name, objective and parameters must be given"),
        ({"trainer_parameters": object()}, "external models and datasets need a cluster"),
        ({"packages_to_install": ["no-such-package"]}, "no-such-package is not installed"),
        ({"env_per_trial": [{"secretRef": {"name": "s"}}]}, "env_per_trial: .* is not a variable"),
        ({"name": "Not A Name"}, "metadata.name: 'Not A Name' must consist of"),
    ],
)
def test_wrong_arguments_are_value_errors_and_leave_nothing(client, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        tune(client, **changes)
    assert isinstance(caught.value, ConfigurationError)
    assert client.list_experiments() == []


def test_waiting_in_vain(client):
    with pytest.raises(RuntimeError, match="there is no experiment 'one'; there are: none"):
        client.wait_for_experiment_condition("one")
    client.create_experiment(experiment("import time; time.sleep(600)"))
    with pytest.raises(TimeoutError, match=r"experiment 'one' is not Succeeded after 0\.5 s") as caught:
        client.wait_for_experiment_condition("one", timeout=0.5)
    assert isinstance(caught.value, WaitTimeoutError)
    client.wait_for_experiment_condition("one", expected_condition="Running", timeout=240)
    client.close()
    with pytest.raises(ExperimentError, match="no process runs experiment 'one'; resume it"):
        client.wait_for_experiment_condition("one", timeout=240)


def test_a_failed_experiment_is_a_runtime_error(client):
    client.create_experiment(experiment("raise SystemExit(1)", maxFailedTrialCount=0, parallelTrialCount=1))
    with pytest.raises(RuntimeError, match=r"experiment 'one' has failed: .*max failed count"):
        client.wait_for_experiment_condition("one", timeout=300)
    assert client.is_experiment_failed("one")
    assert client.wait_for_experiment_condition("one", expected_condition="Failed").status.trials_failed == 1
    assert client.get_optimal_hyperparameters("one") is None


def test_the_budget_of_a_running_experiment_is_changed(client, tmp_path):
    code = REPORT + SUBMITTED + "if not (submitted / 'go').exists(): time.sleep(600)\nreport({'loss': 1})"
    client.create_experiment(experiment(code, maxTrialCount=3, parallelTrialCount=1))
    other = LocalKatibClient(home=tmp_path / "home")
    client.wait_for_experiment_condition("one", expected_condition="Running", timeout=240)
    other.edit_experiment_budget("one", parallel_trial_count=3)
    while client.get_experiment("one").status.trials_running < 3:
        pass
    with pytest.raises(RuntimeError, match="maxTrialCount 2 must be above the 3 trials that there are"):
        other.edit_experiment_budget("one", max_trial_count=2, parallel_trial_count=1)
    client.close()
    (tmp_path / "go").touch()
    other.resume_experiment("one")
    other.wait_for_experiment_condition("one", timeout=300)
    assert other.get_experiment("one").status.trials == 3
    other.close()


def test_a_used_up_budget_is_raised_where_the_resume_policy_allows_it(client):
    code = REPORT + "report({'loss': 1})"
    for name, policy in (("never", "Never"), ("long", "LongRunning")):
        client.create_experiment(experiment(code, name, resumePolicy=policy, maxTrialCount=2))
        client.wait_for_experiment_condition(name, timeout=300)

    with pytest.raises(RuntimeError, match="with resumePolicy LongRunning or FromVolume, can be restarted"):
        client.edit_experiment_budget("never", max_trial_count=3)
    with pytest.raises(ValueError, match="one of the counts must be given"):
        client.edit_experiment_budget("long")
    client.edit_experiment_budget("long", max_trial_count=3)
    assert not client.is_experiment_succeeded("long")
    done = client.wait_for_experiment_condition("long", timeout=300)
    assert done.status.trials_succeeded == 3
    assert [one.type for one in done.status.conditions] == ["Created", "Restarting", "Running", "Succeeded"]


def test_deleting_ends_and_removes_everything(client, tmp_path):
    client.create_experiment(experiment(REPORT + "import time; report({'loss': 1}); time.sleep(600)"))
    while client.get_experiment("one").status.trials_running < 2:
        pass
    trial = client.list_trials("one")[0].metadata.name
    client.delete_experiment("one")

    assert client.list_experiments() == []
    assert client.list_trials() == []
    assert not (tmp_path / "home" / "one").exists()
    with pytest.raises(RuntimeError, match=f"there is no trial '{trial}'"):
        client.get_trial(trial)
    with pytest.raises(RuntimeError, match="there is no experiment"):
        client.delete_experiment("one")


def test_another_process_ends_what_it_deletes(client, tmp_path):
    client.create_experiment(experiment("import time; time.sleep(600)"))
    while client.get_experiment("one").status.trials_running < 2:
        pass
    LocalKatibClient(home=tmp_path / "home").delete_experiment("one")

    assert client.list_experiments() == []


def test_a_followed_log_begins_anew_with_the_next_attempt(client, tmp_path):
    runner.create(tmp_path / "home", experiment(""), folder=tmp_path)
    files = TrialFiles(tmp_path / "home", "one", "one-t")
    files.log.parent.mkdir(exist_ok=True)
    with ExperimentStore(database(tmp_path / "home")) as store:
        store.add_trial(TrialRow.created("one", 0, {}, {}, 0, name="one-t"))
        files.log.write_text("first attempt\n", "utf-8")
        lines = client.get_job_logs("one", "one-t", follow=True)
        assert next(lines) == "first attempt"
        files.log.write_text("second\n", "utf-8")
        store.update_trial("one-t", state=states.SUCCEEDED)
        assert list(lines) == ["second"]


def test_logs_are_followed_to_the_end(client):
    code = REPORT + "import time\nfor n in range(3): print('line', n, flush=True); time.sleep(0.2)\nreport({'loss': 1})"
    client.create_experiment(experiment(code, maxTrialCount=1, parallelTrialCount=1))
    while not client.list_trials("one"):
        pass
    trial = client.list_trials("one")[0].metadata.name

    assert list(client.get_job_logs("one", trial, follow=True)) == ["line 0", "line 1", "line 2"]
    with pytest.raises(RuntimeError, match="is not of experiment 'two'"):
        list(client.get_job_logs("two", trial))
    client.wait_for_experiment_condition("one", timeout=300)


def test_what_has_no_effect_is_said_once(tmp_path, caplog):
    client = LocalKatibClient(config_file="~/.kube/config", context="prod", home=tmp_path / "home")
    with caplog.at_level(logging.WARNING):
        client._say_once(config_file="again")

    assert [record.message for record in caplog.records] == ["without effect on one machine: config_file, context"]


SCRIPT = textwrap.dedent(
    """
    import sys
    from katib_callbacks.local import LocalKatibClient, search

    def objective(parameters):
        import time
        from katib_callbacks import report_metrics
        time.sleep({seconds})
        report_metrics({{"loss": float(parameters["x"])}})

    if __name__ == "__main__":
        client = LocalKatibClient(home={home!r})
        client.tune(
            "one", objective=objective, parameters={{"x": search.double(min=0, max=1)}}, objective_metric_name="loss",
            max_trial_count=2, parallel_trial_count=2, metrics_collector_config={{"kind": "Push"}},
        )
        {then}
    """
)


@pytest.mark.parametrize(
    ("seconds", "then", "status", "state"),
    [
        (0, "print('ended')", 0, ("Succeeded", 2)),
        (
            600,
            "client.wait_for_experiment_condition('one', expected_condition='Running', timeout=240); 1 / 0",
            1,
            ("Running", 0),
        ),
    ],
    ids=["a script that ends waits for its experiment", "one that raises ends it, for a resume"],
)
def test_the_end_of_a_script(tmp_path, seconds, then, status, state):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(seconds=seconds, home=str(tmp_path / "home"), then=then))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == status, done.stderr
    found = LocalKatibClient(home=tmp_path / "home").get_experiment("one")
    assert (found.status.conditions[-1].type, found.status.trials_succeeded) == state
    assert found.status.trials_running == 0


def test_objects_have_upstreams_attribute_names():
    one = models.V1beta1Experiment.from_dict({**experiment(), "status": {"trialsSucceeded": 3}})

    assert one.spec.objective.objective_metric_name == "loss"
    assert one.status.trials_succeeded == 3
    assert one.to_dict()["spec"]["parameters"][0]["feasible_space"]["max"] == "1"
