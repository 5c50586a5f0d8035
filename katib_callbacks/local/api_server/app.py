"""The requests: what is asked of which resource, and the answer."""

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.local.api_server.history.journal import Entry, Journal
from katib_callbacks.local.api_server.history.watch import Watch
from katib_callbacks.local.api_server.protocol import discovery, openapi
from katib_callbacks.local.api_server.protocol.bodies import asks_for_dry_run, json_answer, read_body, status_answer
from katib_callbacks.local.api_server.protocol.errors import ApiError, conflict, invalid, not_found
from katib_callbacks.local.api_server.protocol.patch import APPLY, patcher
from katib_callbacks.local.api_server.protocol.selectors import selector
from katib_callbacks.local.api_server.protocol.table import table
from katib_callbacks.local.api_server.resources.experiments import ExperimentWriter
from katib_callbacks.local.api_server.resources.logs import log_files, stream
from katib_callbacks.local.api_server.resources.resource import Key, Object, Resource

_WATCH_S = 1800.0
_TRUE = {"1", "t", "T", "true", "True", "TRUE"}
_FINAL = {"Succeeded", "Failed"}
_MOST = 2**63 - 1
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # in paths, and so no ".."


class Target(NamedTuple):
    """The target of a path; no namespace means all of them, no name the whole collection."""

    resource: Resource
    namespace: str | None
    name: str | None
    subresource: str | None

    @property
    def key(self) -> Key:
        """The object's key."""
        return self.namespace or "", self.name or ""


