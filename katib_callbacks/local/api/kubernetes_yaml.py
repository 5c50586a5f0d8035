"""YAML as ``kubectl`` reads it: sigs.k8s.io/yaml turns it into JSON, with the types of go-yaml v2.

PyYAML's own types are others: ``1e-3`` is a string to it, ``2024-01-01`` a date and ``12:30`` the number 750.
Source of the rules: resolve.go of gopkg.in/yaml.v2, which is part of sigs.k8s.io/yaml.
"""

import functools
import math
import re
from typing import Any

from katib_callbacks.errors import ConfigurationError, MissingDependencyError

_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NO_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))"
)
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1
_LONGEST_JSON_INTEGER = 1e21
"""Go writes a float that is a whole number below this without a point: it is an integer to whoever reads the JSON."""

_PLAIN = "tag:katib-callbacks,2026:plain"

_LONGEST_INTEGER = len("-0b") + 64
_MOST_VALUES = 1_000_000
"""Of a document whose aliases are written out, as they are in JSON; go-yaml refuses what they multiply, too."""


def read_documents(text: str) -> list[Any]:
    """Return the documents of a text that are not empty, in JSON's types."""
    try:
        import yaml  # noqa: PLC0415  the extra `local`
    except ImportError as error:
        raise MissingDependencyError('YAML is read with PyYAML: pip install "katib-callbacks[local]"') from error
    try:
        documents = [document for document in yaml.load_all(text, _loader()) if document]  # a SafeLoader
        if sum(_count(document, {}) for document in documents) > _MOST_VALUES:
            raise ConfigurationError(f"holds more than {_MOST_VALUES:,} values: its aliases multiply them")
    except yaml.YAMLError as error:
        raise ConfigurationError(f"is not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError("holds lists or mappings that are too deep to be read") from error
    return documents


def _count(value: Any, counts: dict[int, int]) -> int:
    """Return how many values there are in one, aliases written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counts:
        counts[id(value)] = _MOST_VALUES + 1  # until they are counted: a value that contains itself has no end
        items = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count(item, counts) for item in items)
    return counts[id(value)]


def plain_value(text: str) -> Any:
    """Return what a scalar without quotes stands for: null, a bool, a finite number, or the text itself."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NO_JSON.fullmatch(text):
        raise ConfigurationError(f"holds {text}, which Kubernetes cannot read: JSON has no such number")
    number = text.replace("_", "") if text[0] in "+-0123456789" else text
    match = _INTEGER.fullmatch(number)
    if match is not None and len(number) <= _LONGEST_INTEGER:
        kind = match.lastgroup or "dec"
        integer = int(match["sign"] + match[kind], _BASES[kind])
        if _LEAST_INTEGER <= integer <= _GREATEST_INTEGER:
            return integer
    if not _FLOAT.fullmatch(number) or not math.isfinite(value := float(number)):
        return text
    return int(value) if value.is_integer() and abs(value) < _LONGEST_JSON_INTEGER else value


def key_text(key: Any) -> str:
    """Return the name of a mapping's key: JSON has only strings, so null, lists and mappings are refused."""
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (str, int, float)):
        return str(key)
    raise ConfigurationError(f"has {key!r} as the name of a field")


@functools.cache
def _loader() -> Any:
    import yaml  # noqa: PLC0415  the extra `local`

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        """Resolves what has neither quotes nor a tag by the rules above."""

        yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}  # noqa: RUF012  as PyYAML's

        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            if kind is yaml.ScalarNode and implicit[0] and value != "<<":
                return _PLAIN
            return super().resolve(kind, value, implicit)

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)  # which in PyYAML before 6.0.4 keeps a pair as often as it is merged
            node.value = list({id(pair): pair for pair in reversed(node.value)}.values())[::-1]

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            return {key_text(key): value for key, value in super().construct_mapping(node, deep).items()}

    constructors = {
        _PLAIN: lambda loader, node: plain_value(loader.construct_scalar(node)),
        "tag:yaml.org,2002:timestamp": lambda loader, node: loader.construct_scalar(node),
        "tag:yaml.org,2002:binary": lambda loader, node: loader.construct_yaml_binary(node).decode(errors="replace"),
    }
    for tag, construct in constructors.items():
        Loader.add_constructor(tag, construct)
    return Loader
