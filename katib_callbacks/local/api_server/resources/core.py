"""Kubernetes' own part of an experiment: a job and pods for each trial, events, namespaces."""

import hashlib
import platform
import re
from collections.abc import Iterator
from functools import partial

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.models import time_text
from katib_callbacks.local.api.validation import API_VERSION
from katib_callbacks.local.api_server.resources.katib import AGE, NAME, TRIAL_LABEL, key_of
from katib_callbacks.local.api_server.resources.resource import Column, Key, Object, Snapshot, View, identity, owner
from katib_callbacks.local.state import states
from katib_callbacks.local.state.status import EXPERIMENT_LABEL
from katib_callbacks.local.state.store import ExperimentRow, TrialRow
from katib_callbacks.local.trials.template import ProcessPlan, TrialTemplate

_PHASES = {
    states.CREATED: "Pending",
    states.RUNNING: "Running",
    states.SUCCEEDED: "Succeeded",
    states.METRICS_UNAVAILABLE: "Succeeded",
    states.EARLY_STOPPED: "Succeeded",
}
_EXIT_STATUS = re.compile(r"exit status (\d+)")
_WARNINGS = {states.FAILED, states.METRICS_UNAVAILABLE, states.KILLED}
_NAMESPACES = ("default", "kubeflow")
_JOB_NAME, _CONTROLLER = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"


def pods(snapshot: Snapshot, trial: TrialRow) -> Iterator[View]:
    """Yield a Pod for each process of a trial, the primary one's first."""
    stamp = (trial.state, trial.attempts)
    for number, process in enumerate(_processes(snapshot.row, trial)):
        key = key_of(snapshot.row, f"{trial.name}-{number}")
        yield View(key, stamp, partial(_pod, snapshot.row, trial, key, process))


def jobs(snapshot: Snapshot, trial: TrialRow) -> Iterator[View]:
    """Yield a trial's Job, where its template has one."""
    if snapshot.row.manifest["spec"]["trialTemplate"]["trialSpec"].get("kind") == "Job":
        yield View(key_of(snapshot.row, trial.name), trial.state, partial(_job, snapshot.row, trial))


def experiment_events(snapshot: Snapshot) -> Iterator[View]:
    """Yield an Event for each condition of an experiment."""
    yield from _events(snapshot, "Experiment", snapshot.row)


def trial_events(snapshot: Snapshot, trial: TrialRow) -> Iterator[View]:
    """Yield an Event for each condition of a trial."""
    yield from _events(snapshot, "Trial", trial)


