"""From a trial template to the processes of one trial: parameters put in, the primary container found, ranks given.

A container's command runs as a local process in this Python's environment. Images, volumes, init containers, sidecars
and limits do not exist here; the notes list those that are asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.manifest import Manifest
from katib_callbacks.local.api.validation import META_REFERENCE, TRIAL_PARAMETER
from katib_callbacks.local.trials import containers
from katib_callbacks.local.trials.launchers import kind_variables, node_variables, rank_variables

KINDS = ("Job", "PyTorchJob", "TrainJob", "TFJob", "XGBoostJob", "MPIJob")
"""Kinds of ``trialSpec`` that can run here."""

TRAINJOB_CONTAINER = "node"
"""The container that a TrainJob's ``spec.trainer`` overrides (Kubeflow Trainer, pkg/constants/constants.go)."""

DEFAULT_NAMESPACE = "default"


PATH = "spec.trialTemplate.trialSpec"

_REPLICAS = {
    "PyTorchJob": ("pytorchReplicaSpecs", ("Master", "Worker")),
    "XGBoostJob": ("xgbReplicaSpecs", ("Master", "Worker")),
    "TFJob": ("tfReplicaSpecs", ("Chief", "Master", "Worker", "PS", "Evaluator")),
    "MPIJob": ("mpiReplicaSpecs", ("Launcher",)),  # its workers only wait for what the launcher starts in them
}
_NEVER_FIRST = frozenset({"PS", "Evaluator"})


