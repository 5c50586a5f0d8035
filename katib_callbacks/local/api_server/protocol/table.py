"""Tables that the server prints, as ``kubectl get`` asks for them."""

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from katib_callbacks.local.api_server.resources.resource import Object, Resource
from katib_callbacks.metrics import parse_timestamp

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGES = (
    (120, "s", ""),
    (600, "m", "s"),
    (10_800, "m", ""),
    (28_800, "h", "m"),
    (172_800, "h", ""),
    (691_200, "d", "h"),
)
"""Up to how many seconds an age has which units (apimachinery's HumanDuration)."""


def table(resource: Resource, objects: Iterable[Object], include: str) -> dict[str, Any]:
    """Return the Table of objects; ``include`` is what of each one comes along: ``None``, ``Metadata``, ``Object``."""
    now = datetime.now(timezone.utc)
    definitions = [
        {
            "name": column.name,
            "type": "string" if column.type == "date" else column.type,
            "format": "name" if column.name == "Name" and not column.priority else "",
            "description": "",
            "priority": column.priority,
        }
        for column in resource.columns
    ]
    rows = []
    for shown in objects:
        cells = [column.read(shown) for column in resource.columns]
        row: dict[str, Any] = {
            "cells": [
                _age(cell, now) if column.type == "date" else "" if cell is None else cell
                for column, cell in zip(resource.columns, cells, strict=True)
            ]
        }
        if include == "Object":
            row["object"] = shown
        elif include != "None":
            kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            row["object"] = {**kind, "metadata": shown["metadata"]}
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    }


def _age(timestamp: str | None, now: datetime) -> str:
    if not timestamp:
        return "<unknown>"
    seconds = max(0, int((now - parse_timestamp(timestamp)).total_seconds()))
    for limit, unit, smaller in _AGES:
        if seconds < limit:
            count, rest = divmod(seconds, _SECONDS[unit])
            more = rest // _SECONDS[smaller] if smaller else 0
            return f"{count}{unit}" + (f"{more}{smaller}" if more else "")
    return f"{seconds // _SECONDS['d']}d"
