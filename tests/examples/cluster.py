"""Experiments of examples/cluster, cut to a few trials and run on this machine."""

import json
from pathlib import Path

import yaml

from katib_callbacks.cli import main
from katib_callbacks.local.queries import Queries

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "cluster"
FILES = sorted(path.stem for path in CLUSTER.glob("*.yaml"))


def document(name):
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8"))


def run(name, folder, monkeypatch, **spec):
    """Run an example with some of its spec replaced; return what answers for its home, and its name."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    cut = document(name)
    cut["spec"] |= spec
    path = folder / "cut.yaml"
    path.write_text(json.dumps(cut), encoding="utf-8")  # PyYAML writes the string 1e-6 without quotes
    assert main(["experiment", "run", str(path), "--home", str(folder / "home")]) == 0
    return Queries(folder / "home"), cut["metadata"]["name"]


def run_one_trial(name, folder, monkeypatch):
    """Run one trial of an example; return what it has reported, each metric as often as it was."""
    budget = {"maxTrialCount": 1, "parallelTrialCount": 1, "maxFailedTrialCount": 0}
    queries, experiment = run(name, folder, monkeypatch, **budget)
    (trial,) = queries.list_trials(experiment)
    rows = queries.get_trial_metrics(trial.metadata.name)
    return [(row.metric.name, float(row.metric.value)) for row in rows]
