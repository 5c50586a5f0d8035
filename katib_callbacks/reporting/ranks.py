"""Ranks: the process of a distributed trial that is global rank zero.

Katib puts ``KATIB_TRIAL_NAME`` into every worker of a trial, so each of them must find out by itself, without asking
the others: no collective, no barrier. The framework must say so, and the launcher's environment must not contradict it:
single-device Trainers under torchrun call themselves rank zero in every process.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from katib_callbacks import settings
from katib_callbacks.reporting import termination

logger = logging.getLogger(__name__)

_LAUNCHERS: dict[str, tuple[str, ...]] = {
    "HOROVOD_RANK": ("HOROVOD_SIZE",),  # horovodrun --gloo; it hands the launcher's own RANK on to all its processes
    "RANK": ("WORLD_SIZE",),  # torchrun, PyTorchJob, accelerate
    "OMPI_COMM_WORLD_RANK": ("OMPI_COMM_WORLD_SIZE",),  # OpenMPI
    "MV2_COMM_WORLD_RANK": ("MV2_COMM_WORLD_SIZE",),  # MVAPICH2
    "PMI_RANK": ("PMI_SIZE",),  # MPICH, Intel MPI
    "PMIX_RANK": (),  # OpenMPI 5, PRRTE
    "PADDLE_TRAINER_ID": ("PADDLE_TRAINERS_NUM",),  # paddle.distributed
    "SLURM_PROCID": ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),  # a step may have fewer tasks than its allocation
    "TF_CONFIG": (),  # TFJob; the cluster stands in it
    "JAX_PROCESS_ID": ("JAX_NUM_PROCESSES",),  # TrainJob's JAX runtime
    "KERAS_DISTRIBUTION_PROCESS_ID": ("KERAS_DISTRIBUTION_NUM_PROCESSES",),
    "PET_NODE_RANK": ("PET_NNODES",),  # TrainJob; a node's rank, which is all there is without torchrun
}
"""The variable of each launcher, and where it says how many processes there are."""

LAUNCHER_VARIABLES = tuple(_LAUNCHERS)
"""In the order in which they are believed; the first with a readable value decides."""

_COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""Kubernetes numbers the pods of an Indexed Job with it: parts of any work, which only in a TrainJob are its nodes."""


@dataclass(frozen=True)
class ProcessRank:
    """The rank of this process.

    Args:
        rank: The global rank; None for a process that has none (a parameter server, an evaluator).
        detail: The value as it was read, for messages.
        is_certain: False where an environment variable says so, and none says that there are that many processes: it
            may be left over from an interactive allocation, or stand in the image.
    """

    is_global_zero: bool
    rank: int | None
    source: str
    detail: str
    is_certain: bool = True

    def __str__(self) -> str:
        return f"rank {'none' if self.rank is None else self.rank} ({self.source}={self.detail})"


def process_rank(environ: Mapping[str, str], *, framework: ProcessRank | None = None) -> ProcessRank:
    """Find the rank of this process without talking to any other.

    The first source that denies rank zero counts: the framework (or else torch.distributed, JAX,
    torch.multiprocessing), then the first readable variable, ``KATIB_CALLBACKS_RANK`` in place of the launchers'. If
    none does, the first that exists; a process about which nothing is known is rank zero.
    """
    first = framework if framework is not None else _joined_rank()
    if first is not None and not first.is_global_zero:
        return first
    launcher = _environment_rank(environ)
    if launcher is not None and (first is None or not launcher.is_global_zero):
        return launcher
    return first if first is not None else ProcessRank(is_global_zero=True, rank=0, source="default", detail="0")


def is_one_of_many(environ: Mapping[str, str]) -> bool:
    """Return whether a launcher says that there are several processes; SLURM's allocation says nothing of a step."""
    return "TF_CONFIG" in environ or any(_size(environ, sizes[:1]) > 1 for sizes in _LAUNCHERS.values())


def framework_rank(*, is_global_zero: bool, rank: int | None = None, source: str = "framework") -> ProcessRank:
    """Wrap what a framework says of this process; ``rank`` where it tells more than yes or no."""
    if rank is None and is_global_zero:
        rank = 0
    return ProcessRank(is_global_zero, rank, source, "not zero" if rank is None else str(rank))


def announce_silence(rank: ProcessRank, *, is_in_trial: bool, runtime: settings.Runtime) -> None:
    """Log that this process reports nothing; in a trial, if it may be the only one, a WARNING and the pod's message."""
    if rank.is_certain or not is_in_trial:
        logger.info("This process is %s, not rank zero: it reports nothing.", rank)
        return
    logger.warning(
        "This process is %s, not rank zero: it reports nothing. Only %s says so, and no variable says that there are "
        "other processes. If this is the only one, unset %s or set %s=0.",
        *(rank, rank.source, rank.source, settings.RANK),
    )
    termination.explain(
        runtime,
        termination.RANK,
        f"this process took itself for rank {rank.rank} because of {rank.source}={rank.detail}, and reported nothing; "
        f"if it is the only one, unset {rank.source} or set {settings.RANK}=0",
    )


