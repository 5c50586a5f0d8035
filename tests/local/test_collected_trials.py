"""Trials of local experiments whose metrics are collected: ``auto`` writes what the collector reads, and only that."""

import pytest
from homes import experiment

CODE = """
from katib_callbacks import KatibReporter, hyperparameters
with KatibReporter() as reporter:
    for step in range(2):
        reporter.report({"loss": hyperparameters()["x"] + step, "val/acc": 0.5})
"""


def at(file_format):
    path = {"path": "/mine/metrics.log", "format": file_format, "kind": "File"}
    return {"collector": {"kind": "File"}, "source": {"fileSystemPath": path}}


@pytest.mark.parametrize(
    ("collector", "name"),
    [
        ({"collector": {"kind": "Push"}}, "val/acc"),
        ({"collector": {"kind": "StdOut"}}, "val_acc"),
        (at("TEXT"), "val_acc"),
        (at("JSON"), "val/acc"),
    ],
    ids=["Push", "StdOut", "TEXT", "JSON"],
)
def test_each_row_arrives_once_whatever_collects(local, collector, name):
    objective = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": [name]}
    one = experiment(CODE, metricsCollectorSpec=collector, objective=objective, maxTrialCount=1, parallelTrialCount=1)
    container = one["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"][0]["name"] = "KUBEFLOW_TRAINER_OPT_X"
    done = local.run(one)
    (trial,) = local.queries.list_trials(done.metadata.name)
    x = float(trial.spec.parameter_assignments[0].value)

    rows = [(log.metric.name, float(log.metric.value)) for log in local.queries.get_trial_metrics(trial.metadata.name)]
    assert sorted(rows) == sorted([("loss", x), ("loss", x + 1), (name, 0.5), (name, 0.5)])
