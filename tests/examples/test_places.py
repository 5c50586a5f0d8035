"""One script for every place: what arrives from each framework's, unchanged, in six of them."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from status_server import StatusServer

from katib_callbacks.local.queries import Queries
from katib_callbacks.local.running import runner

PLACES = Path(__file__).parent / "places"
SCRIPTS = {
    "loop.py": "val_acc",
    "lightning_trainer.py": "val_acc",
    "keras_trainer.py": "val_acc",
    "transformers_trainer.py": "val_acc",
}
"""Each framework's, and the objective that it reports."""


def environ(**variables):
    foreign = ("KATIB_", "KUBEFLOW_", "KUBERNETES_", "SLURM_", "OMPI_", "RANK", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "KERAS_BACKEND": "torch", "PYTHONWARNINGS": "ignore", **variables}


def run_in(script, folder, places):
    """Run a script with the variables of each place; return what it has printed there, by the place."""
    asked = [{"environ": variables, "output": str(folder / name)} for name, variables in places.items()]
    done = subprocess.run(
        [sys.executable, PLACES / "in_places.py", PLACES / script],
        input="\n".join(map(json.dumps, asked)),
        env=environ(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    printed = {name: (folder / name).read_text() for name in places if (folder / name).exists()}
    assert done.stdout.splitlines()[-1:] == [json.dumps([0] * len(places))], (done.stderr, printed)
    return printed


def run_locally(script, folder, kind, objective):
    """Run a script as the one trial of a local experiment; return its rows and its output."""
    command = [sys.executable, str(PLACES / script)]
    container = {
        "name": "main",
        "command": command if kind == "Push" else [shlex.quote(word) for word in command],
        "env": [{"name": name, "value": environ()[name]} for name in ("KERAS_BACKEND", "PYTHONWARNINGS")],
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [container]}}}}
    spec = {
        "objective": {"type": "maximize", "objectiveMetricName": objective},
        "algorithm": {"algorithmName": "random"},
        "parallelTrialCount": 1,
        "maxTrialCount": 1,
        "metricsCollectorSpec": {"collector": {"kind": kind}},
        "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
        "trialTemplate": {"primaryContainerName": "main", "trialParameters": [], "trialSpec": job},
    }
    home = folder / kind
    name, _ = runner.create(home, {"metadata": {"name": kind.lower()}, "spec": spec}, folder=folder)
    runner.Runner(home, name, lambda _: None).run()
    (trial,) = Queries(home).list_trials(name)
    logs = Queries(home).get_trial_metrics(trial.metadata.name)
    return [(log.metric.name, log.metric.value) for log in logs], "".join(
        log.read_text() for log in home.rglob("*.log")
    )


@pytest.fixture
def servers(tmp_path):
    """Two status servers, by the places that have them."""
    folders = [tmp_path / "status-server", tmp_path / "server-of-both"]
    for folder in folders:
        folder.mkdir()
    with StatusServer(folders[0]) as one, StatusServer(folders[1]) as other:
        yield {"status": one, "both": other}


@pytest.mark.parametrize(("script", "objective"), SCRIPTS.items(), ids=SCRIPTS)
def test_one_script_reports_wherever_it_runs(script, objective, tmp_path, katib_db_manager, servers):
    katib = {"KATIB_DB_MANAGER_ADDRESS": katib_db_manager.address}
    places = {
        "laptop": {},
        "katib": {**katib, "KATIB_TRIAL_NAME": "katib-trial"},
        "status": servers["status"].variables,
        "both": {**katib, "KATIB_TRIAL_NAME": "trial-of-both", **servers["both"].variables},
    }
    printed = run_in(script, tmp_path, places)
    pushed, printed["Push"] = run_locally(script, tmp_path, "Push", objective)
    collected, of_stdout = run_locally(script, tmp_path, "StdOut", objective)

    def rows(trial):
        return [(row.name, row.value) for row in katib_db_manager.metrics(trial)]

    def status(place):
        last = servers[place].accepted[-1]  # transformers' own callback shows other metrics beside it
        return (last.progress, last.metrics.get(objective))

    reported = [(objective, "0.5")]
    arrived = {
        "laptop": rows("test-trial"),
        "katib": rows("katib-trial"),
        "status": status("status"),
        "both": rows("trial-of-both"),
        "Push": pushed,
        "StdOut": collected,
    }
    assert arrived == {
        "laptop": [],
        "katib": reported,
        "status": (100, "0.5"),
        "both": reported,
        "Push": reported,
        "StdOut": reported,
    }
    # Beside Katib the status has two seconds at the end of the process, which a busy machine may need for more.
    assert status("both") == (100, "0.5") or "status was not shown" in printed["both"]
    assert f"Z {objective}=0.5\n" in of_stdout
    assert [place for place, text in printed.items() if f"Z {objective}=" in text] == []
