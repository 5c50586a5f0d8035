"""Discovery: which groups, versions and resources there are, and what can be done with them."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from katib_callbacks.local.api_server.resources.resource import Resource

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
"""What a client accepts that wants all in one answer, and the answer's type."""

VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+katib-callbacks",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
"""Of the API that is spoken: clients compare it with their own."""

_READS, _WRITES = ("get", "list", "watch"), ("create", "delete", "patch", "update")


def answers(table: Sequence[Resource], writable: Collection[Resource]) -> dict[tuple[str, ...], Callable[[], Any]]:
    """Return what is answered about the API itself, by the words of the path."""
    found: dict[tuple[str, ...], Callable[[], Any]] = {
        **dict.fromkeys([("healthz",), ("readyz",), ("livez",)], lambda: "ok"),
        ("version",): lambda: VERSION,
        ("api",): lambda: {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        ("apis",): partial(groups, table),
    }
    for one in table:
        found[one.path] = partial(resources, table, one.api_version, writable)
        if one.group:
            about = {"kind": "APIGroup", "apiVersion": "v1", **group(one.group, one.version)}
            found[one.path[:2]] = partial(dict, about)
    return found


def verbs(resource: Resource, writable: Collection[Resource]) -> list[str]:
    """Return what may be done with a resource."""
    return sorted((*_READS, *(_WRITES if resource in writable else ())))


def groups(table: Iterable[Resource]) -> dict[str, Any]:
    """Return the answer to ``/apis``."""
    found = list(dict.fromkeys((one.group, one.version) for one in table if one.group))
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(*one) for one in found]}


def group(name: str, version: str) -> dict[str, Any]:
    """Return a group, which has one version."""
    one = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}


def resources(table: Iterable[Resource], api_version: str, writable: Collection[Resource]) -> dict[str, Any]:
    """Return the answer to ``/api/v1`` and ``/apis/GROUP/VERSION``."""
    found = []
    for one in table:
        if one.api_version == api_version:
            about = {"name": one.plural, "singularName": one.kind.lower(), "namespaced": one.is_namespaced}
            names = {"shortNames": list(one.short_names), "categories": list(one.categories)}
            names = {key: value for key, value in names.items() if value}
            found.append({**about, "kind": one.kind, "verbs": verbs(one, writable), **names})
            if one.has_logs:
                log = {"name": f"{one.plural}/log", "singularName": "", "namespaced": True, "kind": one.kind}
                found.append({**log, "verbs": ["get"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def aggregated(table: Iterable[Resource], writable: Collection[Resource], *, is_core: bool) -> dict[str, Any]:
    """Return all groups with their resources in one answer, for clients that accept it."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in table:
        if is_core == (not one.group):
            found.setdefault((one.group, one.version), []).append(_aggregated(one, writable))
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None},
            "versions": [{"version": version, "resources": resources, "freshness": "Current"}],
        }
        for (name, version), resources in found.items()
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated(one: Resource, writable: Collection[Resource]) -> dict[str, Any]:
    log = {"subresource": "log", "responseKind": one.group_version_kind, "verbs": ["get"]}
    return {
        "resource": one.plural,
        "responseKind": one.group_version_kind,
        "scope": "Namespaced" if one.is_namespaced else "Cluster",
        "singularResource": one.kind.lower(),
        "verbs": verbs(one, writable),
        "shortNames": list(one.short_names),
        "categories": list(one.categories),
        **({"subresources": [log]} if one.has_logs else {}),
    }
