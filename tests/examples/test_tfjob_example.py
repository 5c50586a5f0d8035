"""The TFJob for a cluster, beside TensorFlow (nox's session `tests_tensorflow`)."""

import os
from importlib.util import find_spec

import pytest
from cluster import run_one_trial

pytestmark = pytest.mark.skipif(
    not os.environ.get("TEST_TFJOB") and find_spec("tensorflow") is None, reason="there is no TensorFlow"
)


@pytest.mark.timeout(1200)
def test_of_two_workers_one_reports_the_metrics_of_both(tmp_path, monkeypatch):
    rows = run_one_trial("keras-tfjob", tmp_path, monkeypatch)

    assert sorted(metric for metric, _ in rows) == ["accuracy", "loss"]
    assert 0 < dict(rows)["accuracy"] <= 1, "whatever learning rate was drawn"
    (log,) = (tmp_path / "home" / "keras-tfjob").glob("keras-tfjob-????????.log")
    assert "one of 2: " in log.read_text()
