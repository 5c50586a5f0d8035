"""Jobs of several roles, as processes."""

import sys

from homes import REPORT, experiment

SERVES = """
import pathlib, signal, sys, time
def end(number, frame):
    pathlib.Path("ended").write_text("by SIGTERM")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path("serving").touch()
time.sleep(600)
"""
TRAINS = (
    REPORT
    + """
import json, os, pathlib, time
task = json.loads(os.environ["TF_CONFIG"])["task"]
while not pathlib.Path("serving").exists():
    time.sleep(0.01)
report({"loss": 0.5 + task["index"]})
"""
)


def replica(code, count=1):
    container = {
        "name": "main",
        "command": [sys.executable, "-c", code],
        "env": [{"name": "X", "value": "${trialParameters.x}"}],
    }
    return {"replicas": count, "template": {"spec": {"containers": [container]}}}


def test_a_parameter_server_is_ended_when_the_first_worker_has(local):
    one = experiment(maxTrialCount=1, parallelTrialCount=1)
    one["spec"]["trialTemplate"]["trialSpec"] = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "spec": {"tfReplicaSpecs": {"PS": replica(SERVES), "Worker": replica(TRAINS, 2)}},
    }
    status = local.run(one).status

    assert status.trials_succeeded == 1
    (trial,) = local.trials()
    assert local.rows(trial.name) == [("loss", "0.5")], "of the first worker alone"
    assert (local.home / "one" / trial.name / "ended").read_text() == "by SIGTERM"
