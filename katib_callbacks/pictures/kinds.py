"""The kinds of plots, which trials and parameters each shows, and what keeps one from being drawn."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.pictures.records import UNFINISHED, ExperimentRecord, TrialRecord
from katib_callbacks.pictures.study import quiet, short_names, study_of

KINDS = {
    "objective": "Objective of each trial",
    "curves": "Curves over epochs",
    "parallel": "Parameters and objective",
    "slices": "Objective by parameter",
    "importances": "Importance of parameters",
    "contour": "Objective by two parameters",
}
"""Each with its title."""

COLORS = {
    "Succeeded": "#4c78a8",
    "EarlyStopped": "#f58518",
    "Failed": "#e45756",
    "MetricsUnavailable": "#9d755d",
    "Running": "#54a24b",
}
OTHER_COLOR = "#999999"
BEST_COLOR = "#222222"

MAX_NAMED_CURVES = 10
"""With more trials, curves have the color of their state, and the legend has no names of trials."""

MANY = 45
"""With more trials, marks are smaller."""

MAX_CURVES = 300
MAX_CONTOUR_TRIALS = 200
"""Of more trials, some are shown that are evenly chosen, and the best one: nobody could tell more apart."""

MAX_PARAMETERS = 8
MAX_CONTOUR_PARAMETERS = 3
"""Of more, the most important ones are shown: a contour has a cell for each pair."""


def drawable(record: ExperimentRecord, kind: str, metric: str | None = None) -> ExperimentRecord:
    """Return the experiment as a plot shows it.

    Raises:
        ConfigurationError: There is no such kind, or no such metric.
        ExperimentError: It cannot be drawn yet; the message says why.
    """
    check_kind(kind)
    valued = [trial for trial in record.trials if trial.objective is not None]
    name = metric or record.objective
    if kind == "curves":
        begun = replace(record, trials=[trial for trial in record.trials if trial.curve(name)])
        if not begun.trials:
            raise ExperimentError(f"no trial of experiment {record.name!r} has values of {name!r} yet")
        return _fewer(begun, MAX_CURVES)
    if not valued:
        raise ExperimentError(f"no trial of experiment {record.name!r} has an objective yet")
    if kind == "objective":
        return record
    varied = [
        one for one in record.parameters if kind == "parallel" or len({t.parameters.get(one.name) for t in valued}) > 1
    ]
    if kind == "contour":
        record = _fewer(replace(record, trials=valued), MAX_CONTOUR_TRIALS)
        numbers = [one for one in varied if one.kind != "categorical"]
        varied = numbers if len(numbers) > 1 else varied
    least, most = (2, MAX_CONTOUR_PARAMETERS) if kind == "contour" else (1, MAX_PARAMETERS)
    if len(varied) < least:
        raise ExperimentError(
            f"experiment {record.name!r}: {kind} needs {least} parameter{'s' * (least > 1)} with different values in "
            "trials that have an objective"
        )
    if kind == "importances" and len({trial.objective for trial in valued}) == 1:
        raise ExperimentError(f"experiment {record.name!r}: importances need trials with different objectives")
    chosen = replace(record, parameters=varied)
    return chosen if len(varied) <= most or kind == "importances" else replace(chosen, parameters=_top(chosen, most))


def check_kind(kind: str) -> None:
    """Raise ConfigurationError unless there is such a kind."""
    if kind not in KINDS:
        raise ConfigurationError(f"{kind!r} is not a kind of plot; known: {', '.join(KINDS)}")


def importances(record: ExperimentRecord) -> dict[str, float]:
    """Return what each parameter's share in the objective's differences is, the greatest first."""
    with quiet() as optuna:
        found: dict[str, float] = optuna.importance.get_param_importances(study_of(record), evaluator=evaluator())
        return found


def evaluator() -> Any:
    """Return what computes importances: the one of Optuna's that is fast, and needs no other package."""
    with quiet() as optuna, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called experimental
        return optuna.importance.PedAnovaImportanceEvaluator()


def _fewer(record: ExperimentRecord, most: int) -> ExperimentRecord:
    trials, best = record.trials, record.best
    if len(trials) <= most:
        return record
    chosen = {trials[number * len(trials) // most].name for number in range(most)} | {best.name if best else ""}
    return replace(record, trials=[trial for trial in trials if trial.name in chosen])


def _top(record: ExperimentRecord, most: int) -> Sequence[Any]:
    """Return the most important parameters, in their order; the first ones where that cannot be told."""
    if len({trial.objective for trial in record.trials if trial.objective is not None}) == 1:
        return record.parameters[:most]
    names = short_names(record)
    ranked = list(importances(record))
    rank = {one.name: ranked.index(names[one.name]) for one in record.parameters if names[one.name] in ranked}
    kept = sorted(rank, key=lambda name: rank[name])[:most]
    return [one for one in record.parameters if one.name in kept]


def without_objective(record: ExperimentRecord) -> dict[str, list[TrialRecord]]:
    """Return, by state, the trials that have ended without an objective."""
    return by_state([trial for trial in record.trials if trial.objective is None and trial.state not in UNFINISHED])


def by_state(trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Return the trials by state."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        found.setdefault(trial.state, []).append(trial)
    return found


def floor(record: ExperimentRecord) -> float:
    """Return where trials without an objective are marked: below all that have one."""
    values = [trial.objective for trial in record.trials if trial.objective is not None]
    span = max(values) - min(values)
    return min(values) - 0.08 * (span or abs(min(values)) or 1.0)