class Api:
    """Kubernetes' API over a journal of objects and what writes them."""

    def __init__(
        self,
        home: Path,
        journal: Journal,
        resources: tuple[Resource, ...],
        writers: Mapping[Resource, ExperimentWriter],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._home = home
        self._journal = journal
        self._table = resources
        self._writers = writers
        self._is_stopping = is_stopping
        self._writing = asyncio.Lock()
        self._fixed = {**discovery.answers(resources, writers), **openapi.answers(resources, writers)}

    def application(self) -> Any:
        """Return the ASGI application."""
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        return Starlette(
            routes=[Route("/{path:path}", self._answer, methods=methods)],
            exception_handlers={ApiError: status_answer, KatibCallbacksError: status_answer, Exception: status_answer},
        )

    async def _answer(self, request: Any) -> Any:
        words = [word for word in request.path_params["path"].split("/") if word]
        accept = request.headers.get("accept", "")
        if words in (["api"], ["apis"]) and discovery.AGGREGATED in accept:
            found = discovery.aggregated(self._table, self._writers, is_core=words == ["api"])
            return json_answer(found, media_type=discovery.AGGREGATED)
        fixed = self._fixed.get(tuple(words))
        if fixed is not None:
            return json_answer(fixed())
        target = self._target(words)
        self._journal.refresh()
        if target.subresource == "log" and target.resource.has_logs and request.method == "GET":
            return self._log(target, request.query_params)
        if target.subresource not in {None, "status"}:
            raise ApiError("NotFound", "the server could not find the requested resource")
        if request.method == "GET":
            return self._read(target, request)
        return await self._write(target, request)

    def _target(self, words: list[str]) -> Target:
        match words:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                raise ApiError("NotFound", "the server could not find the requested resource")
        namespace = None
        if len(rest) > 2 and rest[0] == "namespaces":  # noqa: PLR2004  /namespaces/NAMESPACE/PLURAL
            _, namespace, *rest = rest
        plural, name, subresource, *more = (*rest, None, None, None)
        for resource in self._table:
            if (resource.group, resource.version, resource.plural) == (group, version, plural) and not any(more):
                return Target(resource, namespace, name, subresource)
        raise ApiError("NotFound", "the server could not find the requested resource")

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, target: Target, request: Any) -> Any:
        options, accept = request.query_params, request.headers.get("accept", "")
        shown = _shown_as(target.resource, accept, options)
        if target.name is not None:
            return json_answer(shown(self._entry(target).object))
        if options.get("watch") in _TRUE:
            return self._watch(target, options, shown)
        return json_answer(self._list(target, options, is_table="as=Table" in accept))

    def _entry(self, target: Target) -> Entry:
        found = self._journal.entries(target.resource).get(target.key)
        if found is None and target.resource.named is not None:
            found = Entry(target.resource, target.resource.named(target.key[1]), self._journal.version)
        if found is None:
            raise not_found(target.resource, target.key[1])
        return found

    def _list(self, target: Target, options: Mapping[str, str], *, is_table: bool) -> Object:
        resource = target.resource
        chosen = _selector(resource, options)
        version, after = self._journal.version, ("", "")
        if options.get("continue"):
            version, after = _continued(options["continue"])
        found = [
            entry
            for key, entry in sorted(self._journal.entries(resource).items(), key=lambda item: item[0])
            if target.namespace in {None, key[0]} and key > after and chosen(entry.object)
        ]
        limit = _number(options, "limit") or len(found)
        metadata: Object = {"resourceVersion": str(version)}
        if len(found) > limit:
            last = json.dumps([version, *found[limit - 1].view.key])
            metadata["continue"] = base64.urlsafe_b64encode(last.encode()).decode()
            metadata["remainingItemCount"] = len(found) - limit
        objects = [entry.object for entry in found[:limit]]
        if is_table:
            return {**table(resource, objects, options.get("includeObject", "Metadata")), "metadata": metadata}
        kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return {**kind, "metadata": metadata, "items": objects}

    def _watch(self, target: Target, options: Mapping[str, str], shown: Callable[[Object], Object]) -> Any:
        is_initial = options.get("sendInitialEvents") in _TRUE
        since = None if is_initial else _number(options, "resourceVersion") or None
        watch = Watch(
            resource=target.resource,
            namespace=target.namespace,
            selector=_selector(target.resource, options),
            shown=shown,
            since=since,
            has_bookmarks=options.get("allowWatchBookmarks") in _TRUE,
            is_initial=is_initial,
            timeout_s=_number(options, "timeoutSeconds") or _WATCH_S,
        )
        return StreamingResponse(watch.lines(self._journal, self._is_stopping), media_type="application/json")

    def _log(self, target: Target, options: Mapping[str, str]) -> Any:
        pod = self._entry(target).object
        container = options.get("container")
        files = log_files(self._home, pod, container)
        if options.get("previous") in _TRUE:
            raise ApiError("BadRequest", f'previous terminated container in pod "{target.name}" not found')
        if pod["status"]["phase"] == "Pending" and not any(path.exists() for path in files):
            name = container or pod["spec"]["containers"][0]["name"]
            message = f'container "{name}" in pod "{target.name}" is waiting to start: ContainerCreating'
            raise ApiError("BadRequest", message)

        def is_over() -> bool:
            entry = self._journal.entries(target.resource).get(target.key)
            return self._is_stopping() or entry is None or entry.object["status"]["phase"] in _FINAL

        tail = _number(options, "tailLines") if "tailLines" in options else None
        lines = stream(files, tail, is_over=is_over, is_followed=options.get("follow") in _TRUE)
        return StreamingResponse(lines, media_type="text/plain")

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _write(self, target: Target, request: Any) -> Any:
        resource, writer = target.resource, self._writers.get(target.resource)
        if writer is None or target.subresource or (target.name is not None) == (request.method == "POST"):
            raise ApiError("MethodNotAllowed", "the server does not allow this method on the requested resource")
        body = await read_body(request)
        is_dry_run = asks_for_dry_run(request, body)
        if request.method == "DELETE":
            return await self._delete(target, writer, is_dry_run=is_dry_run)
        if request.method == "POST":
            return await self._create(target, writer, body, is_dry_run=is_dry_run)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip()
        is_missing = target.key not in self._journal.entries(resource)
        if request.method == "PATCH" and content_type in APPLY and is_missing:
            return await self._create(target, writer, body, is_dry_run=is_dry_run)
        entry = self._entry(target)
        change = patcher(content_type, body) if request.method == "PATCH" else lambda _: body
        key = entry.view.key

        def changed(found: Object) -> Object:
            old = {**entry.object, **found, "metadata": {**entry.object["metadata"], **found["metadata"]}}
            new = change(old)
            metadata = new.get("metadata") if isinstance(new, dict) else None
            version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
            if version not in (None, "", str(entry.version)):
                raise conflict(resource, key[1])
            return new

        async with self._writing:
            shown = await asyncio.to_thread(writer.update, key, changed, is_dry_run=is_dry_run)
        if shown is None:
            self._journal.refresh()
            shown = self._entry(target).object
        return json_answer({**entry.object, **shown, "metadata": {**entry.object["metadata"], **shown["metadata"]}})

    async def _create(self, target: Target, writer: ExperimentWriter, body: Object, *, is_dry_run: bool) -> Any:
        given = _given(target, body)
        async with self._writing:
            (namespace, name), shown, warnings = await asyncio.to_thread(writer.create, given, is_dry_run=is_dry_run)
        self._journal.refresh()
        if not is_dry_run:
            shown = self._entry(target._replace(namespace=namespace, name=name)).object
        answer = json_answer(shown, 201)
        for sentence in warnings:  # kubectl shows each
            words = sentence.encode("ascii", "backslashreplace").decode().replace('"', "'")
            answer.headers.append("Warning", f'299 - "{words}"')
        return answer

    async def _delete(self, target: Target, writer: ExperimentWriter, *, is_dry_run: bool) -> Any:
        entry = self._entry(target)
        if not is_dry_run:
            await asyncio.to_thread(writer.delete, entry.view.key)
            self._journal.refresh()
        details = {"name": target.name, "group": target.resource.group, "kind": target.resource.plural}
        details["uid"] = entry.object["metadata"].get("uid")
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )


def _given(target: Target, body: Any) -> Object:
    """Return an object to be created, in the namespace of the request's path."""
    resource = target.resource
    if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
        raise ApiError("BadRequest", "the object has no metadata")
    for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if body.get(field, wanted) != wanted:
            raise ApiError("BadRequest", f"{field} {body[field]!r} is not that of {resource.plural}: {wanted}")
    metadata = body["metadata"]
    namespace = target.namespace or metadata.get("namespace") or "default"
    if metadata.get("namespace") not in (None, "", namespace):
        raise ApiError(
            "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"
        )
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        fault = f"metadata.namespace: {namespace!r} must consist of lower case letters, digits and '-'"
        raise invalid(resource, str(metadata.get("name")), fault)
    if target.name is not None and metadata.setdefault("name", target.name) != target.name:  # of what is applied
        raise ApiError("BadRequest", "the name of the provided object does not match the name sent on the request")
    metadata = {**metadata, "namespace": namespace}
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body, "metadata": metadata}


def _selector(resource: Resource, options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    return selector(options.get("labelSelector", ""), options.get("fieldSelector", ""), resource.fields)


def _shown_as(resource: Resource, accept: str, options: Mapping[str, str]) -> Callable[[Object], Object]:
    """Return what makes of an object what a client accepts."""
    if "as=Table" not in accept:
        return lambda shown: shown
    include = options.get("includeObject", "Metadata")
    return lambda shown: table(resource, [shown], include)


def _number(options: Mapping[str, str], name: str) -> int:
    text = options.get(name) or "0"
    if not text.isdecimal() or len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise ApiError("BadRequest", f"{name}: {text!r} is not a number")
    return int(text)


def _continued(token: str) -> tuple[int, Key]:
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token))
        return int(version), (str(namespace), str(name))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ApiError("BadRequest", f"invalid continue token: {error}") from error
