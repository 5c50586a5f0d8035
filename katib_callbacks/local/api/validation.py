"""The checks of Katib's webhook, and of names and types: whatever is wrong, with its path, all of it at once."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katib_callbacks.local.api.go_regexp import PatternError, compile_pattern
from katib_callbacks.local.api.models import V1beta1Experiment, V1ObjectMeta
from katib_callbacks.local.api.serialization import Model, camel_case

API_VERSION = "kubeflow.org/v1beta1"

RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")
COLLECTOR_KINDS = ("StdOut", "File", "TensorFlowEvent", "PrometheusMetric", "Custom", "Push")
STRATEGIES = ("min", "max", "latest")
_SOURCE_KINDS = {"File": "File", "TensorFlowEvent": "Directory"}
EARLY_STOPPING_ALGORITHMS = ("medianstop", "asha")
"""Those of Katib's own configuration (katib-config.yaml)."""

TRIAL_PARAMETER = re.compile(r"\$\{trialParameters\.(.+?)\}")
META_REFERENCE = re.compile(r"\$\{trialSpec\.(Name|Namespace|Kind|APIVersion|(?:Labels|Annotations)\[(.+)\])\}")

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME = 63
"""Of a Kubernetes label, which carries the experiment's name."""

_TYPE_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}


def faults(data: Any) -> Iterator[str]:
    """Yield what is wrong with an experiment in JSON's form: with its names and types, or else with its values."""
    found = list(field_faults(V1beta1Experiment, data, ""))
    yield from found or _faults(V1beta1Experiment.from_dict(data))


def objective_faults(objective: Any, path: str) -> Iterator[str]:
    """Yield what is wrong with an objective."""
    if objective is None:
        yield f"{path}: must be specified"
        return
    if objective.type not in {"minimize", "maximize"}:
        yield f"{path}.type: must be minimize or maximize, not {objective.type!r}"
    if not objective.objective_metric_name:
        yield f"{path}.objectiveMetricName: must be specified"
    elif objective.objective_metric_name in (objective.additional_metric_names or ()):
        yield f"{path}.additionalMetricNames: contains the objective {objective.objective_metric_name!r}"
    for number, strategy in enumerate(objective.metric_strategies or ()):
        yield from _unknown(strategy.value, STRATEGIES, f"{path}.metricStrategies[{number}].value")


def _unknown(value: Any, known: Sequence[str], path: str) -> Iterator[str]:
    if value not in known:
        yield f"{path}: {value!r} is not known; known: {', '.join(known)}"


def name_faults(metadata: V1ObjectMeta | None) -> Iterator[str]:
    """Yield what is wrong with an object's name, or with the beginning of a generated one."""
    name = metadata and (metadata.name or metadata.generate_name)
    if not name:
        yield "metadata.name: must be specified"
    elif not _NAME.fullmatch(name.rstrip("-")) or len(name) > _MAX_NAME:
        yield (
            f"metadata.name: {name!r} must consist of lower case letters, digits and '-', begin with a letter, end "
            f"with a letter or digit, and have {_MAX_NAME} characters at most"
        )


def field_faults(kind: type[Model], data: Any, path: str) -> Iterator[str]:
    """Yield unknown names and wrong types, with their paths; what the API leaves open (dicts) is not looked into."""
    if not isinstance(data, Mapping):
        yield f"{path or 'the object'}: must be a mapping, not {_shown(data)}"
        return
    known = {camel_case(field.name): field for field in kind.known_fields}
    is_open = kind.__name__ == "V1ObjectMeta"  # Kubernetes' own, with more fields than are listed here
    for name, value in data.items():
        place = f"{path}.{name}" if path else str(name)
        field = known.get(str(name))
        if field is None:
            if not is_open:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
                api = "Katib" if kind.__name__.startswith("V1") else "Kubeflow Trainer"
                yield f"{place}: {api} knows no such field; {hint}"
        elif value is not None:
            yield from _value_faults(field.kind, value, place, is_list=field.is_list)


