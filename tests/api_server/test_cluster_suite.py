"""The tests for any cluster: a few of them, against the API server, so that they do not rot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words, **environ):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *words]
    kept = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return subprocess.run(command, cwd=ROOT, env=kept | environ, capture_output=True, text=True, check=False)


@pytest.mark.timeout(1200)
def test_trials_that_forget_their_metric_or_fail_are_seen(server, kubectl):
    done = run(
        *("tests/cluster/test_push.py", "-k", "forgotten or fails"),
        KUBECONFIG=str(server.kubeconfig),
        TEST_KUBECTL=kubectl.command[0],
        KATIB_CALLBACKS_TEST_IMAGE="registry.example.com/trials:test",
        KATIB_CALLBACKS_TEST_NAMESPACE="default",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_without_a_cluster_nothing_passes():
    done = run("tests/cluster")

    assert done.returncode == 5
    assert "no tests ran" in done.stdout
