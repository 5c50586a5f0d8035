"""The page's server: what it says of experiments that were really run, and that it only reads."""

import json
import shutil
from contextlib import closing
from datetime import datetime, timedelta, timezone

import httpx
import pytest
import served
from mixed import HOSTILE, experiment, wait_until
from served import CLIENT

from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state.states import condition
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.page.curves import MOST_POINTS
from katib_callbacks.page.local_source import LocalSource


@pytest.fixture
def get(serve_home, headers):
    """Return a function that gets JSON of a home."""
    urls = {}

    def get(home, path, status=200, **query):
        if home not in urls:
            urls[home] = serve_home(home)
        answer = served.get(f"{urls[home]}{path}", params=query, headers=headers)
        assert answer.status_code == status
        return answer.json()

    return get


def seen(answer):
    """Return the page's question for what came after an answer."""
    return {"generation": answer["generation"], "revision": answer["revision"]}


def changed(get, home, answer):
    """Wait for what comes after an answer: of a machine that is slow the page reads a change a moment later."""
    answers = []

    def has_changed():
        answers.append(get(home, "api/experiments/one", **seen(answer)))
        return "trials" in answers[-1]

    wait_until(has_changed)
    return answers[-1]


def test_the_list_tells_of_each_experiment_how_far_it_is_and_the_best(ran, get):
    (one,) = get(ran.home, "api/experiments")

    assert (one["name"], one["state"]) == ("mixed", "Succeeded")
    assert one["counts"] == {"Succeeded": 1, "MetricsUnavailable": 1, "Failed": 1}
    assert one["objective"] == {"metric": "loss", "type": "minimize", "goal": None}
    assert one["best"]["value"] == 0.2


def test_an_experiment_tells_of_each_trial_its_state_reason_parameters_and_metrics(ran, get):
    trials = {trial["number"]: trial for trial in get(ran.home, "api/experiments/mixed")["trials"]}

    assert [trials[number]["state"] for number in range(3)] == ["Succeeded", "Failed", "MetricsUnavailable"]
    assert trials[0]["metrics"] == {"loss": {"latest": "0.2", "min": "0.2", "max": "1.0"}}
    assert trials[0]["parameters"] == {"x": HOSTILE}
    assert "out of memory: <b>not bold</b>" in trials[1]["message"]
    assert "'loss' was not reported" in trials[2]["message"]


def test_of_a_trial_there_are_its_command_logs_and_curves(ran, get):
    (name,) = [trial.name for trial in ran.trials("mixed") if trial.number == 0]

    trial = get(ran.home, f"api/trials/{name}")
    assert trial["commands"][0].split()[1:] != []
    assert trial["logs"] == [f"{name}.log"]
    assert [one["type"] for one in trial["conditions"]] == ["Created", "Running", "Succeeded"]
    log = get(ran.home, f"api/trials/{name}/log/{name}.log")
    assert f"parameter {HOSTILE}\n" in log["text"]
    assert log["is_over"]
    curve = get(ran.home, "api/curves", trial=name)[name]["metrics"]["loss"]
    assert (curve["index"], curve["value"]) == ([1, 2, 3, 4, 5], [1.0, 0.5, 1 / 3, 0.25, 0.2])
    assert len(curve["seconds"]) == 5


def test_the_termination_message_is_shown(ran, get):
    trial = ran.trials("mixed")[1]
    TrialFiles(ran.home, "mixed", trial.name).termination_log.write_text("last words\n", "utf-8")

    assert get(ran.home, f"api/trials/{trial.name}")["termination_message"] == "last words"


def test_only_what_has_changed_is_sent_again(local, get):
    local.store(other := experiment())
    first = get(local.home, "api/experiments/one")
    nothing = get(local.home, "api/experiments/one", **seen(first))
    with ExperimentStore(database(local.home)) as store:
        add_trial(store, other, 0)
        second = changed(get, local.home, first)
        add_trial(store, other, 1)
    third = changed(get, local.home, second)

    assert first["is_whole"]
    assert nothing == seen(first)
    assert not second["is_whole"]
    assert [[trial["number"] for trial in answer["trials"]] for answer in (second, third)] == [[0], [1]]
    assert get(local.home, "api/experiments/one", generation="another", revision=2)["is_whole"]


