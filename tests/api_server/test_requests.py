"""The API, asked by hand: who is let in, what is answered, in which order."""

import asyncio
import base64
import json
import re

import pytest
from api_servers import EXPERIMENTS, MERGE, TRIALS, experiment

from katib_callbacks.local import LocalKatibClient
from katib_callbacks.local.api_server.resources.logs import stream
from katib_callbacks.local.running import runner
from katib_callbacks.local.state.store import ExperimentStore

PODS = "/api/v1/namespaces/default/pods"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


def table(server, path, **options):
    """Return the cells of the rows that kubectl would show."""
    with server.request(
        "GET", path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}, **options
    ) as answer:
        shown = json.loads(answer.read())
    assert all(("spec" in row["object"]) == (options.get("includeObject") == "Object") for row in shown["rows"])
    return [row["cells"] for row in shown["rows"]]


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
    log = f"{PODS}/{trials['items'][0]['metadata']['name']}-0/log"
    with server.request("GET", log, tailLines=1) as answer:
        assert re.fullmatch(rb"loss=0\.\d+\n", answer.read())
    with server.request("GET", log, tailLines=0) as answer:
        assert answer.read() == b""
    for options in ({"tailLines": "-1"}, {"container": "nope"}, {"previous": "true"}):
        status, refused = server.ask("GET", log, **options)
        assert (status, refused["reason"]) == (400, "BadRequest"), options
    assert table(server, PODS)[0][1:4] == ["0/1", "Completed", 0]
    assert table(server, JOBS, includeObject="Object")[0][1:3] == ["Complete", "1/1"]

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


def test_a_followed_log_begins_anew_with_the_next_attempt(tmp_path):
    log, is_over = tmp_path / "log", False

    async def follow():
        nonlocal is_over
        log.write_bytes(b"first attempt\n")
        pieces = stream((log,), None, is_over=lambda: is_over, is_followed=True)
        first = await anext(pieces)
        log.write_bytes(b"second\n")
        is_over = True
        return [first, *[piece async for piece in pieces]]

    assert asyncio.run(follow()) == [b"first attempt\n", b"second\n"]


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


def test_discovery_in_steps_tells_the_same_as_all_at_once(shared):
    at_once = {}
    for path in ("/api", "/apis"):
        accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
        with shared.request("GET", path, headers=accept) as answer:
            items = json.loads(answer.read())["items"]
        for item in items:
            (version,) = item["versions"]
            name = "/".join(filter(None, [item["metadata"]["name"], version["version"]]))
            at_once[name] = {one["resource"]: one["verbs"] for one in version["resources"]}
    groups = shared.ask("GET", "/apis")[1]["groups"]
    names = [*shared.ask("GET", "/api")[1]["versions"], *(one["preferredVersion"]["groupVersion"] for one in groups)]
    in_steps = {}
    for name in names:
        _, shown = shared.ask("GET", f"/apis/{name}" if "/" in name else f"/api/{name}")
        in_steps[name] = {one["name"]: one["verbs"] for one in shown["resources"]}

    assert in_steps["v1"].pop("pods/log") == ["get"]
    assert in_steps == at_once
    assert "experiments" in at_once["kubeflow.org/v1beta1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": "ten"}, "limit: 'ten' is not a number"),
        ({"labelSelector": "!team=a"}, "unable to parse requirement: '!team=a'"),
        ({"fieldSelector": "metadata.name"}, "invalid selector: 'metadata.name'; can't understand it"),
    ],
)
def test_options_that_cannot_be_understood_are_refused(shared, options, said):
    status, refused = shared.ask("GET", EXPERIMENTS, **options)

    assert (status, refused["reason"], refused["message"]) == (400, "BadRequest", said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "Trial"}, "kind 'Trial' is not that of experiments: Experiment"),
        ({"metadata": {"name": "x", "namespace": "other"}}, "the namespace of the provided object does not match"),
        ({"metadata": None}, "the object has no metadata"),
    ],
)
def test_an_object_that_does_not_fit_its_path_is_refused(shared, change, said):
    status, refused = shared.ask("POST", EXPERIMENTS, experiment() | change)

    assert (status, refused["reason"]) == (400, "BadRequest")
    assert refused["message"].startswith(said)


def test_what_is_applied_is_made_where_it_is_missing_and_has_the_name_of_its_path(shared):
    path, made = f"{EXPERIMENTS}/new", experiment("new")
    status, applied = shared.ask("PATCH", path, made, APPLY, dryRun="All")
    assert (status, applied["metadata"]["name"]) == (201, "new")
    status, refused = shared.ask("PATCH", path, experiment("other"), APPLY, dryRun="All")
    assert (status, refused["reason"]) == (400, "BadRequest")
    assert "the name of the provided object does not match" in refused["message"]


def test_patches_that_are_none_are_refused(shared):
    path = f"{EXPERIMENTS}/one"
    for patch, kind, status in (
        ({}, JSON_PATCH, 400),
        ([{"op": "turn", "path": "/spec"}], JSON_PATCH, 422),
        ([{"op": "replace", "path": "", "value": {}}], JSON_PATCH, 400),
        ([], MERGE, 400),
        ({}, "application/json", 415),
    ):
        assert shared.ask("PATCH", path, patch, kind)[0] == status, (patch, kind)


def test_values_are_moved_and_put_into_lists(shared):
    label = "/metadata/labels/team"
    operations = [
        {"op": "move", "from": label, "path": "/metadata/labels/group"},
        {"op": "add", "path": "/metadata/finalizers", "value": ["b"]},
        {"op": "add", "path": "/metadata/finalizers/0", "value": "a"},
        {"op": "add", "path": "/metadata/finalizers/-", "value": "c"},
    ]
    status, patched = shared.ask("PATCH", f"{EXPERIMENTS}/one", operations, JSON_PATCH, dryRun="All")

    assert status == 200
    assert patched["metadata"]["labels"] == {"group": "a"}
    assert patched["metadata"]["finalizers"] == ["a", "b", "c"]


def test_a_name_is_not_changed(shared):
    status, refused = shared.ask("PATCH", f"{EXPERIMENTS}/one", {"metadata": {"name": "other"}}, MERGE)

    assert (status, refused["message"]) == (400, "metadata.name cannot be changed")


def test_an_experiment_may_come_in_yaml(shared):
    status, made = shared.ask("POST", EXPERIMENTS, experiment("yaml"), "application/yaml", dryRun="All")

    assert (status, made["metadata"]["name"]) == (201, "yaml")


def test_a_body_too_large_is_refused(shared):
    status, refused = shared.ask("POST", EXPERIMENTS, {"metadata": {"name": "x" * (3 << 20)}})

    assert (status, refused["reason"]) == (400, "BadRequest")
    assert "too large" in refused["message"]


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