def namespace(name: str) -> View:
    """Return a Namespace: each name is one."""
    shown = {
        "metadata": {
            "name": name,
            "uid": identity("Namespace", ("", name), 0.0),
            "labels": {"kubernetes.io/metadata.name": name},
            "creationTimestamp": time_text(0.0),
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
    return View(("", name), name, lambda: shown)


NAMESPACES = tuple(map(namespace, _NAMESPACES))


def _processes(row: ExperimentRow, trial: TrialRow) -> tuple[ProcessPlan | None, ...]:
    try:
        return TrialTemplate.of(row.manifest).plan(trial.name, trial.assignments, free_port=lambda: 1).processes
    except (ConfigurationError, ValueError):  # by what the parameters make of the template; the trial has failed
        return (None,)


def _pod(row: ExperimentRow, trial: TrialRow, key: Key, process: ProcessPlan | None) -> Object:
    template = TrialTemplate.of(row.manifest)
    rendered = template.render(trial.name, trial.assignments)
    kind = rendered["kind"]
    pod = ((rendered.get("spec") or {}).get("template") or {}) if kind == "Job" else {}
    container = {
        "name": template.primary_container,
        "image": "local",
        "command": [] if process is None else list(process.command),
        "env": [] if process is None else [{"name": name, "value": text} for name, text in process.environ.items()],
    }
    containers = (pod.get("spec") or {}).get("containers") or [container]
    created_s = row.created_s if row.is_train_job else trial.created_s
    job_uid = identity(kind, key_of(row, trial.name), created_s)
    return {
        "metadata": {
            "name": key[1],
            "uid": identity("Pod", key, trial.created_s),
            "creationTimestamp": time_text(trial.created_s),
            "labels": {
                **((pod.get("metadata") or {}).get("labels") or {}),
                EXPERIMENT_LABEL: row.name,
                TRIAL_LABEL: trial.name,
                **({_JOB_NAME: trial.name, "job-name": trial.name, _CONTROLLER: job_uid} if kind == "Job" else {}),
                **(_jobset_labels(trial, process) if kind == "TrainJob" else {}),
            },
            "ownerReferences": owner(rendered["apiVersion"], kind, key_of(row, trial.name), created_s),
        },
        "spec": {
            "restartPolicy": "Never",
            "nodeName": platform.node(),
            **(pod.get("spec") or {}),
            "containers": [{"image": "local", **one} for one in containers],
        },
        "status": _pod_status(trial, [one["name"] for one in containers]),
    }


def _jobset_labels(trial: TrialRow, process: ProcessPlan | None) -> dict[str, str]:
    """Return the labels by which Kubeflow's SDK finds the pods of a TrainJob, one of them for each node."""
    return {
        "jobset.sigs.k8s.io/jobset-name": trial.name,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": str(0 if process is None else process.node),
    }


def _pod_status(trial: TrialRow, containers: list[str]) -> Object:
    phase = _PHASES.get(trial.state, "Failed")
    started = {} if trial.started_s is None else {"startedAt": time_text(trial.started_s)}
    if phase == "Pending":
        state: Object = {"waiting": {"reason": "ContainerCreating"}}
    elif phase == "Running":
        state = {"running": started}
    else:
        found = _EXIT_STATUS.search(trial.conditions[-1]["message"])
        code = int(found[1]) if found else 1
        ended = {} if trial.completed_s is None else {"finishedAt": time_text(trial.completed_s)}
        state = {
            "terminated": {"exitCode": code, "reason": "Error", **started, **ended}
            if phase == "Failed"
            else {"exitCode": 0, "reason": "Completed", **started, **ended}
        }
    is_ready = phase == "Running"
    return {
        "phase": phase,
        **({} if trial.started_s is None else {"startTime": time_text(trial.started_s)}),
        "hostIP": "127.0.0.1",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": str(is_ready)}],
        "containerStatuses": [
            {
                "name": name,
                "image": "local",
                "imageID": "",
                "ready": is_ready,
                "started": is_ready,
                "restartCount": max(0, len(trial.attempts) - 1),
                "state": state,
            }
            for name in containers
        ],
    }


def _job(row: ExperimentRow, trial: TrialRow) -> Object:
    rendered = TrialTemplate.of(row.manifest).render(trial.name, trial.assignments)
    key = key_of(row, trial.name)
    uid = identity("Job", key, trial.created_s)
    phase = _PHASES.get(trial.state, "Failed")
    status: Object = {} if trial.started_s is None else {"startTime": time_text(trial.started_s)}
    if phase in {"Pending", "Running"}:
        status["active"] = 1
    else:
        message = trial.conditions[-1]["message"]
        kind = "Complete" if phase == "Succeeded" else "Failed"
        status |= {"succeeded" if kind == "Complete" else "failed": 1}
        ended = time_text(trial.completed_s or trial.created_s)
        status["conditions"] = [
            {"type": kind, "status": "True", "message": message, "lastProbeTime": ended, "lastTransitionTime": ended}
        ]
        if kind == "Complete":
            status["completionTime"] = ended
    metadata = rendered["metadata"]
    labels = {**(metadata.get("labels") or {}), EXPERIMENT_LABEL: row.name, TRIAL_LABEL: trial.name}
    return {
        **rendered,
        "metadata": {
            **metadata,
            "uid": uid,
            "labels": labels,
            "creationTimestamp": time_text(trial.created_s),
            "ownerReferences": owner(API_VERSION, "Trial", key, trial.created_s),
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            **(rendered.get("spec") or {}),
            "selector": {"matchLabels": {_CONTROLLER: uid}},
        },
        "status": status,
    }


def _events(snapshot: Snapshot, kind: str, stored: ExperimentRow | TrialRow) -> Iterator[View]:
    if not snapshot.row.is_experiment:
        return
    key = key_of(snapshot.row, stored.name)
    times = {states.CREATED: stored.created_s, states.RUNNING: stored.started_s}
    for condition in stored.conditions:
        at_s = times.get(condition["type"]) or condition["lastTransitionTime"]
        words = f"{kind}/{key}/{condition['type']}/{condition['reason']}/{at_s:.2f}"
        name = f"{key[1]}.{hashlib.sha256(words.encode()).hexdigest()[:16]}"
        event = {
            "metadata": {"name": name, "uid": identity("Event", (key[0], name), at_s)},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": kind,
                "name": key[1],
                "namespace": key[0],
                "uid": identity(kind, key, stored.created_s),
            },
            "type": "Warning" if condition["type"] in _WARNINGS else "Normal",
            "reason": condition["reason"].partition(".")[0],
            "message": condition["message"],
            "source": {"component": f"{kind.lower()}-controller"},
            "reportingComponent": f"{kind.lower()}-controller",
            "count": 1,
            "firstTimestamp": time_text(at_s),
            "lastTimestamp": time_text(at_s),
        }
        event["metadata"]["creationTimestamp"] = event["firstTimestamp"]
        yield View((key[0], name), name, partial(dict, event))


def _ready(shown: Object) -> str:
    statuses = shown["status"]["containerStatuses"]
    return f"{sum(one['ready'] for one in statuses)}/{len(statuses)}"


def _reason(shown: Object) -> str:
    (state,) = shown["status"]["containerStatuses"][0]["state"].values()
    return state.get("reason") or str(shown["status"]["phase"])


POD_COLUMNS = (
    NAME,
    Column("Ready", _ready),
    Column("Status", _reason),
    Column("Restarts", lambda shown: shown["status"]["containerStatuses"][0]["restartCount"], "integer"),
    AGE,
    Column("IP", lambda shown: shown["status"]["podIP"], priority=1),
    Column("Node", lambda shown: shown["spec"]["nodeName"], priority=1),
)
JOB_COLUMNS = (
    NAME,
    Column("Status", lambda shown: (shown["status"].get("conditions") or [{"type": "Running"}])[-1]["type"]),
    Column("Completions", lambda shown: f"{shown['status'].get('succeeded', 0)}/1"),
    AGE,
)
EVENT_COLUMNS = (
    Column("Last Seen", lambda shown: shown["lastTimestamp"], "date"),
    Column("Type", lambda shown: shown["type"]),
    Column("Reason", lambda shown: shown["reason"]),
    Column("Object", lambda shown: f"{shown['involvedObject']['kind'].lower()}/{shown['involvedObject']['name']}"),
    Column("Message", lambda shown: shown["message"]),
    Column("Name", lambda shown: shown["metadata"]["name"], priority=1),
)
NAMESPACE_COLUMNS = (NAME, Column("Status", lambda shown: shown["status"]["phase"]), AGE)
