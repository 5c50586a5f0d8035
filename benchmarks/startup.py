"""What a trial pays: for ``import katib_callbacks``, and for a fresh process that reports two metrics.

Three ways of reporting run in turns, each in a fresh process, against one embedded DB manager in a process of its own:
the smallest script with grpcio alone, ``katib_callbacks.report_metrics``, and ``kubeflow.katib.report_metrics``. What
arrived is counted. An import is told as time of the processor, a report as time that passes.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import grpc
from figures import Figure, Size, run
from machine import db_manager

from katib_callbacks.wire.client import DBManagerStub

IMPORT_LIMIT_MS = 1.0
RAW_LIMIT = 1.3
UPSTREAM_LIMIT = 1 / 15

# Nothing but what the wire needs: no messages, no protobuf, names and values of under 128 bytes.
RAW = """
import os
from datetime import datetime, timezone
import grpc

def field(number, payload):
    return bytes((number << 3 | 2, len(payload))) + payload

now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
rows = b"".join(
    field(1, field(1, now) + field(2, field(1, name) + field(2, value)))
    for name, value in ((b"accuracy", b"0.9"), (b"loss", b"0.1"))
)
request = field(1, os.environ["KATIB_TRIAL_NAME"].encode()) + field(2, rows)
with grpc.insecure_channel(os.environ["KATIB_DB_MANAGER_ADDRESS"]) as channel:
    channel.unary_unary("/api.v1.beta1.DBManager/ReportObservationLog")(request, timeout=120)
"""

OURS = """
import os
from katib_callbacks import report_metrics

report_metrics({"accuracy": 0.9, "loss": 0.1}, os.environ["KATIB_DB_MANAGER_ADDRESS"])
"""

# The shim stands in for the pod's namespace file, which upstream reads for an error message.
UPSTREAM = """
import os
from kubeflow import katib

katib.utils.utils.get_current_k8s_namespace = lambda: "default"
katib.report_metrics({"accuracy": 0.9, "loss": 0.1}, os.environ["KATIB_DB_MANAGER_ADDRESS"])
"""


def in_turns(scripts: Mapping[str, str], rounds: int, folder: Path, address: str) -> dict[str, list[tuple[float, ...]]]:
    """Run each script in a fresh process, again and again; returns the ms that passed and those of the processor."""
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in scripts}
    for number in range(-1, rounds):  # the round before the first warms the disk's cache
        for name, script in scripts.items():
            # An installed package has its bytecode; without it, each process would compile ours, but not grpcio's.
            bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
            trial = {"KATIB_TRIAL_NAME": f"{name}-{number}", "KATIB_DB_MANAGER_ADDRESS": address}
            start_s, used_s = time.perf_counter(), children_s()
            subprocess.run([sys.executable, "-c", script], check=True, cwd=folder, env=os.environ | bytecode | trial)
            if number >= 0:
                times[name].append(((time.perf_counter() - start_s) * 1e3, (children_s() - used_s) * 1e3))
    return times


def children_s() -> float:
    """Return the processor's time of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(size: Size) -> Iterator[Figure]:
    """Measure imports, then reports."""
    reporters = {"raw": RAW, "ours": OURS}
    if find_spec("kubeflow") is not None:
        reporters["upstream"] = UPSTREAM
    rounds = size(9)
    with tempfile.TemporaryDirectory() as name, db_manager(Path(name, "katib.db")) as (_, address):
        imports = in_turns({"bare": "pass", "ours": "import katib_callbacks"}, 5 * rounds, Path(name), address)
        reports = in_turns(reporters, rounds, Path(name), address)
        with grpc.insecure_channel(address) as channel:
            stub = DBManagerStub(channel)
            for reporter in reporters:
                rows = len(stub.get(f"{reporter}-{rounds - 1}", timeout_s=60))
                if rows != 2:  # noqa: PLR2004  metrics
                    sys.exit(f"{reporter}: {rows} rows arrived instead of 2")
    added = [ours - bare for (_, ours), (_, bare) in zip(imports["ours"], imports["bare"], strict=True)]
    yield Figure("`import katib_callbacks`, added to Python's start, CPU", added, "ms", at_most=IMPORT_LIMIT_MS)
    passed = {name: [wall for wall, _ in times] for name, times in reports.items()}
    ours, raw = passed["ours"], passed["raw"]
    yield Figure("report of two metrics, fresh process", ours, "ms", "raw grpcio call", raw, ratio_at_most=RAW_LIMIT)
    if "upstream" in passed:
        sdk = "Katib's SDK `report_metrics`"
        limit = UPSTREAM_LIMIT
        yield Figure(
            "report of two metrics, fresh process", ours, "ms", sdk, passed["upstream"], None, limit, is_peer=True
        )


if __name__ == "__main__":
    run(__doc__, measure)
