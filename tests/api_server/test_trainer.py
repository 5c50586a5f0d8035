"""Kubeflow Trainer's objects, made through the API."""

import copy
import os
import sys
import time

import pytest
from api_servers import EXPERIMENTS, MERGE, TRIALS

from katib_callbacks.local import LocalKatibClient

OPTIMIZATION_JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/default/optimizationjobs"
TRAIN_JOBS = OPTIMIZATION_JOBS.replace("optimizationjobs", "trainjobs")
PODS = "/api/v1/namespaces/default/pods"

REPORT = (
    "import katib_callbacks, os; katib_callbacks.report_metrics({'loss': float(os.environ['KUBEFLOW_TRAINER_OPT_X'])})"
)

JOB = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "OptimizationJob",
    "metadata": {"name": "search"},
    "spec": {
        "objectives": [{"metric": "loss"}],
        "searchAlgorithm": {"grid": {}},
        "numTrials": 2,
        "parallelTrials": 2,
        "parameters": [{"name": "x", "searchSpace": {"categorical": {"choices": ["0.5", "0.25"]}}}],
        "trainJobTemplate": {
            "spec": {
                "runtimeRef": {"name": "torch-distributed"},
                "trainer": {"command": [sys.executable, "-c", REPORT]},
            }
        },
    },
}


def condition(shown):
    """Return the type of the condition that holds; None if there is none."""
    return ((shown.get("status") or {}).get("conditions") or [{}])[-1].get("type")


def ended(server, path, name):
    """Follow an object to its end; returns the kinds of conditions on the way, and the object."""
    seen = []
    for event in server.follow(path, fieldSelector=f"metadata.name={name}"):
        seen.append(condition(event["object"]))
        if seen[-1] in {"Complete", "Failed"}:
            return list(dict.fromkeys(seen)), event["object"]
    raise AssertionError


def test_an_optimization_job_is_made_followed_to_its_result_and_deleted(server):
    status, made = server.ask("POST", OPTIMIZATION_JOBS, JOB)
    assert (status, made["spec"]["objectives"][0]["direction"]) == (201, "Minimize")  # the API's defaults are there

    seen, done = ended(server, OPTIMIZATION_JOBS, "search")
    assert seen[-1] == "Complete"
    assert done["metadata"]["uid"] == made["metadata"]["uid"]
    assert done["status"]["result"]["parameters"] == [{"name": "x", "value": "0.25"}]
    _, trials = server.ask("GET", TRAIN_JOBS)
    assert done["status"]["result"]["trainJobName"] in [one["metadata"]["name"] for one in trials["items"]]
    assert [condition(one) for one in trials["items"]] == ["Complete"] * 2
    assert all(one["status"]["trainerStatus"]["metrics"] for one in trials["items"])
    assert server.ask("POST", OPTIMIZATION_JOBS, JOB)[1]["reason"] == "AlreadyExists"

    path = f"{OPTIMIZATION_JOBS}/search"
    status, refused = server.ask("PATCH", path, {"spec": {"numTrials": 1, "parallelTrials": 1}}, MERGE)
    assert (status, refused["reason"]) == (422, "Invalid")
    assert "immutable" in refused["message"]
    _, labelled = server.ask("PATCH", path, {"metadata": {"labels": {"team": "a"}}}, MERGE)
    assert labelled["metadata"]["labels"] == {"team": "a"}
    assert server.ask("DELETE", path)[0] == 200
    assert server.ask("GET", OPTIMIZATION_JOBS)[1]["items"] == server.ask("GET", TRAIN_JOBS)[1]["items"] == []


def test_an_optimization_job_that_its_api_refuses_is_refused(server):
    wrong = copy.deepcopy(JOB)
    wrong["spec"]["objectives"].append({"metric": "accuracy"})
    status, refused = server.ask("POST", OPTIMIZATION_JOBS, wrong, dryRun="All")

    assert (status, refused["reason"]) == (422, "Invalid")
    assert refused["message"].startswith('OptimizationJob.trainer.kubeflow.org "search" is invalid: spec.objectives')


def train_job(code, name="train", **spec):
    """Return a TrainJob that runs ``code``."""
    trainer = {"command": [sys.executable, "-c", code]}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer, **spec},
    }


