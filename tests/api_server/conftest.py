"""API servers in processes of their own, and clients of them."""

import os
import subprocess

import pytest
from api_servers import ApiServer, Kubectl, experiment

from katib_callbacks.local.running import runner


@pytest.fixture
def server(tmp_path):
    """Serve a home of its own until the test is over; its experiments end with it."""
    pytest.importorskip("starlette")
    with ApiServer(tmp_path / "home") as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Serve a home with three labelled experiments that do not run, for tests that only ask."""
    pytest.importorskip("starlette")
    with ApiServer(tmp_path_factory.mktemp("shared") / "home") as started:
        for name, labels in (("one", {"team": "a"}), ("two", {"team": "b"}), ("three", {})):
            made = experiment(name)
            made["metadata"]["labels"] = labels
            runner.create(started.home, made, folder=started.home)
        yield started


@pytest.fixture
def kubectl(server, tmp_path):
    """Return what runs kubectl against the server, in a folder of its own."""
    program = os.environ.get("TEST_KUBECTL")
    if program is None:
        pytest.skip("TEST_KUBECTL names no kubectl")
    return Kubectl(program, server, tmp_path)


@pytest.fixture
def follow():
    """Return a function that starts a process whose output is read line by line; it ends with the test."""
    started = []

    def start(command, **options):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, **options
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
