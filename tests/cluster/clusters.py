"""A cluster by its kubectl: experiments are made from the repository's files, expectations read from its objects."""

import copy
import json
import subprocess
import time

import yaml

WAIT_S = 1200.0
"""For an experiment of a trial or two, on a node that may have to fetch an image first."""

POLL_S = 2.0

EXPERIMENTS = "experiments.kubeflow.org"
TRIALS = "trials.kubeflow.org"


class Cluster:
    """The cluster of ``KUBECONFIG``, and the namespace of these tests in it."""

    def __init__(self, kubectl, namespace, image):
        self._kubectl = kubectl
        self.namespace = namespace
        self.image = image

    def run(self, *arguments, stdin=None, check=True):
        """Run kubectl; return what it printed."""
        done = subprocess.run([self._kubectl, *arguments], input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def can(self, *arguments):
        """Return whether a kubectl command succeeds."""
        return subprocess.run([self._kubectl, *arguments], capture_output=True, check=False).returncode == 0

    def kinds(self):
        """Return the kinds of objects that the cluster knows."""
        lines = self.run("api-resources", "--no-headers", check=False).splitlines()
        return {line.split()[-1] for line in lines if line.strip()}

    def get(self, *what, namespace=None):
        """Return an object, or a list's items."""
        found = json.loads(self.run("get", *what, "-n", namespace or self.namespace, "-o", "json"))
        return found.get("items", found)

    def apply(self, one, *options):
        """Create or change an object."""
        return self.run("apply", "-n", self.namespace, *options, "-f", "-", stdin=json.dumps(one))

    def delete(self, *what, namespace=None):
        """Delete objects, whether they are there or not, and wait until they are gone."""
        self.run("delete", *what, "-n", namespace or self.namespace, "--ignore-not-found", check=False)

    def experiment(self, path, *, trials=1, **spec):
        """Return the Experiment of a file, for this cluster: its image, its namespace, so many trials."""
        one = yaml.safe_load(path.read_text(encoding="utf-8"))
        one["metadata"]["namespace"] = self.namespace
        one["spec"] |= {"maxTrialCount": trials, "parallelTrialCount": 1, "maxFailedTrialCount": 0} | copy.deepcopy(
            spec
        )
        one["spec"]["trialTemplate"]["retain"] = True  # the job and its pods stay, to be looked at
        return self.with_image(one)

    def with_image(self, value):
        """Return objects in which each container has the image of these tests."""
        if isinstance(value, dict):
            image = {"image": self.image} if "image" in value else {}
            return {name: self.with_image(item) for name, item in value.items()} | image
        return [self.with_image(item) for item in value] if isinstance(value, list) else value

    def script(self, name, script, *additional):
        """Return an Experiment of one trial, a shell script that reports the objective ``value``."""
        objective = {"type": "maximize", "objectiveMetricName": "value", "additionalMetricNames": list(additional)}
        container = {
            "name": "main",
            "image": self.image,
            "command": ["sh", "-c", f"X=${{trialParameters.x}}; {script}"],
        }
        job = {"backoffLimit": 0, "template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}
        return {
            "apiVersion": "kubeflow.org/v1beta1",
            "kind": "Experiment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "objective": objective,
                "algorithm": {"algorithmName": "random"},
                "metricsCollectorSpec": {"collector": {"kind": "Push"}},
                "maxTrialCount": 1,
                "parallelTrialCount": 1,
                "maxFailedTrialCount": 1,
                "parameters": [{"name": "x", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}}],
                "trialTemplate": {
                    "retain": True,
                    "primaryContainerName": "main",
                    "trialParameters": [{"name": "x", "reference": "x"}],
                    "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": job},
                },
            },
        }

    def ended(self, name):
        """Wait for an experiment's end; return it and its trials."""
        state = self.until(lambda: _state(self.get(EXPERIMENTS, name)), f"experiment {name} to end")
        trials = [one for one in self.get(TRIALS) if one["metadata"]["labels"].get(LABEL) == name]
        assert state in {"Succeeded", "Failed"}
        return self.get(EXPERIMENTS, name), trials

    def until(self, found, what):
        """Wait until ``found()`` is true, and return it."""
        end_s = time.monotonic() + WAIT_S
        while not (value := found()):
            assert time.monotonic() < end_s, f"waited {WAIT_S:g} s for {what}"
            time.sleep(POLL_S)
        return value

    def pods(self, trial):
        """Return the pods of a trial that the cluster still has."""
        name = trial["metadata"]["name"]
        return [pod for pod in self.get("pods") if pod["metadata"]["name"].startswith(f"{name}-")]

    def log(self, trial):
        """Return what all pods of a trial have written."""
        names = [pod["metadata"]["name"] for pod in self.pods(trial)]
        return "".join(self.run("logs", name, "-n", self.namespace, "--all-containers") for name in names)


LABEL = "katib.kubeflow.org/experiment"


def _state(experiment):
    """Return ``Succeeded`` or ``Failed`` of an experiment that has ended; None of one that goes on."""
    conditions = experiment.get("status", {}).get("conditions", ())
    ends = [one["type"] for one in conditions if one["status"] == "True" and one["type"] in {"Succeeded", "Failed"}]
    return ends[-1] if ends else None


def state(trial):
    """Return the type of a trial's last condition that holds."""
    return [one["type"] for one in trial["status"]["conditions"] if one["status"] == "True"][-1]


def values(trial):
    """Return the latest value of each metric of a trial."""
    metrics = trial["status"].get("observation", {}).get("metrics", ())
    return {one["name"]: one["latest"] for one in metrics}


def parameters(trial):
    """Return a trial's parameters."""
    return {one["name"]: one["value"] for one in trial["spec"]["parameterAssignments"]}
