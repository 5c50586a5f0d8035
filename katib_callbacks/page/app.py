"""The page's server: its files, and JSON about experiments, by GET only."""

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ExperimentError, KatibCallbacksError, MissingDependencyError
from katib_callbacks.net.web import App
from katib_callbacks.page.db_manager_source import DBManagerSource
from katib_callbacks.page.local_source import LocalSource

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingDependencyError('the page needs starlette and uvicorn: pip install "katib-callbacks[ui]"') from error

ASSETS = Path(__file__).with_name("assets")

MOST_CURVES = 50
"""Trials in one answer."""

_MOST_DIGITS = 18

NOT_FOUND = "there is nothing at this address"

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

_HEADERS = {
    # No script but the page's own runs, whatever a parameter or a log says, and nothing is loaded from elsewhere.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page(source: LocalSource | DBManagerSource) -> App:
    """Return the page of a source as an ASGI application, to be put behind a door."""
    answers: dict[str, Callable[[Request], Any]] = {
        "/api/experiments": lambda _: source.experiments(),
        "/api/experiments/{name}": lambda request: source.experiment(
            request.path_params["name"], request.query_params.get("generation", ""), _number(request, "revision") or 0
        ),
        "/api/curves": lambda request: source.curves(request.query_params.getlist("trial")[:MOST_CURVES]),
        "/api/trials/{name}": lambda request: source.trial(request.path_params["name"]),
        "/api/trials/{name}/log/{file}": lambda request: source.log(
            request.path_params["name"], request.path_params["file"], _number(request, "offset")
        ),
    }
    app: App = Starlette(
        routes=[
            Route("/", _asset),
            Route("/assets/{name}", _asset),
            *(Route(path, _endpoint(ask)) for path, ask in answers.items()),
        ],
        exception_handlers={HTTPException: _refuse},
    )
    return app


def _endpoint(ask: Callable[[Request], Any]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:  # in a thread: it reads files
        try:
            return _answered(ask(request))
        except KatibCallbacksError as error:
            status = HTTPStatus.NOT_FOUND if isinstance(error, ExperimentError) else HTTPStatus.SERVICE_UNAVAILABLE
            return _answered({"error": str(error)}, status)

    return endpoint


def _answered(content: object, status: int = HTTPStatus.OK) -> Response:
    body = json.dumps(content, allow_nan=False)  # in ASCII: a text may have what UTF-8 has not
    return Response(body, status, headers=_HEADERS, media_type="application/json")


def _refuse(_: Request, error: HTTPException) -> Response:
    message = NOT_FOUND if error.status_code == HTTPStatus.NOT_FOUND else error.detail
    return _answered({"error": message}, error.status_code)


def _asset(request: Request) -> Response:
    path = ASSETS / request.path_params.get("name", "index.html")
    if path.parent != ASSETS or path.suffix not in _TYPES or not path.is_file():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=_HEADERS)


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None
