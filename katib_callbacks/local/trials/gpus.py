"""The machine's GPUs, shared out among the trials that run at a time, those of other experiments among them."""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICE = re.compile(r"\d+|(GPU|MIG)-\S+")  # CUDA takes no device from the first other word on
_LISTED = re.compile(r"^(?:GPU (?P<number>\d+):|\s+MIG .*\(UUID: (?P<mig>MIG-[^)]+)\))", re.MULTILINE)

_NUMBERED = Path("/proc/driver/nvidia/gpus")
_PARTS = Path("/proc/driver/nvidia/capabilities")
_QUERY_TIMEOUT_S = 30.0

LOCKS = Path(tempfile.gettempdir(), f"katib-callbacks-gpus-{getattr(os, 'getuid', int)()}")
"""Of this user on this machine; a home may be on a disk that other machines have as well."""


class GPUs:
    """GPUs as ``CUDA_VISIBLE_DEVICES`` names them; one that a trial has is locked for this user's other experiments."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.count = len(devices)
        self._devices = list(devices)
        self._locks: dict[str, int] = {}

    def take(self, wanted: Sequence[int]) -> list[list[str]] | None:
        """Return GPUs for each node of a trial, fewer where there are no more; None while others have them."""
        taken: list[str] = []
        for device in self._devices:
            if len(taken) < sum(wanted) and device not in self._locks and self._is_locked(device):
                taken.append(device)
        if len(taken) < min(sum(wanted), self.count):
            self.give_back([taken])
            return None
        return [[taken.pop(0) for _ in range(min(count, len(taken)))] for count in wanted]

    def give_back(self, gpus: Sequence[Sequence[str]]) -> None:
        """Take back what a trial had."""
        for node in gpus:
            for device in node:
                os.close(self._locks.pop(device))

    def close(self) -> None:
        """Take back what trials have still."""
        self.give_back([list(self._locks)])

    def _is_locked(self, device: str) -> bool:
        """Lock a device until it is given back, or this process ends; returns False if another experiment has it."""
        import fcntl  # noqa: PLC0415  not on Windows, which a sentence is said of

        try:
            LOCKS.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(LOCKS / device.replace("/", "-"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # nowhere to write: this experiment's trials share them out among themselves
            lock = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._locks[device] = lock
        return True


def gpu_variables(devices: Sequence[str]) -> dict[str, str]:
    """Return a process's variables for its GPUs; numbers of our own are in the order of ``nvidia-smi``."""
    order = {} if _VISIBLE in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {_VISIBLE: ",".join(devices), **order}


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them: parts where one is divided."""
    given = os.environ.get(_VISIBLE)
    if given is not None:
        devices: list[str] = []
        for word in map(str.strip, given.split(",")):
            if not _DEVICE.fullmatch(word) or word in devices:
                break
            devices.append(word)
        return devices
    with suppress(OSError):
        count = len(os.listdir(_NUMBERED))  # noqa: PTH208  their names do not matter
        if not any(_PARTS.glob("gpu*/mig/gi*")):
            return [str(number) for number in range(count)]
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"],  # noqa: S607  wherever it is
            capture_output=True,
            text=True,
            check=True,
            timeout=_QUERY_TIMEOUT_S,
        )
        return _listed(listed.stdout)
    return []


def _listed(text: str) -> list[str]:
    """Return the devices of ``nvidia-smi -L``: a GPU's number, or in its place its parts'."""
    devices: list[str] = []
    for match in _LISTED.finditer(text):
        if match["mig"] and devices and not devices[-1].startswith("MIG-"):
            devices.pop()
        devices.append(match["mig"] or match["number"])
    return devices
