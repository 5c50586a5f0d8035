"""A trial's processes: each in a session of its own, so that what it starts ends with it.

Nothing here waits: each process has a file descriptor that becomes readable when it ends (a pidfd on Linux, elsewhere
a pipe that a thread writes to), and whoever runs trials waits for all of them at once.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from katib_callbacks.local.trials.isolation import inherited_environment
from katib_callbacks.local.trials.orphans import end_strays
from katib_callbacks.local.trials.template import TrialPlan
from katib_callbacks.settings import LOCAL_ATTEMPT

TERMINATION_GRACE_S = 30.0
"""Between SIGTERM and SIGKILL where ``terminationGracePeriodSeconds`` says nothing: Kubernetes' default."""

WORKER_GRACE_S = 30.0
"""How long the other processes may go on after the primary one has succeeded; the operators let them go on for ever."""

_TAIL_BYTES = 4096
_MAX_MESSAGE_CHARACTERS = 200


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Process:
    def __init__(self, command: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path) -> None:
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603  what the experiment says
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environ,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.status: int | None = None
        self.descriptor = _exit_descriptor(self._popen)

    def signal(self, number: int) -> None:
        """Send a signal to the process and all that it started, unless they left its group."""
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
            os.killpg(self.pid, number)

    def reap(self) -> None:
        """Kill what an ended process left running, then take its exit status: until then its number is its own."""
        self.signal(signal.SIGKILL)
        self.status = self._popen.wait()
        os.close(self.descriptor)


def _exit_descriptor(popen: "subprocess.Popen[bytes]") -> int:
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):  # an old kernel
            return os.pidfd_open(popen.pid)
    reader, writer = os.pipe()

    def wait() -> None:
        popen.wait()
        os.close(writer)

    threading.Thread(target=wait, name="katib-callbacks-wait", daemon=True).start()
    return reader


class RunningTrial:
    """The processes of a trial that was started; the log has the primary one's output, files beside it the others'.

    An OSError means that a process could not be started, and that none of them runs.
    """

    def __init__(self, plan: TrialPlan, *, own: Mapping[str, str], folder: Path, log: Path) -> None:
        self.log = log
        self.kind = plan.kind
        self.started_s = time.monotonic()
        self._deadline_s = None if plan.deadline_s is None else self.started_s + plan.deadline_s
        self._kill_at_s: float | None = None
        self._ending: str | None = None
        self._failed: _Process | None = None
        self._has_succeeded = False
        self._processes: list[_Process] = []
        self._servers = [number for number, process in enumerate(plan.processes) if process.is_server]
        self._grace_s = TERMINATION_GRACE_S if plan.grace_s is None else plan.grace_s
        self._mark = own.get(LOCAL_ATTEMPT, "")
        inherited = inherited_environment()
        try:
            for number, process in enumerate(plan.processes):
                self._processes.append(
                    _Process(
                        process.command,
                        environ={**inherited, **process.environ, **own},
                        folder=Path(process.working_dir) if process.working_dir else folder,
                        log=log if number == 0 else worker_log(log, number),
                    )
                )
        except OSError:
            for started in self._processes:
                started.signal(signal.SIGKILL)
                started.reap()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes' numbers; each leads a session."""
        return [process.pid for process in self._processes]

    @property
    def descriptors(self) -> list[int]:
        """Descriptors of those that still run; each becomes readable when its process ends."""
        return [process.descriptor for process in self._processes if process.status is None]

    @property
    def is_over(self) -> bool:
        """Whether all processes have ended."""
        return not self.descriptors

    @property
    def wake_at_s(self) -> float | None:
        """When :meth:`tick` has something to do, on the monotonic clock."""
        times = [at for at in (self._deadline_s if self._ending is None else None, self._kill_at_s) if at is not None]
        return min(times, default=None)

    def ended(self, descriptor: int) -> None:
        """Take note that the process of a descriptor has ended."""
        process = next(one for one in self._processes if one.status is None and one.descriptor == descriptor)
        process.reap()
        if self.is_over:
            end_strays(self._mark, f"{self.log.with_suffix('')}.", self.pids[0])
        if self._has_succeeded or self._failed is not None:
            return
        if process.status != 0:
            self._failed = process
            self.end("a process failed")
        elif process is self._processes[0] and self._ending is None:
            self._has_succeeded = True  # as for the operators: what the others do then changes nothing
            for number in self._servers:
                if self._processes[number].status is None:
                    self._processes[number].signal(signal.SIGTERM)
            self._kill_at_s = time.monotonic() + WORKER_GRACE_S

    def end(self, reason: str) -> None:
        """Ask all processes to end, and make them a little later. The first reason counts."""
        if self._ending is None and not self.is_over:
            self._ending = reason
            self._kill_at_s = time.monotonic() + self._grace_s
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all processes now, and wait for them."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            if process.status is None:
                process.reap()
        end_strays(self._mark, f"{self.log.with_suffix('')}.", self.pids[0])

    def tick(self) -> None:
        """Do what is due: end a trial that is past its deadline, kill what did not end when asked."""
        now_s = time.monotonic()
        if self._ending is None and self._deadline_s is not None and now_s >= self._deadline_s:
            self.end(DEADLINE)
        if self._kill_at_s is not None and now_s >= self._kill_at_s:
            self._kill_at_s = None
            self._signal(signal.SIGKILL)

    def failure(self) -> tuple[str, str] | None:
        """Return why a trial that is over failed, as Kubernetes' reason and a message; None if it succeeded."""
        if self._has_succeeded:
            return None
        if self._ending == DEADLINE:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        culprit = self._failed or self._processes[0]
        number = self._processes.index(culprit)
        log = worker_log(self.log, number) if number else self.log
        words = [_status_text(culprit.status or 0), f"last output: {last}" if (last := last_line(log)) else ""]
        return "BackoffLimitExceeded", "; ".join(filter(None, words))

    def _signal(self, number: int) -> None:
        for process in self._processes:
            if process.status is None:
                process.signal(number)


DEADLINE = "the deadline has passed"


def worker_log(log: Path, number: int) -> Path:
    """Return where the output of another process than the primary one lies."""
    return log.with_suffix(f".{number}.log")


def shell_log(log: Path) -> Path:
    """Return where the output of a shell's commands lies that is not collected."""
    return log.with_suffix(".shell.log")


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank, shortened; empty if there is none."""
    return next((line.strip()[:_MAX_MESSAGE_CHARACTERS] for line in last_lines(log, 1)), "")


def last_lines(log: Path, count: int) -> list[str]:
    """Return the last lines that are not blank of a log's last 4 KiB, else of the shell's own log."""
    for path in (log, shell_log(log)):
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-count:]
    return []


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
