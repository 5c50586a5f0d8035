"""Each file of the examples that the cluster's API knows: taken, and run."""

from pathlib import Path

import pytest
import yaml
from clusters import parameters, state, values

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*(EXAMPLES / "cluster").glob("*.yaml"), *(EXAMPLES / "experiments").glob("*.yaml")])
IDS = [f"{path.parent.name}-{path.stem}" for path in FILES]

TAKEN_ONLY = {
    "experiment-authenticated": "tested with the DB manager that it needs",
    "hyperband": "its trials are a whole bracket",
    "pbt": "it needs a volume that all trials write",
    "mpijob": "the image has no MPI",
}


def document(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def kinds_of(one):
    """Return the kinds that a file needs."""
    template = one["spec"].get("trialTemplate", {}).get("trialSpec") or {"kind": "TrainJob"}
    return {one["kind"], template["kind"]}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_api_server_takes_it(cluster, path):
    one = document(path)
    missing = kinds_of(one) - cluster.kinds()
    if missing:
        pytest.skip(f"the cluster knows no {' and no '.join(sorted(missing))}")
    one["metadata"]["namespace"] = cluster.namespace
    cluster.apply(one, "--dry-run=server")


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_it_runs_to_its_best_trial(cluster, submit, installed, path):
    one = document(path)
    missing = kinds_of(one) - cluster.kinds()
    if missing or one["kind"] != "Experiment":
        pytest.skip(f"the cluster knows no {' and no '.join(sorted(missing))}" if missing else "Katib does not run it")
    if path.stem in TAKEN_ONLY:
        pytest.skip(TAKEN_ONLY[path.stem])
    text = path.read_text(encoding="utf-8")
    needed = {name for name in ("lightning", "transformers") if f"examples/{name}_" in text}
    needed |= {"tensorflow"} if "keras_multiworker" in text else set()
    if needed - installed:
        pytest.skip(f"the image has no {', '.join(needed - installed)}")
    made = cluster.experiment(path, trials=1)
    made["metadata"]["name"] = f"{path.parent.name}-{path.stem}"[:40].rstrip("-")

    experiment, trials = submit(made)

    assert experiment["status"]["conditions"][-1]["type"] == "Succeeded", [cluster.log(trial) for trial in trials]
    (trial,) = trials
    assert state(trial) in {"Succeeded", "EarlyStopped"}
    objective = made["spec"]["objective"]["objectiveMetricName"]
    float(values(trial)[objective])
    assert parameters(trial).keys() == {parameter["name"] for parameter in made["spec"]["parameters"]}
    if made["spec"]["trialTemplate"]["trialSpec"]["kind"] == "TrainJob":
        shows_its_end(cluster, trial)


def shows_its_end(cluster, trial):
    """Assert what Kubeflow Trainer shows of a TrainJob that has ended, where its status server is on."""
    status = cluster.get("trainjobs.trainer.kubeflow.org", trial["metadata"]["name"]).get("status", {})
    told = status.get("trainerStatus")
    if told is not None:
        assert told["progressPercentage"] == 100
        assert {one["name"] for one in told["metrics"]} >= values(trial).keys()
