"""A real API server in a process, a kubectl, and requests by hand."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from katib_callbacks.local.api_server.credentials import Credentials
from katib_callbacks.local.running import runner
from katib_callbacks.local.state.store import ExperimentStore

EXPERIMENT = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "one"},
    "spec": {
        "objective": {"type": "minimize", "objectiveMetricName": "loss"},
        "algorithm": {"algorithmName": "random"},
        "parallelTrialCount": 2,
        "maxTrialCount": 3,
        "maxFailedTrialCount": 1,
        "resumePolicy": "LongRunning",
        "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": "x", "reference": "x"}],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {
                    "template": {
                        "spec": {
                            "containers": [{"name": "main", "image": "python:3.12", "command": ["sh", "-c", "SCRIPT"]}],
                            "restartPolicy": "Never",
                        }
                    }
                },
            },
        },
    },
}

EXPERIMENTS = "/apis/kubeflow.org/v1beta1/namespaces/default/experiments"
MERGE = "application/merge-patch+json"
TRIALS = EXPERIMENTS.replace("experiments", "trials")


def experiment(name="one", script="echo loss=${trialParameters.x}", **spec):
    """Return an experiment whose trials run a shell's script."""
    text = json.dumps(EXPERIMENT).replace('"SCRIPT"', json.dumps(script))
    made = json.loads(text)
    made["metadata"]["name"] = name
    made["spec"] |= spec
    return made


class ApiServer:
    """A server's process, on a port of its own."""

    def __init__(self, home):
        self.home = home
        self.start()

    def start(self):
        """Start it, again perhaps, and wait until it is ready."""
        command = [sys.executable, "-m", "katib_callbacks.cli", "api-server", "--home", str(self.home)]
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        lines = dict(
            line.rstrip().replace("export KUBECONFIG=", "kubeconfig: ").split(": ", 1) for line in self._lines(3)
        )
        self.url, self.db_manager = lines["Kubernetes' API"], lines["DB manager"]
        self.kubeconfig = Path(lines["kubeconfig"])
        self.credentials = Credentials.of(self.home / ".api-server")

    def _lines(self, count):
        for _ in range(count):
            line = self.process.stdout.readline()
            assert line, "the server has ended"
            yield line

    def end(self, number=signal.SIGTERM):
        """End it with a signal, and wait for that."""
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        if self.process.poll() is None:
            self.end()
        with ExperimentStore(runner.database(self.home)) as store:
            names = [row.name for row in store.experiments(has_train_jobs=True)]
        for name in names:
            runner.delete(self.home, name)

    @contextmanager
    def request(self, method, path, body=None, *, headers=None, **options):
        """Send a request; yields the answer, open."""
        context = ssl.create_default_context(cadata=self.credentials.authority.decode())
        address = urlsplit(self.url)
        connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=120)
        try:
            query = f"?{urlencode(options)}" if options else ""
            sent = {"Authorization": f"Bearer {self.credentials.token}", "Content-Type": "application/json"}
            content = None if body is None else json.dumps(body)
            connection.request(method, path + query, content, {**sent, **(headers or {})})
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()

    def ask(self, method, path, body=None, content_type="application/json", **options):
        """Return status and body of the answer to a request."""
        with self.request(method, path, body, headers={"Content-Type": content_type}, **options) as answer:
            return answer.status, json.loads(answer.read())

    def create(self, made):
        """Create an experiment."""
        status, answer = self.ask("POST", EXPERIMENTS, made)
        assert status == 201, answer

    def follow(self, path, **options):
        """Yield the events of a watch."""
        with self.request("GET", path, watch="true", **options) as answer:
            yield from map(json.loads, answer)

    def finished(self, name):
        """Wait for the end of an experiment, and return it."""
        for event in self.follow(EXPERIMENTS, fieldSelector=f"metadata.name={name}"):
            conditions = event["object"]["status"]["conditions"]
            if conditions[-1]["type"] in {"Succeeded", "Failed"}:
                return event["object"]
        raise AssertionError

    def watch(self, path, count, **options):
        """Return so many events of a watch."""
        with self.request("GET", path, watch="true", **options) as answer:
            return [json.loads(answer.readline()) for _ in range(count)]


class Kubectl:
    """A kubectl that knows one server only."""

    def __init__(self, program, server, folder):
        self.command = [program, f"--kubeconfig={server.kubeconfig}", f"--cache-dir={folder / 'cache'}"]
        self.folder = folder

    def __call__(self, *arguments, status=0, stdin=None, **environ):
        """Run it; returns its output, with its errors where it is to fail."""
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environ},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stdout + done.stderr

    def write(self, name, shown):
        """Write an object into a file, and return its name."""
        (self.folder / name).write_text(json.dumps(shown))
        return name
