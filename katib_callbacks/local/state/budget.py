"""Changing an experiment's budget, with the conditions of Katib's webhook."""

from collections.abc import Mapping
from typing import Any

from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local.api.manifest import read
from katib_callbacks.local.api.serialization import camel_case
from katib_callbacks.local.state import states
from katib_callbacks.local.state.states import with_condition
from katib_callbacks.local.state.store import ExperimentRow, ExperimentStore


def edit_budget(store: ExperimentStore, name: str, **counts: int | None) -> bool:
    """Change trial counts of an experiment; returns whether it was over and is to be started again.

    A runner that is at work, in whichever process, notices within a second.

    Raises:
        ConfigurationError: Nothing is to be changed.
        ExperimentError: Katib's webhook would refuse it: the counts do not fit, or it cannot be restarted.
    """
    given = {camel_case(key): count for key, count in counts.items() if count is not None}
    if not given:
        raise ConfigurationError("edit_experiment_budget: one of the counts must be given")
    with store.editing(name) as (row, changes):
        changes.update(budget_changes(row, given, trials=len(store.trials(name))))
    return "conditions" in changes


def budget_changes(row: ExperimentRow, given: Mapping[str, int | None], *, trials: int) -> dict[str, Any]:
    """Return the columns of an experiment that change; its conditions among them if it is started again."""
    changed: dict[str, Any] = {**row.manifest, "spec": {**row.manifest["spec"], **given}}
    if not row.is_experiment:
        raise ExperimentError(
            f"{row.source['kind']} {row.name!r}: its spec is immutable, and cannot be updated after creation"
        )
    refused = f"the budget of experiment {row.name!r} cannot be changed"
    try:
        columns: dict[str, Any] = {"manifest": read(changed).serialize()}
    except ConfigurationError as error:
        raise ExperimentError(f"{refused}: {error}") from error
    new = given.get("maxTrialCount")
    if new is not None and new != row.manifest["spec"].get("maxTrialCount") and new <= trials:
        raise ExperimentError(f"{refused}: maxTrialCount {new} must be above the {trials} trials that there are")
    if row.state in states.FINAL_EXPERIMENT_STATES:
        policy = row.manifest["spec"].get("resumePolicy")
        if row.conditions[-1]["reason"] != "ExperimentMaxTrialsReached" or policy == "Never":
            raise ExperimentError(
                f"experiment {row.name!r} is over: only one that has succeeded by reaching maxTrialCount, with "
                "resumePolicy LongRunning or FromVolume, can be restarted"
            )
        message = "Experiment is restarted"
        columns["conditions"] = with_condition(row.conditions, states.RESTARTING, "ExperimentRestarting", message)
        columns["completed_s"] = None
    return columns