def test_a_train_job_is_made_followed_to_its_end_and_deleted_and_is_no_experiment(server):
    code = (
        "import os; print('rank', os.environ['PET_NODE_RANK']); import katib_callbacks as k; k.report_metrics({'a': 2})"
    )
    status, made = server.ask("POST", TRAIN_JOBS, train_job(code))
    assert (status, "status" in made) == (201, False)

    seen, done = ended(server, TRAIN_JOBS, "train")
    assert seen[-1] == "Complete"
    assert (done["metadata"]["uid"], done["status"]["conditions"][-1]["reason"]) == (
        made["metadata"]["uid"],
        "AllJobsCompleted",
    )
    (metric,) = done["status"]["trainerStatus"]["metrics"]
    assert metric == {"name": "a", "value": "2"}
    _, found = server.ask("GET", PODS, labelSelector="jobset.sigs.k8s.io/jobset-name=train")
    (pod,) = found["items"]
    assert (pod["metadata"]["ownerReferences"][0]["uid"], pod["status"]["phase"]) == (
        made["metadata"]["uid"],
        "Succeeded",
    )
    with server.request("GET", f"{PODS}/{pod['metadata']['name']}/log", container="node") as answer:
        assert answer.read() == b"rank 0\n"
    for path in (EXPERIMENTS, TRIALS, OPTIMIZATION_JOBS, EXPERIMENTS.replace("experiments", "suggestions")):
        assert server.ask("GET", path)[1]["items"] == []
    with LocalKatibClient(home=server.home) as client:
        assert [(row.metric.name, row.metric.value) for row in client.get_trial_metrics("train")] == [("a", "2")]
        assert client.list_experiments() == client.list_trials() == client.get_success_trial_details() == []

    assert server.ask("DELETE", f"{TRAIN_JOBS}/train")[0] == 200
    assert server.ask("GET", TRAIN_JOBS)[1]["items"] == server.ask("GET", PODS)[1]["items"] == []
    assert not (server.home / "train").exists()


def test_a_train_job_that_fails_tells_why(server):
    server.ask("POST", TRAIN_JOBS, train_job("raise SystemExit(3)"))
    _, done = ended(server, TRAIN_JOBS, "train")

    last = done["status"]["conditions"][-1]
    assert (last["type"], last["reason"]) == ("Failed", "FailedJobs")
    assert "exit status 3" in last["message"]


def test_a_train_job_that_runs_is_ended_when_it_is_deleted(server, tmp_path):
    path = tmp_path / "pid"
    code = f"import os, time; print(os.getpid(), end='.', file=open({str(path)!r}, 'w'), flush=True); time.sleep(600)"
    server.ask("POST", TRAIN_JOBS, train_job(code))
    while not (path.exists() and path.read_text().endswith(".")):
        time.sleep(0.1)
    number = int(path.read_text()[:-1])

    assert server.ask("DELETE", f"{TRAIN_JOBS}/train")[0] == 200
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"runtimeRef": {"name": "deepspeed"}}, "there is no 'deepspeed' here; there are: torch-distributed"),
        ({"trainer": {"numNodes": 2}}, "spec.trainer.command: must be specified"),
        ({"suspend": True}, "spec.suspend: a TrainJob on this machine is run at once"),
        ({"initializer": {"model": {"storageUri": "hf://a/b"}}}, "spec.initializer: nothing is fetched"),
        ({"runtimeRef": "torch-distributed"}, "spec.runtimeRef: must be a mapping"),
        ({"nodes": 2}, "spec.nodes"),
    ],
)
def test_a_train_job_that_cannot_run_here_is_refused(shared, spec, told):
    status, refused = shared.ask("POST", TRAIN_JOBS, train_job("pass", **spec), dryRun="All")

    assert (status, refused["reason"]) == (422, "Invalid")
    assert refused["message"].startswith('TrainJob.trainer.kubeflow.org "train" is invalid: spec')
    (cause,) = refused["details"]["causes"]
    assert refused["message"].endswith(f"{cause['field']}: {cause['message']}")
    assert told in refused["message"]


def test_a_trials_train_job_is_left_to_its_owner(server):
    server.ask("POST", OPTIMIZATION_JOBS, JOB)
    _, done = ended(server, OPTIMIZATION_JOBS, "search")
    name = done["status"]["result"]["trainJobName"]

    assert server.ask("DELETE", f"{TRAIN_JOBS}/{name}")[1]["reason"] == "Forbidden"
    assert server.ask("PATCH", f"{TRAIN_JOBS}/{name}", {}, MERGE)[1]["reason"] == "Forbidden"
    assert server.ask("POST", TRAIN_JOBS, train_job("pass", name))[1]["reason"] == "AlreadyExists"
    assert server.ask("POST", TRAIN_JOBS, train_job("pass", "search"))[1]["reason"] == "AlreadyExists"
