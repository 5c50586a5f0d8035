"""OpenAPI v3, made from the models: ``kubectl explain`` reads it, and ``apply`` learns which options there are."""

import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from katib_callbacks.local.api.serialization import Model, camel_case
from katib_callbacks.local.api_server.protocol.patch import APPLY, JSON, MERGE
from katib_callbacks.local.api_server.resources.resource import Resource

_TYPES: Mapping[type, Mapping[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_WRITE_OPTIONS = ("dryRun", "fieldManager", "fieldValidation")
_OBJECT = {
    "apiVersion": {"type": "string", "description": "The group and version of this object."},
    "kind": {"type": "string", "description": "The kind of this object."},
    "metadata": {**_OPEN, "description": "The object's name, namespace, labels and annotations."},
}


def answers(table: Sequence[Resource], writable: Collection[Resource]) -> dict[tuple[str, ...], Callable[[], Any]]:
    """Return what is answered about schemas, by the words of the path."""
    paths = {resource.path for resource in table}
    found = {("openapi", "v3", *path): partial(document, table, path, writable) for path in paths}
    return {**found, ("openapi", "v3"): partial(index, table, writable)}


def index(table: Sequence[Resource], writable: Collection[Resource]) -> dict[str, Any]:
    """Return the answer to ``/openapi/v3``: where the document of each group and version is."""
    paths = {}
    for words in dict.fromkeys(resource.path for resource in table):
        text, path = json.dumps(document(table, words, writable), sort_keys=True), "/".join(words)
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={hashlib.sha256(text.encode()).hexdigest()}"}
    return {"paths": paths}


def document(table: Iterable[Resource], path: tuple[str, ...], writable: Collection[Resource]) -> dict[str, Any]:
    """Return the document of a group and version."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for resource in table:
        if resource.path == path:
            name = _schema(resource, schemas)
            operations = _operations(resource, name, is_writable=resource in writable)
            root = "/".join(("", *path, *(("namespaces", "{namespace}") if resource.is_namespaced else ())))
            paths[f"{root}/{resource.plural}"] = operations[0]
            paths[f"{root}/{resource.plural}/{{name}}"] = operations[1]
    info = {"title": "Kubernetes' API of katib-callbacks", "version": "v1"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operations(resource: Resource, schema: str, *, is_writable: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what may be asked of a resource as a whole, and of one object."""
    body = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    answer = {"200": {"description": "OK", "content": {"application/json": body}}}
    kind = {"x-kubernetes-group-version-kind": resource.group_version_kind}
    options = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _WRITE_OPTIONS]
    write = {"parameters": options, "responses": answer, **kind}
    whole: dict[str, Any] = {"get": {"responses": answer, "x-kubernetes-action": "list", **kind}}
    one: dict[str, Any] = {"get": {"responses": answer, "x-kubernetes-action": "get", **kind}}
    if is_writable:
        content = {"requestBody": {"content": {"application/json": body}}}
        patches = {"requestBody": {"content": {kind: {"schema": _OPEN} for kind in (MERGE, JSON, *APPLY)}}}
        whole["post"] = {"x-kubernetes-action": "post", **content, **write}
        one["put"] = {"x-kubernetes-action": "put", **content, **write}
        one["patch"] = {"x-kubernetes-action": "patch", **patches, **write}
        one["delete"] = {"x-kubernetes-action": "delete", **write}
    return whole, one


def _schema(resource: Resource, schemas: dict[str, Any]) -> str:
    """Add a resource's schema and those that it refers to; returns its name."""
    prefix = ".".join((*reversed(resource.group.split(".")), resource.version)).strip(".")
    name = f"{prefix}.{resource.kind}"
    if resource.schema is None:
        schema: dict[str, Any] = {**_OPEN, "description": resource.description, "properties": dict(_OBJECT)}
    else:
        schema = _of_model(resource.schema, prefix, schemas)
        schema["properties"] |= _OBJECT
    schemas[name] = {**schema, "x-kubernetes-group-version-kind": [resource.group_version_kind]}
    return name


def _of_model(model: type[Model], prefix: str, schemas: dict[str, Any]) -> dict[str, Any]:
    properties = {}
    for field in model.known_fields:
        kind = field.kind
        if issubclass(kind, Model):
            name = f"{prefix}.{kind.__name__}"
            if name not in schemas:
                schemas[name] = {}
                schemas[name] = _of_model(kind, prefix, schemas)
            one: dict[str, Any] = {"allOf": [{"$ref": f"#/components/schemas/{name}"}], **_description(kind)}
        else:
            one = dict(_TYPES.get(kind, _OPEN))
        properties[camel_case(field.name)] = {"type": "array", "items": one} if field.is_list else one
    return {"type": "object", **_description(model), "properties": properties}


def _description(model: type[Model]) -> dict[str, str]:
    text = (inspect.getdoc(model) or "").partition("\n\n")[0].replace("``", "'")
    return {} if text.startswith(f"{model.__name__}(") else {"description": text}  # the first is dataclasses' own
