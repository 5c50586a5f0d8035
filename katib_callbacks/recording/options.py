"""RecordingOptions: what a callback was asked for, resolved once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import check_name
from katib_callbacks.settings import AfterTraining, Mode, OnError, OnMissing, OnNan, Report, Runtime
from katib_callbacks.settings.early_stopping import ObjectiveType, Policy, resolve_policy
from katib_callbacks.settings.metric_names import metric_selection

Metrics = str | Sequence[str] | Mapping[str, str] | None
"""One name, several, or ``{name in Katib: name in the framework}``; None for every scalar."""


class RecordingArguments(TypedDict, total=False):
    """The keyword arguments of ``KatibReportCallback``, its reporter aside; see ``ReportingCallback``."""

    report: Report | None
    monitor: str | None
    mode: Mode | None
    after_training: AfterTraining | None
    on_missing: OnMissing | None
    on_nan: OnNan | None
    on_error: OnError | None
    early_stopping: str | None


@dataclass(frozen=True)
class RecordingOptions:
    """The options of one callback; ``names`` is ``{name in Katib: name in the framework}``, None for every scalar."""

    names: Mapping[str, str] | None
    report: Report
    monitor: str | None
    mode: Mode | None
    after_training: AfterTraining
    on_missing: OnMissing
    on_nan: OnNan
    on_error: OnError
    early_stopping: Policy | None
    is_disabled: bool


def resolve_options(
    metrics: Metrics, arguments: RecordingArguments, runtime: Runtime, *, is_mode_deferred: bool
) -> RecordingOptions:
    """Resolve each option: the argument, then the environment variable, then the default."""

    def pick(choices: object, argument: str, default: Any) -> Any:  # the caller's annotation tells the type
        variable = settings.PREFIX + argument.upper()
        return settings.choice(choices, argument, arguments.get(argument), variable, default, runtime)

    names = metric_selection(metrics, runtime)
    for name in names or ():
        check_name(name)
    report: Report = pick(Report, "report", "final")
    monitor = settings.text(arguments.get("monitor"), settings.MONITOR, runtime)
    mode: Mode | None = pick(Mode, "mode", None)
    if report == "best":
        if monitor is None:
            raise ConfigurationError("report='best' needs monitor, the framework's name of the metric that decides")
        if mode is None and not is_mode_deferred:
            raise ConfigurationError("report='best' needs mode: 'min' or 'max'")
    elif arguments.get("monitor") is not None or arguments.get("mode") is not None:
        raise ConfigurationError(f"monitor and mode belong to report='best', not to report={report!r}")
    policy = resolve_policy(arguments.get("early_stopping"), runtime)
    if policy is not None and names is not None and policy.objective not in {None, *names}:
        if arguments.get("early_stopping") is not None:
            raise ConfigurationError(
                f"early_stopping: {policy.objective!r} is not among the metrics: {', '.join(names)}"
            )
        policy = None  # a template's variable is meant for another callback of the process
    return RecordingOptions(
        names=names,
        report=report,
        monitor=monitor if report == "best" else None,  # a cluster-wide variable need not fit every script
        mode=mode,
        after_training=pick(AfterTraining, "after_training", "missing"),
        on_missing=pick(OnMissing, "on_missing", "warn"),
        on_nan=pick(OnNan, "on_nan", "skip"),
        on_error=pick(OnError, "on_error", "warn"),
        early_stopping=None if policy is None else _completed(policy, names, mode),
        is_disabled=settings.is_disabled(runtime),
    )


def _completed(policy: Policy, names: Mapping[str, str] | None, mode: Mode | None) -> Policy:
    """Return a policy with its objective and type: the only metric, and ``mode``, where the text has none."""
    objective = policy.objective or (next(iter(names)) if names and len(names) == 1 else None)
    if objective is None:
        raise ConfigurationError("early_stopping needs objective=NAME, the name in Katib of the metric that decides")
    kinds: dict[str | None, ObjectiveType] = {"min": "minimize", "max": "maximize"}
    kind = policy.objective_type or kinds.get(mode)
    if kind is None:
        raise ConfigurationError("early_stopping needs type=minimize or type=maximize, as the experiment's objective")
    return replace(policy, objective=objective, objective_type=kind)
