"""What the programs start, and what they read of the machine."""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from katib_callbacks import SinkOutcome
from katib_callbacks.local.state import states
from katib_callbacks.local.state.store import TrialRow

COMMAND = [sys.executable, "-m", "katib_callbacks.cli"]


class QuietSink:
    """Takes all rows, and shows no progress."""

    def send(self, trial_name: str, logs: Any, *, deadline_s: float) -> SinkOutcome:
        """Say that all is well."""
        del trial_name, deadline_s
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def started(
    command: Sequence[str], pattern: str = r"listening on (\S+?),?\s"
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a server; yields its process and what its first line names."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(pattern, line)
        assert match, line
        yield process, match[1]
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def db_manager(database: str | Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a DB manager on a database, a URL or a file of SQLite; yields its process and its address."""
    url = f"sqlite:///{database}" if isinstance(database, Path) else database
    with started([*COMMAND, "db-manager", "--listen", "127.0.0.1:0", "--db", url, *flags]) as server:
        yield server


def cpu_s(pid: int) -> float:
    """Return the processor's time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int | str = "self", field: str = "VmHWM") -> float:
    """Return the most memory that a process has had, or with ``VmRSS`` what it has."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1_024


def commit_ms() -> float:
    """Return what it takes to write 4 KiB to the disk."""
    with tempfile.NamedTemporaryFile() as file:
        times_ms = []
        for _ in range(50):
            begin_s = time.perf_counter()
            file.write(b"x" * 4_096)
            file.flush()
            os.fdatasync(file.fileno())
            times_ms.append((time.perf_counter() - begin_s) * 1_000)
    return statistics.median(times_ms)


def described() -> str:
    """Return the machine in words."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = cpu[1] if cpu else platform.machine()
    return f"{os.cpu_count()} cores, {name}, {memory_gib:.0f} GiB, Linux {platform.release().partition('-')[0]}"


def experiment(name: str, command: Sequence[str], trials: int, parallel: int = 1) -> dict[str, Any]:
    """Return an experiment of random x, whose trials push a loss."""
    container = {"name": "main", "command": [*command], "env": [{"name": "X", "value": "${trialParameters.x}"}]}
    return {
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": parallel,
            "maxTrialCount": trials,
            "metricsCollectorSpec": {"collector": {"kind": "Push"}},
            "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            },
        },
    }


def trial_row(name: str, number: int, x: float, state: str = states.SUCCEEDED) -> TrialRow:
    """Return the stored row of one of its trials that has succeeded, or runs."""
    is_over = state == states.SUCCEEDED
    return TrialRow(
        name=f"{name}-{number}",
        experiment=name,
        number=number,
        assignments={"x": str(x)},
        point={"x": x},
        asked=2 * number,
        told=2 * number + 1 if is_over else None,
        value=x if is_over else None,
        state=state,
        attempts=["attempt"],
        observation=[{"name": "loss", "min": str(x), "max": str(x), "latest": str(x)}] if is_over else None,
        conditions=[states.condition(state, f"Trial{state}", "", time.time())],
        created_s=time.time(),
        started_s=time.time(),
        completed_s=time.time() if is_over else None,
    )
