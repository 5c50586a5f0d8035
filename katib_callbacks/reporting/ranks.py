"""Which process of a distributed trial is global rank zero.

Katib puts ``KATIB_TRIAL_NAME`` into every worker of a trial, so each of them must find out by itself, without asking
the others: no collective, no barrier. The framework must say so, and the launcher's environment must not contradict it:
single-device Trainers under torchrun call themselves rank zero in every process.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

LAUNCHER_VARIABLES = (
    "RANK",  # torchrun, PyTorchJob, accelerate
    "OMPI_COMM_WORLD_RANK",  # OpenMPI
    "PMI_RANK",  # MPICH, Intel MPI
    "PMIX_RANK",  # OpenMPI 5, PRRTE
    "SLURM_PROCID",
    "TF_CONFIG",  # TFJob
    "JAX_PROCESS_ID",  # TrainJob's JAX runtime
    "KERAS_DISTRIBUTION_PROCESS_ID",
    "PET_NODE_RANK",  # TrainJob; the rank of a node, which is all there is where torchrun was not called
)
"""In the order in which they are believed; the first with a readable value decides."""


_MAX_DIGITS = 20  # more are no rank, and Python refuses to read thousands


@dataclass(frozen=True)
class ProcessRank:
    """The rank of this process.

    Args:
        is_global_zero: Whether it reports.
        rank: The global rank; None for a process that has none (a parameter server, an evaluator).
        source: Where that was read: ``framework``, ``torch.distributed``, an environment variable, or ``default``.
        detail: The value as it was read, for messages.
    """

    is_global_zero: bool
    rank: int | None
    source: str
    detail: str

    def __str__(self) -> str:
        return f"rank {'none' if self.rank is None else self.rank} ({self.source}={self.detail})"


def process_rank(environ: Mapping[str, str], *, framework: ProcessRank | None = None) -> ProcessRank:
    """Find the rank of this process without talking to any other.

    Args:
        environ: The environment of this process.
        framework: What the training framework says, where one does; see :func:`framework_rank`. Otherwise an
            initialised ``torch.distributed`` is asked in its place.

    Returns:
        The first source that denies rank zero: the framework (or ``torch.distributed``), then the launcher's first
        readable variable. If none does, the first that exists; a process about which nothing is known is rank zero.
    """
    first = framework if framework is not None else _torch_rank()
    if first is not None and not first.is_global_zero:
        return first
    launcher = _launcher_rank(environ)
    if launcher is not None and (first is None or not launcher.is_global_zero):
        return launcher
    return first if first is not None else ProcessRank(is_global_zero=True, rank=0, source="default", detail="0")


def framework_rank(*, is_global_zero: bool, rank: int | None = None, source: str = "framework") -> ProcessRank:
    """Wrap what a framework says of this process; ``rank`` where it tells more than yes or no."""
    if rank is None and is_global_zero:
        rank = 0
    return ProcessRank(is_global_zero, rank, source, "not zero" if rank is None else str(rank))


def _torch_rank() -> ProcessRank | None:
    """Ask ``torch.distributed`` if this process has loaded and initialised it; never import it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    rank: int = distributed.get_rank()
    return framework_rank(is_global_zero=rank == 0, rank=rank, source="torch.distributed")


def _launcher_rank(environ: Mapping[str, str]) -> ProcessRank | None:
    for variable in LAUNCHER_VARIABLES:
        value = environ.get(variable, "").strip()
        if not value:
            continue
        if variable == "TF_CONFIG":
            decision = _tf_config_rank(value)
            if decision is not None:
                return decision
        elif value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:  # "abc", "-1" say nothing; "00" is zero
            return ProcessRank(int(value) == 0, int(value), variable, value)
    return None


def _tf_config_rank(value: str) -> ProcessRank | None:
    """Read TF_CONFIG: the chief or master is zero; worker i is i, or i + 1 beside a chief; others never report."""
    import json  # noqa: PLC0415  only where TF_CONFIG is set

    try:
        config = json.loads(value)
        task = config["task"]
        kind, index = str(task["type"]), int(task["index"])
        has_chief = any((config.get("cluster") or {}).get(name) for name in ("chief", "master"))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if index < 0:  # says nothing, as a negative RANK
        return None
    detail = f"{kind} {index}"
    if kind in {"chief", "master"}:
        return ProcessRank(index == 0, index, "TF_CONFIG", detail)
    if kind == "worker":
        rank = index + 1 if has_chief else index
        return ProcessRank(rank == 0, rank, "TF_CONFIG", detail)
    return ProcessRank(is_global_zero=False, rank=None, source="TF_CONFIG", detail=detail)
