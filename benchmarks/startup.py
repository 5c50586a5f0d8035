"""What a trial pays: for ``import katib_callbacks``, and for a fresh process that reports two metrics.

Three ways of reporting run in turns, each in a fresh process, against one embedded DB manager in a process of its own:
the smallest script with grpcio alone, ``katib_callbacks.report_metrics``, and ``kubeflow.katib.report_metrics``. What
arrived is counted. ``--check`` exits with 1 if a limit is missed; without it the figures only tell.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

IMPORT_LIMIT_MS = 15.0
RAW_LIMIT = 1.4
UPSTREAM_LIMIT = 15.0

BARE = "pass"
IMPORT = "import katib_callbacks"

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

COMMAND = [sys.executable, "-m", "katib_callbacks.cli"]


@contextmanager
def db_manager(database: Path) -> Iterator[str]:
    """Start the embedded DB manager in a process of its own; yields its address."""
    command = [*COMMAND, "db-manager", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{database}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().partition("listening on ")[2].partition(",")[0]
        finally:
            process.terminate()


def in_turns(
    scripts: Mapping[str, str], rounds: int, environ: Mapping[str, str], folder: Path
) -> dict[str, list[float]]:
    """Run each script in a fresh process, one after the other, again and again; returns wall times in ms."""
    times: dict[str, list[float]] = {name: [] for name in scripts}
    for number in range(-1, rounds):  # the round before the first warms the disk's cache
        for name, script in scripts.items():
            environment = {**os.environ, **environ, "KATIB_TRIAL_NAME": trial_of(name, number)}
            # An installed package has its bytecode; without it, each process would compile ours, but not grpcio's.
            environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", script], check=True, cwd=folder, env=environment)
            if number >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def trial_of(name: str, number: int) -> str:
    """Return a trial of its own for each round: one that had rows before would be warned of."""
    return f"{name.replace(' ', '-')}-{number}"


def rows_of(trial: str, address: str) -> int:
    """Count what the DB manager holds for a trial."""
    answer = subprocess.run(
        [*COMMAND, "logs", trial, "--json", "--address", address], check=True, stdout=subprocess.PIPE, text=True
    )
    return len([json.loads(line) for line in answer.stdout.splitlines()])


def show(title: str, times: Mapping[str, list[float]]) -> dict[str, float]:
    """Print a table of medians and spread; returns the medians in ms."""
    print(f"\n{title}\n{'':<38}{'median':>10}{'min':>10}{'max':>10}   rounds")
    for name, values in times.items():
        figures = "".join(f"{value:>7.1f} ms" for value in (statistics.median(values), min(values), max(values)))
        print(f"{name:<38}{figures}{len(values):>9}")
    return {name: statistics.median(values) for name, values in times.items()}


def verdict(what: str, figure: float, unit: str, limit: str, *, is_met: bool) -> bool:
    """Print one figure beside its limit."""
    print(f"{'pass' if is_met else 'MISS'}  {what}: {figure:.2f}{unit} (limit: {limit})")
    return is_met


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of reporting; imports take five times as many")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    arguments = parser.parse_args()

    reporters = {"raw grpcio": RAW, "katib_callbacks.report_metrics": OURS}
    if find_spec("kubeflow") is not None:
        reporters["kubeflow.katib.report_metrics"] = UPSTREAM
    with tempfile.TemporaryDirectory() as name, db_manager(Path(name, "katib.db")) as address:
        folder = Path(name)
        imports = in_turns({"python": BARE, IMPORT: IMPORT}, 5 * arguments.rounds, {}, folder)
        reports = in_turns(reporters, arguments.rounds, {"KATIB_DB_MANAGER_ADDRESS": address}, folder)
        for reporter in reporters:
            rows = rows_of(trial_of(reporter, arguments.rounds - 1), address)
            if rows != 2:  # noqa: PLR2004  metrics
                sys.exit(f"{reporter}: {rows} rows arrived instead of 2")

    bare, imported = show("A fresh process that imports", imports).values()
    raw, ours, *upstream = show("A fresh process that reports two metrics", reports).values()
    print()
    added = imported - bare
    met = [
        verdict(f"{IMPORT} adds", added, " ms", f"under {IMPORT_LIMIT_MS:g} ms", is_met=added < IMPORT_LIMIT_MS),
        verdict("ours / raw grpcio", ours / raw, "", f"at most {RAW_LIMIT:g}", is_met=ours / raw <= RAW_LIMIT),
    ]
    for theirs in upstream:
        ratio = theirs / ours
        limit = f"at least {UPSTREAM_LIMIT:g}"
        met.append(verdict("kubeflow.katib / ours", ratio, "", limit, is_met=ratio >= UPSTREAM_LIMIT))
    if not upstream:
        print("not measured: kubeflow.katib is not installed (nox -s bench installs it)")
    if arguments.check and not all(met):
        sys.exit(1)


if __name__ == "__main__":
    main()
