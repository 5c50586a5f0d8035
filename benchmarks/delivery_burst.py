"""Many trials that end in the same second: 500 of them, in 50 processes.

Each process waits for one moment and then reports all of its trials at once, each through a reporter of its own, to one
embedded DB manager. What arrived is read back and counted; the latencies are those of ``report``.
"""

import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from figures import Figure, Size, run
from machine import db_manager

from katib_callbacks import KatibReporter
from katib_callbacks.wire.client import DBManagerStub

TRIALS, PROCESSES = 500, 50
METRICS = {"loss": 0.125, "accuracy": 0.9375}


def report_all(address, names, ready, go, answers) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Run in each process: one thread a trial, all of which report when ``go`` is set."""
    logging.getLogger("katib_callbacks").setLevel(logging.ERROR)

    def report(name: str) -> tuple[float, int]:
        reporter = KatibReporter(address, trial_name=name)
        go.wait()
        start_s = time.monotonic()
        receipt = reporter.report(METRICS)
        return time.monotonic() - start_s, receipt.attempts

    with ThreadPoolExecutor(len(names)) as pool:
        results = pool.map(report, names)
        ready.release()
        answers.put(list(results))


def measure(size: Size) -> Iterator[Figure]:
    """Run the burst."""
    names = [f"trial-{number}" for number in range(size(TRIALS))]
    shares = [names[start :: size(PROCESSES)] for start in range(size(PROCESSES))]
    context = multiprocessing.get_context("spawn")
    ready, go, answers = context.Semaphore(0), context.Event(), context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, db_manager(Path(folder, "katib.db")) as (_, address):
        processes = [context.Process(target=report_all, args=(address, share, ready, go, answers)) for share in shares]
        for process in processes:
            process.start()
        for _ in processes:
            ready.acquire()
        start_s = time.monotonic()
        go.set()
        results = [result for _ in processes for result in answers.get()]
        took_s = time.monotonic() - start_s
        for process in processes:
            process.join()
        with grpc.insecure_channel(address) as channel:
            stub = DBManagerStub(channel)
            wrong = [name for name in names if len(stub.get(name, timeout_s=60)) != len(METRICS)]
    if wrong:
        sys.exit(f"these trials have too few rows or too many: {wrong}")
    what = f"{len(names)} trials that report at once from {len(processes)} processes"
    latencies_s, attempts = zip(*results, strict=True)
    yield Figure(f"{what}, all", [took_s], "s")
    yield Figure(f"{what}, each", latencies_s, "s")
    yield Figure(f"{what}, requests of each", [statistics.fmean(attempts)], "")


if __name__ == "__main__":
    run(__doc__, measure)
