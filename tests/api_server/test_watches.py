"""Watches: each change once and in order, for many at a time, and across a server that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import pytest
from api_servers import EXPERIMENTS, MERGE, TRIALS, experiment
from many_trials import begin

from katib_callbacks.local.api_server.resources.resource import Snapshot
from katib_callbacks.local.running import runner
from katib_callbacks.local.state.store import ExperimentStore

WRITER = Path(__file__).with_name("many_trials.py")


class Watcher:
    """A client that watches trials, and goes on where it was when the server comes back."""

    def __init__(self, server, version, count):
        self.server, self.version, self.count = server, version, count
        self.seen = []

    def watch(self):
        """Collect events until there are as many as are awaited; returns them."""
        while len(self.seen) < self.count:
            with suppress(OSError, HTTPException):  # the server was killed, and is not back
                self.read()
            time.sleep(0.05)
        return self.seen

    def read(self):
        with self.server.request("GET", TRIALS, watch="1", resourceVersion=self.version) as answer:
            while len(self.seen) < self.count and (line := answer.readline()).endswith(b"\n"):  # else it was cut
                event = json.loads(line)
                shown = event["object"]
                assert event["type"] != "ERROR", shown
                self.version = shown["metadata"]["resourceVersion"]
                state = shown["status"]["conditions"][-1]["type"]
                self.seen.append((int(self.version), event["type"], shown["metadata"]["name"], state))


def write_trials(server, count):
    """Let another process write trials into the store, as a runner does."""
    subprocess.run([sys.executable, WRITER, server.home, "many", str(count)], check=True)


def test_500_trials_20_watchers_and_a_kill(server):
    runner.create(server.home, experiment("many"), folder=server.home)
    _, listed = server.ask("GET", TRIALS)
    assert listed["items"] == []
    watchers = [Watcher(server, listed["metadata"]["resourceVersion"], 1000) for _ in range(20)]
    with ThreadPoolExecutor(len(watchers)) as pool:
        watching = [pool.submit(watcher.watch) for watcher in watchers]
        write_trials(server, 250)
        server.end(signal.SIGKILL)
        write_trials(server, 350)  # nobody looks
        server.start()
        write_trials(server, 500)
        first, *others = [one.result() for one in watching]

    assert [version for version, *_ in first] == sorted({version for version, *_ in first})
    changes = [(kind, name, state) for _, kind, name, state in first]
    for number in range(500):
        name = f"many-{number:04d}"
        own = [(kind, state) for kind, changed, state in changes if changed == name]
        assert own == [("ADDED", "Running"), ("MODIFIED", "Succeeded")]
    assert [name for kind, name, _ in changes if kind == "ADDED"] == [f"many-{number:04d}" for number in range(500)]
    assert all(other == first for other in others)


def test_a_killed_server_comes_back_and_its_experiment_has_gone_on(server, tmp_path):
    go = tmp_path / "go"
    waits = f"while [ ! -e {go} ]; do sleep 0.1; done; echo loss=${{trialParameters.x}}"
    server.create(experiment(script=waits, maxTrialCount=1, parallelTrialCount=1))
    events = server.follow(TRIALS)
    (running,) = (event["object"] for event in (next(events),))
    events.close()
    url = server.url

    server.end(signal.SIGKILL)
    server.start()
    _, found = server.ask("GET", f"{TRIALS}/{running['metadata']['name']}")
    assert (found, server.url) == (running, url)
    go.touch()
    assert server.finished("one")["status"]["trialsSucceeded"] == 1
    _, trials = server.ask("GET", TRIALS)
    assert [trial["metadata"]["uid"] for trial in trials["items"]] == [running["metadata"]["uid"]]


@pytest.mark.skipif(sys.platform != "linux", reason="finds a process by /proc")
def test_an_experiment_whose_process_was_killed_goes_on(server, tmp_path):
    go = tmp_path / "go"
    waits = f"while [ ! -e {go} ]; do sleep 0.1; done; echo loss=${{trialParameters.x}}"
    server.create(experiment(script=waits, maxTrialCount=1, parallelTrialCount=1))
    events = server.follow(TRIALS)
    next(events)
    events.close()
    os.kill(process_of(server.home, "one"), signal.SIGKILL)
    go.touch()

    assert server.finished("one")["status"]["trialsSucceeded"] == 1


def process_of(home, name):
    """Return the process that runs an experiment."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if [str(home).encode(), name.encode()] == words[-4:-2]:
            return int(path.parent.name)
    raise AssertionError


