"""Partners of deliveries: a DB manager that follows a script, a proxy with a bad line, a process to kill."""

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import grpc

from katib_callbacks.metrics import parse_timestamp
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks.katib.endpoint import CHANNEL_OPTIONS
from katib_callbacks.wire import messages
from katib_callbacks.wire.client import DBManagerStub

sys.path.append(str(Path(__file__).parents[1]))
from beside import held_port
from servicers import DBManagerServicer

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


class FastClock:
    """A runtime whose pauses take no time: its clock runs on by each of them, and by the time that really passes."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(environ or {})
        self._lock = threading.Lock()
        self._skipped_s = 0.0
        self.pauses_s: list[float] = []
        self.runtime = Runtime(
            environ=lambda: self._environ, monotonic=self.now_s, wait=self._wait, uniform=lambda low, high: high
        )

    def now_s(self) -> float:
        return time.monotonic() + self._skipped_s

    def _wait(self, event: threading.Event, timeout_s: float) -> bool:
        with self._lock:
            self._skipped_s += timeout_s
            self.pauses_s.append(timeout_s)
        return event.is_set()


class Fault:
    """What a scripted DB manager does to one call.

    Args:
        status: Fail with it; None to answer.
        text: Its details.
        is_stored: Whether a report's rows are stored (a deletion carried out) all the same.
        stored_after_s: By the clock, so much later.
        hang_s: Really take so long, before anything else.
    """

    def __init__(
        self,
        status: str | None = None,
        text: str = "",
        *,
        is_stored: bool = False,
        stored_after_s: float = 0.0,
        hang_s: float = 0.0,
    ) -> None:
        self.status = status
        self.text = text
        self.is_stored = is_stored
        self.stored_after_s = stored_after_s
        self.hang_s = hang_s

    def __repr__(self) -> str:
        return f"Fault({', '.join(f'{name}={value!r}' for name, value in vars(self).items() if value)})"


LOST_REPLY = Fault("UNAVAILABLE", "Socket closed", is_stored=True)
LOST_REQUEST = Fault("UNAVAILABLE", "Socket closed")
TRUNCATED = Fault(is_stored=False)
"""For a read: an answer without rows."""


class ScriptedDBManager(DBManagerServicer):
    """A real gRPC server that takes each call's fault from a list, and serves well once the list is empty."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic, credentials: object = None) -> None:
        self.rows: list[tuple[str, str, str, str]] = []
        self.report_faults: list[Fault] = []
        self.get_faults: list[Fault] = []
        self.delete_faults: list[Fault] = []
        self.calls: list[str] = []
        self.batch_sizes: list[int] = []
        self.questions: list[tuple[str, str, str]] = []  # the name and the times of each read
        self.authorizations: list[str | None] = []
        self.print_time_stamp: Callable[[str], str] = str
        self.on_report: Callable[[], object] = lambda: None
        self._late: list[tuple[float, Callable[[], None]]] = []
        self._now_s = now_s
        self._lock = threading.Lock()
        self._is_closing = threading.Event()
        self._workers = ThreadPoolExecutor(16)
        self._server = grpc.server(self._workers, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self.generic_handler(),))
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing.set()
        self._server.stop(0).wait()
        self._workers.shutdown()

    def values(self, trial_name: str = "trial") -> list[tuple[str, str]]:
        """Return names and values, in the order of time."""
        self._carry_out_late_ones()
        rows = sorted(self.rows, key=lambda row: parse_timestamp(row[3]))
        return [(name, value) for trial, name, value, _ in rows if trial == trial_name]

    def ReportObservationLog(self, request, context):  # noqa: N802  Katib's name
        rows = [
            (request.trial_name, log.metric.name, log.metric.value, log.time_stamp)
            for log in request.observation_log.metric_logs
        ]
        self.batch_sizes.append(len(rows))
        self.on_report()
        self._follow("report", self.report_faults, context, lambda: self.rows.extend(rows))
        return messages.ReportObservationLogReply()

    def GetObservationLog(self, request, context):  # noqa: N802  Katib's name
        self._carry_out_late_ones()
        self.questions.append((request.metric_name, request.start_time, request.end_time))
        found = []

        def read():
            start, end = (parse_timestamp(text) if text else None for text in (request.start_time, request.end_time))
            found.extend(
                row
                for row in self.rows
                if row[0] == request.trial_name
                and request.metric_name in {"", row[1]}
                and (start is None or start <= parse_timestamp(row[3]) <= end)
            )
            found.sort(key=lambda row: parse_timestamp(row[3]))

        self._follow("get", self.get_faults, context, read)
        logs = [
            messages.MetricLog(
                time_stamp=self.print_time_stamp(time_stamp), metric=messages.Metric(name=name, value=value)
            )
            for _, name, value, time_stamp in found
        ]
        return messages.GetObservationLogReply(observation_log=messages.ObservationLog(metric_logs=logs))

    def DeleteObservationLog(self, request, context):  # noqa: N802  Katib's name
        def delete():
            self.rows[:] = [row for row in self.rows if row[0] != request.trial_name]

        self._follow("delete", self.delete_faults, context, delete)
        return messages.DeleteObservationLogReply()

    def _follow(self, kind, faults, context, effect) -> None:
        with self._lock:
            self.calls.append(kind)
            self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
            fault = faults.pop(0) if faults else None
        if fault is None:
            effect()
            return
        self._is_closing.wait(fault.hang_s)
        if fault.stored_after_s:
            self._late.append((self._now_s() + fault.stored_after_s, effect))
        elif fault.is_stored:
            effect()
        if fault.status is not None:
            context.abort(grpc.StatusCode[fault.status], fault.text)

    def _carry_out_late_ones(self) -> None:
        with self._lock:
            due = [late for late in self._late if late[0] <= self._now_s()]
            self._late = [late for late in self._late if late not in due]
        for _, effect in due:
            effect()

    def carry_out_everything(self) -> None:
        """Let whatever is late happen now."""
        late, self._late = self._late, []
        for _, effect in late:
            effect()


