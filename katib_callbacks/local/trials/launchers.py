"""Variables by which Kubeflow's operators, and launchers in their pods, tell each process where it stands."""

import json
from collections.abc import Callable, Mapping, Sequence

HOST = "127.0.0.1"

MPI_VARIABLES: Mapping[str, str] = {
    # The workers' slots are this machine, of which Open MPI would not use more than the processors.
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    # The operator's images run as root, and say --allow-run-as-root; not all commands do.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
"""For an MPIJob's launcher, in place of the operator's host file: ``mpirun`` starts its processes on this machine."""


def node_variables(node: int, nodes: int, per_node: int, port: int) -> dict[str, str]:
    """Return what both of Kubeflow's operators set for torchrun."""
    return {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": str(per_node),
        "PET_NODE_RANK": str(node),
        "PET_MASTER_ADDR": HOST,
        "PET_MASTER_PORT": str(port),
    }


def rank_variables(node: int, local: int, nodes: int, per_node: int, port: int) -> dict[str, str]:
    """Return what torchrun sets in each process."""
    return {
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "RANK": str(node * per_node + local),
        "WORLD_SIZE": str(nodes * per_node),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(per_node),
        "GROUP_RANK": str(node),
        "GROUP_WORLD_SIZE": str(nodes),
    }


def kind_variables(kind: str, roles: Sequence[str], free_port: Callable[[], int]) -> list[dict[str, str]]:
    """Return what the operator of a kind of job sets in each node, beside ranks."""
    if kind == "TFJob":
        return _tf_configs(roles, [free_port() for _ in roles])
    return [dict(MPI_VARIABLES) if kind == "MPIJob" else {} for _ in roles]


def _tf_configs(roles: Sequence[str], ports: Sequence[int]) -> list[dict[str, str]]:
    """Return ``TF_CONFIG`` of each of a TFJob's tasks; nothing for a single one, as the operator does."""
    if len(roles) == 1:
        return [{}]
    cluster: dict[str, list[str]] = {}
    tasks: list[dict[str, str | int]] = []
    for role, port in zip(roles, ports, strict=True):
        tasks.append({"type": role, "index": roles[: len(tasks)].count(role)})
        if role != "evaluator":  # stands in no cluster
            cluster.setdefault(role, []).append(f"{HOST}:{port}")
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task, "environment": "cloud"})} for task in tasks]
