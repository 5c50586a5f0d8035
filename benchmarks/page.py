"""What an open page costs the experiment that it shows: of a thousand trials, four of which report all the time.

A writer commits rows as the trials' DB manager does, first alone, then beside a page that asks each second. Told are a
commit's time, the share of the machine that the page's server takes, and how long the page's first answer takes.
``--check`` exits with 1 if a limit is missed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state.states import RUNNING, SUCCEEDED, condition
from katib_callbacks.local.state.store import ExperimentStore, TrialRow
from katib_callbacks.metrics import StoredMetricLog

TRIALS = 1000
RUNNING_TRIALS = 4
SECONDS = 20.0
INTERVAL_S = 0.1
"""Between two commits."""

SHARE_LIMIT = 0.01
ANSWER_LIMIT_S = 2.0


def experiment() -> dict[str, object]:
    """Return an experiment of one parameter, whose trials are never started."""
    container = {"name": "main", "command": ["train", "--x=${trialParameters.x}"]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [container]}}}}
    return {
        "metadata": {"name": "shown"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "maxTrialCount": TRIALS,
            "metricsCollectorSpec": {"collector": {"kind": "Push"}},
            "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": job,
            },
        },
    }


def add_trials(store: ExperimentStore) -> list[str]:
    """Add trials that are over, and at the end some that run; returns the names of those."""
    running = []
    for number in range(TRIALS):
        is_running = number >= TRIALS - RUNNING_TRIALS
        state = RUNNING if is_running else SUCCEEDED
        name = f"shown-{number}"
        store.add_trial(
            TrialRow(
                name=name,
                experiment="shown",
                number=number,
                assignments={"x": repr(number / TRIALS)},
                point={},
                asked=number,
                told=None if is_running else number,
                value=None if is_running else 1 / (number + 1),
                state=state,
                attempts=["mark"],
                observation=None if is_running else [{"name": "loss", "min": "0.1", "max": "1", "latest": "0.1"}],
                conditions=[condition(state, f"Trial{state}", "", time.time())],
                created_s=time.time(),
                started_s=time.time(),
                completed_s=None if is_running else time.time(),
            )
        )
        running.extend([name] * is_running)
    return running


def commits(store: ExperimentStore, trials: list[str]) -> list[float]:
    """Commit a row again and again; returns how many milliseconds each commit took."""
    taken = []
    end_s = time.monotonic() + SECONDS
    while time.monotonic() < end_s:
        row = StoredMetricLog("loss", repr(1 / (len(taken) + 1)), datetime.now(timezone.utc))
        begin_s = time.perf_counter()
        store.add_rows(trials[len(taken) % len(trials)], [row])
        taken.append((time.perf_counter() - begin_s) * 1000)
        time.sleep(INTERVAL_S)
    return taken


def cpu_s(pid: int) -> float:
    """Return how much processor time a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Page(threading.Thread):
    """Asks as an open page does."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._base, _, self._token = url.partition("?token=")
        self._closing = threading.Event()
        self.first_s = 0.0

    def run(self) -> None:
        """Ask each second what has changed."""
        opener = build_opener(ProxyHandler({}))
        query = ""
        while True:
            request = Request(  # noqa: S310  http
                f"{self._base}api/experiments/shown{query}", headers={"Authorization": f"Bearer {self._token}"}
            )
            begin_s = time.perf_counter()
            answer = json.load(opener.open(request))
            self.first_s = self.first_s or time.perf_counter() - begin_s
            query = f"?generation={answer['generation']}&revision={answer['revision']}"
            if self._closing.wait(1.0):
                return

    def close(self) -> None:
        """Close the page."""
        self._closing.set()
        self.join()


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        runner.create(home, experiment(), folder=Path(folder))
        with ExperimentStore(database(home)) as store:
            running = add_trials(store)
            alone = commits(store, running)
            command = [sys.executable, "-m", "katib_callbacks.cli", "ui", "--home", str(home)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    assert server.stdout is not None
                    page = Page(server.stdout.readline().split()[1])
                    page.start()
                    time.sleep(2.0)  # for the first answer, of everything
                    begin_s, used_s = time.monotonic(), cpu_s(server.pid)
                    beside = commits(store, running)
                    share = (cpu_s(server.pid) - used_s) / (time.monotonic() - begin_s) / (os.cpu_count() or 1)
                    page.close()
                finally:
                    server.terminate()
    print(f"a commit: {statistics.median(alone):.2f} ms alone, {statistics.median(beside):.2f} ms beside an open page")
    print(f"the page's server: {share:.2%} of the machine (limit {SHARE_LIMIT:.0%})")
    print(f"its first answer, of {TRIALS:,} trials: {page.first_s:.2f} s (limit {ANSWER_LIMIT_S:g} s)")
    if arguments.check and (share > SHARE_LIMIT or page.first_s > ANSWER_LIMIT_S):
        sys.exit(1)


if __name__ == "__main__":
    main()