class Proxy:
    """A TCP line to a server, which can be cut, stalled, slowed, and made to swallow what comes back."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._lines: set[socket.socket] = set()
        self._is_closed = False
        self.is_refusing = False
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.is_swallowing_replies = False
        self.cut_after_request_bytes: int | None = None
        self.faults = Counter[str]()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(60)

    def heal(self) -> None:
        self.is_refusing = self.is_swallowing_replies = False
        self.delay_s, self.bytes_per_s, self.cut_after_request_bytes = 0.0, 0, None

    def cut(self) -> int:
        """Reset every connection; return how many there were."""
        with self._lock:
            lines, self._lines = self._lines, set()
        for line in lines:
            _reset(line)
        return len(lines)

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self._lines |= {client, server}
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        passed = 0
        try:
            while data := source.recv(4096):
                if self.delay_s:
                    time.sleep(self.delay_s)
                if self.bytes_per_s:
                    time.sleep(len(data) / self.bytes_per_s)
                if not is_request and self.is_swallowing_replies and passed:
                    continue  # what comes first are HTTP/2's settings, without which no request leaves
                sink.sendall(data)
                passed += len(data)
                limit = self.cut_after_request_bytes
                if is_request and limit is not None and passed >= limit:
                    break
        except OSError:
            pass
        for line in (source, sink):
            with self._lock:
                self._lines.discard(line)
            _reset(line)


def _reset(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()


class DBManagerProcess:
    """``katib-callbacks db-manager`` on one port and one database file, through any number of deaths."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self._held = contextlib.ExitStack()
        self.address = f"127.0.0.1:{self._held.enter_context(held_port())}"
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._held.close()

    def start(self) -> None:
        """Start it, and return once it listens."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "katib_callbacks.cli", "db-manager"),
                *("--listen", self.address, "--db", f"sqlite:///{self._db}"),
                "--keep-duplicates",  # as Katib's own: what comes twice must be seen twice
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening" in line, line

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def freeze(self, duration_s: float) -> None:
        """Stop it for a while, as a machine without memory does; what was sent to it meanwhile, it does afterwards."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(duration_s)
        self.process.send_signal(signal.SIGCONT)


