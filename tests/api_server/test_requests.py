"""The API, asked by hand: who is let in, what is answered, in which order."""

import base64
import json

import pytest
from api_servers import EXPERIMENTS, MERGE, TRIALS, experiment

from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.running import runner
from katib_callbacks.local.state.store import ExperimentStore


def test_the_client_is_warned_of_what_has_no_effect_here(shared):
    with shared.request("POST", EXPERIMENTS, experiment("four"), dryRun="All") as answer:
        made = json.loads(answer.read())

    assert (answer.status, made["metadata"]["name"]) == (201, "four")
    warning = '299 - "without effect on one machine: the image (this Python\'s environment is used)"'
    assert answer.getheader("Warning") == warning
    assert shared.ask("GET", f"{EXPERIMENTS}/four")[0] == 404


def test_an_experiment_is_made_run_listed_and_deleted(server):
    status, made = server.ask("POST", EXPERIMENTS, experiment())
    assert (status, made["metadata"]["name"]) == (201, "one")
    assert made["spec"]["trialTemplate"]["successCondition"]  # Katib's defaults are there

    over = server.finished("one")
    assert over["status"]["trialsSucceeded"] == 3
    assert over["metadata"]["uid"] == made["metadata"]["uid"]
    _, trials = server.ask("GET", TRIALS, labelSelector="katib.kubeflow.org/experiment=one")
    assert len(trials["items"]) == 3

    status, deleted = server.ask("DELETE", f"{EXPERIMENTS}/one", {"propagationPolicy": "Background"})
    assert (status, deleted["details"]["uid"]) == (200, made["metadata"]["uid"])
    assert server.ask("GET", f"{EXPERIMENTS}/one")[0] == 404
    assert server.ask("GET", TRIALS)[1]["items"] == []


def test_an_experiment_of_the_api_is_seen_by_the_local_client_and_the_other_way_round(server):
    with LocalKatibClient(home=server.home) as client:
        server.create(experiment("theirs"))
        assert client.wait_for_experiment_condition("theirs", timeout=300).status.trials_succeeded == 3

        client.create_experiment(experiment("ours"))
        client.wait_for_experiment_condition("ours", timeout=300)
        _, shown = server.ask("GET", f"{EXPERIMENTS}/ours")
        assert shown["status"]["trialsSucceeded"] == 3


def test_a_list_comes_in_pages(server):
    for number in range(5):
        runner.create(server.home, experiment(f"many-{number}"), folder=server.home)
    names, token = [], ""
    while True:
        _, page = server.ask("GET", EXPERIMENTS, limit=2, **({"continue": token} if token else {}))
        names.append([item["metadata"]["name"] for item in page["items"]])
        token = page["metadata"].get("continue")
        if not token:
            break

    assert names == [["many-0", "many-1"], ["many-2", "many-3"], ["many-4"]]
    status, refused = server.ask("GET", EXPERIMENTS, **{"continue": "nonsense"})
    assert (status, refused["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("continue", base64.urlsafe_b64encode(one).decode()) for one in (b"7", b'["a","b"]', b'["a","b","c"]')),
        *(("continue", base64.urlsafe_b64encode(one).decode()) for one in (b'[null,"b","c"]', b'[1e999,"b","c"]')),
        *((name, "9" * 5000) for name in ("limit", "continue")),
        ("limit", str(2**63)),
        ("limit", "-1"),
    ],
)
def test_options_that_cannot_be_are_bad_requests(shared, option, text):
    status, refused = shared.ask("GET", EXPERIMENTS, **{option: text})

    assert (status, refused["reason"]) == (400, "BadRequest")


def test_a_log_of_too_many_lines_is_a_bad_request(server):
    server.create(experiment(maxTrialCount=1, parallelTrialCount=1))
    server.finished("one")
    pod = server.ask("GET", "/api/v1/namespaces/default/pods")[1]["items"][0]["metadata"]["name"]

    for lines in ("9" * 19, "-1", "many"):
        status, refused = server.ask("GET", f"/api/v1/namespaces/default/pods/{pod}/log", tailLines=lines)
        assert (status, refused["reason"]) == (400, "BadRequest"), lines


def test_what_cannot_stand_in_a_path_is_no_namespace(shared):
    made = experiment("astray")
    for namespace in ("..", "a/b", "Team", 7, "x" * 64):
        made["metadata"]["namespace"] = namespace
        status, refused = shared.ask("POST", "/apis/kubeflow.org/v1beta1/experiments", made)
        assert (status, refused["reason"]) == (422, "Invalid"), namespace


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("team=a", ["one"]),
        ("team!=a", ["three", "two"]),
        ("team", ["one", "two"]),
        ("!team", ["three"]),
        ("team in (a, b),stage notin (x)", ["one", "two"]),
        ("team==b", ["two"]),
    ],
)
def test_labels_choose(shared, labels, expected):
    _, found = shared.ask("GET", EXPERIMENTS, labelSelector=labels)

    assert [item["metadata"]["name"] for item in found["items"]] == expected


def test_fields_choose_and_unknown_ones_are_refused(shared):
    _, found = shared.ask("GET", EXPERIMENTS, fieldSelector="metadata.name!=two")
    assert [item["metadata"]["name"] for item in found["items"]] == ["one", "three"]
    status, refused = shared.ask("GET", EXPERIMENTS, fieldSelector="spec.maxTrialCount=3")
    assert (status, refused["message"]) == (400, "field label not supported: spec.maxTrialCount")