def _value_faults(kind: type, value: Any, path: str, *, is_list: bool = False) -> Iterator[str]:
    if is_list:
        if not isinstance(value, (list, tuple)):
            yield f"{path}: must be a list, not {_shown(value)}"
            return
        for number, item in enumerate(value):
            yield from _value_faults(kind, item, f"{path}[{number}]")
    elif issubclass(kind, Model):
        yield from field_faults(kind, value, path)
    elif kind in _TYPE_NAMES and not _is_a(kind, value):
        quoted = f'; write "{value}"' if kind is str and isinstance(value, (bool, int, float)) else ""
        yield f"{path}: must be {_TYPE_NAMES[kind]}, not {_shown(value)}{quoted}"


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"  # noqa: PLR2004  a glance


def _faults(experiment: V1beta1Experiment) -> Iterator[str]:
    """Yield what Katib's validating webhook refuses (pkg/webhook/v1beta1/experiment/validator/validator.go)."""
    if experiment.api_version not in {None, API_VERSION}:
        yield f"apiVersion: must be {API_VERSION}, not {experiment.api_version!r}"
    yield from name_faults(experiment.metadata)
    spec = experiment.spec
    if spec is None:
        yield "spec: must be specified"
        return
    yield from _budget_faults(spec)
    yield from objective_faults(spec.objective, "spec.objective")
    if spec.algorithm is None or not spec.algorithm.algorithm_name:
        yield "spec.algorithm.algorithmName: must be specified"
    if spec.early_stopping is not None:
        algorithm = spec.early_stopping.algorithm_name
        yield from _unknown(algorithm, EARLY_STOPPING_ALGORITHMS, "spec.earlyStopping.algorithmName")
    if spec.resume_policy:
        yield from _unknown(spec.resume_policy, RESUME_POLICIES, "spec.resumePolicy")
    yield from _parameter_faults(spec)
    yield from _collector_faults(spec)
    yield from _template_faults(spec)


def _budget_faults(spec: Any) -> Iterator[str]:
    for name, least in (("max_trial_count", 1), ("parallel_trial_count", 1), ("max_failed_trial_count", 0)):
        count = getattr(spec, name)
        if count is not None and count < least:
            yield f"spec.{camel_case(name)}: must be at least {least}, not {count}"
        elif None not in {count, spec.max_trial_count} and count > spec.max_trial_count:
            yield f"spec.{camel_case(name)}: {count} is above maxTrialCount {spec.max_trial_count}"


def _parameter_faults(spec: Any) -> Iterator[str]:
    if bool(spec.parameters) == bool(spec.nas_config):
        yield "spec: one of parameters and nasConfig must be specified"
    yield from repeated_names([parameter.name for parameter in spec.parameters or ()], "spec.parameters")
    for number, parameter in enumerate(spec.parameters or ()):
        yield from _space_faults(parameter, f"spec.parameters[{number}].feasibleSpace")


def repeated_names(names: Sequence[str | None], path: str) -> Iterator[str]:
    """Yield the names in a list that are missing, or stand there before."""
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            yield f"{path}[{number}].name: must be specified, and only once: {name!r}"


def _space_faults(parameter: Any, path: str) -> Iterator[str]:
    kind, space = parameter.parameter_type, parameter.feasible_space
    if space is None or not any((space.min, space.max, space.step, space.list, space.distribution)):
        yield f"{path}: must be specified"
    elif kind in {"int", "double"} and space.list:
        yield f"{path}.list: is for categorical and discrete parameters, not for {kind}; write min and max"
    elif kind in {"categorical", "discrete"} and (space.min or space.max or space.step):
        yield f"{path}: min, max and step are for int and double parameters, not for {kind}; write list"


def _collector_faults(spec: Any) -> Iterator[str]:
    path = "spec.metricsCollectorSpec"
    collector = spec.metrics_collector_spec and spec.metrics_collector_spec.collector
    if collector is not None and collector.kind == "None":
        yield f"{path}.collector.kind: the kind None was renamed to Push in Katib 0.17; write Push"
    elif collector is not None:
        yield from _unknown(collector.kind, COLLECTOR_KINDS, f"{path}.collector.kind")
    source = spec.metrics_collector_spec and spec.metrics_collector_spec.source
    if collector is not None and collector.kind in _SOURCE_KINDS and source is not None:
        yield from _file_faults(collector.kind, source, f"{path}.source")
    for number, pattern in enumerate((source and source.filter and source.filter.metrics_format) or ()):
        place = f"{path}.source.filter.metricsFormat[{number}]"
        try:
            groups = compile_pattern(pattern).groups
        except PatternError as error:
            yield f"{place}: {pattern!r} is not a regular expression: {error}"
        else:
            if groups < 2:  # noqa: PLR2004  the name and the value
                yield f"{place}: {pattern!r} must have two groups, the name and the value"


