"""An experiment whose trials end in every way, really run."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "local"))

from homes import Local, experiment

TRIAL = """
import os, sys
from katib_callbacks.recording.recorder import MetricRecorder

x = float(os.environ["X"])
recorder = MetricRecorder(["loss", "accuracy"], report="history" if x < 0.5 else "final")
recorder.start(None)
recorder.begin_progress(lambda: 0.0)
for epoch in range(1, 6):
    if x != 0.9:
        recorder.record({"loss": x + 1 / epoch, "accuracy": 1 - x / epoch}, row=(epoch, None, 0))
    if x == 0.7 and epoch == 3:
        sys.exit("out of memory")
recorder.finish()
recorder.deliver()
"""
"""0.7 fails in its third epoch, 0.9 reports nothing; less than 0.5 reports its history."""

VALUES = ("0.1", "0.3", "0.7", "0.9", "0.6")


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Return a home with the experiment ``mixed``, whose trials have the parameters of ``VALUES``."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "work").mkdir()
    local = Local(folder / "home", folder / "work")
    parameters = [
        {"name": "x", "parameterType": "discrete", "feasibleSpace": {"list": list(VALUES)}},
        {"name": "optimizer", "parameterType": "categorical", "feasibleSpace": {"list": ["sgd"]}},
    ]
    spec = {"algorithm": {"algorithmName": "grid"}, "parameters": parameters, "parallelTrialCount": 2}
    objective = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["accuracy"]}
    local.run(experiment(TRIAL, "mixed", objective=objective, maxTrialCount=5, maxFailedTrialCount=5, **spec))
    return local
