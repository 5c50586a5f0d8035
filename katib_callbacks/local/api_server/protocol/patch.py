"""Patches: JSON merge patches, JSON patches, and what is applied."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from katib_callbacks.local.api_server.protocol.errors import ApiError

MERGE, JSON, STRATEGIC = (
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
)
MAX_COPIED_BYTES = 3 << 20
"""Of the ``copy`` operations of a patch, as Kubernetes has it: each may double the object."""

APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")


def patcher(content_type: str, patch: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what makes of an object the one that a patch asks for."""
    if content_type == JSON:
        if not isinstance(patch, list):
            raise ApiError("BadRequest", "a JSON patch is a list of operations")
        return lambda found: _operated(found, patch)
    if content_type in {MERGE, STRATEGIC, *APPLY}:
        if not isinstance(patch, Mapping):
            raise ApiError("BadRequest", "a patch is a mapping")
        # Of custom resources lists are replaced as a whole, by Kubernetes as well.
        return lambda found: merged(found, patch)
    raise ApiError("UnsupportedMediaType", f"the body of the request was in an unknown format: {content_type}")


def merged(found: Any, patch: Any) -> Any:
    """Return a value with a merge patch in it (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(found) if isinstance(found, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _operated(found: dict[str, Any], operations: Sequence[Any]) -> dict[str, Any]:
    """Return an object after the operations of a JSON patch (RFC 6902)."""
    whole: Any = {"": copy.deepcopy(found)}
    copied = 0
    try:
        for one in operations:
            copied += _operate(whole, one)
            if copied > MAX_COPIED_BYTES:
                raise ValueError(f"the operations copy more than {MAX_COPIED_BYTES} bytes")  # noqa: TRY301  as others
        result: dict[str, Any] = whole[""]
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ApiError("Invalid", f"the server rejected our request due to an error in our request: {error}") from error
    return result


def _operate(whole: Any, one: Mapping[str, Any]) -> int:
    """Do one operation; returns how much it has copied."""
    kind, path, copied = one["op"], one["path"], 0
    if kind == "test":
        if _get(whole, path) != one["value"]:
            raise ValueError(path)
    elif kind == "remove":
        _remove(whole, path)
    elif kind == "replace":
        if path:
            _remove(whole, path)
        _add(whole, path, one["value"])
    elif kind == "add":
        _add(whole, path, one["value"])
    elif kind == "copy":
        value = copy.deepcopy(_get(whole, one["from"]))
        copied = len(json.dumps(value))
        _add(whole, path, value)
    elif kind == "move":
        _add(whole, path, _remove(whole, one["from"]))
    else:
        raise ValueError(kind)
    return copied


def _place(whole: Any, path: str) -> tuple[Any, Any]:
    """Return the container and the key that a JSON pointer names."""
    *parents, last = [word.replace("~1", "/").replace("~0", "~") for word in path.split("/")]
    for word in parents:
        whole = whole[int(word)] if isinstance(whole, list) else whole[word]
    return whole, (last if not isinstance(whole, list) or last == "-" else int(last))


def _get(whole: Any, path: str) -> Any:
    container, key = _place(whole, path)
    return container[key]


def _remove(whole: Any, path: str) -> Any:
    container, key = _place(whole, path)
    return container.pop(key)


def _add(whole: Any, path: str, value: Any) -> None:
    container, key = _place(whole, path)
    if isinstance(container, list):
        container.insert(len(container) if key == "-" else key, value)
    else:
        container[key] = value