class Trials:
    """Starts processes that report to the spool and the DB manager until they are killed; see spooling_trial.py.

    Each is an interpreter of its own: a fork would inherit gRPC. Some are started ahead, since that takes its time.
    """

    AHEAD = 3

    def __init__(self, address: str, trial_name: str, spool: Path, folder: Path) -> None:
        self._folder = folder
        self._command = [sys.executable, Path(__file__).with_name("spooling_trial.py"), address, trial_name, spool]
        self._ahead: list[subprocess.Popen[str]] = []
        self._err = tempfile.TemporaryFile("a+")  # noqa: SIM115  closed with this

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._ahead:
            process.kill()
            process.communicate()
        self._err.close()

    def start(self, first_number: int) -> "Trial":
        """Start one that reports this number and those after it."""
        while len(self._ahead) <= self.AHEAD:
            self._ahead.append(
                subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._err, text=True
                )
            )
        return Trial(self, self._ahead.pop(0), self._folder / f"trial-{first_number}.log", first_number)

    def stderr(self) -> str:
        """Return what all of them have written to stderr."""
        self._err.seek(0)
        return self._err.read()


class Trial:
    """A process that reports one row after another."""

    def __init__(self, trials: Trials, process: "subprocess.Popen[str]", path: Path, first_number: int) -> None:
        self._trials = trials
        self._process = process
        self._path = path
        path.touch()
        assert process.stdout.readline() == "ready\n", trials.stderr()
        process.stdin.write(f"{first_number} {path}\n")
        process.stdin.flush()

    def wait_for(self, word: str, times: int) -> None:
        """Return once it has said a word so often."""
        while self._path.read_text().count(word) < times:
            assert self._process.poll() is None, self._trials.stderr()
            time.sleep(0.0005)

    def end(self, signal_number: int) -> tuple[set[int], set[int]]:
        """Kill it; return which rows it had accepted, and which delivered."""
        self._process.send_signal(signal_number)
        self._process.communicate()
        assert self._process.returncode == -signal_number, self._trials.stderr()
        lines = [line.split() for line in self._path.read_text().splitlines()]
        accepted, delivered = (
            {int(number) for word, number in lines if word == kind} for kind in ("accepted", "delivered")
        )
        return accepted, delivered


def hostile_files(trial_name: str) -> dict[str, bytes]:
    """Return contents that no reporter writes, with right checksums, by what is wrong with them."""
    header = {
        "format": "katib-callbacks spool",
        "version": 1,
        "trial_name": trial_name,
        "rows": 1,
        "first": "2026-01-31T12:00:00.000000Z",
        "last": "2026-01-31T12:00:00.000000Z",
    }
    end = "9999-12-31T23:59:59.999999Z"
    row = ["loss", "1", "2026-01-31T12:00:00.000000Z"]

    def content(*lines: object) -> bytes:
        body = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        return body + b'{"crc32": %d}\n' % zlib.crc32(body)

    return {
        "no JSON": b"?",
        "a deep header": content(b"[" * 4_000),
        "a deep row": content(header, b"[" * 100_000),
        "a header that ends with time": content({**header, "last": end}, row),
        "a row at the end of time": content({**header, "first": end, "last": end}, ["loss", "1", end]),
        "a number of rows that is none": content({**header, "rows": 1e400}, row),
        "fewer rows than it tells": content({**header, "rows": 2}, row),
        "a trial name that is none": content({**header, "trial_name": "tri\0al"}, row),
        "a name with a surrogate": content(header, ["\ud800", "1", row[2]]),
        "rows of another time": content(header, ["loss", "1", "2026-01-31T13:00:00.000000Z"]),
    }


@contextlib.contextmanager
def stub(address: str) -> Iterator[DBManagerStub]:
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield DBManagerStub(channel)


def stored_values(address: str, trial_name: str = "trial") -> list[tuple[str, str]]:
    """Return what a DB manager holds, names and values, ordered by time."""
    with stub(address) as calls:
        return [(log.name, log.value) for log in calls.get(trial_name, timeout_s=60)]