def test_an_experiment_that_takes_the_name_of_a_deleted_one_is_sent_whole(local, get):
    local.store(one := experiment())
    with ExperimentStore(database(local.home)) as store:
        add_trial(store, one, 0)
        first = get(local.home, "api/experiments/one")
        store.delete_experiment("one")
        local.store(one)
        again = changed(get, local.home, first)

    assert again["is_whole"]
    assert again["trials"] == []


def test_an_experiment_that_no_process_runs_is_stopped(local, get):
    local.store(experiment())

    assert get(local.home, "api/experiments/one")["experiment"]["state"] == "Stopped"


def test_a_log_is_read_on_from_where_the_last_piece_ended(ran, get):
    trial = ran.trials("mixed")[2]
    files = TrialFiles(ran.home, "mixed", trial.name)
    path = f"api/trials/{trial.name}/log/{files.log.name}"
    files.log.write_bytes("one\nzwö".encode()[:-1])  # half of a letter
    first = get(ran.home, path)
    files.log.write_bytes("one\nzwölf\n".encode())
    second = get(ran.home, path, offset=first["offset"])
    files.log.write_bytes(b"new\n")  # the trial's next attempt
    third = get(ran.home, path, offset=second["offset"])

    assert [piece["text"] for piece in (first, second, third)] == ["one\nzw", "ölf\n", "new\n"]
    assert [piece["begins"] for piece in (first, second, third)] == [True, False, True]


def test_of_a_long_log_the_end_is_shown_from_the_beginning_of_a_line(ran, get):
    trial = ran.trials("mixed")[2]
    files = TrialFiles(ran.home, "mixed", trial.name)
    files.log.write_text("".join(f"line {number:07}\n" for number in range(50_000)), "utf-8")
    piece = get(ran.home, f"api/trials/{trial.name}/log/{files.log.name}")

    assert piece["is_cut"]
    assert piece["text"].startswith("line ")
    assert piece["text"].endswith("line 0049999\n")


@pytest.mark.parametrize("file", ["katib.db", "..%2Fkatib.db", "..%2F..%2Fetc%2Fpasswd", "mixed"])
def test_no_other_file_is_read_as_a_log(ran, get, file):
    name = ran.trials("mixed")[0].name

    assert get(ran.home, f"api/trials/{name}/log/{file}", 404) in ({"error": f"there is no log {file!r}"}, NOT_FOUND)


NOT_FOUND = {"error": "there is nothing at this address"}


@pytest.mark.parametrize("path", ["assets/..%2Fapp.py", "assets/app.py", "assets/", "nothing", "api/nothing"])
def test_no_other_file_is_served(ran, get, path):
    assert set(get(ran.home, path, 404)) == {"error"}


