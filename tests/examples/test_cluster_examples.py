"""The files for a cluster: judged as its API does, and trained with on this machine."""

import re

import pytest
from cluster import CLUSTER, FILES, ROOT, document, run, run_one_trial

from katib_callbacks.local.api.manifest import read_file

DOCKERFILE = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
IMAGES = re.findall(r"-t (\S+)", DOCKERFILE)

TRAINED = {
    "lightning-job": {"accuracy", "loss"},
    "experiment-authenticated": {"accuracy", "loss"},
    "lightning-trainjob": {"accuracy", "loss"},
    "transformers-pytorchjob": {"accuracy", "loss", "test_accuracy"},
}
OTHERS = {"early-stopping", "optimizationjob", "keras-tfjob"}
"""Tested by a test of their own; the last one where TensorFlow is."""


def values(of, field):
    """Yield each value of a field, wherever it stands."""
    if isinstance(of, dict):
        for name, value in of.items():
            if name == field:
                yield value
            yield from values(value, field)
    elif isinstance(of, list):
        for item in of:
            yield from values(item, field)


def test_each_file_is_run_by_a_test():
    assert {*TRAINED, *OTHERS} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_api_takes_the_file_and_pushes_its_metrics(name):
    one = read_file(CLUSTER / f"{name}.yaml")

    assert one.kind in {"Experiment", "OptimizationJob"}
    if one.kind == "Experiment":
        assert one.spec.metrics_collector_spec.collector.kind == "Push"


@pytest.mark.parametrize("name", FILES)
def test_the_image_is_what_the_dockerfile_makes_and_has_the_script(name):
    spec = document(name)["spec"]

    assert set(values(spec, "image")) <= set(IMAGES)
    commands = list(values(spec, "command"))
    assert "COPY examples examples" in DOCKERFILE
    assert commands
    for command in commands:
        assert (ROOT / command[1]).is_file()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TRAINED)
def test_of_all_processes_of_a_trial_one_reports_each_metric_once(name, tmp_path, monkeypatch, capsys):
    rows = run_one_trial(name, tmp_path, monkeypatch)

    assert sorted(metric for metric, _ in rows) == sorted(TRAINED[name])
    assert 0 < dict(rows)["accuracy"] <= 1, "whatever learning rate was drawn"
    notes = capsys.readouterr().err
    assert "the image" in notes
    assert ("TLS and tokens" in notes) == (name == "experiment-authenticated")


@pytest.mark.timeout(1200)
def test_a_bad_trial_ends_itself(tmp_path, monkeypatch):
    good_and_bad = [
        {**document("early-stopping")["spec"]["parameters"][0], "feasibleSpace": {"list": ["0.01", "1e-6"]}}
    ]
    budget = {"maxTrialCount": 2, "parallelTrialCount": 1, "maxFailedTrialCount": 0}
    queries, experiment = run("early-stopping", tmp_path, monkeypatch, parameters=good_and_bad, **budget)

    states = {
        trial.spec.parameter_assignments[0].value: trial.status.conditions[-1]
        for trial in queries.list_trials(experiment)
    }
    assert states["0.01"].type == "Succeeded"
    assert states["1e-6"].type == "EarlyStopped"
    assert "(asha)" in states["1e-6"].message


@pytest.mark.timeout(1200)
def test_an_optimization_job_tries_its_grid(tmp_path, monkeypatch):
    lr, hidden = document("optimizationjob")["spec"]["parameters"]
    lr["searchSpace"]["categorical"]["choices"] = ["0.01"]
    queries, job = run("optimizationjob", tmp_path, monkeypatch, parameters=[lr, hidden], numTrials=2)

    trials = queries.list_trials(job)
    assert {one.value for trial in trials for one in trial.spec.parameter_assignments} == {"0.01", "16", "64"}
    for trial in trials:
        assert {one.name for one in trial.status.observation.metrics} == {"accuracy"}
