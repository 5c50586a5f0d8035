"""Deliver through failures for a while, and count what was lost or doubled: ``chaos.py --seconds 60 --seed 1``.

Schedule after schedule, reporters in this process and trials in processes of their own report through a proxy to a DB
manager in its own process, while a lot decides what breaks next. Then everything heals, the spool is replayed, and the
database is compared with what was accepted. A row is accepted when its report returned, failed with its file in the
spool, or, for a trial that was killed, when its file was complete. The exit status is 1 if any row is lost or doubled.
"""

import argparse
import logging
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from partners import DBManagerProcess, Proxy, Trial, Trials, stub

from katib_callbacks import DeliveryError, KatibReporter, MetricLog

REPORTERS = 3
TRIALS = 2
SCHEDULE_S = 6.0
LONGEST_FREEZE_S = 4.0
LONGEST_REPORT_ROWS = 2_500
TRIAL_ROWS = 1_000_000


class Tally:
    """What has happened so far."""

    def __init__(self) -> None:
        self.schedules = 0
        self.faults = Counter[str]()
        self.accepted = Counter[str]()
        self.failed_reports = 0
        self.verified_reports = 0
        self.replayed_files = 0
        self.stored = self.doubled = self.lost = 0
        self.errors: list[str] = []

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        return "\n".join(
            [
                f"schedules tried       {self.schedules:>9,}",
                f"faults injected       {self.faults.total():>9,}  ({faults})",
                f"reports read back     {self.verified_reports:>9,}",
                f"reports that failed   {self.failed_reports:>9,}  (their rows were replayed)",
                f"files replayed        {self.replayed_files:>9,}",
                f"rows accepted         {self.accepted.total():>9,}",
                f"rows delivered        {self.stored:>9,}",
                f"rows duplicated       {self.doubled:>9,}",
                f"rows lost             {self.lost:>9,}",
                *(f"unexpected: {error}" for error in self.errors),
            ]
        )