def test_what_is_not_there_is_named(ran, get):
    assert "no experiment 'none'" in get(ran.home, "api/experiments/none", 404)["error"]
    assert "no trial 'none'" in get(ran.home, "api/trials/none", 404)["error"]
    assert "no trial 'none'" in get(ran.home, "api/curves", 404, trial="none")["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written_or_deleted(ran, serve_home, headers, method):
    url = serve_home(ran.home)
    before = ran.trials("mixed")

    for path in ("", "api/experiments", "api/experiments/mixed", f"api/trials/{before[0].name}"):
        assert httpx.request(method, f"{url}{path}", headers=headers, **CLIENT).status_code == 405
    assert ran.trials("mixed") == before


def test_no_script_but_the_pages_own_may_run_and_no_other_page_may_read(ran, serve_home, headers):
    url = serve_home(ran.home)

    for path in ("", "assets/app.js", "api/experiments", "api/experiments/none", "nothing"):
        answer = served.get(f"{url}{path}", headers={**headers, "Origin": "http://attacker.example"})
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["script-src"] == "'self'"
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_home_that_is_deleted_is_missed_and_a_new_one_is_seen(local, get):
    local.store(experiment())
    get(local.home, "api/experiments")
    shutil.rmtree(local.home)
    assert "holds no experiments" in get(local.home, "api/experiments", 404)["error"]

    local.store({**experiment(), "metadata": {"name": "new"}})
    assert [one["name"] for one in get(local.home, "api/experiments")] == ["new"]


def test_a_runner_can_write_while_the_page_reads(local):
    local.store(one := experiment())
    with closing(LocalSource(local.home)) as source, ExperimentStore(database(local.home)) as store:
        source.experiments()
        with store.editing("one") as (_, changes):  # holds the one lock of writers
            changes["started_s"] = 1.0
            assert source.experiments()[0]["started_s"] is None
        add_trial(store, one, 0)
        wait_until(lambda: source.experiments()[0]["started_s"] == 1.0)


def test_a_running_trial_shows_what_its_callback_wrote_and_the_curve_before_anything_is_reported(local, get):
    local.store(one := experiment())
    with ExperimentStore(database(local.home)) as store:
        add_trial(store, one, 0, state="Running")
    progress = TrialFiles(local.home, "one", "one-0").progress
    progress.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"fraction": 0.25, "remaining_s": 9.0, "row": 1, "epoch": 1, "step": None, "values": {"loss": 2.0}},
        {"fraction": 0.5, "remaining_s": 6.0, "row": 2, "epoch": 2, "step": None, "values": {"loss": 1.0}},
    ]
    progress.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")

    (trial,) = get(local.home, "api/experiments/one")["trials"]
    assert trial["metrics"] == {"loss": {"latest": "1.0"}}
    assert trial["progress"] == {"share": 0.5, "remaining_s": 6.0, "row": 2}
    curve = get(local.home, "api/curves", trial="one-0")["one-0"]["metrics"]["loss"]
    assert curve == {"index": [1, 2], "value": [2.0, 1.0], "seconds": []}

    with progress.open("a", encoding="utf-8") as file:  # a trial's own program may write there
        file.write('{"fraction": NaN, "remaining_s": "soon"}\nno JSON\n')
    (trial,) = get(local.home, "api/experiments/one")["trials"]
    assert trial["progress"] == {"share": None, "remaining_s": None, "row": 2}


def test_of_a_very_long_curve_the_extremes_stay(local, get):
    local.store(one := experiment())
    logs = [StoredMetricLog("loss", "nan" if step == 3 else repr(abs(step - 7000.5)), at(step)) for step in range(9000)]
    with ExperimentStore(database(local.home)) as store:
        add_trial(store, one, 0)
        store.add_rows("one-0", logs)

    curve = get(local.home, "api/curves", trial="one-0")["one-0"]["metrics"]["loss"]
    assert len(curve["value"]) <= MOST_POINTS
    assert (curve["index"][0], curve["index"][-1]) == (1, 9000)
    assert (min(curve["value"]), max(curve["value"])) == (0.5, 7000.5)


def at(step):
    return datetime(2026, 1, 31, 12, tzinfo=timezone.utc) + timedelta(seconds=step)


def add_trial(store, one, number, state="Created"):
    created = condition("Created", "TrialCreated", "Trial is created", 1.0)
    name = f"{one['metadata']['name']}-{number}"
    nothing = dict.fromkeys(("told", "value", "observation", "started_s", "completed_s"))
    store.add_trial(
        TrialRow(
            name=name,
            experiment=one["metadata"]["name"],
            number=number,
            assignments={"x": "0.5"},
            point={},
            asked=number,
            state=state,
            attempts=[],
            conditions=[created],
            created_s=1.0,
            **nothing,
        )
    )