def test_an_experiment_that_was_stopped_stays_so(server, tmp_path):
    waits = f"while [ ! -e {tmp_path / 'go'} ]; do sleep 0.1; done; echo loss=${{trialParameters.x}}"
    server.create(experiment(script=waits))
    events = server.follow(TRIALS)
    next(events)
    events.close()
    assert runner.stop(server.home, "one")
    interrupted(server)

    assert not runner.is_run(server.home, "one")


def interrupted(server):
    """Wait until an experiment is said to be interrupted, and return its last condition."""
    for event in server.follow(EXPERIMENTS):
        last = event["object"]["status"]["conditions"][-1]
        if last["reason"] == "ExperimentInterrupted":
            return last
    raise AssertionError


def test_an_experiment_that_nobody_runs_is_said_to_be_interrupted(server):
    runner.create(server.home, experiment("left"), folder=server.home)
    last = interrupted(server)

    assert last["status"] == "False"
    assert f"katib-callbacks experiment resume left --home {server.home}" in last["message"]
    _, events = server.ask("GET", "/api/v1/events", fieldSelector="reason=ExperimentInterrupted")
    assert [event["involvedObject"]["name"] for event in events["items"]] == ["left"]


def test_a_watch_from_before_the_log_is_too_old(server):
    (event,) = server.watch(TRIALS, 1, resourceVersion="1")

    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_a_watch_may_begin_with_what_there_is(server):
    runner.create(server.home, experiment("one"), folder=server.home)
    options = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    added, bookmark = server.watch(EXPERIMENTS, 2, **options)

    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "one")
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(bookmark["object"]["metadata"]["resourceVersion"]) >= int(added["object"]["metadata"]["resourceVersion"])


def test_a_watch_of_labels_is_told_that_an_object_has_left(server):
    labelled = experiment("one")
    labelled["metadata"]["labels"] = {"team": "a"}
    runner.create(server.home, labelled, folder=server.home)
    events = server.follow(EXPERIMENTS, labelSelector="team=a")
    assert next(events)["type"] == "ADDED"
    status, _ = server.ask("PATCH", f"{EXPERIMENTS}/one", {"metadata": {"labels": {"team": "b"}}}, MERGE)
    assert status == 200
    gone = next(event for event in events if event["type"] != "MODIFIED")
    events.close()

    assert (gone["type"], gone["object"]["metadata"]["labels"]) == ("DELETED", {"team": "b"})


def test_moments_that_are_kept_share_what_did_not_change(tmp_path):
    name, _ = runner.create(tmp_path, experiment(), folder=tmp_path)
    with ExperimentStore(runner.database(tmp_path)) as store:
        for number in range(300):
            begin(store, name, number)
        rows = store.trials(name)
        first = Snapshot(store.experiment(name), tmp_path).put(*rows)
    later = replace(rows[150], state="Succeeded")
    second = first.put(later)
    assert [first.parts[at] is second.parts[at] for at in first.parts].count(False) == 1
    assert first.trials == tuple(rows)
    assert second.trials == (*rows[:150], later, *rows[151:])
    assert first != second == first.put(later)
    third = second.without(later)
    assert third.trials == (*rows[:150], *rows[151:])
    assert (second.trial_count, third.trial_count) == (300, 299)
