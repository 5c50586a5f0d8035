"""Go's regular expressions, which Katib's filters are: by RE2, after which Go's package is made."""

import functools
import re
from typing import Any

from katib_callbacks.errors import MissingDependencyError

_GROUP_NAME = re.compile(r"\(\?P?<(\w+)>")


class PatternError(ValueError):
    """A pattern that Go does not take; the message says why."""


@functools.lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> Any:
    """Return what has ``finditer`` and ``groups`` as Python's patterns, and matches as Go's; of bytes faster."""
    try:
        import re2  # noqa: PLC0415  the extra `local`
    except ImportError as error:
        raise MissingDependencyError('Filters need google-re2: pip install "katib-callbacks[local]"') from error
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise PatternError(f"Go takes no such pattern: {error.args[0].decode(errors='replace')}") from error
    # The two things that RE2 takes and Go does not.
    without_escapes = re.sub(r"\\[^C]", "", pattern)
    names = _GROUP_NAME.findall(without_escapes)
    if r"\C" in without_escapes or len(set(names)) < len(names):
        raise PatternError(r"Go takes no such pattern: it holds \C, or one name of a group twice")
    return compiled
