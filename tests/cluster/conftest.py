"""The cluster that ``KUBECONFIG`` names, for tests that are run by nox's session `cluster` only.

``KATIB_CALLBACKS_TEST_IMAGE`` is the image of trials, made by examples/cluster/Dockerfile. A namespace is made and
deleted, unless ``KATIB_CALLBACKS_TEST_NAMESPACE`` names one. ``KATIB_CALLBACKS_TEST_DB_MANAGER_IMAGE`` is that of
deploy/db-manager/Dockerfile.
"""

import os
import shutil
import uuid

import pytest
from clusters import EXPERIMENTS, Cluster

NEEDED = ("KUBECONFIG", "KATIB_CALLBACKS_TEST_IMAGE")

if not all(map(os.environ.get, NEEDED)):  # nobody's cluster is used because their shell happens to name one
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "cluster":
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def cluster():
    kubectl = os.environ.get("TEST_KUBECTL") or shutil.which("kubectl")
    assert kubectl, "there is no kubectl"
    given = os.environ.get("KATIB_CALLBACKS_TEST_NAMESPACE")
    made = Cluster(
        kubectl, given or f"katib-callbacks-{uuid.uuid4().hex[:8]}", os.environ["KATIB_CALLBACKS_TEST_IMAGE"]
    )
    assert "Experiment" in made.kinds(), "the cluster has no Katib: it knows no Experiment"
    if given:
        yield made
        return
    # Katib's webhook looks at the pods of namespaces with this label only.
    label = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    namespace = {"name": made.namespace, "labels": label}
    made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    yield made
    made.run("delete", "namespace", made.namespace, "--wait=false", check=False)


@pytest.fixture
def submit(cluster):
    """Return a function that makes an experiment and waits for its end; it is deleted after the test."""
    names = []

    def run(one, *, wait=True):
        names.append(one["metadata"]["name"])
        cluster.delete(EXPERIMENTS, names[-1])
        cluster.apply(one)
        return cluster.ended(names[-1]) if wait else None

    yield run
    for name in names:
        cluster.delete(EXPERIMENTS, name)


@pytest.fixture(scope="session")
def installed(cluster):
    """Return which frameworks the image has, as a trial of the cluster has reported it."""
    names = ("lightning", "keras", "transformers", "tensorflow")
    program = (
        "from importlib.util import find_spec; from katib_callbacks import report_metrics; "
        f"report_metrics({{'value': 1, **{{n: float(find_spec(n) is not None) for n in {names}}}}})"
    )
    one = cluster.script("frameworks", f'python -c "{program}"', *names)
    cluster.delete(EXPERIMENTS, "frameworks")
    cluster.apply(one)
    experiment, _ = cluster.ended("frameworks")
    cluster.delete(EXPERIMENTS, "frameworks")
    observed = experiment["status"]["currentOptimalTrial"]["observation"]["metrics"]
    return {metric["name"] for metric in observed if metric["name"] in names and float(metric["latest"]) == 1}
