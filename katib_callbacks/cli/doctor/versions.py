"""Checks of what is installed beside this package."""

import re
from collections.abc import Callable, Iterator
from importlib import metadata

from katib_callbacks.cli.doctor.finding import NOTE, OK, PROBLEM, Finding, Surroundings

_MINIMUM = re.compile(r"([\w.-]+)[^;]*?>=([\d.]+)")


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
    """Find kubeflow-katib beside a protobuf that it does not admit."""
    del here
    sdk, protobuf = _installed("kubeflow-katib"), _installed("protobuf")
    if sdk is not None and protobuf is not None and _parts(protobuf) >= (5,):
        detail = f"kubeflow-katib {sdk} wants protobuf<5, and {protobuf} is installed"
        yield Finding("conflicts", NOTE, detail, "uninstall kubeflow-katib in the trial's image, which needs none")


def _lowest_versions() -> dict[str, str]:
    try:
        required = metadata.requires("katib-callbacks") or []
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


CHECKS: tuple[Callable[[Surroundings], Iterator[Finding]], ...] = (check_versions, check_conflicts)
