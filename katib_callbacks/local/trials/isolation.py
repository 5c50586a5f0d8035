"""Isolation of trials: a folder, an environment and GPUs of each one's own.

Pods are alone by nature, processes are not: two trials that write ``output/model.pt`` would each load the other's.
"""

import functools
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from katib_callbacks import settings
from katib_callbacks.local.trials.gpus import gpu_variables
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
    "I_MPI_", "HYDRA_", "FLUX_", "LSB_", "JSM_", "HOROVOD_", "ACCELERATE_", "DEEPSPEED_", "PADDLE_", "DMLC_", "SM_",
)  # fmt: skip

_FOREIGN_EXPERIMENTS = frozenset((
    "WANDB_RUN_ID", "WANDB_SERVICE", "MLFLOW_RUN_ID", "COMET_EXPERIMENT_KEY", "PL_GLOBAL_SEED", "PL_SEED_WORKERS",
))  # fmt: skip
"""By these a training that runs here, in a notebook for instance, would take a trial for a part of itself."""

_NOTEBOOK_BACKEND = "module://"
"""So begins matplotlib's backend of a notebook, which a script need not have."""

_SHELL = re.compile(r"(^|/)(ba|da|k|z|a)?sh$")
_SCRIPT = re.compile(r"""(?<![^\s;&|(])(["']?)([\w./-]+\.(?:py|sh))\1(?=[\s;&|)]|$)""")
_OPTION_IN_SCRIPT = re.compile(
    r"""(?<=\s)(--?[\w.-]+)([= ])(["']?)([^\s"';&|<>()$`*?-][^\s"';&|<>()$`*?]*)\3(?=[\s;&|)]|$)"""
)
_OUTPUT_OPTION = re.compile(r"out|dest|save|log|checkpoint|ckpt|write|result|target", re.IGNORECASE)
_INPUT_OPTION = re.compile(r"data|conf|input|source|train|eval|test|valid", re.IGNORECASE)
_PLACE_OPTION = re.compile(r"dir|path|file|folder|root", re.IGNORECASE)
_OPTION_VALUE = re.compile(r"(--?[\w.-]+)=(.+)", re.DOTALL)

MAX_COPY_BYTES = 64 << 20
"""What a trial may read or write gets a copy of its own up to this size; what is larger is read where it lies."""

_POD = Path(__file__).with_name("pod")
"""For the path of each Python in a trial: see ``sitecustomize`` there."""

_LEAST_COST_BYTES = 8192  # of a file, however small

_logger = logging.getLogger(__name__)


def inherited_environment() -> dict[str, str]:
    """Return what a trial's processes take over from this one: all but what is meant for this process."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN_VARIABLES | _FOREIGN_EXPERIMENTS and not name.startswith(_FOREIGN_PREFIXES)
    }
    if environ.get("MPLBACKEND", "").startswith(_NOTEBOOK_BACKEND):
        del environ["MPLBACKEND"]
    # `python` and `torchrun` in a command are this environment's, whether it is activated or not.
    environ["PATH"] = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), environ.get("PATH"))))
    environ["PYTHONUNBUFFERED"] = "1"  # what a trial prints is in its log at once, also if it is killed
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a module beside the user's script leaves no __pycache__ there
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
        command = tuple(_located(command, searched, working_dir))
    environ = {name: _mounted(value, mounts) for name, value in process.environ.items()}
    python_path = environ.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    entries = [str(submit_folder / entry) for entry in python_path.split(os.pathsep) if entry]
    own = {
        "PYTHONPATH": os.pathsep.join([str(_POD), *entries, *map(str, searched)]),
        settings.SUBMIT_DIR: str(submit_folder),
        **({} if gpus is None else gpu_variables(gpus)),
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


def _located(command: Sequence[str], searched: Sequence[Path], working_dir: Path) -> Iterator[str]:
    """Yield a command's words, files to be read with their whole path; those to be written stay as they are."""
    before = ""
    for number, word in enumerate(command):
        option = _OPTION_VALUE.fullmatch(word)
        if number and before.startswith("-") and "c" in before and _SHELL.search(command[0]):
            yield _located_in_script(word, searched, working_dir)
        elif option is not None:
            yield f"{option[1]}={_found(option[2], option[1], searched, working_dir)}"
        else:
            yield _found(word, before if before.startswith("-") else "", searched, working_dir)
        before = word


def _located_in_script(script: str, searched: Sequence[Path], working_dir: Path) -> str:
    """Return a shell's script with the whole paths of the scripts that it runs, and of options' files."""

    def is_written(word: str) -> bool:
        return re.search(rf">\s*[\"']?{re.escape(word)}(?![\w.-])", script) is not None

    def located(match: re.Match[str]) -> str:
        found = match[2] if is_written(match[2]) else _found(match[2], "", searched, working_dir)
        return match[0] if found == match[2] else shlex.quote(found)

    def option_located(match: re.Match[str]) -> str:
        option, between, _, word = match.groups()
        found = word if is_written(word) else _found(word, option, searched, working_dir)
        return match[0] if found == word else f"{option}{between}{shlex.quote(found)}"

    return _SCRIPT.sub(located, _OPTION_IN_SCRIPT.sub(option_located, script))


def _found(word: str, option: str, searched: Sequence[Path], working_dir: Path) -> str:
    """Return the whole path of a relative one that there is, and anything else as it is.

    What the trial may as well write (``--model model.pt``) is copied into its folder, and stays as it is.
    """
    if not word or word.startswith(("-", "/", "~")) or _OUTPUT_OPTION.search(option) or set(word) <= {"."}:
        return word
    is_input = _INPUT_OPTION.search(option) is not None
    if not is_input and not {"/", "."} & set(word) and not _PLACE_OPTION.search(option):  # as likely a value
        return word
    with suppress(OSError, ValueError):  # no path at all: too long, or with a NUL
        for folder in searched:
            path = folder / word
            if path.exists():
                is_ambiguous = not is_input and path.suffix not in {".py", ".sh"} and not os.access(path, os.X_OK)
                is_ambiguous |= not is_input and path.is_dir()
                return word if is_ambiguous and _is_copied(path, working_dir / word, working_dir) else str(path)
    return word


def _is_copied(path: Path, own: Path, working_dir: Path) -> bool:
    """Copy a file or folder of the user's into a trial's; returns False where it stays the user's."""
    if ".." in own.parts or own == working_dir or path.resolve() in working_dir.resolve().parents:
        return False
    size = 0
    for one in path.rglob("*") if path.is_dir() else [path]:
        size += _LEAST_COST_BYTES + (one.stat().st_size if one.is_file() else 0)
        if size > MAX_COPY_BYTES:
            _warn_of_size(path)
            return False
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, own, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        else:
            own.unlink(missing_ok=True)  # of another process of the trial, and perhaps not to be written
            shutil.copy(path, own)
    except OSError:  # not to be read, or no file: a pipe, a device
        return False
    return True


@functools.cache
def _warn_of_size(path: Path) -> None:
    _logger.warning("%s is too large to be copied for each trial: trials use, and may change, your own one", path)
