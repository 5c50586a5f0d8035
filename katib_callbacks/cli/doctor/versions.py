"""Checks of what is installed beside this package."""

import re
from collections.abc import Iterator
from importlib import metadata

from katib_callbacks.cli.doctor.finding import NOTE, OK, PROBLEM, Checks, Finding, Surroundings

_MINIMUM = re.compile(r"([\w.-]+)[^;]*?>=([\d.]+)")
_REFUSED_PROTOBUF, _REFUSED_KUBERNETES = (5,), (33,)
"""The first versions with which kubeflow-katib 0.19 does not work."""


def check_versions(here: Surroundings) -> Iterator[Finding]:
    """Compare what is installed with the lowest versions that this package's own metadata admits."""
    del here
    fine = []
    for name, lowest in sorted(_lowest_versions().items()):
        installed = _installed(name)
        if installed is None:
            continue
        if _parts(installed) < _parts(lowest):
            detail = f"{name} {installed} is older than {lowest}"
            yield Finding("versions", PROBLEM, detail, f'pip install "{name}>={lowest}"')
        else:
            fine.append(f"{name} {installed}")
    yield Finding("versions", OK, ", ".join(fine))


def check_conflicts(here: Surroundings) -> Iterator[Finding]:
    """Find what does not work beside kubeflow-katib."""
    del here
    sdk = _installed("kubeflow-katib")
    if sdk is None:
        return
    advice = "uninstall kubeflow-katib in the trial's image, which needs none"
    protobuf = _installed("protobuf")
    if protobuf is not None and _parts(protobuf) >= _REFUSED_PROTOBUF:
        detail = f"kubeflow-katib {sdk} wants protobuf<5, and {protobuf} is installed"
        yield Finding("conflicts", NOTE, detail, advice)
    for name in ("tensorflow", "tensorboard", "wandb"):
        lowest = _lowest_versions(name).get("protobuf", "")
        if _parts(lowest) >= _REFUSED_PROTOBUF:
            detail = f"kubeflow-katib {sdk} wants protobuf<5, and {name} {_installed(name)} wants protobuf>={lowest}"
            yield Finding("conflicts", NOTE, detail, advice)
    kubernetes = _installed("kubernetes")
    if kubernetes is not None and _parts(kubernetes) >= _REFUSED_KUBERNETES:
        detail = f"with kubernetes {kubernetes}, create_experiment and tune of kubeflow-katib {sdk} fail"
        yield Finding("conflicts", NOTE, detail, 'pip install "kubernetes<33"')


def _lowest_versions(name: str = "katib-callbacks") -> dict[str, str]:
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        required = []
    return {match[1]: match[2] for match in map(_MINIMUM.match, required) if match is not None}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return () if match is None else tuple(map(int, match[0].split(".")))


CHECKS: Checks = (check_versions, check_conflicts)
