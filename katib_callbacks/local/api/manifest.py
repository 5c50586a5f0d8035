"""An Experiment as Katib's users write it: read, checked as Katib's webhook checks it, and given Katib's defaults.

Whatever is legal is kept; what this machine makes of it is :mod:`katib_callbacks.local.plan`'s to find out.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.kubernetes_yaml import read_documents
from katib_callbacks.local.api.models import V1beta1Experiment
from katib_callbacks.local.api.serialization import Model, plain
from katib_callbacks.local.api.validation import API_VERSION, faults
from katib_callbacks.local.trainer import optimization_job

KIND = "Experiment"
KINDS = (KIND, optimization_job.KIND)

DEFAULT_PARALLEL_TRIAL_COUNT = 3
"""Katib's (pkg/apis/controller/experiments/v1beta1/constants.go), as the next one."""

DEFAULT_RESUME_POLICY = "Never"

_SUCCESS_TYPES = {"Job": "Complete", **dict.fromkeys(("PyTorchJob", "TFJob", "XGBoostJob", "MPIJob"), "Succeeded")}
"""Of the conditions by which Katib takes a job for done where the template does not say."""

_FILE_SYSTEM_PATHS = {
    "File": {"kind": "File", "path": "/var/log/katib/metrics.log", "format": "TEXT"},
    "TensorFlowEvent": {"kind": "Directory", "path": "/var/log/katib/tfevent/"},
}
"""Katib's, for each collector that reads files (pkg/apis/controller/common/v1beta1/common_types.go)."""

_KINDS = " or ".join(KINDS)
_READERS: Mapping[str, Callable[[dict[str, Any]], Model]] = {
    optimization_job.KIND: optimization_job.read,
    optimization_job.TRAIN_JOB_KIND: optimization_job.read_train_job,
}

Manifest: TypeAlias = Mapping[str, Any]


def read_file(path: str | Path, name: str | None = None) -> Model:
    """Read an Experiment or an OptimizationJob from a YAML (or JSON) file as ``kubectl`` does, lists included.

    ``-`` is standard input. ``name`` picks one of several. ConfigurationError names every fault.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    try:
        documents = read_documents(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} {error}") from error
    experiments = [item for item in _items(documents) if item.get("kind") in KINDS]
    if name is not None:
        names = [_name(item) for item in experiments]
        experiments = [item for item in experiments if _name(item) == name]
        if not experiments:
            raise ConfigurationError(f"{path} holds no {_KINDS} {name!r}; it holds: {', '.join(names) or 'none'}")
    if len(experiments) != 1:
        which = f"; choose one by its name: {', '.join(map(_name, experiments))}" if experiments else ""
        raise ConfigurationError(
            f"{path} holds {len(experiments)} documents of kind {_KINDS}; there must be one{which}"
        )
    try:
        return read(experiments[0])
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _items(documents: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a file, those of a ``kind: List`` among them."""
    for document in documents:
        if isinstance(document, Mapping):
            if str(document.get("kind")).endswith("List") and isinstance(document.get("items"), list):
                yield from _items(document["items"])
            else:
                yield document


def _name(experiment: Mapping[str, Any]) -> str:
    metadata = experiment.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return str(metadata.get("name") or metadata.get("generateName"))


def read(experiment: object) -> Model:
    """Check an object (a camelCase mapping, our model or upstream's) and return a new one with its API's defaults."""
    data = plain(experiment)
    if not isinstance(data, dict):
        raise ConfigurationError(f"an experiment is a mapping, not {type(experiment).__name__}")
    data.pop("status", None)
    read_trainers = _READERS.get(str(data.get("kind")))
    if read_trainers is not None:
        return read_trainers(data)
    version = data.get("apiVersion")
    if isinstance(version, str) and version.startswith("kubeflow.org/v1alpha"):
        raise ConfigurationError(
            f"apiVersion: {version} is of a Katib before 0.10, with other fields than {API_VERSION}, which this reads: "
            "write trialTemplate.trialSpec and trialParameters in the place of goTemplate"
        )
    found = list(faults(data))
    if found:
        raise ConfigurationError("; ".join(found))
    _set_defaults(data)
    return V1beta1Experiment.from_dict(data)


def _set_defaults(data: dict[str, Any]) -> None:
    """Set what Katib's mutating webhook sets (pkg/apis/controller/experiments/v1beta1/experiment_defaults.go)."""
    spec = data["spec"]
    data["apiVersion"], data["kind"] = API_VERSION, KIND
    if spec.get("parallelTrialCount") is None:
        spec["parallelTrialCount"] = DEFAULT_PARALLEL_TRIAL_COUNT
    template = spec["trialTemplate"]
    kind = (template.get("trialSpec") or {}).get("kind")
    if kind in _SUCCESS_TYPES:
        for field, kind_of in (("successCondition", _SUCCESS_TYPES[kind]), ("failureCondition", "Failed")):
            template[field] = template.get(field) or f'status.conditions.#(type=="{kind_of}")#|#(status=="True")#'
    spec["resumePolicy"] = spec.get("resumePolicy") or DEFAULT_RESUME_POLICY
    collector = spec["metricsCollectorSpec"] = spec.get("metricsCollectorSpec") or {}
    collector["collector"] = collector.get("collector") or {"kind": "StdOut"}
    defaults = _FILE_SYSTEM_PATHS.get(collector["collector"]["kind"])
    if defaults is not None:
        source = collector["source"] = collector.get("source") or {}
        given = {name: value for name, value in (source.get("fileSystemPath") or {}).items() if value}
        source["fileSystemPath"] = {**defaults, **given}
    objective = spec["objective"]
    strategies = objective["metricStrategies"] = list(objective.get("metricStrategies") or ())
    named = {strategy.get("name") for strategy in strategies}
    default = "min" if objective["type"] == "minimize" else "max"
    names = (objective["objectiveMetricName"], *(objective.get("additionalMetricNames") or ()))
    strategies.extend({"name": name, "value": default} for name in names if name not in named)
