"""Local experiments beside upstream's SDK: its documented example with its own ``report_metrics``, its signatures."""

import inspect

import pytest
from kubeflow import katib

from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.api import models
from katib_callbacks.local.api.serialization import camel_case

SAME = [
    "create_experiment", "tune", "get_experiment", "list_experiments", "get_experiment_conditions",
    "is_experiment_created", "is_experiment_running", "is_experiment_restarting", "is_experiment_succeeded",
    "is_experiment_failed", "wait_for_experiment_condition", "edit_experiment_budget", "delete_experiment", "get_trial",
    "list_trials", "get_success_trial_details", "get_optimal_hyperparameters", "get_trial_metrics", "get_job_logs",
]  # fmt: skip


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LocalKatibClient(namespace="kubeflow", home=tmp_path / "home") as made:
        yield made


def objective(parameters):
    import time

    from kubeflow import katib

    time.sleep(0.1)
    result = 4 * int(parameters["a"]) - float(parameters["b"]) ** 2
    katib.report_metrics({"result": result})


def test_katibs_documented_example_with_its_own_search_space_and_report(client):
    parameters = {"a": katib.search.int(min=10, max=20), "b": katib.search.double(min=0.1, max=0.2)}
    client.tune(
        name="tune-experiment",
        objective=objective,
        parameters=parameters,
        objective_metric_name="result",
        max_trial_count=12,
        parallel_trial_count=2,
        resources_per_trial={"cpu": "2"},
        metrics_collector_config={"kind": "Push"},
    )
    client.wait_for_experiment_condition(name="tune-experiment", timeout=600)

    best = client.get_optimal_hyperparameters("tune-experiment")
    found = {one.name: one.value for one in best.parameter_assignments}
    assert float(best.observation.metrics[0].latest) == 4 * int(found["a"]) - float(found["b"]) ** 2
    details = client.get_success_trial_details("tune-experiment")
    assert len(details) == 12
    assert float(best.observation.metrics[0].latest) == max(float(one["metrics"][0].latest) for one in details)


@pytest.mark.parametrize("name", SAME)
def test_arguments_have_upstreams_names_and_order(name):
    theirs, ours = (
        list(inspect.signature(getattr(one, name)).parameters) for one in (katib.KatibClient, LocalKatibClient)
    )

    assert ours == theirs


def test_the_constructor_takes_upstreams_arguments_first():
    theirs, ours = (list(inspect.signature(one).parameters) for one in (katib.KatibClient, LocalKatibClient))

    assert ours[: len(theirs)] == theirs


def test_models_have_upstreams_attributes():
    ours = {name: kind for name, kind in vars(models).items() if name.startswith("V1beta1") and hasattr(katib, name)}

    assert len(ours) > 25
    for name, kind in ours.items():
        theirs = getattr(katib, name)
        mine = {field.name: camel_case(field.name) for field in kind.known_fields}
        assert mine == dict(theirs.attribute_map), name


def test_upstreams_objects_are_taken_and_its_trainer_resources(client):
    experiment = katib.V1beta1Experiment(
        api_version="kubeflow.org/v1beta1",
        kind="Experiment",
        metadata={"name": "theirs"},
        spec=katib.V1beta1ExperimentSpec(
            max_trial_count=2,
            parallel_trial_count=2,
            objective=katib.V1beta1ObjectiveSpec(type="minimize", objective_metric_name="loss", goal=0.25),
            algorithm=katib.V1beta1AlgorithmSpec(algorithm_name="grid"),
            parameters=[
                katib.V1beta1ParameterSpec(
                    name="x",
                    parameter_type="double",
                    feasible_space=katib.V1beta1FeasibleSpace(min="0.5", max="1.0", step="0.5"),
                )
            ],
            trial_template=katib.V1beta1TrialTemplate(
                primary_container_name="main",
                trial_parameters=[katib.V1beta1TrialParameterSpec(name="x", reference="x")],
                trial_spec={
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {
                        "template": {
                            "spec": {"containers": [{"name": "main", "command": ["echo", "loss=${trialParameters.x}"]}]}
                        }
                    },
                },
            ),
        ),
    )
    client.create_experiment(experiment)
    client.wait_for_experiment_condition("theirs", timeout=300)

    assert client.get_optimal_hyperparameters("theirs").observation.metrics[0].min == "0.5"


def test_kubernetes_variables_and_upstreams_resources_are_taken(client):
    from kubernetes.client import V1EnvVar

    def shows(parameters):
        import os

        print(f"seen={os.environ['WORLD_SIZE']}{os.environ['EXTRA']}{parameters['x']}")

    client.tune(
        "resources",
        objective=shows,
        parameters={"x": katib.search.categorical(["5"])},
        env_per_trial=[V1EnvVar(name="EXTRA", value="7")],
        objective_metric_name="seen",
        max_trial_count=1,
        parallel_trial_count=1,
        resources_per_trial=katib.TrainerResources(
            num_workers=1, num_procs_per_worker=2, resources_per_worker={"cpu": "1"}
        ),
    )
    client.wait_for_experiment_condition("resources", timeout=300)

    assert client.get_optimal_hyperparameters("resources").observation.metrics[0].latest == "275"
