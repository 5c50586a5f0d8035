"""``katib-callbacks up`` and ``down``: a server in the background, and its context in the user's kubeconfig."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from api_servers import experiment

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.kubernetes_yaml import read_documents
from katib_callbacks.local.api_server import server
from katib_callbacks.local.api_server.credentials import Credentials, add_context, remove_context
from katib_callbacks.local.running import runner

yaml = pytest.importorskip("yaml")

OTHERS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "far", "cluster": {"server": "https://far.example"}}],
    "users": [{"name": "me", "user": {"token": "mine"}}],
    "contexts": [{"name": "far", "context": {"cluster": "far", "user": "me"}}],
    "current-context": "far",
}


@pytest.fixture
def command(tmp_path):
    """Return what runs a subcommand for a home, and ends its server in the end."""
    pytest.importorskip("starlette")
    home = tmp_path / "home"

    def run(*arguments, status=0):
        command = [sys.executable, "-m", "katib_callbacks.cli", *arguments, "--home", str(home)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    yield run
    run("down")


def test_up_and_down(command, tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(yaml.safe_dump(OTHERS))
    said = command("up", "--kubeconfig", str(kubeconfig))
    (url,) = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("Kubernetes' API")]

    config = yaml.safe_load(kubeconfig.read_text())
    assert config["current-context"] == "katib-local"
    assert [one["name"] for one in config["contexts"]] == ["far", "katib-local"]
    assert config["clusters"][1]["cluster"]["server"] == url
    assert url in command("up", "--kubeconfig", str(kubeconfig))
    assert "another API server serves" in command("api-server", status=1)

    assert command("down") == "it has ended\n"
    assert yaml.safe_load(kubeconfig.read_text()) == OTHERS
    assert command("down").startswith("no API server serves ")

    assert url in command("up", "--kubeconfig", str(kubeconfig))  # the port is the same


def test_an_experiment_outlives_its_server_and_down_says_how_to_end_it(command, tmp_path, monkeypatch):
    kubeconfig, home = tmp_path / "config", tmp_path / "home"
    monkeypatch.setenv("KUBECONFIG", f"{kubeconfig}{os.pathsep}{tmp_path}/other")
    script = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo loss=${{trialParameters.x}}"
    waits = tmp_path / "experiment.json"
    waits.write_text(json.dumps(experiment(script=script)))
    command("up")
    assert yaml.safe_load(kubeconfig.read_text())["current-context"] == "katib-local"
    running = [sys.executable, "-m", "katib_callbacks.cli", "experiment", "run", str(waits), "--home", str(home)]
    with subprocess.Popen(running, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not runner.is_run(home, "one"):
            assert running.poll() is None
            time.sleep(0.05)
        end = f"katib-callbacks experiment stop one --home {home}"
        assert command("down") == f"it has ended\nexperiment one goes on; end it with: {end}\n"
        assert command("experiment", "stop", "one").startswith("stopped; ")


def test_the_context_of_a_server_that_was_killed_is_taken_out(command, tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(yaml.safe_dump(OTHERS))
    command("up", "--kubeconfig", str(kubeconfig))
    killed = server.running(tmp_path / "home")
    os.kill(killed.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 120
    while server.running(tmp_path / "home") is not None and time.monotonic() < deadline_s:
        time.sleep(0.02)

    assert command("down").startswith("no API server serves ")
    assert yaml.safe_load(kubeconfig.read_text()) == OTHERS


def test_what_kubectl_would_take_for_a_number_stays_a_string(tmp_path):
    kubeconfig = tmp_path / "config"
    user = {"token": "1e5", "password": "0o17", "username": "y", "namespace": "123"}
    kubeconfig.write_text(json.dumps({**OTHERS, "users": [{"name": "me", "user": user}]}))
    add_context(kubeconfig, "https://127.0.0.1:1", Credentials("token", b"", tmp_path))

    assert read_documents(kubeconfig.read_text())[0]["users"][0]["user"] == user


def test_a_kubeconfig_that_is_none_is_left_as_it_is_and_what_others_keep_there_stays(tmp_path):
    kubeconfig, credentials = tmp_path / "config", Credentials("token", b"", tmp_path)
    remove_context(kubeconfig, "https://127.0.0.1:1")
    assert not kubeconfig.exists()
    kubeconfig.write_text("- a list")
    with pytest.raises(ConfigurationError, match="is not a kubeconfig; nothing was written there"):
        add_context(kubeconfig, "https://127.0.0.1:1", credentials)
    assert kubeconfig.read_text() == "- a list"

    theirs = {**OTHERS, "extensions": [{"name": "theirs", "extension": {"a": "b"}}]}
    kubeconfig.write_text(yaml.safe_dump(theirs))
    add_context(kubeconfig, "https://127.0.0.1:1", credentials)
    config = yaml.safe_load(kubeconfig.read_text())
    kubeconfig.write_text(yaml.safe_dump({**config, "current-context": "theirs"}))  # as kubectl's use-context does
    remove_context(kubeconfig, "https://127.0.0.1:1")
    assert yaml.safe_load(kubeconfig.read_text()) == {**theirs, "current-context": "theirs"}


def test_the_context_of_another_homes_server_stays(command, tmp_path):
    kubeconfig = tmp_path / "config"
    command("up", "--kubeconfig", str(kubeconfig))
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"  # as `up --home` of another one writes it
    kubeconfig.write_text(yaml.safe_dump(config))

    command("down")
    assert yaml.safe_load(kubeconfig.read_text()) == config


def test_a_kubeconfig_that_cannot_be_read_is_left_as_it_is(command, tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("clusters: [")
    said = command("up", "--kubeconfig", str(kubeconfig), status=1)

    assert "is not YAML" in said
    assert kubeconfig.read_text() == "clusters: ["
