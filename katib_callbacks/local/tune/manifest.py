"""Parts of the Experiment that upstream's ``tune`` makes of its arguments."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.manifest import KIND
from katib_callbacks.local.api.models import V1beta1ParameterSpec
from katib_callbacks.local.api.serialization import plain
from katib_callbacks.local.api.validation import API_VERSION

_logger = logging.getLogger(__name__)

JOB_CONTAINER = "training-container"
PYTORCHJOB_CONTAINER = "pytorch"
"""Upstream's names of the primary containers."""


def experiment(
    metadata: Mapping[str, str],
    parameters: Sequence[Mapping[str, Any]],
    template: Mapping[str, Any],
    objective: Mapping[str, Any],
    algorithm: Mapping[str, Any],
    *,
    collector: str,
    budget: Mapping[str, int | None],
) -> dict[str, Any]:
    """Return an experiment over a template that refers to each parameter by its name."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": {
            "objective": objective,
            "algorithm": algorithm,
            "parameters": parameters,
            "metricsCollectorSpec": {"collector": {"kind": collector}},
            "trialTemplate": {
                "trialParameters": [{"name": one["name"], "reference": one["name"]} for one in parameters],
                **template,
            },
            **budget,
        },
    }


def template(
    *,
    script: str,
    environ: list[dict[str, Any]],
    image: str,
    resources: Any,
    deadline_s: int | None,
    retain: bool,
) -> dict[str, Any]:
    """Return the trial template that upstream's ``tune`` makes: a Job, or a PyTorchJob for its ``TrainerResources``."""
    workers = getattr(resources, "num_workers", None)
    asked = resources if workers is None else resources.resources_per_worker
    container = {
        "name": JOB_CONTAINER if workers is None else PYTORCHJOB_CONTAINER,
        "image": image,
        "command": ["bash", "-c"],
        "args": [script],
        **({"env": environ} if environ else {}),
        **({"resources": plain(asked)} if asked is not None else {}),
    }
    return {
        "primaryContainerName": container["name"],
        "retain": retain,
        "trialSpec": job(container, deadline_s)
        if workers is None
        else torch_job(container, workers, resources.num_procs_per_worker, deadline_s),
    }


def job(container: Mapping[str, Any], deadline_s: int | None = None) -> dict[str, Any]:
    """Return a Job of one pod with a container."""
    limit = {} if deadline_s is None else {"activeDeadlineSeconds": deadline_s}
    pod = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {**limit, "template": pod}}


def torch_job(
    container: Mapping[str, Any], workers: int, processes: int = 1, deadline_s: int | None = None
) -> dict[str, Any]:
    """Return a PyTorchJob of a master and other workers, all with the same container."""
    limit = {} if deadline_s is None else {"runPolicy": {"activeDeadlineSeconds": deadline_s}}
    replica = {"template": {"spec": {"containers": [container]}}}
    replicas = {"Master": {"replicas": 1, **replica}}
    if workers > 1:
        replicas["Worker"] = {"replicas": workers - 1, **replica}
    spec = {**limit, "nprocPerNode": str(processes), "pytorchReplicaSpecs": replicas}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": spec}


def parameter(spec: Any, name: str) -> dict[str, Any]:
    """Return a named parameter spec, ours or upstream's, as a mapping."""
    written: dict[str, Any] = plain(spec)
    space = written.get("feasibleSpace") or {}
    if isinstance(space.get("distribution"), list):
        # kubeflow.katib.search.categorical of 0.19.0: its one positional argument lands in `distribution`.
        _logger.warning("parameter %s: kubeflow.katib.search.categorical lost its list; it is taken as meant", name)
        written["feasibleSpace"] = {"list": [str(value) for value in space["distribution"]]}
    return {**written, "name": name}


def is_parameter(value: object) -> bool:
    """Return whether a value of ``tune``'s parameters is to be searched: a parameter spec, ours or upstream's."""
    return type(value).__name__ == V1beta1ParameterSpec.__name__


def algorithm(name: str, settings: Any) -> dict[str, Any]:
    """Return ``spec.algorithm`` of ``tune``'s arguments."""
    if isinstance(settings, Mapping):
        entries = [{"name": str(key), "value": str(value)} for key, value in settings.items()]
    else:
        entries = plain(settings or [])
    return {"algorithmName": name, "algorithmSettings": entries}


def environment(given: Any) -> list[dict[str, Any]]:
    """Return the container's ``env`` of ``tune``'s ``env_per_trial``; variables from cluster objects are refused."""
    if isinstance(given, Mapping):
        return [{"name": str(name), "value": str(value)} for name, value in given.items()]
    entries = [plain(entry) for entry in given or ()]
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry:
            raise ConfigurationError(f"env_per_trial: {entry!r} is not a variable with a name; write {{name: value}}")
    return entries
