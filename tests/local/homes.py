"""Experiments of a test's own: small ones, whose trials are real processes that report to a real DB manager."""

import copy
import shlex
import sys
import time

from katib_callbacks.local.queries import Queries
from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import Runner, database
from katib_callbacks.local.state.store import ExperimentStore

REPORT = "from katib_callbacks import report_metrics as report\n"

SUBMITTED = "import os, pathlib, time\nsubmitted = pathlib.Path(os.environ['KATIB_CALLBACKS_SUBMIT_DIR'])\n"
"""For a trial's code: the folder in which the experiment was started."""

WAIT_S = 60.0

SPEC = {
    "objective": {"type": "minimize", "objectiveMetricName": "loss"},
    "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
    "parallelTrialCount": 2,
    "maxTrialCount": 3,
    "metricsCollectorSpec": {"collector": {"kind": "Push"}},
    "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
}


def quoted(command):
    """Return a command that is the same when a shell has read it, as Katib's webhook lets it where it collects."""
    return [shlex.quote(word) for word in command]


def experiment(code="pass", name="one", *, job=None, **spec):
    """Return an experiment as a mapping, whose trials run ``code`` with the variable ``X`` set to the parameter."""
    command = [sys.executable, "-c", code]
    is_collected = spec.get("metricsCollectorSpec", {}).get("collector", {}).get("kind", "Push") != "Push"
    container = {
        "name": "main",
        "command": quoted(command) if is_collected else command,
        "env": [{"name": "X", "value": "${trialParameters.x}"}],
    }
    template = {
        "primaryContainerName": "main",
        "trialParameters": [{"name": "x", "reference": "x"}],
        "trialSpec": {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "spec": {**(job or {}), "template": {"spec": {"containers": [container]}}},
        },
    }
    return {"metadata": {"name": name}, "spec": copy.deepcopy({**SPEC, "trialTemplate": template, **spec})}


class Local:
    """A home, and what a test does there."""

    def __init__(self, home, folder):
        self.home = home
        self.folder = folder
        self.queries = Queries(home)

    def store(self, one, **options):
        name, _ = runner.create(self.home, one, folder=self.folder, **options)
        return name

    def run(self, one, on_event=lambda _: None, **options):
        """Store an experiment, run it to its end, and return it with its status."""
        name = self.store(one, **options)
        Runner(self.home, name, on_event).run()
        return self.queries.get_experiment(name)

    def resume(self, name="one"):
        Runner(self.home, name).run()
        return self.queries.get_experiment(name)

    def trials(self, name="one"):
        with ExperimentStore(database(self.home)) as state:
            return state.trials(name)

    def rows(self, trial):
        return [(log.metric.name, log.metric.value) for log in self.queries.get_trial_metrics(trial)]


def wait_until(condition):
    """Wait until ``condition()`` holds."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)