@dataclass(frozen=True)
class ProcessPlan:
    """One process of a trial.

    Args:
        environ: Variables beside this process's own.
        node: Which of the trial's pods it would be in.
        cpus: How many processors it asks for, at least one; None if it does not.
        mounts: The container's volumes by mount path: the path of a ``hostPath``, else the volume's name.
        is_server: Whether it serves the others, and never ends by itself.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str]
    working_dir: str | None
    node: int = 0
    cpus: int | None = None
    mounts: Mapping[str, str] = field(default_factory=dict)
    is_server: bool = False


@dataclass(frozen=True)
class TrialPlan:
    """The program of a trial.

    Args:
        processes: The primary one first: its end is the trial's, and its output is what StdOut collects.
        deadline_s: Seconds after which the trial is ended and counts as failed.
        gpus: How many each of its nodes asks for.
        grace_s: Seconds between SIGTERM and SIGKILL; None for the default.
    """

    processes: tuple[ProcessPlan, ...]
    deadline_s: float | None
    gpus: tuple[int, ...] = ()
    grace_s: float | None = None
    kind: str = "Job"


@dataclass(frozen=True)
class TrialTemplate:
    """An experiment's ``trialTemplate``; ``references`` are what its names stand for, ``retain`` may be unsaid."""

    trial_spec: Mapping[str, Any]
    references: Mapping[str, str]
    primary_container: str
    namespace: str
    retain: bool | None

    @classmethod
    def of(cls, manifest: Manifest) -> "TrialTemplate":
        """Read the template of a legal experiment."""
        template = manifest["spec"]["trialTemplate"]
        return cls(
            trial_spec=template["trialSpec"],
            references={entry["name"]: entry["reference"] for entry in template.get("trialParameters") or ()},
            primary_container=template["primaryContainerName"],
            namespace=(manifest.get("metadata") or {}).get("namespace") or DEFAULT_NAMESPACE,
            retain=template.get("retain"),
        )

    def render(self, trial: str, assignments: Mapping[str, str]) -> dict[str, Any]:
        """Return a trial's own ``trialSpec``, with its name and all ``${trialParameters...}`` replaced."""
        spec = self.trial_spec
        metadata = spec.get("metadata") or {}
        own = {"Name": trial, "Namespace": self.namespace, "Kind": spec["kind"], "APIVersion": spec["apiVersion"]}
        values = {}
        for name, reference in self.references.items():
            match = META_REFERENCE.fullmatch(reference)
            if match is None:
                values[name] = assignments.get(reference, "")
            elif match[2] is None:
                values[name] = own[match[1]]
            else:
                values[name] = str((metadata.get(match[1].partition("[")[0].lower()) or {}).get(match[2], ""))
        rendered: dict[str, Any] = _replaced(spec, values)
        rendered["metadata"] = {**(rendered.get("metadata") or {}), "name": trial, "namespace": self.namespace}
        return rendered

    def plan(
        self,
        trial: str,
        assignments: Mapping[str, str],
        *,
        free_port: Callable[[], int],
        mounts: Mapping[str, str] = MappingProxyType({}),
    ) -> TrialPlan:
        """Find out what to run for a trial; an error begins with the path.

        ``free_port`` is called where processes are to meet at a port, ``mounts`` are the volumes that Katib adds to the
        primary pod; other pods get ones of their own.
        """
        plan = _plan(self.render(trial, assignments), self.primary_container, free_port)
        processes = []
        for process in plan.processes:
            own = {path: f"{name}-{process.node}" if process.node else name for path, name in mounts.items()}
            processes.append(replace(process, mounts={**own, **process.mounts}))
        return replace(plan, processes=tuple(processes))

    def gpus(self, per_trial: int | None) -> tuple[int, ...]:
        """Return how many GPUs each node of a trial has: as the template says, or shares of ``per_trial``."""
        asked = self.plan("trial", {}, free_port=lambda: 1).gpus
        return asked if per_trial is None else tuple(max(1, per_trial // len(asked)) for _ in asked)

    @property
    def grace_s(self) -> float | None:
        """Seconds between SIGTERM and SIGKILL; None for the default."""
        return self.plan("trial", {}, free_port=lambda: 1).grace_s

    def notes(self) -> list[str]:
        """Return the parts of the ``trialSpec`` that are not acted upon here, each once, for a word to the user."""
        found = ((_UNMET[key], value) for key, value in _items(self.trial_spec) if key in _UNMET)
        return sorted({told for (told, is_unmet), value in found if is_unmet(value)})


def _plan(run_spec: Mapping[str, Any], primary: str, free_port: Callable[[], int]) -> TrialPlan:
    kind = str(run_spec.get("kind"))
    spec = _mapping(run_spec, "spec", PATH)
    per_node = 1
    if kind == "Job":
        nodes = [_node(spec, primary, f"{PATH}.spec")]
        deadlines = [spec.get("activeDeadlineSeconds"), nodes[0].pod.get("activeDeadlineSeconds")]
    elif kind in _REPLICAS:
        nodes = list(_replicas(spec, primary, *_REPLICAS[kind]))
        per_node = _count(spec.get("nprocPerNode")) if kind == "PyTorchJob" else 1
        deadlines = [(spec.get("runPolicy") or {}).get("activeDeadlineSeconds")]
    elif kind == "TrainJob":
        trainer = _mapping(spec, "trainer", f"{PATH}.spec")
        if primary != TRAINJOB_CONTAINER:
            raise ConfigurationError(
                f"spec.trialTemplate.primaryContainerName: of a TrainJob {TRAINJOB_CONTAINER!r} runs here, "
                f"not {primary!r}"
            )
        nodes = [_Node(containers.checked(trainer, f"{PATH}.spec.trainer"))] * _count(trainer.get("numNodes"))
        per_node = _count(trainer.get("numProcPerNode"))
        deadlines = [spec.get("activeDeadlineSeconds")]
    else:
        raise ConfigurationError(f"{PATH}.kind: {kind!r} cannot run on one machine; known: {', '.join(KINDS)}")
    variables = kind_variables(kind, [node.role for node in nodes], free_port)
    port = free_port() if kind in {"PyTorchJob", "TrainJob", "XGBoostJob"} else None
    if kind in {"Job", "MPIJob"} and containers.is_torchrun(nodes[0].container):
        variables[0]["PET_MASTER_PORT"] = str(free_port())
    own = {f"metadata.{name}": run_spec["metadata"][name] for name in ("name", "namespace")}
    grace = nodes[0].pod.get("terminationGracePeriodSeconds")
    return TrialPlan(
        processes=tuple(_processes(nodes, per_node, own, variables, port)),
        deadline_s=min((float(seconds) for seconds in deadlines if seconds), default=None),
        gpus=tuple(containers.gpus(node.container) for node in nodes),
        grace_s=None if grace is None else float(grace),
        kind=kind,
    )


_UNMET: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "image": ("the image (this Python's environment is used)", bool),
    "initContainers": ("init containers", bool),
    "containers": ("containers beside the primary one", lambda value: isinstance(value, list) and len(value) > 1),
    "name": (
        "TLS and tokens of a cluster's DB manager (there is one of its own here)",
        containers.OF_A_CLUSTERS_DB_MANAGER.__contains__,
    ),
    "envFrom": ("variables from the cluster (envFrom)", bool),
    "valueFrom": ("variables from the cluster (valueFrom)", lambda value: containers.field_reference(value) is None),
    "volumes": (
        "volumes of other kinds than emptyDir and hostPath",
        lambda volumes: any(not {"emptyDir", "hostPath"} & set(volume) for volume in volumes or ()),
    ),
    "backoffLimit": ("retries of a failed job (backoffLimit)", bool),
    "runtimeRef": ("the training runtime (runtimeRef)", bool),
}
"""Parts of a ``trialSpec`` by their keys: what is said of one that asks for something, and whether it does."""


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key), item
            yield from _items(item)
    elif isinstance(value, list):
        for item in value:
            yield from _items(item)


