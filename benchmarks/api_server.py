"""Kubernetes' API over local experiments: a list of trials, and a watch while trials begin and end.

The server's time of the processor, from a process of its own; every event that the watch has to bring is counted.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Growth, Size, run
from machine import cpu_s, experiment, trial_row

from katib_callbacks.local.running import runner
from katib_callbacks.local.state.states import SUCCEEDED, condition
from katib_callbacks.local.state.store import ExperimentStore

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from api_servers import TRIALS, ApiServer

WATCHED_TRIALS = (300, 1_000, 3_000)
"""More than the 200 last events, which keep what they show."""
SHOWN_TRIALS = 1_000
LIST_LIMIT_S = 2.0
AHEAD = 100
"""So many trials end before the watch has to tell of the first: thousands at once would be a stampede."""

ROUNDS = 5


def measure(size: Size) -> Iterator[Figure | Growth]:
    """Watch more and more trials, then list them."""
    watches_ms, lists_ms, passed_s = {}, {}, {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for trials in map(size, WATCHED_TRIALS):
            with ApiServer(Path(folder) / f"home-{trials}") as server:
                watches_ms[trials] = watched_s(server, trials) * 1_000
                passed_s[trials], lists_ms[trials] = lists(server, trials)
    trials = size(SHOWN_TRIALS)
    yield Figure(f"list of {trials:,} trials", passed_s[trials], "s", at_most=LIST_LIMIT_S)
    yield Growth("list, CPU of the API server", "trials", "ms", {"ours": lists_ms}, 1)
    yield Growth("watch of trials that begin and end, CPU of the API server", "trials", "ms", {"ours": watches_ms}, 1)


def watched_s(server: ApiServer, trials: int) -> float:
    """Return the server's time of the processor while trials begin and end, and a client watches."""
    runner.create(server.home, experiment("one", ["true"], trials), folder=server.home)
    with server.request("GET", f"{TRIALS}?watch=1&timeoutSeconds=600") as answer:
        done = threading.Event()
        ended: set[str] = set()

        def read() -> None:
            for line in answer:
                shown = json.loads(line)["object"]
                if any(one["type"] == SUCCEEDED for one in shown["status"]["conditions"]):
                    ended.add(shown["metadata"]["name"])
                if len(ended) == trials:
                    break
            done.set()

        threading.Thread(target=read, daemon=True).start()
        used_s = cpu_s(server.process.pid)
        with ExperimentStore(runner.database(server.home)) as store:
            for number in range(trials):
                row = trial_row("one", number, number / trials, "Running")
                store.add_trial(row)
                over = trial_row("one", number, number / trials)
                conditions = [*row.conditions, condition(SUCCEEDED, "TrialSucceeded", "", time.time())]
                changes = {"state": over.state, "observation": over.observation, "value": over.value}
                store.update_trial(row.name, conditions=conditions, completed_s=time.time(), told=over.told, **changes)
                while number - len(ended) > AHEAD and not done.is_set():
                    time.sleep(0.01)
        if not done.wait(600) or len(ended) < trials:
            sys.exit(f"the watch has told of {len(ended)} ends instead of {trials}")
        return cpu_s(server.process.pid) - used_s


def lists(server: ApiServer, trials: int) -> tuple[list[float], float]:
    """Return the seconds of each of some lists, and the server's milliseconds of the processor for one."""
    passed_s, used_s = [], cpu_s(server.process.pid)
    for _ in range(ROUNDS):
        begin_s = time.perf_counter()
        with server.request("GET", TRIALS) as answer:
            assert len(json.load(answer)["items"]) == trials
        passed_s.append(time.perf_counter() - begin_s)
    return passed_s, (cpu_s(server.process.pid) - used_s) / ROUNDS * 1_000


if __name__ == "__main__":
    run(__doc__, measure)
