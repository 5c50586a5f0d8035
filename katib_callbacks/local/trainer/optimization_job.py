"""Kubeflow Trainer's OptimizationJob and TrainJob as users write them: read, checked as by their CRDs, with defaults.

Source: pkg/apis/trainer/v1alpha1/optimizationjob_types.go and trainjob_types.go of kubeflow/trainer, at 8c0f5059b.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.models import V1ObjectMeta
from katib_callbacks.local.api.serialization import Model, camel_case, model
from katib_callbacks.local.api.validation import field_faults, name_faults, repeated_names, variable_faults

API_VERSION = "trainer.kubeflow.org/v1alpha1"
KIND = "OptimizationJob"
TRAIN_JOB_KIND = "TrainJob"

MINIMIZE, MAXIMIZE = "Minimize", "Maximize"
FLOAT, INT = "Float", "Int"

MAX_TEXT = 64
"""Characters of a metric, of a parameter's name and of its value."""

_MAX_COUNT = 100
"""Of parameters, choices and trials."""

_MAX_VARIABLES = 128
_DOUBLE = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_INT64 = range(-(2**63), 2**63)


_NUMBERS = model("NumberSpace", min=str, max=str, type=str)
_ALGORITHM = model("SearchAlgorithm", random=model("RandomAlgorithm", seed=int), grid=model("GridAlgorithm"))
_TRAINER = model(
    "Trainer",
    image=str,
    command=[str],
    args=[str],
    env=[dict],
    num_nodes=int,
    resources_per_node=dict,
    num_proc_per_node=object,  # an int, in older releases a string as well
)
_TRAIN_JOB = model(
    "TrainJobSpec",
    runtime_ref=model("RuntimeRef", name=str, api_group=str, kind=str),
    initializer=dict,
    trainer=_TRAINER,
    runtime_patches=[dict],
    suspend=bool,
    active_deadline_seconds=int,
    managed_by=str,
)
_SPACE = model("SearchSpace", uniform=_NUMBERS, log_uniform=_NUMBERS, categorical=model("Categorical", choices=[str]))
_SPEC = model(
    "OptimizationJobSpec",
    objectives=[model("Objective", metric=str, direction=str)],
    search_algorithm=_ALGORITHM,
    parameters=[model("Parameter", name=str, search_space=_SPACE)],
    num_trials=int,
    parallel_trials=int,
    train_job_template=model("TrainJobTemplate", metadata=V1ObjectMeta, spec=_TRAIN_JOB),
)
OptimizationJob = model("OptimizationJob", api_version=str, kind=str, metadata=V1ObjectMeta, spec=_SPEC)
TrainJob = model("TrainJob", api_version=str, kind=str, metadata=V1ObjectMeta, spec=_TRAIN_JOB)


def read(data: dict[str, Any]) -> Any:
    """Check an OptimizationJob in JSON's form and return it with the CRD's defaults; the error names every fault."""
    job = _read(OptimizationJob, data, _faults)
    spec = job.spec
    spec.num_trials, spec.parallel_trials = spec.num_trials or 1, spec.parallel_trials or 1
    spec.search_algorithm = spec.search_algorithm or _ALGORITHM.from_dict({"random": {}})
    spec.objectives[0].direction = spec.objectives[0].direction or MINIMIZE
    for parameter in spec.parameters:
        for space in (parameter.search_space.uniform, parameter.search_space.log_uniform):
            if space is not None:
                space.type = space.type or FLOAT
    return job


def read_train_job(data: dict[str, Any]) -> Any:
    """Check a TrainJob in JSON's form and return it; the error names every fault."""
    return _read(TrainJob, data, _train_job_faults)


def _read(kind: type[Model], data: dict[str, Any], faults: Callable[[Any, str], Iterator[str]]) -> Any:
    """Return an object; ``faults`` are what is wrong with its spec, if names and types are right."""
    job: Any = kind.from_dict(data)
    found = list(field_faults(kind, data, ""))
    if not found:
        if job.api_version != API_VERSION:
            found.append(f"apiVersion: must be {API_VERSION}, not {job.api_version!r}")
        found += name_faults(job.metadata)
        found += ["spec: must be specified"] if job.spec is None else faults(job.spec, "spec")
    if found:
        raise ConfigurationError("; ".join(found))
    return job


def _faults(spec: Any, _path: str) -> Iterator[str]:
    if len(spec.objectives or ()) != 1:
        yield f"spec.objectives: must have exactly one objective, not {len(spec.objectives or ())}"
    for objective in (spec.objectives or ())[:1]:
        yield from _text_faults(objective.metric, "spec.objectives[0].metric")
        if objective.direction not in {None, MINIMIZE, MAXIMIZE}:
            yield f"spec.objectives[0].direction: must be {MINIMIZE} or {MAXIMIZE}, not {objective.direction!r}"
    yield from _algorithm_faults(spec)
    yield from _parameter_faults(spec)
    yield from _budget_faults(spec)
    yield from _template_faults(spec.train_job_template)


def _text_faults(text: str | None, path: str) -> Iterator[str]:
    if not text:
        yield f"{path}: must be specified"
    elif len(text) > MAX_TEXT:
        yield f"{path}: must have {MAX_TEXT} characters at most, not {len(text)}"


