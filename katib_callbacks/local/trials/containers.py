"""One container of a job: its command, variables, volumes and resources, as a process on this machine has them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError

GPU_RESOURCE = "nvidia.com/gpu"

_TORCHRUN = re.compile(r"\b(torchrun|torch\.distributed\.(run|launch))\b")
_PORT_OPTIONS = frozenset({"--master-port", "--master_port"})
_PORT = re.compile(r"(--(?:master[-_]port[= ]|rdzv[-_]endpoint[= ](?:localhost|127\.0\.0\.1):))\d+")
_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")  # of Kubernetes, in command, args and env

_FIELD_REFERENCES = {"metadata.name", "metadata.namespace"}

OF_A_CLUSTERS_DB_MANAGER = frozenset({settings.TLS_CA, settings.TLS_CERT, settings.TLS_KEY, settings.TOKEN_PATH})
"""Variables by which a trial trusts, and is trusted by, a DB manager; the one here has neither TLS nor tokens."""


def find_container(pod: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    """Return a pod's container of a name, checked; ``path`` is the pod's."""
    containers = pod.get("containers") or []
    for number, container in enumerate(containers):
        if container.get("name") == name:
            return checked(container, f"{path}.containers[{number}]")
    known = ", ".join(str(container.get("name")) for container in containers) or "none"
    raise ConfigurationError(f"{path}.containers: none is the primary container {name!r}; there are: {known}")


def checked(container: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return a container whose command is known; else ConfigurationError."""
    for part in ("command", "args"):
        words = container.get(part)
        if words is not None and not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise ConfigurationError(f"{path}.{part}: must be a list of strings")
    if not container.get("command"):
        raise ConfigurationError(f"{path}.command: must be specified; the image's own command is not known here")
    return container


def command_of(container: Mapping[str, Any]) -> list[str]:
    """Return the words of command and arguments."""
    return [*container["command"], *(container.get("args") or ())]


def is_torchrun(container: Mapping[str, Any]) -> bool:
    """Return whether a container runs torchrun, which makes the processes of its node and gives them their ranks."""
    return _TORCHRUN.search(" ".join(command_of(container))) is not None


def at_port(words: Sequence[str], port: str) -> list[str]:
    """Return torchrun's command with a port of the trial's own, as trials share a machine's and pods do not."""
    ended = [port if before in _PORT_OPTIONS else word for before, word in zip(["", *words], words, strict=False)]
    return [_PORT.sub(lambda match: match[1] + port, word) for word in ended]


def _resources(container: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    resources = container.get("resources") or container.get("resourcesPerNode") or {}
    return resources.get(kind) or {}


def gpus(container: Mapping[str, Any]) -> int:
    """Return how many GPUs a container asks for."""
    try:
        return int(_resources(container, "limits").get(GPU_RESOURCE) or 0)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"resources.limits[{GPU_RESOURCE!r}]: must be a whole number") from error


def cpus(container: Mapping[str, Any], processes: int) -> int | None:
    """Return how many processors each process of a container has, of those that it asks for."""
    asked = _resources(container, "requests").get("cpu") or _resources(container, "limits").get("cpu")
    if not asked:
        return None
    text = str(asked)
    try:
        cpus = float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)
    except ValueError as error:
        raise ConfigurationError(f"resources.requests.cpu: {text!r} is not a number of processors") from error
    return max(1, math.ceil(cpus) // processes)


def mounts(container: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """Return what lies at a container's mount paths: the path of a ``hostPath``, or the name of an ``emptyDir``."""
    sources = {
        str(volume.get("name")): str((volume.get("hostPath") or {}).get("path") or volume.get("name"))
        for volume in pod.get("volumes") or ()
        if "hostPath" in volume or "emptyDir" in volume
    }
    found = {}
    for mount in container.get("volumeMounts") or ():
        source = sources.get(str(mount.get("name")))
        if source is not None:
            found[str(mount.get("mountPath"))] = "/".join(filter(None, (source, str(mount.get("subPath") or ""))))
    return found


def environment(container: Mapping[str, Any], ranks: dict[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return a container's variables, behind those of its rank; ``own`` is what fields of the pod's metadata hold."""
    environ = dict(ranks)
    for entry in container.get("env") or ():
        name = str(entry.get("name"))
        if name in OF_A_CLUSTERS_DB_MANAGER:
            continue
        if "valueFrom" in entry:
            reference = field_reference(entry["valueFrom"])
            if reference is not None:
                environ[name] = own[reference]
        else:
            environ[name] = expanded(str(entry.get("value") or ""), environ)
    return environ


def field_reference(value: Any) -> str | None:
    """Return the field of the pod's metadata that a ``valueFrom`` names; None for any other source."""
    path = ((value or {}).get("fieldRef") or {}).get("fieldPath") if isinstance(value, Mapping) else None
    return path if path in _FIELD_REFERENCES else None


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` as Kubernetes does: unknown names stay, ``$$`` is a dollar sign."""
    return _REFERENCE.sub(lambda match: "$" if match[1] == "$" else environ.get(match[2], match[0]), text)
