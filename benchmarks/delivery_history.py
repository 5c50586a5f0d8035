"""A long history: how long its delivery takes, how much memory, and how that grows with the rows.

A process delivers 100,000 rows to an embedded DB manager in a process of its own. Another one is killed in the middle
of the same, and its spool is replayed. Both times the database is read back and compared. Beside it the same rows are
sent by the stub alone, without spool, receipt or deadline.
"""

import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
from figures import Figure, Growth, Size, run
from machine import COMMAND, db_manager, memory_mib

from katib_callbacks import KatibReporter, MetricLog
from katib_callbacks.recording.thinning import readable
from katib_callbacks.wire.client import DBManagerStub

START = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
ROWS = 100_000
ROUNDS = 3
ROWS_A_CALL = 10_000
GROWN_ROWS = (1, 10, 100, 1_000, 10_000, 30_000, 100_000)
THINNED_EPOCHS = (40_000, 80_000, 160_000, 320_000)
SPAWN = multiprocessing.get_context("spawn")


def history(rows: int, metrics: int = 4) -> list[MetricLog]:
    """Return the rows of some metrics."""
    return [
        MetricLog(f"loss{row % metrics}", row / 8, START + timedelta(seconds=row // metrics)) for row in range(rows)
    ]


def deliver(address: str, trial: str, spool: str | None, rows: int, answer: Any = None) -> tuple[float, float, float]:
    """Deliver a history; returns and answers the seconds that passed, those of the processor, and the MiB it took."""
    logs, before_mib, used_s = history(rows), memory_mib(), time.process_time()
    with KatibReporter(address, trial_name=trial, spool_dir=spool) as reporter:
        receipt = reporter.report_logs(logs)
    told = receipt.elapsed_s, time.process_time() - used_s, memory_mib() - before_mib
    if answer is not None:
        answer.put(told)
    return told


def measure(_size: Size) -> Iterator[Figure | Growth]:
    """Deliver, kill and replay, then deliver more and more."""
    rows, answers = ROWS, SPAWN.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, db_manager(Path(folder, "katib.db")) as (_, address):
        spool = f"{folder}/spool"
        whole, raw_s = [], []
        for number in range(ROUNDS):
            child = SPAWN.Process(target=deliver, args=(address, f"whole-{number}", spool, rows, answers))
            child.start()
            whole.append(answers.get())
            child.join()
            compare(address, f"whole-{number}", rows)
            raw_s.append(send(address, f"raw-{number}", rows))
        killed = interrupt(address, spool, rows)
        start_s = time.monotonic()
        replay = [*COMMAND, "replay", spool, "--address", address]
        subprocess.run(replay, check=True, stdout=subprocess.DEVNULL)
        replay_s = time.monotonic() - start_s
        compare(address, killed, rows)
        took_s, _, mib = zip(*whole, strict=True)
        yield Figure(f"report of {rows:,} rows, with a spool", took_s, "s", "stub alone, no spool", raw_s)
        yield Figure(f"report of {rows:,} rows, added memory", mib, "MiB")
        yield Figure(f"replay of {rows:,} rows, killed in the middle", [replay_s], "s")
        grown_ms = {
            count: min(deliver(address, f"grown-{count}-{again}", None, count)[1] for again in range(ROUNDS)) * 1e3
            for count in GROWN_ROWS
        }
        yield Growth("report, CPU of the trial", "rows", "ms", {"ours": grown_ms}, 1)
    logging.getLogger("katib_callbacks").setLevel(logging.ERROR)  # each history that is thinned would be warned of
    thinned_ms = {count: min(thinning_s(count) for _ in range(ROUNDS)) * 1e3 for count in THINNED_EPOCHS}
    yield Growth("thinning of a history of two metrics, CPU", "epochs", "ms", {"ours": thinned_ms}, 1)


def thinning_s(epochs: int) -> float:
    """Return the processor's time of making a history readable."""
    rows = history(2 * epochs, 2)
    pairs = [rows[at : at + 2] for at in range(0, len(rows), 2)]
    start_s = time.process_time()
    assert readable(pairs)
    return time.process_time() - start_s


def interrupt(address: str, spool: str, rows: int) -> str:
    """Kill a delivery in its middle; returns its trial."""
    for number in range(20):
        trial = f"killed-{number}"
        child = SPAWN.Process(target=deliver, args=(address, trial, spool, rows))
        child.start()
        while not read(address, trial) and child.is_alive():
            time.sleep(0.01)
        child.kill()
        child.join()
        if 0 < len(read(address, trial)) < rows:
            return trial
    sys.exit("no delivery was killed in its middle")


def send(address: str, trial: str, rows: int) -> float:
    """Send a history by the stub; returns its seconds."""
    logs = history(rows)
    with grpc.insecure_channel(address) as channel:
        stub, start_s = DBManagerStub(channel), time.monotonic()
        for at in range(0, rows, ROWS_A_CALL):
            stub.report(trial, logs[at : at + ROWS_A_CALL], timeout_s=120)
        return time.monotonic() - start_s


def compare(address: str, trial: str, rows: int) -> None:
    """Compare what is stored with what was reported."""
    values = [float(log.value) for log in read(address, trial)]
    if values != [row / 8 for row in range(rows)]:
        sys.exit(f"{trial}: {len(values):,} rows are stored, not each once and in order")


def read(address: str, trial: str) -> list[Any]:
    """Read a trial's rows back."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return list(DBManagerStub(channel).get(trial, timeout_s=60))


if __name__ == "__main__":
    run(__doc__, measure)
