"""The states of experiments and trials, and the conditions by which Katib tells them."""

import time
from typing import Any

CREATED, RUNNING, RESTARTING, SUCCEEDED, FAILED = "Created", "Running", "Restarting", "Succeeded", "Failed"
METRICS_UNAVAILABLE, KILLED, EARLY_STOPPED = "MetricsUnavailable", "Killed", "EarlyStopped"

FINAL_TRIAL_STATES = (SUCCEEDED, FAILED, METRICS_UNAVAILABLE, KILLED, EARLY_STOPPED)
FINAL_EXPERIMENT_STATES = (SUCCEEDED, FAILED)


def condition(kind: str, reason: str, message: str, now_s: float, *, status: bool = True) -> dict[str, Any]:
    """Return a condition as it is stored."""
    return {
        "type": kind,
        "status": str(status),
        "reason": reason,
        "message": message,
        "lastUpdateTime": now_s,
        "lastTransitionTime": now_s,
    }


def with_condition(conditions: list[dict[str, Any]], kind: str, reason: str, message: str) -> list[dict[str, Any]]:
    """Return the conditions with a new one that holds; those before it, except Created, hold no longer."""
    now_s = time.time()
    earlier = [
        one
        if one["type"] == CREATED or one["status"] == "False"
        else {**one, "status": "False", "lastUpdateTime": now_s, "lastTransitionTime": now_s}
        for one in conditions
        if one["type"] != kind
    ]
    return [*earlier, condition(kind, reason, message, now_s)]
