"""The plan of an experiment, resolved once and given to the controller, the suggestion and the trials."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.algorithms.settings import AlgorithmChoice, check_space, choose
from katib_callbacks.local.algorithms.space import Parameter, read_parameter
from katib_callbacks.local.api.manifest import Manifest
from katib_callbacks.local.api.models import V1beta1ParameterSpec
from katib_callbacks.local.trainer.experiment import TRAINER_STATUS
from katib_callbacks.local.trials.template import TrialTemplate
from katib_callbacks.local.trials.webhook import warnings
from katib_callbacks.settings.early_stopping import Policy, make_policy

COLLECTORS = ("Push", "StdOut", "File", "TensorFlowEvent")


@dataclass(frozen=True)
class Budget:
    """How many trials an experiment may have, at a time and failed; None for any number."""

    max_trials: int | None
    parallel: int
    max_failed: int | None

    @classmethod
    def of(cls, manifest: Manifest) -> "Budget":
        """Read the budget, which may be edited while the experiment runs."""
        spec = manifest["spec"]
        return cls(spec.get("maxTrialCount"), spec["parallelTrialCount"], spec.get("maxFailedTrialCount"))


@dataclass(frozen=True)
class ResolvedExperiment:
    """An experiment as the controller needs it.

    Args:
        early_stopping: How the DB manager stops trials that ask it; None for not at all.
        metrics: All declared names, the objective's first.
        strategy: Which of the objective's values counts: ``min``, ``max`` or ``latest``.
        goal: The objective at which the experiment is over.
        collector: One of ``COLLECTORS``, or ``TRAINER_STATUS`` of an OptimizationJob.
        filters: Regular expressions for lines of text; empty for Katib's.
        notes: What the experiment asks for and does not get here.
        metrics_path: In the container: the file, or the folder of event files, that is collected; None for none.
        metrics_format: Of the file, ``TEXT`` or ``JSON``.
        warnings: Sentences about what is otherwise on a cluster.
    """

    template: TrialTemplate
    parameters: tuple[Parameter, ...]
    algorithm: AlgorithmChoice
    objective: str
    metrics: tuple[str, ...]
    strategy: str
    is_maximized: bool
    goal: float | None
    collector: str
    filters: tuple[str, ...]
    notes: tuple[str, ...]
    metrics_path: PurePosixPath | None = None
    metrics_format: str = ""
    warnings: tuple[str, ...] = ()
    early_stopping: Policy | None = None

    @property
    def metrics_folder(self) -> PurePosixPath | None:
        """Where the container has a volume of the trial's own for what is collected; None if nothing is."""
        return self.metrics_path.parent if self.metrics_path and self.collector == "File" else self.metrics_path


def resolve(manifest: Manifest) -> ResolvedExperiment:
    """Find out what a legal experiment comes to on one machine; an error begins with the path."""
    spec = manifest["spec"]
    if spec.get("nasConfig") is not None:
        raise ConfigurationError("spec.nasConfig: neural architecture search is not done here; write spec.parameters")
    if spec["trialTemplate"].get("trialSpec") is None:
        raise ConfigurationError("spec.trialTemplate.configMap: there is no config map here; write trialSpec")
    parameters = tuple(_parameter(number, one) for number, one in enumerate(spec.get("parameters") or ()))
    options = {str(one["name"]): str(one["value"]) for one in spec["algorithm"].get("algorithmSettings") or ()}
    try:
        choice = choose(spec["algorithm"]["algorithmName"], options)
        check_space(choice, parameters, spec.get("maxTrialCount"), parallel=spec["parallelTrialCount"])
    except ConfigurationError as error:
        raise ConfigurationError(f"spec.algorithm.{error}") from error
    collector = spec["metricsCollectorSpec"]["collector"]["kind"]
    if collector not in {*COLLECTORS, TRAINER_STATUS}:
        raise ConfigurationError(
            f"spec.metricsCollectorSpec.collector.kind: {collector!r} does not collect here; known: "
            f"{', '.join(COLLECTORS)}"
        )
    source = spec["metricsCollectorSpec"].get("source") or {}
    files = source.get("fileSystemPath") if collector in {"File", "TensorFlowEvent"} else None
    if files and str(PurePosixPath(files["path"]).parent) == "/" and collector == "File":
        raise ConfigurationError(
            "spec.metricsCollectorSpec.source.fileSystemPath.path: must lie in a folder, in whose place each trial "
            f"gets a volume; {files['path']!r} lies in /"
        )
    template = TrialTemplate.of(manifest)
    # A trial like any other: whatever is wrong with its processes is found before the first one begins.
    planned = template.plan("trial", {parameter.name: "1" for parameter in parameters}, free_port=lambda: 1)
    objective = spec["objective"]
    name = objective["objectiveMetricName"]
    strategies = {strategy.get("name"): strategy["value"] for strategy in objective["metricStrategies"]}
    return ResolvedExperiment(
        template=template,
        parameters=parameters,
        algorithm=choice,
        objective=name,
        metrics=(name, *(objective.get("additionalMetricNames") or ())),
        strategy=strategies[name],
        is_maximized=objective["type"] == "maximize",
        goal=objective.get("goal"),
        collector=collector,
        filters=tuple((source.get("filter") or {}).get("metricsFormat") or ()),
        # Output that is collected tells no epochs: of such trials only those with a KatibReportCallback ask.
        notes=(*template.notes(), *(("early stopping",) if spec.get("earlyStopping") and collector != "Push" else ())),
        metrics_path=PurePosixPath(files["path"]) if files else None,
        metrics_format=files.get("format") or "" if files else "",
        warnings=(*choice.warnings, *warnings(planned.processes[0], collector), *_stopping_warnings(spec)),
        early_stopping=_early_stopping(spec),
    )


def _early_stopping(spec: Mapping[str, Any]) -> Policy | None:
    chosen, objective = spec.get("earlyStopping"), spec["objective"]
    if not chosen:
        return None
    options = {str(one["name"]): str(one["value"]) for one in chosen.get("algorithmSettings") or ()}
    known = {"objective": objective["objectiveMetricName"], "type": objective["type"]}
    return make_policy("spec.earlyStopping", chosen["algorithmName"], {**options, **known})


def _stopping_warnings(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield where early stopping is otherwise on a cluster."""
    if not spec.get("earlyStopping"):
        return
    collector, name = spec["metricsCollectorSpec"]["collector"]["kind"], spec["earlyStopping"]["algorithmName"]
    if collector == "Push" or name != "medianstop":
        yield (
            f"on a cluster Katib does not apply {name} with the collector {collector}: there set "
            f"{settings.EARLY_STOPPING} in the trial's template"
        )


def _parameter(number: int, spec: Mapping[str, Any]) -> Parameter:
    try:
        return read_parameter(V1beta1ParameterSpec.from_dict(spec))
    except ConfigurationError as error:
        raise ConfigurationError(f"spec.parameters[{number}].{error}") from error
