"""The OptimizationJob of the examples: real trainings, by the command, to its result."""

import json
from pathlib import Path

import pytest

from katib_callbacks.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_eight_trainings_on_the_digits_come_to_a_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    home = ["--home", str(tmp_path)]

    assert main(["experiment", "run", "examples/optimizationjobs/digits.yaml", *home]) == 0
    capsys.readouterr()
    assert main(["experiment", "status", "digits", "--json", *home]) == 0
    told = json.loads(capsys.readouterr().out)

    assert [one["type"] for one in told["experiment"]["status"]["conditions"]] == ["Created", "Complete"]
    trials = {one["metadata"]["name"]: one for one in told["trials"]}
    assert len(trials) == 8
    accuracies = {}
    for name, trial in trials.items():
        status = trial["status"]["trainerStatus"]
        metrics = {one["name"]: float(one["value"]) for one in status["metrics"]}
        assert metrics.keys() == {"accuracy", "loss"}
        assert (status["progressPercentage"], status["estimatedRemainingSeconds"]) == (100, 0)
        assert trial["status"]["conditions"][0]["type"] == "Complete"
        accuracies[name] = metrics["accuracy"]
    assert max(accuracies.values()) > 0.8

    result = told["experiment"]["status"]["result"]
    assert accuracies[result["trainJobName"]] == max(accuracies.values())
    given = {one["name"]: one["value"] for one in trials[result["trainJobName"]]["spec"]["trainer"]["env"]}
    assert {f"KUBEFLOW_TRAINER_OPT_{one['name'].upper()}": one["value"] for one in result["parameters"]} == {
        name: value for name, value in given.items() if name != "OMP_NUM_THREADS"
    }
