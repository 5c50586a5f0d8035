"""Tables that the server prints, as ``kubectl get`` asks for them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from katib_callbacks.local.api_server.resources.resource import Resource
from katib_callbacks.metrics import parse_timestamp

def table(resource: Resource, objects: Iterable[Mapping[str, Any]], include: str) -> dict[str, Any]:
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
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions, "rows": rows}


def _age(timestamp: str | None, now: datetime) -> str:
    if not timestamp:
        return "<unknown>"
    seconds = max(0, int((now - parse_timestamp(timestamp)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    for is_below, text in (  # apimachinery's HumanDuration, with its numbers
        (seconds < 120, f"{seconds}s"),
        (minutes < 10, f"{minutes}m{seconds % 60}s"),
        (minutes < 180, f"{minutes}m"),
        (hours < 8, f"{hours}h{minutes % 60}m"),
        (hours < 48, f"{hours}h"),
        (hours < 192, f"{days}d{hours % 24}h"),
    ):
        if is_below:
            return text
    return f"{days}d"
