"""Send a DB manager what no client should: ``fuzz.py --seconds 60 --seed 1``.

Random bytes, good requests with damaged bytes and good requests with odd fields, from several threads, beside lines
that are no HTTP/2 and calls that are given up. A model holds what must be stored: of equal rows as many as one answered
request had. The exit status is 1 if the server ended, answered what it should not, or holds another set of rows.
"""

import argparse
import contextlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import grpc

from katib_callbacks.metrics import parse_timestamp
from katib_callbacks.wire import messages, methods, reflection

THREADS = 4
CALL_TIMEOUT_S = 60.0
GIVEN_UP_AFTER_S = 0.001

REQUESTS = {
    methods.REPORT_OBSERVATION_LOG: messages.ReportObservationLogRequest,
    methods.GET_OBSERVATION_LOG: messages.GetObservationLogRequest,
    methods.DELETE_OBSERVATION_LOG: messages.DeleteObservationLogRequest,
    methods.HEALTH_CHECK: messages.HealthCheckRequest,
}
PATHS = [*REQUESTS, "/api.v1.beta1.DBManager/Nothing", "/nothing", f"/{reflection.VERSIONS[0]}.ServerReflection/X"]

TEXTS = [
    "",
    "loss",
    "Loss",
    "löss",
    "a\0b",
    "x" * 255,
    "x" * 256,
    "ß" * 256,
    "\N{GRINNING FACE}",
    "'; DROP TABLE x; --",
]
TEXTS += ["%s", "\\", "\x7f\x1b[2J", "nan", "1e-07", "y" * 65_535, "y" * 65_536, " ", "\ufeff", "\u202e", "None"]
TIMES = ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
TIMES += ["2026-01-31T12:00:00.1234567891+02:30", "0001-01-01T00:00:00+00:01", "2026-02-30T12:00:00Z", "soon", ""]
TIMES += ["2026-01-31 12:00:00Z", "2026-01-31T12:00:00", "2026-01-31t12:00:00z", "9" * 1_000, "२026-01-31T12:00:00Z"]

ANSWERS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
GIVEN_UP = {"DEADLINE_EXCEEDED", "CANCELLED"}


