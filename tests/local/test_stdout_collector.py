"""The sink ``stdout`` in front of Katib's StdOut collector, as local experiments apply its filter."""

import re
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec

import pytest
from homes import experiment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from katib_callbacks import MetricLog, SinkOptions
from katib_callbacks.local.collectors.stdout import DEFAULT_FILTER, parse_output
from katib_callbacks.metrics import name_problem
from katib_callbacks.settings import DEFAULT_RUNTIME
from katib_callbacks.sinks.stdout import StdoutSink

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
NAMES = st.text(min_size=1, max_size=40).filter(lambda name: name_problem(name) is None)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
STDOUT = {"collector": {"kind": "StdOut"}}

PLAIN = """
import os
from katib_callbacks import KatibReporter
print("Epoch 1: 50%, speed=99", end="\\r")
with KatibReporter() as reporter:
    for step in range(3):
        reporter.report({"loss": float(os.environ["X"]) + step, "val/acc": step})
print("done", end="")
"""

LIGHTNING = """
import os, warnings
warnings.simplefilter("ignore")
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from katib_callbacks.lightning import KatibReportCallback

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, _):
        self.log("loss", float(os.environ["X"]) / (1 + self.current_epoch))
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

Trainer(
    max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=True,
    callbacks=[KatibReportCallback("loss")],
).fit(Module(), DataLoader(torch.zeros(4, 1)))
"""


def rows(local, trial, metric):
    logs = local.queries.get_trial_metrics(trial.metadata.name)
    return [(log.metric.value, log.time_stamp) for log in logs if log.metric.name == metric]


def run(local, code, env, **spec):
    one = experiment(code, metricsCollectorSpec=STDOUT, maxTrialCount=2, parallelTrialCount=1, **spec)
    container = one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] += [{"name": name, "value": value} for name, value in env.items()]
    done = local.run(one)
    assert done.status.trials_succeeded == 2
    return [
        (trial, trial.spec.parameter_assignments[0].value) for trial in local.queries.list_trials(done.metadata.name)
    ]


# -- the filter ----------------------------------------------------------------------------------------------------


@given(st.dictionaries(NAMES, FINITE, min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_rows_are_called_the_collector_reads_them_exactly(capsys, values):
    sink = StdoutSink(SinkOptions("stdout", "stdout", None, DEFAULT_RUNTIME))
    logs = [MetricLog(name, value, NOON + timedelta(seconds=i)) for i, (name, value) in enumerate(values.items())]
    capsys.readouterr()

    sink.send("trial", logs, deadline_s=60)

    lines = capsys.readouterr().out.split("\n")
    safe = sink._names.of(values)
    assert len(lines) == len(values) + 2, "an empty line first, and each row's own"
    for pattern in ((), (DEFAULT_FILTER.replace(r"\w", "A-Za-z0-9_").replace(r"\d", "[0-9]"),)):  # Go's are ASCII
        found = parse_output(lines, list(safe.values()), pattern, NOON - timedelta(days=1))
        assert [row.name for row in found] == [safe[name] for name in values]
        assert [repr(float(row.value)) for row in found] == [repr(value) for value in values.values()]
        assert [row.timestamp for row in found] == [log.timestamp for log in logs]
    assert len(set(safe.values())) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9_|-]+", name) for name in safe.values())


# -- experiments ---------------------------------------------------------------------------------------------------


def test_a_loop_reports_through_the_collector(local):
    spec = {"objective": {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["val_acc"]}}

    for trial, x in run(local, PLAIN, {"KATIB_CALLBACKS_SINKS": "stdout"}, **spec):
        reported = rows(local, trial, "loss")
        assert [float(value) for value, _ in reported] == [float(x) + step for step in range(3)]
        assert [value for value, _ in rows(local, trial, "val_acc")] == ["0", "1", "2"]
        assert len({time for _, time in reported}) == 3
        (objective,) = (metric for metric in trial.status.observation.metrics if metric.name == "loss")
        assert float(objective.latest) == float(x) + 2


@pytest.mark.parametrize("report", ["final", "history"])
def test_a_lightning_training_reports_through_the_collector(local, report):
    if find_spec("lightning") is None:
        pytest.skip("Lightning is not installed")
    env = {"KATIB_CALLBACKS_SINKS": "stdout", "KATIB_CALLBACKS_REPORT": report, "CUDA_VISIBLE_DEVICES": ""}

    for trial, x in run(local, LIGHTNING, env):
        epochs = [float(x) / (1 + epoch) for epoch in range(3)]
        reported = rows(local, trial, "loss")
        assert [float(value) for value, _ in reported] == pytest.approx(epochs if report == "history" else epochs[-1:])
        assert len({time for _, time in reported}) == len(reported)
        (objective,) = trial.status.observation.metrics
        assert float(objective.latest) == pytest.approx(epochs[-1])
