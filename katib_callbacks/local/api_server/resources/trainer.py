"""Kubeflow Trainer's resources: the TrainJobs of trials, the OptimizationJobs, and the runtime that is this Python."""

from collections.abc import Iterator
from functools import partial

from katib_callbacks.local.api_server.resources.katib import AGE, NAME, condition, key_of, with_metadata
from katib_callbacks.local.api_server.resources.resource import Column, Object, Snapshot, View, identity
from katib_callbacks.local.state import states
from katib_callbacks.local.state.status import EXPERIMENT_LABEL
from katib_callbacks.local.state.store import TrialRow
from katib_callbacks.local.trainer.objects import stored_object, train_job

FRAMEWORK_LABEL = "trainer.kubeflow.org/framework"


def train_jobs(snapshot: Snapshot, trial: TrialRow) -> Iterator[View]:
    """Yield a trial's TrainJob, where its template has one."""
    row = snapshot.row
    if row.manifest["spec"]["trialTemplate"]["trialSpec"].get("kind") == "TrainJob" and not row.is_train_job:
        yield View(key_of(row, trial.name), trial.state, partial(_train_job, snapshot, trial))


def own_train_jobs(snapshot: Snapshot) -> Iterator[View]:
    """Yield the TrainJob that is run for itself."""
    if snapshot.row.is_train_job:
        yield View(key_of(snapshot.row), snapshot, partial(_stored, "TrainJob", snapshot))


def optimization_jobs(snapshot: Snapshot) -> Iterator[View]:
    """Yield the OptimizationJob."""
    if snapshot.row.is_optimization_job:
        yield View(key_of(snapshot.row), snapshot, partial(_stored, "OptimizationJob", snapshot))


def _train_job(snapshot: Snapshot, trial: TrialRow) -> Object:
    row, is_over = snapshot.row, trial.state in states.FINAL_TRIAL_STATES
    shown = train_job(row, trial, snapshot.home if is_over else None)  # until then it changes without a new version
    uid = identity("TrainJob", key_of(row, trial.name), trial.created_s)
    return with_metadata(shown, labels={**shown["metadata"]["labels"], EXPERIMENT_LABEL: row.name}, uid=uid)


def _stored(kind: str, snapshot: Snapshot) -> Object:
    shown = stored_object(snapshot.row, snapshot.trials, snapshot.home)
    return with_metadata(shown, uid=identity(kind, key_of(snapshot.row), snapshot.row.created_s))


def _runtime(name: str, framework: str, policy: Object) -> View:
    """Return a runtime of Kubeflow Trainer: its image has no effect here."""
    pod = {"spec": {"containers": [{"name": "node", "image": "local"}]}}
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"template": pod},
    }
    shown = {
        "metadata": {
            "name": name,
            "uid": identity("ClusterTrainingRuntime", ("", name), 0.0),
            "labels": {FRAMEWORK_LABEL: framework},
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {
            "mlPolicy": {"numNodes": 1, **policy},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    }
    return View(("", name), name, partial(dict, shown))


RUNTIMES = (_runtime("torch-distributed", "torch", {"torch": {"numProcPerNode": "auto"}}),)


TRAIN_JOB_COLUMNS = (NAME, Column("State", partial(condition, "type")), AGE)
RUNTIME_COLUMNS = (NAME, Column("Framework", lambda shown: shown["metadata"]["labels"][FRAMEWORK_LABEL]), AGE)
