"""Write so many trials of a stored experiment, as its runner does: each begins, and ends."""

import sys
import time
from dataclasses import replace
from pathlib import Path

from katib_callbacks.local.running import runner
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import ExperimentStore, TrialRow

AT_ONCE = 10


def main():
    """Go on from the trials that there are to the count that is asked for."""
    home, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with ExperimentStore(runner.database(home)) as store:
        begun = len(store.trials(name))
        running = []
        for number in range(begun, count):
            running.append(begin(store, name, number))
            if len(running) == AT_ONCE:
                end(store, running.pop(0))
        for trial in running:
            end(store, trial)


def begin(store, name, number):
    """Store a trial that runs."""
    conditions = [states.condition(states.CREATED, "TrialCreated", "Trial is created", time.time())]
    trial = TrialRow(
        name=f"{name}-{number:04d}",
        experiment=name,
        number=number,
        assignments={"x": str(number)},
        point={"x": 0.5},
        asked=2 * number,
        told=None,
        value=None,
        state=states.RUNNING,
        attempts=["mark"],
        observation=None,
        conditions=states.with_condition(conditions, states.RUNNING, "TrialRunning", "Trial is running"),
        created_s=time.time(),
        started_s=time.time(),
        completed_s=None,
    )
    store.add_trial(trial)
    return trial


def end(store, trial):
    """Store the end of a trial."""
    ended = replace(trial, state=states.SUCCEEDED)
    observation = [{"name": "loss", "min": "1", "max": "1", "latest": "1"}]
    conditions = states.with_condition(trial.conditions, ended.state, "TrialSucceeded", "Trial has succeeded")
    changes = {"state": ended.state, "value": float(trial.number), "observation": observation}
    store.update_trial(trial.name, conditions=conditions, completed_s=time.time(), told=2 * trial.number + 1, **changes)


if __name__ == "__main__":
    main()
