"""Many trials that end in the same second: ``delivery_burst.py --trials 500 --processes 50``.

Each process waits for one moment and then reports all of its trials at once, each through a reporter of its own, to one
embedded DB manager. What arrived is read back and counted; the latencies are those of ``report``.
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from katib_callbacks import KatibReporter
from katib_callbacks.wire.client import DBManagerStub

METRICS = {"loss": 0.125, "accuracy": 0.9375}


def main() -> int:
    """Run the burst and print a table; exit status 1 if a row is missing or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--spool", action="store_true", help="with a spool directory")
    arguments = parser.parse_args()
    names = [f"trial-{number}" for number in range(arguments.trials)]
    shares = [names[start :: arguments.processes] for start in range(arguments.processes)]
    with tempfile.TemporaryDirectory() as folder:
        server, address = _start_server(Path(folder))
        try:
            spool = str(Path(folder, "spool")) if arguments.spool else None
            context = multiprocessing.get_context("spawn")
            ready, go = context.Semaphore(0), context.Event()
            answers = context.SimpleQueue()
            processes = [
                context.Process(target=_report, args=(address, share, spool, ready, go, answers)) for share in shares
            ]
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
            stored = _count_rows(address, names)
        finally:
            server.terminate()
            server.wait()
    latencies = sorted(latency for latency, _ in results)
    wrong = {name: rows for name, rows in stored.items() if rows != len(METRICS)}
    print(f"{len(names)} trials of {len(processes)} processes on {os.cpu_count()} cores, {took_s:.2f} s in all")
    print(f"rows stored     {stored.total()} of {len(names) * len(METRICS)}, wrong trials: {wrong or 'none'}")
    print(f"requests        {sum(attempts for _, attempts in results)} for {len(results)} reports")
    for label, at in (("median", 0.5), ("95th percentile", 0.95), ("slowest", 1.0)):
        print(f"{label:<16}{latencies[min(int(at * len(latencies)), len(latencies) - 1)]:.3f} s")
    print(f"{'mean':<16}{statistics.mean(latencies):.3f} s")
    return 1 if wrong else 0


def _start_server(folder: Path) -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen([*command, "--db", f"sqlite:///{folder / 'katib.db'}"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    return server, line.split("listening on ")[1].split(",")[0]


def _report(address, names, spool, ready, go, answers) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Run in each process: one thread a trial, all of which report when ``go`` is set."""
    logging.getLogger("katib_callbacks").setLevel(logging.ERROR)

    def report(name: str) -> tuple[float, int]:
        reporter = KatibReporter(address, trial_name=name, spool_dir=spool)
        go.wait()
        start_s = time.monotonic()
        receipt = reporter.report(METRICS)
        return time.monotonic() - start_s, receipt.attempts

    with ThreadPoolExecutor(len(names)) as pool:
        results = pool.map(report, names)
        ready.release()
        answers.put(list(results))


def _count_rows(address: str, names: list[str]) -> "Counter[str]":
    with grpc.insecure_channel(address) as channel:
        stub = DBManagerStub(channel)
        return Counter({name: len(stub.get(name, timeout_s=60)) for name in names})


if __name__ == "__main__":
    sys.exit(main())
