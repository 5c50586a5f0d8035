"""The page's server: its files, and JSON about experiments, by GET only."""

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from katib_callbacks.errors import ExperimentError, KatibCallbacksError, MissingDependencyError

if TYPE_CHECKING:
    from katib_callbacks.net.web import App
    from katib_callbacks.page.source import Source

ASSETS = Path(__file__).with_name("assets")

MOST_CURVES = 50
"""Trials in one answer."""

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


def page(source: "Source") -> "App":
    """Return the page of a source as an ASGI application, to be put behind a door."""
    try:
        from starlette.applications import Starlette  # noqa: PLC0415  optional
        from starlette.exceptions import HTTPException  # noqa: PLC0415  as above
        from starlette.requests import Request  # noqa: PLC0415  as above
        from starlette.responses import Response  # noqa: PLC0415  as above
        from starlette.routing import Route  # noqa: PLC0415  as above
    except ImportError as error:
        raise MissingDependencyError(
            'the page needs starlette and uvicorn: pip install "katib-callbacks[ui]"'
        ) from error

    def answered(content: object, status: int = HTTPStatus.OK) -> Response:
        body = json.dumps(content, allow_nan=False)  # in ASCII: a text may have what UTF-8 has not
        return Response(body, status, headers=_HEADERS, media_type="application/json")

    def answer(path: str, ask: Callable[[Request], Any]) -> Route:
        def endpoint(request: Request) -> Response:  # in a thread: it reads files
            try:
                return answered(ask(request))
            except KatibCallbacksError as error:
                status = HTTPStatus.NOT_FOUND if isinstance(error, ExperimentError) else HTTPStatus.SERVICE_UNAVAILABLE
                return answered({"error": str(error)}, status)

        return Route(path, endpoint, methods=["GET"])

    def refuse(_: Request, error: HTTPException) -> Response:
        message = NOT_FOUND if error.status_code == HTTPStatus.NOT_FOUND else error.detail
        return answered({"error": message}, error.status_code)

    def asset(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        path = ASSETS / name
        if path.parent != ASSETS or path.suffix not in _TYPES or not path.is_file():
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=_HEADERS)

    app: App = Starlette(
        routes=[
            Route("/", asset, methods=["GET"]),
            Route("/assets/{name}", asset, methods=["GET"]),
            answer("/api/experiments", lambda _: source.experiments()),
            answer(
                "/api/experiments/{name}",
                lambda request: source.experiment(
                    request.path_params["name"],
                    request.query_params.get("generation", ""),
                    _number(request.query_params.get("revision")) or 0,
                ),
            ),
            answer("/api/curves", lambda request: source.curves(request.query_params.getlist("trial")[:MOST_CURVES])),
            answer("/api/trials/{name}", lambda request: source.trial(request.path_params["name"])),
            answer(
                "/api/trials/{name}/log/{file}",
                lambda request: source.log(
                    request.path_params["name"],
                    request.path_params["file"],
                    _number(request.query_params.get("offset")),
                ),
            ),
        ],
        exception_handlers={HTTPException: refuse},
    )
    return app


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
