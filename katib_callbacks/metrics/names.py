"""Names that Katib can store, of metrics and of trials."""

from katib_callbacks.errors import MetricValueError

MAX_NAME_CHARACTERS = 255
"""Katib's columns ``trial_name`` and ``metric_name`` are VARCHAR(255) (pkg/db/v1beta1/mysql/init.go)."""


def check_name(name: object) -> str:
    """Return ``name`` if it can be a metric's name in Katib.

    Raises:
        MetricValueError: It is no string, empty, over 255 characters, or has a NUL or a lone surrogate.
    """
    if not isinstance(name, str):
        raise MetricValueError(f"a metric's name must be a str, not {type(name).__name__}: {name!r}")
    problem = name_problem(name)
    if problem:
        raise MetricValueError(f"metric name {shorten(name)!r} {problem}")
    return name


def name_problem(name: str) -> str | None:
    """Return the fault of a trial's or a metric's name, for a message; None if it has none."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"has {len(name)} characters; Katib stores at most {MAX_NAME_CHARACTERS}"
    return text_problem(name)


def text_problem(text: str) -> str | None:
    """Return the reason why ``text`` cannot be stored at all, for a message; None if it can be."""
    if "\0" in text:
        return "has a NUL character, which PostgreSQL cannot store"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which cannot be sent as UTF-8"
    return None


def shorten(text: str, limit: int = 60) -> str:
    """Return a text for a message, cut where it is too long for one."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