class Model:
    """What the answers promise to be stored, and what may be stored besides."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.certain: dict[str, Counter] = {}
        self.possible: dict[str, Counter] = {}
        self.statuses = Counter[str]()
        self.complaints: list[str] = []

    def count(self, status: str) -> None:
        with self._lock:
            self.statuses[status] += 1

    def complain(self, text: str) -> None:
        with self._lock:
            self.complaints.append(text)

    def store(self, request, *, is_certain: bool) -> None:
        rows = Counter(
            (parse_timestamp(log.time_stamp), log.metric.name, log.metric.value)
            for log in request.observation_log.metric_logs
        )
        with self._lock:
            for trials in (self.certain, self.possible) if is_certain else (self.possible,):
                trials[request.trial_name] = trials.get(request.trial_name, Counter()) | rows

    def has(self, trial_name: str) -> bool:
        with self._lock:
            return trial_name in self.possible


class Fuzzer:
    """One thread's requests."""

    def __init__(self, address: str, seed: str, model: Model) -> None:
        self._address = address
        self._random = random.Random(seed)  # noqa: S311  to be repeated
        self._model = model

    def run(self, end_s: float) -> None:
        try:
            with grpc.insecure_channel(
                self._address,
                options=(("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)),
            ) as channel:
                while time.monotonic() < end_s and not self._model.complaints:
                    kind = self._random.random()
                    if kind < 0.02:
                        self._send_garbage()
                    else:
                        self._call(channel, *self._request(kind))
        except Exception as error:  # noqa: BLE001  a thread's error must not be lost
            self._model.complain(f"the fuzzer failed: {error!r}")

    def _request(self, kind: float) -> tuple[str, bytes]:
        path = self._random.choice(PATHS)
        if kind < 0.15:
            return path, self._random.randbytes(self._random.choice([0, 1, 5, 50, 1_000, 100_000]))
        path = self._random.choices(list(REQUESTS), [10, 4, 1, 1])[0]
        data = self._message(path).SerializeToString()
        return path, self._damaged(data) if kind < 0.6 else data

    def _message(self, path: str):
        text = self._text
        if path == methods.REPORT_OBSERVATION_LOG:
            if self._random.random() < 0.05:
                return messages.ReportObservationLogRequest(trial_name=text())
            log = messages.ObservationLog(
                metric_logs=[self._log() for _ in range(self._random.choice([0, 1, 1, 3, 40]))]
            )
            return messages.ReportObservationLogRequest(trial_name=text(), observation_log=log)
        if path == methods.GET_OBSERVATION_LOG:
            return messages.GetObservationLogRequest(
                trial_name=text(), metric_name=text(), start_time=self._time(), end_time=self._time()
            )
        if path == methods.DELETE_OBSERVATION_LOG:
            return messages.DeleteObservationLogRequest(trial_name=f"deleted-{text()}")
        return messages.HealthCheckRequest(service=text())

    def _log(self):
        if self._random.random() < 0.02:
            return messages.MetricLog(time_stamp=self._time())
        if self._random.random() < 0.9:  # a good one, often one that was sent before
            time_stamp = f"2026-01-31T12:00:00.{self._random.randrange(1_000):06}Z"
            value = repr(self._random.randrange(3))
            return messages.MetricLog(time_stamp=time_stamp, metric=messages.Metric(name="loss", value=value))
        return messages.MetricLog(
            time_stamp=self._time(), metric=messages.Metric(name=self._text(), value=self._text())
        )

    def _text(self) -> str:
        if self._random.random() < 0.7:
            return f"trial-{self._random.randrange(20)}"
        return self._random.choice(TEXTS)

    def _time(self) -> str:
        text = self._random.choice(TIMES)
        if text and self._random.random() < 0.3:
            place = self._random.randrange(len(text))
            text = text[:place] + self._random.choice("0:-+TZ. é") + text[place + 1 :]
        return text

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            place = self._random.randrange(len(damaged) + 1)
            piece = self._random.randbytes(self._random.randint(1, 4))
            kind = self._random.randrange(4)
            if kind == 0:
                damaged[place : place + len(piece)] = piece
            elif kind == 1:
                damaged[place:place] = piece
            elif kind == 2:
                del damaged[place : place + self._random.randint(1, 40)]
            else:
                damaged[place:place] = damaged[self._random.randrange(len(damaged) + 1) :][:200]
        return bytes(damaged)

    def _call(self, channel: grpc.Channel, path: str, data: bytes) -> None:
        request = None
        with contextlib.suppress(Exception):
            request = REQUESTS[path].FromString(data)
        if path == methods.DELETE_OBSERVATION_LOG and request is not None and self._model.has(request.trial_name):
            return  # damaged until it named a trial that is compared
        is_given_up = self._random.random() < 0.03
        status, details = "OK", ""
        try:
            channel.unary_unary(path)(data, timeout=GIVEN_UP_AFTER_S if is_given_up else CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            status, details = error.code().name, error.details()
        self._model.count(status)
        if path == methods.REPORT_OBSERVATION_LOG and request is not None and status in {"OK", *GIVEN_UP}:
            with contextlib.suppress(ValueError):  # a time that cannot be: it was given up, and is not stored
                self._model.store(request, is_certain=status == "OK")
        if status not in ANSWERS and not (is_given_up and status in GIVEN_UP):
            self._model.complain(f"{status} {details!r} for {path} {data[:300]!r}")

    def _send_garbage(self) -> None:
        host, _, port = self._address.rpartition(":")
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if self._random.random() < 0.5 else b""
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=CALL_TIMEOUT_S) as line:
            line.sendall(preface + self._random.randbytes(self._random.choice([1, 100, 10_000])))


def main() -> int:
    """Fuzz, compare, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--db", metavar="URL", help="an empty database (default: SQLite in a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder, "log")
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"),
                    *("--db", arguments.db or f"sqlite:///{folder}/katib.db"),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split("listening on ")[1].split(",")[0]
            model = Model()
            end_s = time.monotonic() + arguments.seconds
            fuzzers = [Fuzzer(address, f"{arguments.seed}-{number}", model) for number in range(THREADS)]
            threads = [threading.Thread(target=fuzzer.run, args=(end_s,)) for fuzzer in fuzzers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if process.poll() is not None:
                model.complain(f"the server ended with {process.returncode}")
            else:
                compared = _compare(address, model)
                process.terminate()
                if process.wait(timeout=CALL_TIMEOUT_S) != 0:
                    model.complain(f"the server did not stop well: {process.returncode}")
        finally:
            process.kill()
            process.communicate()
        for line in log_path.read_text().splitlines():
            if re.search(r"not foreseen|Error in|Fatal|UNAVAILABLE", line):
                model.complain(f"logged: {line}")
    _say(f"calls by status  {dict(sorted(model.statuses.items()))}, {sum(model.statuses.values()):,} in all")
    if not model.complaints:
        _say(f"rows compared    {compared:,} of {len(model.certain)} trials: as promised")
    for complaint in model.complaints[:20]:
        _say(f"WRONG: {complaint}")
    return 1 if model.complaints else 0


def _compare(address: str, model: Model) -> int:
    """Compare every trial with the model; return how many rows there were."""
    compared = 0
    with grpc.insecure_channel(address, options=(("grpc.max_receive_message_length", -1),)) as channel:
        get = channel.unary_unary(
            methods.GET_OBSERVATION_LOG, response_deserializer=messages.GetObservationLogReply.FromString
        )
        check = channel.unary_unary(methods.HEALTH_CHECK, response_deserializer=messages.HealthCheckResponse.FromString)
        if check(b"", timeout=CALL_TIMEOUT_S).status != messages.SERVING:
            model.complain("the server is not serving")
        for trial_name, possible in model.possible.items():
            certain = model.certain.get(trial_name, Counter())
            if not trial_name or "\0" in trial_name or len(trial_name) > 255:  # given up, and never good
                if certain:
                    model.complain(f"{trial_name!r} was accepted")
                continue
            request = messages.GetObservationLogRequest(trial_name=trial_name).SerializeToString()
            stored = Counter(
                (parse_timestamp(log.time_stamp), log.metric.name, log.metric.value)
                for log in get(request, timeout=CALL_TIMEOUT_S).observation_log.metric_logs
            )
            compared += stored.total()
            if certain - stored or stored - possible:
                model.complain(
                    f"trial {trial_name!r}: missing {list((certain - stored).items())[:3]}, "
                    f"unexpected {list((stored - possible).items())[:3]}"
                )
    return compared


def _say(line: str) -> None:
    print(line)  # noqa: T201  it talks to a person


if __name__ == "__main__":
    sys.exit(main())
