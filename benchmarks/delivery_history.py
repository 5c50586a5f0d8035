"""A long history: ``delivery_history.py --rows 100000``. How long it takes, and how much memory.

A process delivers the rows to an embedded DB manager in a process of its own. A second one is killed in the middle of
the same, and its spool is replayed. Both times the database is read back and counted.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone

import grpc

from katib_callbacks import KatibReporter, MetricLog
from katib_callbacks.wire.client import DBManagerStub

START = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def main() -> int:
    """Run both and print what they took; exit status 1 if a row is missing or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--deliver", nargs=3, metavar=("ADDRESS", "TRIAL", "SPOOL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.deliver:
        deliver(*arguments.deliver, arguments.rows)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"]
        server = subprocess.Popen([*command, "--db", f"sqlite:///{folder}/katib.db"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split("listening on ")[1].split(",")[0]
            child = [sys.executable, __file__, "--rows", str(arguments.rows), "--deliver", address]
            subprocess.run([*child, "whole", f"{folder}/spool"], check=True)
            is_right = count(address, "whole", arguments.rows)
            is_right &= interrupt([*child, "killed", f"{folder}/spool"], address, arguments.rows)
            replay = [sys.executable, "-m", "katib_callbacks.cli", "replay", f"{folder}/spool", "--address", address]
            start_s = time.monotonic()
            subprocess.run(replay, check=True)
            print(f"replayed in {time.monotonic() - start_s:.1f} s")
            is_right &= count(address, "killed", arguments.rows)
        finally:
            server.terminate()
            server.wait()
    return 0 if is_right else 1


def deliver(address: str, trial_name: str, spool: str, rows: int) -> None:
    """Deliver a history, and print how long it took and how the greatest memory of this process grew."""
    logs = [MetricLog(f"loss{row % 4}", row / 8, START + timedelta(seconds=row // 4)) for row in range(rows)]
    before = peak_mib()
    with KatibReporter(address, trial_name=trial_name, spool_dir=spool) as reporter:
        receipt = reporter.report_logs(logs)
    print(
        f"{receipt.delivered:,} rows in {receipt.attempts} requests and {receipt.elapsed_s:.1f} s; "
        f"memory {before:.0f} MiB with the rows made, {peak_mib():.0f} MiB at most",
        flush=True,
    )


def interrupt(command: list[str], address: str, rows: int) -> bool:
    """Kill a delivery in its middle; return whether it was the middle."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    stored = 0
    while stored < rows / 3 and child.poll() is None:
        time.sleep(0.05)
        stored = len(read(address, "killed"))
    child.kill()
    child.wait()
    stored = len(read(address, "killed"))
    print(f"killed with {stored:,} rows stored")
    return 0 < stored < rows


def count(address: str, trial_name: str, rows: int) -> bool:
    """Compare what is stored with what was reported."""
    values = [float(log.value) for log in read(address, trial_name)]
    is_right = values == [row / 8 for row in range(rows)]
    print(f"{trial_name}: {len(values):,} rows stored, {'each once, in order' if is_right else 'WRONG'}", flush=True)
    return is_right


def read(address: str, trial_name: str) -> list[object]:
    """Read a trial's rows back."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return DBManagerStub(channel).get(trial_name, timeout_s=60)


def peak_mib() -> float:
    """Return the greatest resident set that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
