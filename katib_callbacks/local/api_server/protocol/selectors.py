"""Label and field selectors: which objects a request is about."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from katib_callbacks.local.api_server.protocol.errors import ApiError

Selector = Callable[[Mapping[str, Any]], bool]

_REQUIREMENT = re.compile(
    r"(?P<absent>!)?\s*(?P<key>[\w./-]+)\s*"
    r"(?:(?P<comparison>==|=|!=)\s*(?P<value>[\w.-]*)|(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?"
)
_COMMA = re.compile(r",(?![^(]*\))")
_METADATA = ("metadata.name", "metadata.namespace")


def selector(labels: str, fields: str, known: Collection[str]) -> Selector:
    """Return whether an object is chosen; ``known`` are the fields beside its name and namespace."""
    requirements = [*map(_of_labels, _split(labels)), *(_of_fields(one, known) for one in _split(fields))]
    return lambda shown: all(requirement(shown) for requirement in requirements)


def _split(text: str) -> list[str]:
    return [one.strip() for one in _COMMA.split(text) if one.strip()]


def _of_labels(text: str) -> Selector:
    match = _REQUIREMENT.fullmatch(text)
    if match is None or (match["absent"] and (match["comparison"] or match["set"])):
        raise ApiError("BadRequest", f"unable to parse requirement: {text!r}")
    key, wanted = match["key"], {one.strip() for one in (match["values"] or match["value"] or "").split(",")}

    def label(shown: Mapping[str, Any]) -> str | None:
        found = (shown["metadata"].get("labels") or {}).get(key)
        return found if isinstance(found, str) else None  # a manifest of the local client has what its user wrote

    if match["absent"]:
        return lambda shown: label(shown) is None
    if match["comparison"] is match["set"] is None:
        return lambda shown: label(shown) is not None
    is_wanted = match["comparison"] in {"=", "=="} or match["set"] == "in"
    return lambda shown: (label(shown) in wanted) == is_wanted


def _of_fields(text: str, known: Collection[str]) -> Selector:
    path, comparison, value = re.fullmatch(r"([^=!]*)(==|=|!=)?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if comparison is None:
        raise ApiError("BadRequest", f"invalid selector: {text!r}; can't understand it")
    if path not in _METADATA and path not in known:
        raise ApiError("BadRequest", f"field label not supported: {path}")
    is_wanted = comparison != "!="

    def chooses(shown: Mapping[str, Any]) -> bool:
        found: Any = shown
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return (str(found if found is not None else "") == value) == is_wanted

    return chooses
