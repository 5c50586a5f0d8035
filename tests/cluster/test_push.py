"""Trials that push: each framework's, one that forgets its metric, one whose DB manager is away."""

import time
from pathlib import Path

import pytest
from clusters import parameters, state, values

EXAMPLES = Path(__file__).parents[2] / "examples"
CONTROL = "kubeflow"
"""Katib's namespace."""

AWAY_S = 30
"""How long the DB manager is away after a trial has seen that it is."""

REPORTS_INTO_AN_OUTAGE = """
import socket
import time

from katib_callbacks import report_metrics

try:
    while True:
        socket.create_connection(("katib-db-manager.kubeflow", 6789), timeout=2).close()
        time.sleep(1)
except OSError:
    print("the DB manager is away", flush=True)
print(report_metrics({"value": 5}, timeout=480))
"""

SCRIPTS = {
    "lightning": "examples/lightning_digits.py",
    "keras": "examples/keras_digits.py",
    "transformers": "examples/transformers_digits.py",
    "tensorflow": "examples/keras_multiworker.py",
}


@pytest.mark.parametrize("framework", SCRIPTS)
def test_a_framework_pushes_what_katib_then_knows_of_the_trial(cluster, submit, installed, framework):
    if framework not in installed:
        pytest.skip(f"the image has no {framework}")
    one = cluster.experiment(EXAMPLES / "cluster" / "lightning-job.yaml")
    one["metadata"]["name"] = f"push-{framework}"
    spec = one["spec"]
    spec["parameters"] = spec["parameters"][:1]
    template = spec["trialTemplate"]
    template["trialParameters"] = template["trialParameters"][:1]
    (container,) = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    container["command"] = ["python", SCRIPTS[framework], "--learning-rate=${trialParameters.learningRate}"]

    experiment, (trial,) = submit(one)

    assert state(trial) == "Succeeded", cluster.log(trial)
    assert "delivered=2" in cluster.log(trial)
    observed = values(trial)
    assert 0 < float(observed["accuracy"]) <= 1
    assert float(observed["loss"]) > 0
    best = experiment["status"]["currentOptimalTrial"]
    assert best["bestTrialName"] == trial["metadata"]["name"]
    assert {one["name"]: one["value"] for one in best["parameterAssignments"]} == parameters(trial)


def test_a_forgotten_metric_makes_the_trial_unavailable_and_the_pod_says_why(cluster, submit):
    program = "from katib_callbacks import report_metrics; report_metrics({'valeu': 1})"

    _, (trial,) = submit(cluster.script("forgotten", f'python -c "{program}"'))

    assert state(trial) == "MetricsUnavailable"
    assert values(trial).get("value", "unavailable") == "unavailable"


def test_a_trial_that_fails_after_its_report_is_a_failed_one(cluster, submit):
    program = "from katib_callbacks import report_metrics; report_metrics({'value': 1})"

    experiment, (trial,) = submit(cluster.script("fails", f'python -c "{program}"; exit 3'))

    assert state(trial) == "Failed"
    assert experiment["status"]["conditions"][-1]["type"] == "Failed"


def test_what_is_reported_while_the_db_manager_is_away_arrives(cluster, submit):
    if not cluster.can("get", "deployment", "katib-db-manager", "-n", CONTROL):
        pytest.skip(f"there is no deployment katib-db-manager in {CONTROL} to be taken away")
    replicas = cluster.get("deployment", "katib-db-manager", namespace=CONTROL)["spec"]["replicas"]
    scale = ("scale", "deployment/katib-db-manager", "-n", CONTROL)
    script = f"cat > /tmp/away.py <<'PROGRAM'\n{REPORTS_INTO_AN_OUTAGE}PROGRAM\npython /tmp/away.py"
    try:
        submit(cluster.script("away", script), wait=False)
        cluster.until(lambda: any(map(_runs, cluster.get("pods"))), "the trial's pod")
        cluster.run(*scale, "--replicas=0")
        cluster.until(lambda: "is away" in _logs(cluster), "the trial to see that the DB manager is away")
        time.sleep(AWAY_S)
    finally:
        cluster.run(*scale, f"--replicas={replicas}")
    _, (trial,) = cluster.ended("away")

    assert state(trial) == "Succeeded", cluster.log(trial)
    assert float(values(trial)["value"]) == 5
    assert "delivered=1" in cluster.log(trial)


def _logs(cluster):
    names = [pod["metadata"]["name"] for pod in cluster.get("pods") if _runs(pod)]
    return "".join(cluster.run("logs", name, "-n", cluster.namespace) for name in names)


def _runs(pod):
    is_trial = pod["metadata"]["name"].startswith("away-") and "katib.kubeflow.org/trial" in pod["metadata"]["labels"]
    return is_trial and pod["status"]["phase"] == "Running"
