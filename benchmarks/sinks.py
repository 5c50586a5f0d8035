"""What a sink after the first costs a training: none, or one whose destination is well, down, hanging or rejecting.

::

    python benchmarks/sinks.py [--runs 12]

Every kind has one training a round, in turns, in one process: a loop that computes, with a report after each of its
epochs, to an embedded DB manager and to the sink. Each round begins with another kind. Printed are medians over the
rounds: the time of a training with its reports, its difference from the one of ``katib`` alone in the same round, and
that as a share. ``--check`` exits with 1 if a difference is over 20 ms a training and over 10 %.
"""

import argparse
import contextlib
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from katib_callbacks import KatibReporter
from katib_callbacks.db_manager import DBManager

EPOCHS = 5
EPOCH_S = 0.05
LIMIT_S = 0.02
LIMIT_SHARE = 0.1


@contextlib.contextmanager
def gateway(status: int | None) -> Iterator[str]:
    """Serve a Pushgateway that answers with a status, or never."""
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if status is None:
                is_over.wait()
                return
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"prometheus+http://127.0.0.1:{server.server_address[1]}"
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()


def train(address: str, sinks: list[str], trial: str) -> float:
    """Return how long a training with its reports takes."""
    start_s = time.perf_counter()
    with KatibReporter(address, trial_name=trial, sinks=sinks) as reporter:
        for epoch in range(EPOCHS):
            end_s = time.thread_time() + EPOCH_S  # work, not waiting: what a busy thread takes away shows
            while time.thread_time() < end_s:
                sum(range(1_000))
            receipt = reporter.report({"loss": 1 / (1 + epoch)})
            assert receipt.delivered == 1
    return time.perf_counter() - start_s


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if find_spec("prometheus_client") is None:
        parser.error("prometheus-client is needed: pip install prometheus-client")

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(DBManager(f"sqlite:///{folder}/katib.db", "127.0.0.1:0")).address
        with socket.create_server(("127.0.0.1", 0)) as free:
            down = f"prometheus+http://127.0.0.1:{free.getsockname()[1]}"
        (folder / "file").touch()
        kinds = {
            "katib alone": [],
            "katib alone, again": [],
            "file": [f"file://{folder}/rows.jsonl"],
            "file, cannot be written": [f"file://{folder}/file/rows.jsonl"],
            "prometheus": [stack.enter_context(gateway(200))],
            "prometheus, down": [down],
            "prometheus, rejecting": [stack.enter_context(gateway(400))],
            "prometheus, hanging": [stack.enter_context(gateway(None))],
        }
        times_s: dict[str, list[float]] = {kind: [] for kind in kinds}
        for run in range(-1, arguments.runs):  # one to warm up
            turns = list(enumerate(kinds.items()))
            first = run % len(turns)
            for number, (kind, sinks) in turns[first:] + turns[:first]:
                time_s = train(address, ["katib", *sinks], f"trial-{run}-{number}")
                if run >= 0:
                    times_s[kind].append(time_s)

    is_over = False
    alone_s = times_s["katib alone"]
    print(f"{arguments.runs} rounds; {EPOCHS} epochs of {EPOCH_S * 1e3:.0f} ms, a report after each\n")
    print(f"{'sink beside katib':<26}{'training, ms':>14}{'difference, ms':>16}{'share':>9}")
    for kind, kind_s in times_s.items():
        difference_s = statistics.median(one - other for one, other in zip(kind_s, alone_s, strict=True))
        share = difference_s / statistics.median(alone_s)
        is_over |= difference_s > LIMIT_S and share > LIMIT_SHARE
        print(f"{kind:<26}{statistics.median(kind_s) * 1e3:>14.1f}{difference_s * 1e3:>16.2f}{share:>9.1%}")
    return int(arguments.check and is_over)


if __name__ == "__main__":
    sys.exit(main())