def test_edits_change_budgets_labels_and_annotations_and_nothing_else(server):
    runner.create(server.home, experiment(), folder=server.home)
    path = f"{EXPERIMENTS}/one"
    operations = [
        {"op": "test", "path": "/spec/maxTrialCount", "value": 3},
        {"op": "replace", "path": "/spec/maxTrialCount", "value": 8},
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "c"}},
    ]
    _, patched = server.ask("PATCH", path, operations, "application/json-patch+json")
    assert (patched["spec"]["maxTrialCount"], patched["metadata"]["annotations"]) == (8, {"a/b": "c"})
    status, refused = server.ask("PATCH", path, operations, "application/json-patch+json")
    assert (status, refused["reason"]) == (422, "Invalid")

    patched["spec"]["parallelTrialCount"] = 4
    status, replaced = server.ask("PUT", path, patched)
    assert (status, replaced["spec"]["parallelTrialCount"]) == (200, 4)
    status, refused = server.ask("PUT", path, patched)  # with the version before
    assert (status, refused["reason"]) == (409, "Conflict")

    status, shown = server.ask("PATCH", path, {"spec": {"maxTrialCount": 9}}, MERGE, dryRun="All")
    assert (status, shown["spec"]["maxTrialCount"]) == (200, 9)
    assert server.ask("GET", path)[1]["spec"]["maxTrialCount"] == 8
    status, refused = server.ask("PATCH", path, {"spec": {"algorithm": {"algorithmName": "grid"}}}, MERGE)
    assert (status, refused["reason"]) == (400, "BadRequest")
    assert "only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount" in refused["message"]


def test_metadata_that_would_spoil_an_experiment_is_refused(server):
    runner.create(server.home, experiment(), folder=server.home)
    path = f"{EXPERIMENTS}/one"
    for metadata in ({"labels": "a"}, {"labels": {"a": ["b"]}}, {"annotations": ["a"]}, "one", None):
        status, refused = server.ask("PATCH", path, {"metadata": metadata}, MERGE)
        assert (status, refused["reason"]) == (400, "BadRequest"), metadata
    made = experiment("two")
    made["metadata"]["labels"] = {"a": {"b": "c"}}
    assert server.ask("POST", EXPERIMENTS, made)[0] == 400

    assert server.ask("PATCH", path, {"metadata": {"name": None, "namespace": None}}, MERGE)[0] == 200
    assert server.ask("PATCH", path, {"spec": {"maxTrialCount": 8}}, MERGE)[0] == 200  # its name is still there
    with ExperimentStore(runner.database(server.home)) as store:
        assert store.experiment("one").source["metadata"] == {"name": "one", "namespace": "default"}


def test_labels_of_the_local_client_that_are_no_strings_are_not_chosen(server):
    made = experiment()
    made["metadata"]["labels"] = {"team": ["a"], "stage": "b"}
    runner.create(server.home, made, folder=server.home)

    assert server.ask("GET", EXPERIMENTS, labelSelector="team=a")[1]["items"] == []
    assert len(server.ask("GET", EXPERIMENTS, labelSelector="stage=b")[1]["items"]) == 1


def test_a_patch_that_copies_without_end_is_refused(server):
    runner.create(server.home, experiment(), folder=server.home)
    copies = [{"op": "copy", "from": "", "path": f"/spec/{number}"} for number in range(40)]
    for operations in (copies, [{"op": "remove", "path": ""}]):
        status, refused = server.ask("PATCH", f"{EXPERIMENTS}/one", operations, "application/json-patch+json")
        assert (status, refused["reason"]) == (422, "Invalid")


def test_a_body_too_deep_to_be_read_is_a_bad_request(shared):
    deep = []
    for _ in range(600):
        deep = [deep]
    status, refused = shared.ask("POST", EXPERIMENTS, deep, "application/yaml")
    assert (status, refused["reason"]) == (400, "BadRequest")
    assert "could not be read" in refused["message"]


def test_an_experiment_that_is_over_goes_on_with_a_larger_budget(server):
    server.create(experiment(maxTrialCount=1, parallelTrialCount=1))
    assert server.finished("one")["status"]["trials"] == 1
    server.ask("PATCH", f"{EXPERIMENTS}/one", {"spec": {"maxTrialCount": 2}}, MERGE)

    for event in server.follow(EXPERIMENTS):
        status = event["object"]["status"]
        if status["conditions"][-1]["type"] == "Succeeded" and status["trials"] == 2:
            break


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", f"{EXPERIMENTS}/nope", 404, "NotFound"),
        ("GET", "/apis/kubeflow.org/v1beta1/namespaces/default/nothing", 404, "NotFound"),
        ("GET", "/apis/other/v1", 404, "NotFound"),
        ("DELETE", f"{EXPERIMENTS}/nope", 404, "NotFound"),
        ("DELETE", EXPERIMENTS, 405, "MethodNotAllowed"),
        ("POST", TRIALS, 405, "MethodNotAllowed"),
        ("POST", EXPERIMENTS, 400, "BadRequest"),
    ],
)
def test_faults_are_status_objects(shared, method, path, status, reason):
    answered, fault = shared.ask(method, path, {} if method == "POST" else None)

    assert (answered, fault["kind"], fault["status"], fault["reason"]) == (status, "Status", "Failure", reason)
