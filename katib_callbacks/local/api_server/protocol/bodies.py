"""The body of a request, and the answer to it in JSON."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.kubernetes_yaml import read_documents
from katib_callbacks.local.api_server.protocol.errors import ApiError

MAX_BODY_BYTES = 3 << 20
"""As Kubernetes' own."""


async def read_body(request: Request) -> Any:
    """Return what a request carries, in JSON or YAML."""
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise ApiError("BadRequest", f"Request entity too large: limit is {MAX_BODY_BYTES}")
    if not content:
        return {}
    try:
        if "yaml" in request.headers.get("content-type", ""):
            documents = read_documents(content.decode())
            return documents[0] if documents else {}
        return json.loads(content)
    except (ValueError, RecursionError, ConfigurationError) as error:
        raise ApiError("BadRequest", f"the body of the request could not be read: {error}") from error


def asks_for_dry_run(request: Request, body: Any) -> bool:
    """Return whether a request is only to be judged."""
    if request.query_params.get("dryRun") == "All":
        return True
    return isinstance(body, dict) and body.get("kind") == "DeleteOptions" and body.get("dryRun") == ["All"]


def json_answer(shown: Any, code: int = 200, media_type: str = "application/json") -> Response:
    """Return an answer; a text is one as it is."""
    if isinstance(shown, str):
        return Response(shown, code, media_type="text/plain")
    return Response(json.dumps(shown, separators=(",", ":")), code, media_type=media_type)


def status_answer(_request: Request, error: Exception) -> Response:
    """Return the answer that an error is."""
    if not isinstance(error, ApiError):
        error = ApiError("InternalError", str(error))
    return json_answer(error.status, error.code)