# -- libraries, if this process has loaded them; none is ever imported -------------------------------------------------


def _joined_rank() -> ProcessRank | None:
    """Ask what joins processes; return the first answer that denies rank zero, otherwise the first."""
    answers = [answer for answer in (_torch_rank(), _jax_rank()) if answer is not None]
    return next((answer for answer in answers if not answer.is_global_zero), answers[0] if answers else None)


def _torch_rank() -> ProcessRank | None:
    """Ask ``torch.distributed``, or torch.multiprocessing where there is no process group, or none any more."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return _spawned_rank()
    rank: int = distributed.get_rank()
    return framework_rank(is_global_zero=rank == 0, rank=rank, source="torch.distributed")


def _spawned_rank() -> ProcessRank | None:
    """Return the index of a child of ``torch.multiprocessing.spawn``, unless it is the first of its node.

    Its Process object holds ``_wrap(function, index, ...)``, all that is left once its process group is destroyed.
    """
    processes, spawn = sys.modules.get("multiprocessing.process"), sys.modules.get("torch.multiprocessing.spawn")
    if processes is None or spawn is None:
        return None
    child = processes.current_process()
    target = getattr(child, "_target", None)
    arguments: tuple[object, ...] = getattr(child, "_args", ())
    if target is None or target is not getattr(spawn, "_wrap", None):
        return None
    index = arguments[1] if len(arguments) > 1 else None
    if not isinstance(index, int) or index == 0:
        return None
    return framework_rank(is_global_zero=False, rank=index, source="torch.multiprocessing.spawn")


def _jax_rank() -> ProcessRank | None:
    """Ask what ``jax.distributed.initialize`` noted; ``jax.process_index`` may wait for the other processes."""
    state = getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
    rank = getattr(state, "process_id", None)
    if not isinstance(rank, int) or (rank == 0 and getattr(state, "client", None) is None):  # 0 until it is called
        return None
    return framework_rank(is_global_zero=rank == 0, rank=rank, source="jax.distributed")


# -- environment -------------------------------------------------------------------------------------------------------


def _environment_rank(environ: Mapping[str, str]) -> ProcessRank | None:
    for variable, size_variables in {settings.RANK: (), **_LAUNCHERS}.items():
        value = environ.get(variable, "").strip()
        if not value:
            continue
        if variable == "TF_CONFIG":
            decision = _tf_config_rank(value)
            if decision is not None:
                return decision
        elif (rank := settings.whole_number(value)) is not None:
            is_certain = rank == 0 or variable == settings.RANK or _size(environ, size_variables) > rank
            return ProcessRank(rank == 0, rank, variable, value, is_certain)
    value = environ.get(_COMPLETION_INDEX, "").strip()
    if (rank := settings.whole_number(value)) is not None and environ.get(settings.TRAINER_SERVER_URL, "").strip():
        return ProcessRank(rank == 0, rank, _COMPLETION_INDEX, value)  # Kubernetes sets it in each pod anew
    return None


def _size(environ: Mapping[str, str], variables: tuple[str, ...]) -> int:
    """Return how many processes there are by the first readable variable, 0 if none says it."""
    for variable in variables:
        size = settings.whole_number(environ.get(variable, "").strip().rpartition(":")[2])  # PET_NNODES may be "1:4"
        if size is not None:
            return size
    return 0


def _tf_config_rank(value: str) -> ProcessRank | None:
    """Read TF_CONFIG: the chief or master is zero; worker i is i, or i + 1 beside a chief; others never report."""
    import json  # noqa: PLC0415  only where TF_CONFIG is set

    try:
        config = json.loads(value)
        task = config["task"]
        kind, index = str(task["type"]), int(task["index"])
        cluster = config.get("cluster") or {}
        has_chief = any(cluster.get(name) for name in ("chief", "master"))
        size = sum(len(hosts) for hosts in cluster.values() if isinstance(hosts, list))
        is_one_of_many = size > (1 if cluster.get(kind) else 0)  # an evaluator does not stand in it
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if index < 0:  # says nothing, as a negative RANK
        return None
    detail = f"{kind} {index}"
    rank = None
    if kind in {"chief", "master"}:
        rank = index
    elif kind == "worker":
        rank = index + 1 if has_chief else index
    return ProcessRank(rank == 0, rank, "TF_CONFIG", detail, is_certain=rank == 0 or is_one_of_many)
