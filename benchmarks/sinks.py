"""What a sink after the first costs a training: none, or one whose destination is well, down, hanging or rejecting.

Every kind has one training a round, in turns, in one process: a loop that computes, with a report after each of its
epochs, to an embedded DB manager and to the sink. Each round begins with another kind.
"""

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from figures import Figure, Size, run

from katib_callbacks import KatibReporter
from katib_callbacks.db_manager import DBManager

EPOCHS = 5
EPOCH_S = 0.05
RATIO_LIMIT = 1.1


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
    """Return how many milliseconds a training with its reports takes."""
    start_s = time.perf_counter()
    with KatibReporter(address, trial_name=trial, sinks=sinks) as reporter:
        for epoch in range(EPOCHS):
            end_s = time.thread_time() + EPOCH_S  # work, not waiting: what a busy thread takes away shows
            while time.thread_time() < end_s:
                sum(range(1_000))
            receipt = reporter.report({"loss": 1 / (1 + epoch)})
            assert receipt.delivered == 1
    return (time.perf_counter() - start_s) * 1_000


def measure(size: Size) -> Iterator[Figure]:
    """Train with each kind."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(DBManager(f"sqlite:///{folder}/katib.db", "127.0.0.1:0")).address
        with socket.create_server(("127.0.0.1", 0)) as free:
            down = f"prometheus+http://127.0.0.1:{free.getsockname()[1]}"
        (folder / "file").touch()
        kinds = {
            "alone": [],
            "alone, again": [],
            "beside `file`": [f"file://{folder}/rows.jsonl"],
            "beside `file` that cannot be written": [f"file://{folder}/file/rows.jsonl"],
            "beside `prometheus`": [stack.enter_context(gateway(200))],
            "beside `prometheus`, down": [down],
            "beside `prometheus`, rejecting": [stack.enter_context(gateway(400))],
            "beside `prometheus`, hanging": [stack.enter_context(gateway(None))],
        }
        times_ms: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(-1, size(8)):  # one to warm up
            turns = list(enumerate(kinds.items()))
            first = number % len(turns)
            for place, (kind, sinks) in turns[first:] + turns[:first]:
                time_ms = train(address, ["katib", *sinks], f"trial-{number}-{place}")
                if number >= 0:
                    times_ms[kind].append(time_ms)
    alone_ms = times_ms.pop("alone")
    for kind, kind_ms in times_ms.items():
        what = f"training with five reports, `katib` {kind}"
        yield Figure(what, kind_ms, "ms", "`katib` alone", alone_ms, ratio_at_most=RATIO_LIMIT)


if __name__ == "__main__":
    run(__doc__, measure)
