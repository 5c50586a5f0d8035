"""What of a legal experiment this machine can run, checked once, before anything is started."""

from collections.abc import Callable
from dataclasses import dataclass

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.algorithms import optuna
from katib_callbacks.local.algorithms.optuna import AlgorithmChoice
from katib_callbacks.local.algorithms.space import Parameter, read_parameter
from katib_callbacks.local.api.models import V1beta1Experiment, V1beta1ParameterSpec
from katib_callbacks.local.trials.template import notes, plan, render

COLLECTORS = ("Push", "StdOut")
DEFAULT_NAMESPACE = "default"

_ANY_PORT = 1


@dataclass(frozen=True)
class ResolvedExperiment:
    """An experiment as the controller needs it.

    Args:
        namespace: The experiment's; nothing but a word here.
        parameters: The search space.
        algorithm: How it is searched.
        objective: The objective's name.
        metrics: All declared names, the objective's first.
        strategy: Which of the objective's values counts: ``min``, ``max`` or ``latest``.
        is_maximized: Whether greater objectives are better.
        goal: The objective at which the experiment is over.
        collector: ``Push`` or ``StdOut``.
        filters: Regular expressions for ``StdOut``; empty for Katib's.
        needs_port: Whether a trial has processes that meet at a port.
        notes: What the experiment asks for and does not get here.
    """

    namespace: str
    parameters: tuple[Parameter, ...]
    algorithm: AlgorithmChoice
    objective: str
    metrics: tuple[str, ...]
    strategy: str
    is_maximized: bool
    goal: float | None
    collector: str
    filters: tuple[str, ...]
    needs_port: bool
    notes: tuple[str, ...]

    def port(self, free_port: Callable[[], int]) -> int:
        """Return a port for one trial: a free one if it needs one."""
        return free_port() if self.needs_port else _ANY_PORT


def check(experiment: V1beta1Experiment) -> ResolvedExperiment:
    """Check that a legal experiment can be run on one machine.

    Raises:
        ConfigurationError: It cannot; the message begins with the path and lists what is known.
    """
    spec = experiment.spec
    assert spec is not None  # noqa: S101  checked when it was read, as what follows
    assert spec.objective is not None  # noqa: S101
    assert spec.algorithm is not None  # noqa: S101
    assert spec.metrics_collector_spec is not None  # noqa: S101
    assert spec.metrics_collector_spec.collector is not None  # noqa: S101
    assert spec.trial_template is not None  # noqa: S101
    if spec.nas_config is not None:
        raise ConfigurationError("spec.nasConfig: neural architecture search is not done here; write spec.parameters")
    if spec.trial_template.trial_spec is None:
        raise ConfigurationError("spec.trialTemplate.configMap: there is no config map here; write trialSpec")
    parameters = tuple(_parameters(experiment))
    settings = {str(setting.name): str(setting.value) for setting in spec.algorithm.algorithm_settings or ()}
    try:
        choice = optuna.choose(str(spec.algorithm.algorithm_name), settings)
        optuna.check_space(choice, parameters, spec.max_trial_count)
    except ConfigurationError as error:
        raise ConfigurationError(f"spec.algorithm.{error}") from error
    collector = str(spec.metrics_collector_spec.collector.kind)
    if collector not in COLLECTORS:
        raise ConfigurationError(
            f"spec.metricsCollectorSpec.collector.kind: {collector!r} does not collect here; known: "
            f"{', '.join(COLLECTORS)}"
        )
    source = spec.metrics_collector_spec.source
    filters = (source.filter.metrics_format if source and source.filter else None) or ()
    namespace = (experiment.metadata and experiment.metadata.namespace) or DEFAULT_NAMESPACE
    assignments = {parameter.name: "1" for parameter in parameters}
    run_spec = render(spec.trial_template, trial_name="trial", namespace=namespace, assignments=assignments)
    trial = plan(run_spec, primary_container_name=str(spec.trial_template.primary_container_name), port=_ANY_PORT)
    objective = str(spec.objective.objective_metric_name)
    strategies = {strategy.name: str(strategy.value) for strategy in spec.objective.metric_strategies or ()}
    return ResolvedExperiment(
        namespace=namespace,
        parameters=parameters,
        algorithm=choice,
        objective=objective,
        metrics=(objective, *(spec.objective.additional_metric_names or ())),
        strategy=strategies[objective],
        is_maximized=spec.objective.type == "maximize",
        goal=spec.objective.goal,
        collector=collector,
        filters=tuple(filters),
        needs_port=any("PET_MASTER_PORT" in process.environ for process in trial.processes),
        notes=tuple(_notes(experiment)),
    )


def _parameters(experiment: V1beta1Experiment) -> list[Parameter]:
    assert experiment.spec is not None  # noqa: S101  checked when it was read
    return [_parameter(number, spec) for number, spec in enumerate(experiment.spec.parameters or ())]


def _parameter(number: int, spec: V1beta1ParameterSpec) -> Parameter:
    try:
        return read_parameter(spec)
    except ConfigurationError as error:
        raise ConfigurationError(f"spec.parameters[{number}].{error}") from error


def _notes(experiment: V1beta1Experiment) -> list[str]:
    spec = experiment.spec
    assert spec is not None  # noqa: S101  checked when it was read
    assert spec.trial_template is not None  # noqa: S101  as above
    found = list(notes(spec.trial_template.trial_spec))
    if spec.early_stopping is not None:
        found.append("early stopping")
    return found
