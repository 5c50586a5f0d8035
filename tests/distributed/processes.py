"""Starts the processes of a trial, and sees to it that none outlives its test, whatever it hangs in."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

MARK = "KATIB_TEST_PROCESSES"
"""Inherited by every child, so that it is found wherever launchers move it: torchrun's workers lead sessions of their
own, and what a killed launcher leaves behind has another parent."""

POLL_S = 0.05

STACKS_S = 3.0
"""For a process that hangs to write down where, before it is killed."""

LAUNCHERS = re.compile(
    r"(MASTER|TORCHELASTIC|PET|OMPI|MV2|PMIX?|PRTE|SLURM|HOROVOD|PADDLE|JAX|KERAS|GROUP|ROLE|KATIB|ACCELERATE)_.*"
    r"|(KUBERNETES|KUBEFLOW|TF)_.*|JOB_COMPLETION_INDEX|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|NODE_RANK"
)
"""Variables of whatever runs the tests that must not reach what they start."""

VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "JAX_PLATFORMS": "cpu",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",  # SIGABRT shows the stacks of all threads
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",  # the frameworks' own, in processes that are not tests
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Process:
    """One process that a test started; its children write into the same log."""

    name: str
    log: Path
    popen: "subprocess.Popen[bytes]"

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Processes:
    """All that one test starts, with one limit of time.

    Args:
        folder: Where logs go, and the processes' working directory.
        environ: Added to the environment of each, after what launchers may have left in ours is taken out.
        limit_s: After so many seconds everything is killed and the test fails.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], *, limit_s: float) -> None:
        self._folder = folder
        inherited = {name: value for name, value in os.environ.items() if not LAUNCHERS.fullmatch(name)}
        self._mark = f"{MARK}={uuid4().hex}"
        self._environ = {**inherited, **VARIABLES, **environ, MARK: self._mark.partition("=")[2]}
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s
        self._started: list[Process] = []

    def start(self, name: str, *command: object, **variables: str) -> Process:
        """Start a process with a session, a process group and a log of its own."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(word) for word in command],
                cwd=self._folder,
                env=self._environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(name, log, popen)
        self._started.append(process)
        return process

    def wait(self) -> list[int]:
        """Return the exit statuses, in the order of start, when these processes and all their children have ended."""
        self.until(lambda: all(each.popen.poll() is not None for each in self._started), "the processes to end")
        self.until(lambda: not list(self._living()), "the children of processes that have ended to end too")
        return [each.popen.returncode for each in self._started]

    def until(self, condition: Callable[[], object], what: str, *, watch: bool = False) -> None:
        """Return when something has come true; past the limit of time the test fails, with every log.

        Args:
            condition: Asked again and again.
            what: What is waited for.
            watch: Fail at once if one of the processes that were started ends before.
        """
        while not condition():
            ended = watch and any(each.popen.poll() is not None for each in self._started)
            if ended and not condition():
                self.fail(f"a process ended; waited for {what}")
            if time.monotonic() > self._end:
                self._show_stacks()
                self.fail(f"waited for {what} until the limit of {self._limit_s:g} s")
            time.sleep(POLL_S)

    def fail(self, reason: str) -> None:
        logs = "".join(
            f"\n\n==== {each.name} (pid {each.popen.pid}, exit status {each.popen.poll()})\n{each.output()}"
            for each in self._started
        )
        pytest.fail(reason + logs, pytrace=False)

    def close(self) -> None:
        """Kill whatever is left, in whatever group; nothing is started meanwhile that is not found the next time."""
        for each in self._started:
            if each.popen.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each.popen.pid, signal.SIGKILL)
                each.popen.wait()
        while living := list(self._living()):
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)

    def _show_stacks(self) -> None:
        for pid in self._living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)
        end = time.monotonic() + STACKS_S
        while list(self._living()) and time.monotonic() < end:
            time.sleep(POLL_S)

    def _living(self) -> Iterator[int]:
        """Yield the processes that carry our mark. One that has ended, collected by its parent or not, shows none."""
        mark = self._mark.encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name)