def _one_of_faults(union: Model, names: Sequence[str], path: str) -> Iterator[str]:
    given = [camel_case(name) for name in names if getattr(union, name) is not None]
    if len(given) != 1:
        known = ", ".join(map(camel_case, names))
        yield f"{path}: must have exactly one of {known}; it has {', '.join(given) or 'none'}"


def _algorithm_faults(spec: Any) -> Iterator[str]:
    algorithm = spec.search_algorithm
    if algorithm is None:
        return
    yield from _one_of_faults(algorithm, ("random", "grid"), "spec.searchAlgorithm")
    if algorithm.random is not None and algorithm.random.seed is not None and algorithm.random.seed not in _INT64:
        yield f"spec.searchAlgorithm.random.seed: {algorithm.random.seed} is no 64-bit integer"
    if algorithm.grid is not None:
        for number, parameter in enumerate(spec.parameters or ()):
            if parameter.search_space is not None and parameter.search_space.categorical is None:
                yield f"spec.parameters[{number}].searchSpace: must be categorical, as searchAlgorithm is grid"


def _parameter_faults(spec: Any) -> Iterator[str]:
    if not 1 <= len(spec.parameters or ()) <= _MAX_COUNT:
        yield f"spec.parameters: must have 1 to {_MAX_COUNT} parameters, not {len(spec.parameters or ())}"
    names: set[str] = set()
    for number, parameter in enumerate(spec.parameters or ()):
        path = f"spec.parameters[{number}]"
        yield from _text_faults(parameter.name, f"{path}.name")
        if parameter.name in names:
            yield f"{path}.name: {parameter.name!r} stands there twice"
        names.add(str(parameter.name))
        space = parameter.search_space
        if space is None:
            yield f"{path}.searchSpace: must be specified"
            continue
        yield from _one_of_faults(space, ("uniform", "log_uniform", "categorical"), f"{path}.searchSpace")
        for name in ("uniform", "log_uniform"):
            if (numbers := getattr(space, name)) is not None:
                place = f"{path}.searchSpace.{camel_case(name)}"
                yield from _range_faults(numbers, place, is_above_zero=name == "log_uniform")
        if space.categorical is not None:
            yield from _choice_faults(space.categorical.choices or [], f"{path}.searchSpace.categorical.choices")


def _range_faults(space: Any, path: str, *, is_above_zero: bool) -> Iterator[str]:
    if space.type not in {None, FLOAT, INT}:
        yield f"{path}.type: must be {FLOAT} or {INT}, not {space.type!r}"
    ends = {"min": space.min or "", "max": space.max or ""}
    for name, text in ends.items():
        if not text:
            yield f"{path}.{name}: must be specified"
        elif not _DOUBLE.fullmatch(text) or len(text) > MAX_TEXT:
            yield f"{path}.{name}: {text!r} must be a number such as 0.5, 12 or 1e-3"
    if all(map(_DOUBLE.fullmatch, ends.values())):
        low, high = map(float, ends.values())
        if is_above_zero and low <= 0:
            yield f"{path}.min: must be above 0, not {space.min}"
        if not low < high:
            yield f"{path}: min {space.min} must be below max {space.max}"


def _choice_faults(choices: list[str], path: str) -> Iterator[str]:
    if not 1 <= len(choices) <= _MAX_COUNT:
        yield f"{path}: must have 1 to {_MAX_COUNT} choices, not {len(choices)}"
    for number, choice in enumerate(choices):
        if len(choice) > MAX_TEXT:
            yield f"{path}[{number}]: must have {MAX_TEXT} characters at most, not {len(choice)}"
        if choice in choices[:number]:
            yield f"{path}[{number}]: {choice!r} stands there twice"


def _budget_faults(spec: Any) -> Iterator[str]:
    for name in ("num_trials", "parallel_trials"):
        count = getattr(spec, name)
        if count is not None and not 1 <= count <= _MAX_COUNT:
            yield f"spec.{camel_case(name)}: must be 1 to {_MAX_COUNT}, not {count}"
    trials, parallel = (1 if count is None else count for count in (spec.num_trials, spec.parallel_trials))
    if parallel > trials:
        is_default = " (the default)" if spec.num_trials is None else ""
        yield f"spec.parallelTrials: {parallel} is above numTrials {trials}{is_default}"


def _template_faults(template: Any) -> Iterator[str]:
    path = "spec.trainJobTemplate"
    if template is None or template.spec is None:
        yield f"{path}{'' if template is None else '.spec'}: must be specified"
        return
    for name in ("name", "namespace"):
        if template.metadata is not None and getattr(template.metadata, name):
            yield f"{path}.metadata.{name}: must be omitted; a trial's name and namespace are made"
    yield from _train_job_faults(template.spec, f"{path}.spec")


def _train_job_faults(spec: Any, path: str) -> Iterator[str]:
    if spec.runtime_ref is None or not spec.runtime_ref.name:
        yield f"{path}.runtimeRef.name: must be specified"
    if spec.active_deadline_seconds is not None and spec.active_deadline_seconds < 1:
        yield f"{path}.activeDeadlineSeconds: must be at least 1, not {spec.active_deadline_seconds}"
    variables = (spec.trainer and spec.trainer.env) or []
    yield from repeated_names([variable.get("name") for variable in variables], f"{path}.trainer.env")
    if len(variables) > _MAX_VARIABLES:
        yield f"{path}.trainer.env: must have {_MAX_VARIABLES} variables at most, not {len(variables)}"
    yield from variable_faults({"env": variables}, f"{path}.trainer")
