"""Isolation of trials: a folder, an environment and GPUs of each one's own.

Pods are alone by nature, processes are not: two trials that write ``output/model.pt`` would each load the other's.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from katib_callbacks import settings
from katib_callbacks.local.trials.template import ProcessPlan, TrialPlan

# What the shell has set for this process, or a launcher around it: a trial is neither, and gets values of its own.
_FOREIGN_VARIABLES = frozenset((
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE", "NODE_RANK", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG",
    "JOB_COMPLETION_INDEX", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
))  # fmt: skip
_FOREIGN_PREFIXES = (
    "KATIB_", "KUBEFLOW_TRAINER_", "PET_", "TORCHELASTIC_", "JAX_PROCESS_", "JAX_COORDINATOR_", "JAX_NUM_PROCESSES",
    "KERAS_DISTRIBUTION_", "SLURM_", "SRUN_", "SBATCH_", "OMPI_", "PMI_", "PMIX_", "PRTE_", "PALS_", "MV2_COMM_",
    "I_MPI_", "HYDRA_", "FLUX_", "LSB_", "JSM_", "HOROVOD_", "ACCELERATE_", "DEEPSPEED_",
)  # fmt: skip

_SHELL = re.compile(r"(^|/)(ba|da|k|z|a)?sh$")
_SCRIPT = re.compile(r"(?<=\s)([\"']?)([\w./-]+\.(?:py|sh))(?=\1(?:[\s;&|)]|$))")
_OUTPUT_OPTION = re.compile(r"out|dest|save|log|checkpoint|ckpt|write|result|target", re.IGNORECASE)
_INPUT_OPTION = re.compile(r"data|dir|path|file|folder|conf|input|root|source|train|eval|test", re.IGNORECASE)
_OPTION_VALUE = re.compile(r"(--?[\w.-]+)=(.+)", re.DOTALL)

_GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
_QUERY_TIMEOUT_S = 30.0


def inherited_environment() -> dict[str, str]:
    """Return what a trial's processes take over from this one: all but what is meant for this process."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN_VARIABLES and not name.startswith(_FOREIGN_PREFIXES)
    }
    # `python` and `torchrun` in a command are this environment's, whether it is activated or not.
    environ["PATH"] = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), environ.get("PATH"))))
    environ["PYTHONUNBUFFERED"] = "1"  # what a trial prints is in its log at once, also if it is killed
    return environ


def place(
    plan: TrialPlan, *, folder: Path, submit_folder: Path, workdir: Path | None, gpus: Sequence[Sequence[str]] = ()
) -> TrialPlan:
    """Return what runs in place of a plan that was made for pods.

    Processes work in the trial's folder, in that of the container's ``workingDir`` below it, or in ``workdir``. An
    ``emptyDir`` is a folder of the trial's, a ``hostPath`` the user's: it takes the place of its mount path where
    command, arguments or variables begin with it. Words that name a file in ``submit_folder`` get its whole path.
    """
    return replace(
        plan,
        processes=tuple(
            # A number of nodes that is a trial's parameter is not known when the GPUs are taken.
            _placed(process, folder, submit_folder, workdir, gpus[min(process.node, len(gpus) - 1)] if gpus else None)
            for process in plan.processes
        ),
    )


def local_path(path: str, process: ProcessPlan, folder: Path) -> Path:
    """Return where a path of a container lies for a process, in the trial's own folder."""
    return Path(_mounted(path, {mount: _volume(source, folder) for mount, source in process.mounts.items()}))


