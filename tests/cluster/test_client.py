"""Katib's own client against the cluster: ``tune`` in push mode."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("kubeflow.katib")

TUNE = """
import json
import sys

from kubeflow import katib


def objective(parameters):
    from katib_callbacks import report_metrics

    report_metrics({"result": 4 * int(parameters["a"]) - float(parameters["b"]) ** 2})


name, namespace, image = sys.argv[1:]
client = katib.KatibClient(namespace=namespace)
client.tune(
    name=name,
    objective=objective,
    parameters={"a": katib.search.int(min=10, max=20), "b": katib.search.double(min=0.1, max=0.2)},
    objective_metric_name="result",
    max_trial_count=3,
    parallel_trial_count=1,
    base_image=image,
    metrics_collector_config={"kind": "Push"},
)
client.wait_for_experiment_condition(name, timeout=1200, polling_interval=2)
best = client.get_optimal_hyperparameters(name)
told = {"best": {one.name: one.value for one in best.parameter_assignments}}
told["value"] = best.observation.metrics[0].latest
print("\\ntold " + json.dumps(told))
"""


def test_tune_finds_the_best_of_what_its_trials_have_pushed(cluster, tmp_path):
    script = tmp_path / "tune.py"
    script.write_text(TUNE)
    try:
        done = subprocess.run(
            [sys.executable, script, "tune", cluster.namespace, cluster.image],
            capture_output=True,
            text=True,
            check=False,
        )
        trials = cluster.get("trials.kubeflow.org", "-l", "katib.kubeflow.org/experiment=tune")
    finally:
        cluster.delete("experiments.kubeflow.org", "tune")

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.rpartition("told ")[2])
    value = 4 * int(told["best"]["a"]) - float(told["best"]["b"]) ** 2
    assert float(told["value"]) == pytest.approx(value)
    observed = [float(trial["status"]["observation"]["metrics"][0]["latest"]) for trial in trials]
    assert len(observed) == 3
    assert max(observed) == pytest.approx(value)
