"""What it costs to see an experiment of many trials: an open page beside writers, the page's first answer, an export.

A writer commits rows as the trials' DB manager does, first alone, then beside a page that asks each second.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from figures import Figure, Growth, Size, run
from machine import COMMAND, cpu_s, experiment, started, trial_row

from katib_callbacks.local.running import runner
from katib_callbacks.local.running.runner import database
from katib_callbacks.local.state.records import experiment_record
from katib_callbacks.local.state.states import RUNNING, SUCCEEDED
from katib_callbacks.local.state.store import ExperimentStore
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.pictures.frames import export

TRIALS = 1_000
RUNNING_TRIALS = 4
GROWN_TRIALS = (10, 100, 300, 1_000, 3_000)
SECONDS = 10
INTERVAL_S = 0.1
"""Between two commits."""

PERCENT_LIMIT = 1.0
ANSWER_LIMIT_S = 2.0


class Page(threading.Thread):
    """Asks as an open page does."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._base, _, self._token = url.partition("?token=")
        self._opener = build_opener(ProxyHandler({}))
        self._closing = threading.Event()

    def ask(self, name: str, query: str = "") -> dict[str, object]:
        """Ask for an experiment, or for what has changed."""
        headers = {"Authorization": f"Bearer {self._token}"}
        request = Request(f"{self._base}api/experiments/{name}{query}", headers=headers)  # noqa: S310  http
        answer: dict[str, object] = json.load(self._opener.open(request))
        return answer

    def run(self) -> None:
        """Ask each second what has changed."""
        query = ""
        while True:
            answer = self.ask("shown", query)
            query = f"?generation={answer['generation']}&revision={answer['revision']}"
            if self._closing.wait(1.0):
                return

    def close(self) -> None:
        """Close the page."""
        self._closing.set()
        self.join()


def add(store: ExperimentStore, home: Path, name: str, trials: int) -> list[str]:
    """Add an experiment whose last trials run; returns the names of those."""
    runner.create(home, experiment(name, ["train", "--x=${trialParameters.x}"], trials), folder=home.parent)
    rows = [
        trial_row(name, number, number / trials, SUCCEEDED if number < trials - RUNNING_TRIALS else RUNNING)
        for number in range(trials)
    ]
    for row in rows:
        store.add_trial(row)
    return [row.name for row in rows if row.state == RUNNING]


def commits(store: ExperimentStore, trials: list[str], seconds: float) -> list[float]:
    """Commit a row again and again; returns how many milliseconds each commit took."""
    taken: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        row = StoredMetricLog("loss", repr(1 / (len(taken) + 1)), datetime.now(timezone.utc))
        begin_s = time.perf_counter()
        store.add_rows(trials[len(taken) % len(trials)], [row])
        taken.append((time.perf_counter() - begin_s) * 1_000)
        time.sleep(INTERVAL_S)
    return taken


def measure(size: Size) -> Iterator[Figure | Growth]:
    """Write alone and beside a page, then ask for experiments of more and more trials."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        with ExperimentStore(database(home)) as store:
            running = add(store, home, "shown", TRIALS)
            alone = commits(store, running, size(SECONDS))
            with started([*COMMAND, "ui", "--home", str(home)], r"(http\S+)") as (server, url):
                page = Page(url)
                first_s = passed_s(page, "shown")
                page.start()
                time.sleep(2.0)  # for the first answer, of everything
                begin_s, used_s = time.monotonic(), cpu_s(server.pid)
                beside = commits(store, running, size(SECONDS))
                used_s, took_s = cpu_s(server.pid) - used_s, time.monotonic() - begin_s
                page.close()
                yield Figure("commit beside an open page", beside, "ms", "no page", alone)
                percent = used_s / took_s / (os.cpu_count() or 1) * 100
                yield Figure("an open page's server, of the machine", [percent], "%", at_most=PERCENT_LIMIT)
                what = f"the page's first answer, {TRIALS:,} trials"
                yield Figure(what, [first_s], "s", at_most=ANSWER_LIMIT_S)
                answers_ms: dict[int, float] = {}
                exports_ms: dict[int, float] = {}
                for trials in GROWN_TRIALS:
                    add(store, home, f"of-{trials}", trials)
                    answers_ms[trials] = min(passed_s(page, f"of-{trials}") for _ in range(3)) * 1_000
                    exports_ms[trials] = min(export_s(store, home, f"of-{trials}") for _ in range(3)) * 1_000
        yield Growth("the page's answer of everything", "trials", "ms", {"ours": answers_ms}, 1)
        yield Growth("`experiment export` to CSV, CPU", "trials", "ms", {"ours": exports_ms}, 1)


def passed_s(page: Page, name: str) -> float:
    """Return how long an answer takes."""
    begin_s = time.perf_counter()
    page.ask(name)
    return time.perf_counter() - begin_s


def export_s(store: ExperimentStore, home: Path, name: str) -> float:
    """Return the processor's time of an export."""
    begin_s = time.process_time()
    record = experiment_record(store, home, name, epochs=False)
    assert export(record, home / "trials.csv", rows=False) == len(record.trials)
    return time.process_time() - begin_s


if __name__ == "__main__":
    run(__doc__, measure)