def _placed(
    process: ProcessPlan, folder: Path, submit_folder: Path, workdir: Path | None, gpus: Sequence[str] | None
) -> ProcessPlan:
    mounts = {path: _volume(source, folder) for path, source in process.mounts.items()}
    working_dir = _working_dir(process.working_dir, folder, mounts) if workdir is None else workdir
    working_dir.mkdir(parents=True, exist_ok=True)
    searched = [submit_folder]
    if process.working_dir and Path(process.working_dir).is_dir():
        searched.insert(0, Path(process.working_dir))  # of this machine as well
    command = tuple(_mounted(word, mounts) for word in process.command)
    if workdir is None:
        command = tuple(_located(command, searched))
    environ = {name: _mounted(value, mounts) for name, value in process.environ.items()}
    python_path = environ.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    entries = [str(submit_folder / entry) for entry in python_path.split(os.pathsep) if entry]
    own = {
        "PYTHONPATH": os.pathsep.join([*entries, *map(str, searched)]),
        settings.SUBMIT_DIR: str(submit_folder),
        **({} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        **({} if process.cpus is None else {"OMP_NUM_THREADS": str(process.cpus)}),
    }
    given = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    return replace(process, command=command, environ={**own, **given}, working_dir=str(working_dir))


def _volume(host_path: str | None, folder: Path) -> Path:
    """Return the folder of a ``hostPath``, or a new one of the trial's own for the name after the colon."""
    source = str(host_path)
    if source.startswith("/"):
        return Path(source)
    path = folder / "volumes" / source
    path.mkdir(parents=True, exist_ok=True)
    return path


def _working_dir(given: str | None, folder: Path, mounts: Mapping[str, Path]) -> Path:
    if not given:
        return folder
    mounted = _mounted(given, mounts)
    return Path(mounted) if mounted != given else folder / given.lstrip("/")


def _mounted(text: str, mounts: Mapping[str, Path]) -> str:
    """Replace mount paths, the longest first, where they stand for themselves or begin a path."""
    for path in sorted(mounts, key=len, reverse=True):
        pattern = rf"(?<![\w./-]){re.escape(path.rstrip('/'))}(?![\w.-])"
        text = re.sub(pattern, lambda _, path=path: str(mounts[path]), text)  # type: ignore[misc]
    return text


def _located(command: Sequence[str], searched: Sequence[Path]) -> Iterator[str]:
    """Yield a command's words, files to be read with their whole path; those to be written stay as they are."""
    before = ""
    for number, word in enumerate(command):
        option = _OPTION_VALUE.fullmatch(word)
        if number and before.startswith("-") and "c" in before and _SHELL.search(command[0]):
            yield _located_in_script(word, searched)
        elif option is not None:
            yield f"{option[1]}={_found(option[2], option[1], searched)}"
        else:
            yield _found(word, before if before.startswith("-") else "", searched)
        before = word


def _located_in_script(script: str, searched: Sequence[Path]) -> str:
    def located(match: re.Match[str]) -> str:
        is_written = re.search(rf">\s*[\"']?{re.escape(match[2])}\b", script)
        return match[0] if is_written else match[1] + _found(match[2], "", searched)

    return _SCRIPT.sub(located, script)


def _found(word: str, option: str, searched: Sequence[Path]) -> str:
    """Return the whole path of a relative one that there is, and anything else as it is."""
    is_word = not {"/", "."} & set(word)  # as likely a value as a name
    if not word or word.startswith(("-", "/", "~")) or _OUTPUT_OPTION.search(option) or set(word) <= {"."}:
        return word
    if is_word and not _INPUT_OPTION.search(option):
        return word
    with suppress(OSError, ValueError):  # no path at all: too long, or with a NUL
        for folder in searched:
            if (folder / word).exists():
                return str(folder / word)
    return word


class GPUs:
    """The machine's GPUs, as ``CUDA_VISIBLE_DEVICES`` names them, shared out among the trials that run at a time."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.count = len(devices)
        self._free = list(devices)

    def take(self, wanted: Sequence[int]) -> list[list[str]] | None:
        """Return GPUs for each node of a trial, fewer where there are no more; None while others have them."""
        if min(sum(wanted), self.count) > len(self._free):
            return None
        taken = []
        for count in wanted:
            taken.append(self._free[:count])
            del self._free[:count]
        return taken

    def give_back(self, gpus: Sequence[Sequence[str]]) -> None:
        """Take back what a trial had."""
        self._free = sorted([*self._free, *(device for node in gpus for device in node)])


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        devices = [device.strip() for device in given.split(",") if device.strip()]
        return devices[: devices.index("-1")] if "-1" in devices else devices
    with suppress(OSError):
        return [str(number) for number, _ in enumerate(_GPU_FOLDER.iterdir())]
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"],  # noqa: S607  wherever it is
            capture_output=True,
            text=True,
            check=True,
            timeout=_QUERY_TIMEOUT_S,
        )
        return [str(number) for number, _ in enumerate(listed.stdout.splitlines())]
    return []
