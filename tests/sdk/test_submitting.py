"""The example that submits with Katib's client, against the API server: the trials train with Lightning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from api_servers import ApiServer

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1200)
def test_an_example_for_a_cluster_is_submitted_and_its_best_trial_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the server runs, and with it the trials' scripts are
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    command = [sys.executable, "examples/cluster/submit.py", "examples/cluster/lightning-job.yaml"]
    options = ["--image", "registry.example.com/mine:1", "--namespace", "default", "--max-trial-count", "1"]
    with ApiServer(tmp_path / "home") as server:
        environ = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
        done = subprocess.run([*command, *options], env=environ, capture_output=True, text=True, check=False)
        told = server.ask("GET", "/apis/kubeflow.org/v1beta1/namespaces/default/experiments/lightning-job")[1]

    assert done.returncode == 0, done.stdout + done.stderr
    _, _, end = done.stdout.partition("best trial ")
    shown = dict(line.split(": " if ": " in line else " = ") for line in end.splitlines()[1:])
    best = told["status"]["currentOptimalTrial"]
    values = {metric["name"]: metric["latest"] for metric in best["observation"]["metrics"]}
    given = {one["name"]: one["value"] for one in best["parameterAssignments"]}
    assert {name.strip(): value for name, value in shown.items()} == {**values, **given}
    assert set(values) == {"accuracy", "loss"}
    spec = told["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "registry.example.com/mine:1"
