"""Early stopping in local experiments: their own DB manager judges, and the states are Katib's."""

import sqlite3
from pathlib import Path

import pytest
import yaml
from homes import experiment

from katib_callbacks.local.api.manifest import read
from katib_callbacks.local.plan import resolve

TRAIN = """
import os
from katib_callbacks.recording.recorder import MetricRecorder
from katib_callbacks.reporting.ranks import framework_rank
recorder = MetricRecorder("loss", report="history")
recorder.start(framework_rank(is_global_zero=True, rank=0))
for epoch in range(1, 6):
    recorder.record({"loss": float(os.environ["X"]) + 1 / epoch}, row=epoch)
    if recorder.ask(epoch).stop:
        break
recorder.finish()
recorder.deliver()
"""

GRID = {
    "algorithm": {"algorithmName": "grid"},
    "parallelTrialCount": 1,
    "maxTrialCount": 4,
    "parameters": [
        {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "3", "step": "1"}},
    ],
}


def stopping(name="medianstop", **options):
    settings = [{"name": option, "value": str(value)} for option, value in options.items()]
    return {"algorithmName": name, "algorithmSettings": settings}


def test_a_bad_trial_ends_itself_and_is_early_stopped(local):
    early = stopping(min_trials_required=2, start_step=2)
    done = local.run(experiment(TRAIN, earlyStopping=early, **GRID))

    states = {trial.assignments["x"][0]: trial.state for trial in local.trials()}
    by_number = [trial.state for trial in local.trials()]
    assert by_number[:2] == ["Succeeded"] * 2
    stopped = [trial for trial in local.trials() if trial.state == "EarlyStopped"]
    assert done.status.trials_early_stopped == len(stopped) > 0
    assert done.status.early_stopped_trial_list == [trial.name for trial in stopped]
    assert done.status.trials_succeeded == 4 - len(stopped)
    assert done.status.conditions[-1].reason == "ExperimentMaxTrialsReached"
    assert states["0"] == "Succeeded"
    for trial in stopped:
        last = trial.conditions[-1]
        assert (last["type"], last["status"], last["reason"]) == ("EarlyStopped", "True", "TrialEarlyStopped")
        assert last["message"].startswith("Trial is early stopped: ")
        assert "at epoch 2, median of 2 trials is" in last["message"]
        assert trial.observation[0]["name"] == "loss"
        assert len(local.rows(trial.name)) == 2
    assert done.status.current_optimal_trial.best_trial_name == next(
        trial.name for trial in local.trials() if trial.assignments["x"].startswith("0")
    )


def test_asha_needs_no_server_of_its_own(local):
    done = local.run(experiment(TRAIN, earlyStopping=stopping("asha", reduction_factor=2), **GRID))

    assert done.status.trials_early_stopped > 0
    reasons = [trial.conditions[-1]["message"] for trial in local.trials() if trial.state == "EarlyStopped"]
    assert all("(asha)" in reason for reason in reasons)


def test_without_early_stopping_all_epochs_are_run(local):
    done = local.run(experiment(TRAIN, **GRID))

    assert done.status.trials_early_stopped in {None, 0}
    assert {len(local.rows(trial.name)) for trial in local.trials()} == {5}
    with sqlite3.connect(local.home / "katib.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert not any("stopping" in table for table in tables)


@pytest.mark.parametrize(
    ("early", "message"),
    [
        (stopping(start_step=0), "spec.earlyStopping: start_step must be a whole number, 1 or more, not '0'"),
        (stopping(patience=3), "spec.earlyStopping: medianstop has no 'patience'"),
    ],
)
def test_settings_that_katib_refuses_are_refused(local, early, message):
    with pytest.raises(ValueError, match=message):
        local.store(experiment(TRAIN, earlyStopping=early))


def test_what_is_otherwise_on_a_cluster_is_said(caplog, local):
    local.store(experiment(TRAIN, earlyStopping=stopping()))
    (line,) = caplog.messages
    assert line == (
        "on a cluster Katib does not apply medianstop with the collector Push: there set "
        "KATIB_CALLBACKS_EARLY_STOPPING in the trial's template"
    )


def test_the_example_resolves():
    path = Path(__file__).parents[2] / "examples" / "experiments" / "early-stopping.yaml"
    plan = resolve(read(yaml.safe_load(path.read_text(encoding="utf-8"))).serialize())
    assert plan.early_stopping is not None
    assert plan.early_stopping.text == 'medianstop,min_trials_required=2,start_step=3,objective="loss",type=minimize'