def _replaced(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return TRIAL_PARAMETER.sub(lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {_replaced(key, values): _replaced(item, values) for key, item in value.items()}
    return [_replaced(item, values) for item in value] if isinstance(value, list) else value


def _mapping(parent: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    value = parent.get(name)
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{path}.{name}: must be a mapping")
    return value


class _Node(NamedTuple):
    """A pod: its primary container, itself, and which of the job's replicas it is."""

    container: Mapping[str, Any]
    pod: Mapping[str, Any] = MappingProxyType({})
    role: str = ""


def _node(parent: Mapping[str, Any], primary: str, path: str, role: str = "") -> _Node:
    """Return the pod of a ``template``, which lies at ``path``."""
    pod = _mapping(_mapping(parent, "template", path), "spec", f"{path}.template")
    return _Node(containers.find_container(pod, primary, f"{path}.template.spec"), pod, role)


def _replicas(spec: Mapping[str, Any], primary: str, field_name: str, roles: Sequence[str]) -> Iterator[_Node]:
    """Yield each replica, first the one whose end is the job's."""
    path = f"{PATH}.spec.{field_name}"
    replicas = _mapping(spec, field_name, f"{PATH}.spec")
    first = [role for role in roles if role not in _NEVER_FIRST]
    if not set(first) & set(replicas):
        raise ConfigurationError(f"{path}: must have a {' or a '.join(first)}")
    for role in roles:
        if role in replicas:
            replica = _mapping(replicas, role, path)
            yield from [_node(replica, primary, f"{path}.{role}", role.lower())] * _count(replica.get("replicas"))


def _count(number: Any) -> int:
    """Return a number of nodes or processes; words as ``auto`` and ``gpu`` count as one."""
    try:
        return max(1, int(number))
    except (TypeError, ValueError):
        return 1


def _processes(
    nodes: Sequence[_Node],
    per_node: int,
    own: Mapping[str, str],
    variables: Sequence[Mapping[str, str]],
    port: int | None,
) -> Iterator[ProcessPlan]:
    """Yield the processes of all nodes; with a port, those of a job of torch."""
    for node, (container, pod, role) in enumerate(nodes):
        words = containers.command_of(container)
        is_torchrun = containers.is_torchrun(container)
        count = 1 if is_torchrun else per_node
        for local in range(count):
            ranks = dict(variables[node])
            if port is not None:
                ranks |= node_variables(node, len(nodes), per_node, port)
                if not is_torchrun:
                    ranks |= rank_variables(node, local, len(nodes), per_node, port)
            if is_torchrun and "PET_MASTER_PORT" in ranks:
                words = containers.at_port(words, ranks["PET_MASTER_PORT"])
            environ = containers.environment(container, ranks, own)
            yield ProcessPlan(
                command=tuple(containers.expanded(word, environ) for word in words),
                environ=environ,
                working_dir=container.get("workingDir"),
                node=node,
                cpus=containers.cpus(container, count),
                mounts=containers.mounts(container, pod),
                is_server=role == "ps",
            )
