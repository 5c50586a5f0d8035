"""Errors as Kubernetes answers them: Status objects, with a reason that clients branch on."""

from typing import Any

from katib_callbacks.local.api_server.resources.resource import Resource

_CODES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "AlreadyExists": 409,
    "Conflict": 409,
    "Expired": 410,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "InternalError": 500,
}


class ApiError(Exception):
    """A request's failure; ``status`` is the answer."""

    def __init__(self, reason: str, message: str, resource: Resource | None = None, name: str = "") -> None:
        super().__init__(message)
        self.code = _CODES[reason]
        details = {} if resource is None else {"group": resource.group, "kind": resource.plural, "name": name}
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": {key: value for key, value in details.items() if value}} if details else {}),
            "code": self.code,
        }


def qualified(resource: Resource) -> str:
    """Return a resource's name as messages have it."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def not_found(resource: Resource, name: str) -> ApiError:
    """Return the error for an object that is not there."""
    return ApiError("NotFound", f'{qualified(resource)} "{name}" not found', resource, name)


def already_exists(resource: Resource, name: str) -> ApiError:
    """Return the error for a name that is taken."""
    return ApiError("AlreadyExists", f'{qualified(resource)} "{name}" already exists', resource, name)


def invalid(resource: Resource, name: str, fault: str) -> ApiError:
    """Return the error for an object that the schema of its kind refuses; a fault begins with the field's path."""
    message = f'{resource.kind}.{resource.group} "{name}" is invalid: {fault}'
    error = ApiError("Invalid", message, resource, name)
    field, _, told = fault.partition(": ")
    cause = {"reason": "FieldValueInvalid", "message": told, "field": field}
    error.status["details"] |= {"kind": resource.kind, "causes": [cause]}  # all that kubectl shows
    return error


def conflict(resource: Resource, name: str) -> ApiError:
    """Return the error for a change of an object that has changed meanwhile."""
    message = (
        f'Operation cannot be fulfilled on {qualified(resource)} "{name}": the object has been modified; please apply '
        "your changes to the latest version and try again"
    )
    return ApiError("Conflict", message, resource, name)


def expired(message: str = "The resourceVersion is too old: its changes are no longer kept") -> ApiError:
    """Return the error for a watch or a list that cannot go on where it was."""
    return ApiError("Expired", message)
