"""Beside upstream's SDK, in an environment that has it (nox's session `sdk`)."""

import pytest

katib = pytest.importorskip("kubeflow.katib")


@pytest.fixture
def pod_namespace(monkeypatch):
    """Stand in for the file with a pod's namespace, which upstream's ``report_metrics`` opens for an error message."""
    monkeypatch.setattr(katib.utils.utils, "get_current_k8s_namespace", lambda: "default")
