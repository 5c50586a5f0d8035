"""The experiment that an OptimizationJob comes to, or a TrainJob: what plans, trials and algorithms read in its place.

It is never judged as one: a metrics collector of its kind has no user's experiment.
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.trainer import optimization_job as api
from katib_callbacks.settings import TRAINER_OPT_PREFIX

TRAINER_STATUS = "TrainerStatus"
"""The kind of collector: a trial's objective stands in the status of its TrainJob when that has completed."""

_SEEDS = 1 << 32
"""How many numpy has; a seed of Kubeflow Trainer's has 64 bits."""

NO_OBJECTIVE = ""
"""The objective of a TrainJob that is run for itself: it has succeeded when its processes have."""

_TRIAL_SPEC = "spec.trialTemplate.trialSpec.spec"
_SPECS = {_TRIAL_SPEC: "spec.trainJobTemplate.spec", "feasibleSpace": "searchSpace"}
_UNMET = {
    "initializer": "nothing is fetched before a TrainJob on this machine; let its function do so",
    "suspend": "a TrainJob on this machine is run at once; create it when it is to run",
}
_LATER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_logger = logging.getLogger(__name__)


def is_optimization_job(manifest: Mapping[str, Any]) -> bool:
    """Return whether an object is an OptimizationJob, and not an Experiment."""
    return manifest.get("kind") == api.KIND


def is_train_job(manifest: Mapping[str, Any]) -> bool:
    """Return whether an object is a TrainJob that is run for itself."""
    return manifest.get("kind") == api.TRAIN_JOB_KIND


