"""Kubeflow Trainer's objects, made through the API."""

import copy
import sys

from api_servers import MERGE

OPTIMIZATION_JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/default/optimizationjobs"
TRAIN_JOBS = OPTIMIZATION_JOBS.replace("optimizationjobs", "trainjobs")

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
