"""What Katib's controller makes of an experiment's outcome, written down apart from the code that is tested.

From what a real controller was seen to do (Katib 0.19 on Kubernetes 1.34), and pkg/controller.v1beta1.
"""

import re

import yaml

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

JOBS = {  # reason and message of a kind's condition in the end
    "Job": ("CompletionsReached", "Reached expected number of succeeded pods"),
    "TrainJob": ("AllJobsCompleted", "jobset completed successfully"),
}


def timeless(status):
    """Return a status with the word ``time`` for each time, all of which are to the second."""
    if isinstance(status, dict):
        return {
            name: "time" if name.endswith("Time") and TIME.fullmatch(value) else timeless(value)
            for name, value in status.items()
        }
    return [timeless(one) for one in status] if isinstance(status, list) else status


def condition(kind, reason, message, status="True"):
    times = {"lastUpdateTime": "time", "lastTransitionTime": "time"}
    return {"type": kind, "status": status, "reason": reason, "message": message, **times}


def conditions(subject, *last):
    return [
        condition("Created", f"{subject}Created", f"{subject} is created"),
        condition("Running", f"{subject}Running", f"{subject} is running", "False"),
        condition(*last),
    ]


def observed(names, rows):
    """Return the metrics of an observation; None if there is no row of any."""
    metrics = []
    for name in names:
        values = [value for metric, value in rows if metric == name and value != "unavailable"]
        ordered = sorted(values, key=float)
        shown = (ordered[0], ordered[-1], values[-1]) if values else ("unavailable",) * 3
        metrics.append({"name": name, **dict(zip(("min", "max", "latest"), shown, strict=True))})
    return metrics if any(one["latest"] != "unavailable" for one in metrics) else None


def expected(path, trials, max_trials=None, failing=lambda _: None):
    """Return the status of an experiment that is over, and of its trials.

    ``trials`` are names, parameter assignments and rows by time; ``failing`` gives a job's reason and message where it
    fails with these assignments.
    """
    spec = yaml.safe_load(path.read_text())["spec"]
    objective, kind = spec["objective"], spec["trialTemplate"]["trialSpec"]["kind"]
    name = objective["objectiveMetricName"]
    names = [name, *objective.get("additionalMetricNames", [])]
    default = {"minimize": "min", "maximize": "max"}[objective["type"]]
    strategy = {one["name"]: one["value"] for one in objective.get("metricStrategies", [])}.get(name, default)
    done = JOBS.get(kind, (f"{kind}Succeeded", f"{kind} is successfully completed."))
    lists, values, statuses = {}, {}, []
    for trial, assignments, rows in trials:
        status = {"startTime": "time", "completionTime": "time"}
        observation = observed(names, rows)
        failure = failing({one["name"]: one["value"] for one in assignments})
        if failure is not None:
            last = ("Failed", f"TrialFailed. Job reason: {failure[0]}", f"Trial has failed. Job message: {failure[1]}")
            observation = None
        elif not any(metric == name and value != "unavailable" for metric, value in rows):
            last = ("MetricsUnavailable", f"MetricsUnavailable. Job reason: {done[0]}", "")
        else:
            last = (
                "Succeeded",
                f"TrialSucceeded. Job reason: {done[0]}",
                f"Trial has succeeded. Job message: {done[1]}",
            )
            values[trial] = float(next(one[strategy] for one in observation if one["name"] == name))
        lists.setdefault(last[0], []).append(trial)
        status["conditions"] = conditions("Trial", *last)
        if observation is not None:
            status["observation"] = {"metrics": observation}
        statuses.append(status)
    failed = len(lists.get("Failed", ())) + len(lists.get("MetricsUnavailable", ()))
    limit, goal = spec.get("maxFailedTrialCount"), objective.get("goal")
    best = None if not values else (min if default == "min" else max)(values, key=values.get)
    if best and goal is not None and (values[best] <= goal if default == "min" else values[best] >= goal):
        verdict = ("Succeeded", "ExperimentGoalReached", "Experiment has succeeded because Objective goal has reached")
    elif limit is not None and failed and failed >= limit:
        verdict = ("Failed", "ExperimentFailed", "Experiment has failed because max failed count has reached")
    elif len(trials) >= (max_trials or spec.get("maxTrialCount", float("inf"))):
        reason = "ExperimentMaxTrialsReached"
        verdict = ("Succeeded", reason, "Experiment has succeeded because max trial count has reached")
    else:
        reason = "ExperimentSuggestionEndReached"
        verdict = ("Succeeded", reason, "Experiment has succeeded because suggestion service has reached the end")
    status = {"startTime": "time", "completionTime": "time", "conditions": conditions("Experiment", *verdict)}
    counts = {"Succeeded": "trialsSucceeded", "Failed": "trialsFailed", "MetricsUnavailable": "trialMetricsUnavailable"}
    for state, own in lists.items():
        status[f"{state[0].lower()}{state[1:]}TrialList"] = own
        status[counts[state]] = len(own)
    if best:
        number = next(number for number, one in enumerate(trials) if one[0] == best)
        status["currentOptimalTrial"] = {
            "bestTrialName": best,
            "parameterAssignments": trials[number][1],
            "observation": statuses[number]["observation"],
        }
    return {**status, "trials": len(trials)}, statuses


def check(queries, name, path, **options):
    """Compare the whole status of an experiment that has run, and of its trials, with what Katib's would be."""
    found = [trial.serialize() for trial in queries.list_trials(name)]
    trials = [
        (
            one["metadata"]["name"],
            one["spec"]["parameterAssignments"],
            [(log.metric.name, log.metric.value) for log in queries.get_trial_metrics(one["metadata"]["name"])],
        )
        for one in found
    ]
    status, statuses = expected(path, trials, **options)
    shown = [timeless(one["status"]) for one in found]
    for own, other in zip(shown, statuses, strict=True):
        if (
            other["conditions"][-1]["type"] == "MetricsUnavailable"
        ):  # Katib's words are longer, and name a log of its own
            other["conditions"][-1]["message"] = own["conditions"][-1]["message"]
    assert shown == statuses, (shown, statuses)
    found_status = timeless(queries.get_experiment(name).serialize()["status"])
    assert found_status == status, (found_status, status)
