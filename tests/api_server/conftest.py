"""API servers in processes of their own, and clients of them."""

import os
import subprocess

import pytest

pytest.importorskip("starlette")

from api_servers import ApiServer, Kubectl


@pytest.fixture
def server(tmp_path):
    """Serve a home of its own until the test is over; its experiments end with it."""
    with ApiServer(tmp_path / "home") as started:
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
