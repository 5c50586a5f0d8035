"""A tour with the real kubectl: what a person does with an experiment, from the first apply to the delete."""

import json
import re

import pytest
from api_servers import experiment

WAITS = "echo begun; while [ ! -e GO ]; do sleep 0.1; done; echo loss=${trialParameters.x}"


@pytest.fixture
def go(tmp_path):
    """Return the file that trials wait for."""
    return tmp_path / "go"


def waiting(go, **spec):
    return experiment(script=WAITS.replace("GO", str(go)), **spec)


def test_the_tour(kubectl, follow, go, tmp_path):
    file = kubectl.write("one.json", waiting(go))
    assert kubectl("apply", "-f", file, "--dry-run=server") == "experiment.kubeflow.org/one created (server dry run)\n"
    assert "+  name: one" in kubectl("diff", "-f", file, status=1)
    watch = follow([*kubectl.command, "get", "trials", "--watch", "--output-watch-events"])
    assert kubectl("apply", "-f", file) == "experiment.kubeflow.org/one created\n"
    assert kubectl("apply", "-f", file) == "experiment.kubeflow.org/one unchanged\n"

    # get -w
    lines = [watch.stdout.readline().split() for _ in range(3)]
    assert lines[0] == ["EVENT", "NAME", "TYPE", "STATUS", "AGE"]
    assert [line[0] for line in lines[1:]] == ["ADDED", "ADDED"]
    trial = lines[1][1]

    # logs -f
    logs = follow([*kubectl.command, "logs", "--follow", f"job/{trial}"])
    assert logs.stdout.readline() == "begun\n"

    # edits of the budget
    assert kubectl("patch", "experiment", "one", "--type=merge", "-p", '{"spec":{"maxTrialCount":4}}')
    editor = "sed -i s/maxTrialCount:.4/maxTrialCount:\\ 5/"
    assert kubectl("edit", "experiment", "one", KUBE_EDITOR=editor) == "experiment.kubeflow.org/one edited\n"
    assert kubectl("get", "experiment", "one", "-o", "jsonpath={.spec.maxTrialCount}") == "5"
    changed = kubectl.write("one.json", waiting(go, maxTrialCount=6))
    assert re.search(r'^\+ +"?maxTrialCount"?: 6', kubectl("diff", "-f", changed, status=1), re.MULTILINE)
    assert kubectl("apply", "-f", changed) == "experiment.kubeflow.org/one configured\n"
    refused = kubectl("patch", "experiment", "one", "--type=merge", "-p", '{"spec":{"resumePolicy":"Never"}}', status=1)
    assert "only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are editable" in refused

    # the end
    go.touch()
    kubectl("wait", "--for=condition=Succeeded", "experiment/one", "--timeout=250s")
    assert logs.stdout.read().startswith("loss=")
    assert kubectl("get", "experiments", "-o", "name") == "experiment.kubeflow.org/one\n"
    heading, row = kubectl("get", "experiments", "-o", "wide").splitlines()
    assert heading.split() == ["NAME", "TYPE", "STATUS", "AGE", "TRIALS", "SUCCEEDED", "FAILED", "BEST"]
    assert row.split()[:3] + row.split()[4:7] == ["one", "Succeeded", "True", "6", "6", "0"]
    assert "bestTrialName: one-" in kubectl("get", "experiment", "one", "-o", "yaml")
    described = kubectl("describe", "experiment", "one")
    assert "Best Trial Name:" in described
    assert re.search(r"Normal +ExperimentMaxTrialsReached .*max trial count has reached", described)
    assert re.search(r"Exit Code: +0", kubectl("describe", "pod", f"{trial}-0"))
    assert len(kubectl("get", "pods,jobs,suggestions", "-o", "name").split()) == 6 + 6 + 1

    assert kubectl("delete", "experiment", "one") == 'experiment.kubeflow.org "one" deleted from default namespace\n'
    assert kubectl("get", "experiments,trials,pods,jobs,events") == ""
    assert 'experiments.kubeflow.org "one" not found' in kubectl("get", "experiment", "one", status=1)


def test_a_dry_run_refuses_what_katibs_webhook_refuses(kubectl):
    wrong = experiment(parallelTrialCount=9, objective={"type": "minimise", "objectiveMetricName": "loss"})
    refused = kubectl("apply", "--dry-run=server", "-f", kubectl.write("wrong.json", wrong), status=1)

    assert "Error from server (BadRequest)" in refused
    assert 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: ' in refused
    assert "spec.objective.type: must be minimize or maximize, not 'minimise'" in refused
    assert kubectl("get", "experiments") == ""


def test_fields_are_explained(kubectl):
    assert "objectiveMetricName\t<string>" in kubectl("explain", "experiment.spec.objective")
    assert "bestTrialName\t<string>" in kubectl("explain", "experiment.status.currentOptimalTrial")
    assert "observation\t<V1beta1Observation>" in kubectl("explain", "trial", "--recursive")


def test_what_there_is(kubectl):
    names = {line.split()[0] for line in kubectl("api-resources", "--no-headers").splitlines()}

    assert names >= {"experiments", "trials", "suggestions", "pods", "events", "namespaces", "jobs", "trainjobs"}
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["minor"] == "34"
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert "default" in kubectl("get", "namespaces")
    assert kubectl("get", "namespace", "any-name", "-o", "name") == "namespace/any-name\n"
