"""A training's command line as an experiment: specs of parameters and of the objective as text, and its YAML."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katib_callbacks.errors import ConfigurationError, MissingDependencyError
from katib_callbacks.local.algorithms.space import DISTRIBUTIONS
from katib_callbacks.local.api.kubernetes_yaml import plain_value
from katib_callbacks.local.trials.template import TRAINJOB_CONTAINER
from katib_callbacks.local.tune.manifest import JOB_CONTAINER, PYTORCHJOB_CONTAINER, job, torch_job

KINDS = ("Job", "PyTorchJob", "TrainJob")

_DISTRIBUTION = {name.lower(): name for name in DISTRIBUTIONS} | {"log": "logUniform"}

_WHOLE_NUMBER = re.compile(r"[-+]?\d+")

_PLACE = re.compile(r"\{\{([\w.-]+)\}\}|(?<![{$])\{([\w.-]+)\}(?!\})")
"""``{{word}}``, which stands for the word in braces, or ``{name}``; ``${name}`` is the shell's."""


def parameter(text: str) -> dict[str, Any]:
    """Return the parameter that ``lr=log:1e-4:1e-1``, ``hidden=8:64:8`` (with a step) or ``name=sgd,adam`` tells."""
    name, equals, space = text.partition("=")
    if not equals or not name or not space:
        raise ConfigurationError(f"--parameter {text!r}: write NAME=MIN:MAX, NAME=log:MIN:MAX or NAME=VALUE,VALUE,...")
    if "," in space:
        return {"name": name, "parameterType": "categorical", "feasibleSpace": {"list": space.split(",")}}
    words = space.split(":")
    distribution = _DISTRIBUTION.get(words[0].lower())
    numbers = words if distribution is None else words[1:]
    if len(numbers) not in {2, 3} or not all(map(_is_number, numbers)):
        known = ", ".join(("log", *DISTRIBUTIONS))
        raise ConfigurationError(
            f"--parameter {text!r}: {space!r} is neither several values with commas nor a range; write MIN:MAX or "
            f"MIN:MAX:STEP, with one of {known} and a colon before it where values are not uniform"
        )
    kind = "int" if all(map(_WHOLE_NUMBER.fullmatch, numbers)) else "double"
    feasible = dict(zip(("min", "max", "step"), numbers, strict=False))
    return {
        "name": name,
        "parameterType": kind,
        "feasibleSpace": feasible if distribution is None else {**feasible, "distribution": distribution},
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def objective(text: str, additional: Sequence[str], goal: float | None) -> dict[str, Any]:
    """Return the objective that ``maximize:val_accuracy`` tells."""
    kind, _, name = text.partition(":")
    if kind not in {"minimize", "maximize"} or not name:
        raise ConfigurationError(f"--objective {text!r}: write maximize:METRIC or minimize:METRIC")
    told: dict[str, Any] = {"type": kind, "objectiveMetricName": name}
    return (
        told
        | ({"additionalMetricNames": list(additional)} if additional else {})
        | ({} if goal is None else {"goal": goal})
    )


def with_parameters(command: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command in which each ``{name}`` is the reference by which Katib puts in the trial's value."""
    used: set[str] = set()

    def reference(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f"{{{match[1]}}}"
        if match[2] not in names:
            raise ConfigurationError(
                f"the command has {{{match[2]}}}, but no --parameter has that name; for the word in braces write "
                f"{{{{{match[2]}}}}}"
            )
        used.add(match[2])
        return f"${{trialParameters.{match[2]}}}"

    words = [_PLACE.sub(reference, word) for word in command]
    missing = [name for name in names if name not in used]
    if missing:
        shown = " and ".join(f"{{{name}}}" for name in missing)
        raise ConfigurationError(
            f"the command does not use {shown}: write it where the value belongs, as in --lr {{lr}}"
        )
    return words


def template(
    kind: str, workers: int, command: Sequence[str], image: str, environ: Mapping[str, str], runtime: str
) -> dict[str, Any]:
    """Return the trial template of a job of ``kind`` with so many pods, all of which run the command."""
    if workers < 1 or (workers > 1 and kind == "Job"):
        raise ConfigurationError(
            f"--workers {workers}: a Job is one pod; choose --kind PyTorchJob or --kind TrainJob for more"
            if workers > 1
            else f"--workers {workers}: must be at least 1"
        )
    env = [{"name": name, "value": value} for name, value in environ.items()]
    container = {"image": image, "command": list(command), "env": env}
    if kind == "TrainJob":
        trial_spec = {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": kind,
            "spec": {"runtimeRef": {"name": runtime}, "trainer": {"numNodes": workers, **container}},
        }
        return {"primaryContainerName": TRAINJOB_CONTAINER, "trialSpec": trial_spec}
    name = JOB_CONTAINER if kind == "Job" else PYTORCHJOB_CONTAINER
    container = {"name": name, **container}
    trial_spec = job(container) if kind == "Job" else torch_job(container, workers)
    return {"primaryContainerName": name, "trialSpec": trial_spec}


def as_yaml(document: Mapping[str, Any]) -> str:
    """Return a document as YAML in which Kubernetes finds each string to be one."""
    try:
        import yaml  # noqa: PLC0415  the extra `local`
    except ImportError as error:
        raise MissingDependencyError('YAML is written with PyYAML: pip install "katib-callbacks[local]"') from error

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
        """Quotes what a cluster would read as something else, such as 1e-4, which PyYAML writes plainly."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def quoted(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _needs_quotes(text) else None)

    Dumper.add_representer(str, quoted)
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000))


def _needs_quotes(text: str) -> bool:
    if not text or "{" in text or not text.isprintable():
        return True
    try:
        return not isinstance(plain_value(text), str)
    except ConfigurationError:  # .inf and .nan
        return True


def settings_of(pairs: Sequence[str], option: str) -> Iterator[tuple[str, str]]:
    """Yield names and values of ``NAME=VALUE`` arguments; errors name the option."""
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{option} {pair!r}: write NAME=VALUE")
        yield name, value