class Schedule:
    """One round: everything starts well, breaks for some seconds, heals, and is counted."""

    def __init__(self, folder: Path, lot: random.Random, tally: Tally) -> None:
        self._folder = folder
        self._spool = folder / "spool"
        self._lot = lot
        self._tally = tally
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._accepted = set[str]()
        self._started = 0

    def run(self) -> None:
        with ExitStack() as stack:
            self._server = stack.enter_context(DBManagerProcess(self._folder / "katib.db"))
            self._proxy = stack.enter_context(Proxy(self._server.address))
            self._processes = stack.enter_context(Trials(self._proxy.address, "trial", self._spool, self._folder))
            self._trials = [self._start_trial() for _ in range(TRIALS)]
            seeds = [self._lot.random() for _ in range(REPORTERS)]
            workers = [
                threading.Thread(target=self._watch, args=(self._keep_reporting, index, random.Random(seed)))  # noqa: S311  repeatable
                for index, seed in enumerate(seeds)
            ]
            for worker in workers:
                worker.start()
            end_s = time.monotonic() + SCHEDULE_S
            try:
                while time.monotonic() < end_s:
                    time.sleep(self._lot.uniform(0, 0.1))
                    self._break_something()
            finally:
                self._is_over.set()
                self._heal()
                for worker in workers:
                    worker.join()
                for index in range(TRIALS):
                    self._end_trial(index, signal.SIGKILL)
            self._replay()
            self._count()

    def _watch(self, work, *arguments) -> None:
        try:
            work(*arguments)
        except Exception:  # noqa: BLE001  counted as a failure
            self._tally.errors.append(traceback.format_exc())

    # -- who reports -------------------------------------------------------------------------------------------------

    def _keep_reporting(self, index: int, lot: random.Random) -> None:
        number = 0
        while not self._is_over.is_set():
            count = lot.choice([1, 2, 5, 1_000, lot.randint(1, LONGEST_REPORT_ROWS)])
            names = [f"r{index}-{number + offset}" for offset in range(count)]
            number += count
            now = datetime.now(timezone.utc)
            with KatibReporter(
                self._proxy.address,
                trial_name="trial",
                timeout_s=lot.choice([1, 3, 10, 30]),
                spool_dir=self._spool,
                verify=lot.choice(["ambiguous", "ambiguous", "always"]),
            ) as reporter:
                try:
                    receipt = reporter.report_logs([MetricLog(name, 1, now) for name in names])
                    self._tally.verified_reports += receipt.verified
                except DeliveryError as error:
                    self._tally.failed_reports += 1
                    if str(self._spool) not in str(error):
                        raise
            with self._lock:
                self._accepted.update(names)

    def _start_trial(self) -> Trial:
        self._started += 1
        return self._processes.start(TRIAL_ROWS * self._started)

    def _end_trial(self, index: int, signal_number: int) -> None:
        accepted, delivered = self._trials[index].end(signal_number)
        with self._lock:
            self._accepted |= {f"number {number}" for number in accepted | delivered}

    # -- what breaks -------------------------------------------------------------------------------------------------

    def _break_something(self) -> None:
        kind = self._lot.choice(
            [
                "deaths of the DB manager",
                "freezes of the DB manager",
                "deaths of a trial",
                "deaths of a trial",
                *["cut lines"] * 3,
                "cut requests",
                "swallowed replies",
                "refused lines",
                "slow lines",
                "late lines",
            ]
        )
        self._tally.faults[kind] += 1
        lot, proxy = self._lot, self._proxy
        if kind == "deaths of the DB manager":
            self._server.kill()
            time.sleep(lot.uniform(0, 1.5))
            self._server.start()
        elif kind == "freezes of the DB manager":
            self._server.freeze(lot.uniform(0, LONGEST_FREEZE_S))
        elif kind == "deaths of a trial":
            index = lot.randrange(TRIALS)
            self._end_trial(index, lot.choice([signal.SIGKILL, signal.SIGTERM]))
            self._trials[index] = self._start_trial()
        elif kind == "cut lines":
            proxy.cut()
        else:
            if kind == "cut requests":
                proxy.cut_after_request_bytes = lot.randint(1, 50_000)
            elif kind == "swallowed replies":
                proxy.is_swallowing_replies = True
            elif kind == "refused lines":
                proxy.is_refusing = True
            elif kind == "slow lines":
                proxy.bytes_per_s = lot.randint(5_000, 500_000)
            else:
                proxy.delay_s = lot.uniform(0, 0.2)
            time.sleep(lot.uniform(0, 1.5))
            proxy.heal()
            if lot.random() < 0.5:
                proxy.cut()

    def _heal(self) -> None:
        self._proxy.heal()
        if self._server.process is None:
            self._server.start()

    # -- what has become of the rows ---------------------------------------------------------------------------------

    def _replay(self) -> None:
        self._tally.replayed_files += len(list(self._spool.glob("*.jsonl")))
        done = subprocess.run(
            [sys.executable, "-m", "katib_callbacks.cli", "replay", self._spool, "--address", self._server.address],
            capture_output=True,
            text=True,
            check=False,
        )
        left = list(self._spool.glob("*.jsonl"))
        if left or done.stderr:
            self._tally.errors.append(f"replay left {left}: {done.stdout}{done.stderr}")

    def _count(self) -> None:
        with stub(self._server.address) as calls:
            logs = calls.get("trial", timeout_s=120)
        stored = Counter(log.name if log.name.startswith("r") else f"number {log.value}" for log in logs)
        self._tally.schedules += 1
        self._tally.accepted["rows"] += len(self._accepted)
        self._tally.stored += len(stored)
        self._tally.doubled += stored.total() - len(stored)
        self._tally.lost += len(self._accepted - stored.keys())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("katib_callbacks").setLevel(logging.ERROR)
    lot = random.Random(arguments.seed)  # noqa: S311  repeatable
    tally = Tally()
    end_s = time.monotonic() + arguments.seconds
    while time.monotonic() < end_s:
        with tempfile.TemporaryDirectory() as folder:
            Schedule(Path(folder), random.Random(lot.random()), tally).run()  # noqa: S311  repeatable
        if tally.doubled or tally.lost or tally.errors:
            print(f"schedule {tally.schedules} of seed {arguments.seed} failed", flush=True)  # noqa: T201  a script
    print(f"seed                  {arguments.seed:>9}\n{tally}")  # noqa: T201  a script
    return 1 if tally.doubled or tally.lost or tally.errors else 0


if __name__ == "__main__":
    sys.exit(main())