def as_experiment(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the experiment of an OptimizationJob or a TrainJob that was read; an Experiment as it is."""
    if is_train_job(manifest):
        return _single(manifest)
    if not is_optimization_job(manifest):
        return manifest
    spec = manifest["spec"]
    objective, algorithm, parameters = spec["objectives"][0], spec["searchAlgorithm"], spec["parameters"]
    seed = (algorithm.get("random") or {}).get("seed")
    settings = [] if seed is None else [{"name": "random_state", "value": str(seed % _SEEDS)}]
    return {
        "metadata": manifest["metadata"],
        "spec": {
            "objective": {
                "type": "minimize" if objective["direction"] == api.MINIMIZE else "maximize",
                "objectiveMetricName": objective["metric"],
                "metricStrategies": [{"name": objective["metric"], "value": "latest"}],
            },
            "algorithm": {"algorithmName": "grid" if "grid" in algorithm else "random", "algorithmSettings": settings},
            "parameters": [_parameter(number, parameter) for number, parameter in enumerate(parameters)],
            "maxTrialCount": _trials(spec),
            "parallelTrialCount": min(spec["parallelTrials"], _trials(spec)),
            "maxFailedTrialCount": 0,  # the first trial that fails, or has no objective, fails the whole
            "resumePolicy": "Never",
            "metricsCollectorSpec": {"collector": {"kind": TRAINER_STATUS}},
            "trialTemplate": {
                "primaryContainerName": "node",
                "trialParameters": [
                    {"name": str(number), "reference": parameter["name"]} for number, parameter in enumerate(parameters)
                ],
                "trialSpec": _train_job(spec),
            },
        },
    }


def _single(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment of one trial, without parameters and without an objective."""
    metadata = {name: manifest["metadata"].get(name) or {} for name in ("labels", "annotations")}
    train_job = {"apiVersion": api.API_VERSION, "kind": api.TRAIN_JOB_KIND, "metadata": metadata}
    return {
        "metadata": manifest["metadata"],
        "spec": {
            "objective": {
                "type": "minimize",
                "objectiveMetricName": NO_OBJECTIVE,
                "metricStrategies": [{"name": NO_OBJECTIVE, "value": "latest"}],
            },
            "algorithm": {"algorithmName": "grid"},
            "maxTrialCount": 1,
            "parallelTrialCount": 1,
            "resumePolicy": "Never",
            "metricsCollectorSpec": {"collector": {"kind": TRAINER_STATUS}},
            "trialTemplate": {
                "primaryContainerName": "node",
                "trialSpec": {**train_job, "spec": manifest["spec"]},
            },
        },
    }


def variable_name(parameter: str) -> str:
    """Return the environment variable in which a trial finds a hyperparameter (proposals/2605 of kubeflow/trainer)."""
    return TRAINER_OPT_PREFIX + parameter.upper()


def check(manifest: Mapping[str, Any]) -> None:
    """Refuse what is legal and cannot run, and warn of what will be otherwise on a cluster."""
    if is_train_job(manifest):
        for field, told in _UNMET.items():
            if manifest["spec"].get(field):
                raise ConfigurationError(f"spec.{field}: {told}")
        return
    seen: dict[str, str] = {}
    for number, parameter in enumerate(manifest["spec"]["parameters"]):
        name, path = parameter["name"], f"spec.parameters[{number}].name"
        variable = variable_name(name)
        if variable in seen:
            raise ConfigurationError(f"{path}: {name!r} and {seen[variable]!r} are both the variable {variable}")
        if {"=", "\0"} & set(name):
            raise ConfigurationError(f"{path}: {name!r} cannot be part of a variable's name")
        seen[variable] = name
    for sentence in _warnings(manifest["spec"]):
        _logger.warning("%s", sentence)


def in_its_words(error: ConfigurationError, manifest: Mapping[str, Any]) -> ConfigurationError:
    """Return an error about the experiment with the names that the fields have in what the user wrote."""
    text = str(error)
    for ours, theirs in {_TRIAL_SPEC: "spec"}.items() if is_train_job(manifest) else _SPECS.items():
        text = text.replace(ours, theirs)
    return ConfigurationError(text)


def _warnings(spec: Mapping[str, Any]) -> Iterator[str]:
    if _trials(spec) < spec["numTrials"]:
        yield f"spec.numTrials: the grid has {_trials(spec)} points, so there are {_trials(spec)} trials."
    for number, parameter in enumerate(spec["parameters"]):
        path = f"spec.parameters[{number}]"
        if not _LATER_NAME.fullmatch(parameter["name"]):
            yield (
                f"{path}.name: {parameter['name']!r} is refused by releases of Kubeflow Trainer that take letters, "
                "digits and '_' only."
            )
        if "" in (parameter["searchSpace"].get("categorical") or {}).get("choices", ()):
            yield f"{path}.searchSpace.categorical.choices: an empty one cannot stand in status.result on a cluster."


def _trials(spec: Mapping[str, Any]) -> int:
    count: int = spec["numTrials"]
    if "grid" not in spec["searchAlgorithm"]:
        return count
    return min(count, math.prod(len(one["searchSpace"]["categorical"]["choices"]) for one in spec["parameters"]))


def _parameter(number: int, parameter: Mapping[str, Any]) -> dict[str, Any]:
    space = parameter["searchSpace"]
    if "categorical" in space:
        feasible = {"list": space["categorical"]["choices"]}
        return {"name": parameter["name"], "parameterType": "categorical", "feasibleSpace": feasible}
    name = "uniform" if "uniform" in space else "logUniform"
    low, high = space[name]["min"], space[name]["max"]
    if space[name]["type"] == api.INT:  # whose ends need not be whole
        low, high = str(math.ceil(float(low))), str(math.floor(float(high)))
        if int(low) > int(high):
            raise ConfigurationError(
                f"spec.parameters[{number}].searchSpace.{name}: no whole number lies between {space[name]['min']} and "
                f"{space[name]['max']}"
            )
    kind = "int" if space[name]["type"] == api.INT else "double"
    feasible = {"min": low, "max": high, "distribution": name}
    return {"name": parameter["name"], "parameterType": kind, "feasibleSpace": feasible}


def _train_job(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the TrainJob of each trial, with the hyperparameters in its trainer's environment."""
    template = spec["trainJobTemplate"]
    trainer = template["spec"].get("trainer") or {}
    variables = [
        {"name": variable_name(parameter["name"]), "value": f"${{trialParameters.{number}}}"}
        for number, parameter in enumerate(spec["parameters"])
    ]
    return {
        "apiVersion": api.API_VERSION,
        "kind": "TrainJob",
        "metadata": template.get("metadata") or {},
        "spec": {**template["spec"], "trainer": {**trainer, "env": [*(trainer.get("env") or ()), *variables]}},
    }