def _file_faults(kind: str, source: Any, path: str) -> Iterator[str]:
    """Yield what is wrong with the files of a collector; what is left out has a default."""
    place = f"{path}.fileSystemPath"
    files = source.file_system_path
    if files is None:
        return
    if files.kind not in {None, "", _SOURCE_KINDS[kind]}:
        yield f"{place}.kind: must be {_SOURCE_KINDS[kind]} for the collector {kind}, not {files.kind!r}"
    if files.path and not files.path.startswith("/"):
        yield f"{place}.path: must be absolute, not {files.path!r}"
    formats = ["TEXT", "JSON"] if kind == "File" else []
    if files.format and files.format not in formats:
        wanted = " or ".join(formats) or "empty"
        yield f"{place}.format: must be {wanted} for the collector {kind}, not {files.format!r}"
    if files.format == "JSON" and source.filter is not None:
        yield f"{path}.filter: must be left out where the format is JSON"


def _template_faults(spec: Any) -> Iterator[str]:
    path = "spec.trialTemplate"
    template = spec.trial_template
    if template is None:
        yield f"{path}: must be specified"
        return
    if not template.primary_container_name:
        yield f"{path}.primaryContainerName: must be specified"
    if (template.trial_spec is None) == (template.config_map is None):
        yield f"{path}: one of trialSpec and configMap must be specified"
    if template.trial_parameters is None:
        yield f"{path}.trialParameters: must be specified"
    parameters = {str(parameter.name) for parameter in spec.parameters or ()}
    declared: dict[str, str] = {}
    for number, entry in enumerate(template.trial_parameters or ()):
        place = f"{path}.trialParameters[{number}]"
        if not entry.name or not entry.reference or {"{", "}"} & set(entry.name):
            yield f"{place}: name and reference must be specified, and name without braces"
        elif entry.name in declared or entry.reference in declared.values():
            yield f"{place}: {entry.name!r} or its reference {entry.reference!r} stands there twice"
        elif entry.reference not in parameters and not META_REFERENCE.fullmatch(entry.reference) and parameters:
            known = ", ".join(sorted(parameters))
            yield f"{place}.reference: {entry.reference!r} is not one of spec.parameters: {known}"
        else:
            declared[entry.name] = entry.reference
    if isinstance(template.trial_spec, Mapping):
        yield from _trial_spec_faults(template.trial_spec, declared, path)


def _trial_spec_faults(trial_spec: Mapping[str, Any], declared: Mapping[str, str], path: str) -> Iterator[str]:
    used = set(TRIAL_PARAMETER.findall(str(trial_spec)))
    for name in sorted(set(declared) - used):
        yield f"{path}.trialParameters: {name!r} is used nowhere in trialSpec"
    for name in sorted(used - set(declared)):
        yield f"{path}.trialSpec: uses ${{trialParameters.{name}}}, which trialParameters does not declare"
    for field in ("apiVersion", "kind"):
        if not trial_spec.get(field):
            yield f"{path}.trialSpec.{field}: must be specified"
    yield from variable_faults(trial_spec, f"{path}.trialSpec")
    metadata = trial_spec.get("metadata") or {}
    for field in ("name", "namespace"):
        if metadata.get(field):
            yield f"{path}.trialSpec.metadata.{field}: must be omitted; the trial's is taken"


def variable_faults(value: Any, path: str) -> Iterator[str]:
    """Yield the containers' variables that are no strings, which Kubernetes refuses."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from variable_faults(item, f"{path}[{number}]")
    if not isinstance(value, Mapping):
        return
    for name, item in value.items():
        place = f"{path}.{name}"
        yield from variable_faults(item, place)
        if name == "env" and isinstance(item, list):
            for number, variable in enumerate(item):
                given = variable.get("value") if isinstance(variable, Mapping) else None
                if given is not None and not isinstance(given, str):
                    shown = "true" if given is True else "false" if given is False else given
                    yield f'{place}[{number}].value: must be a string, not {_shown(given)}; write "{shown}"'
