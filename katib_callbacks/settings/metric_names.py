"""The metrics that are reported, as the argument or the variable ``KATIB_CALLBACKS_METRICS`` names them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import METRICS, Runtime


def metric_selection(
    metrics: str | Sequence[str] | Mapping[str, str] | None, runtime: Runtime
) -> dict[str, str] | None:
    """Resolve which metrics are reported, as ``{name in Katib: name in the framework}``; None for every scalar.

    Args:
        metrics: One name, several names, or a mapping in that direction (the one of Ray's report callbacks).
        runtime: Where ``KATIB_CALLBACKS_METRICS`` comes from: ``accuracy=val_acc,loss`` separated by commas. A name
            with a comma, or a name in Katib with an equals sign, stands in quotes.

    Raises:
        ConfigurationError: No names, an empty or repeated one, or something that is no str.
    """
    source, given = ("metrics", metrics) if metrics is not None else (METRICS, runtime.variable(METRICS))
    if given is None:
        return None
    pairs: list[tuple[object, object]]
    if source == METRICS:
        pairs = _named_pairs(str(given))
    elif isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, Iterable):
        pairs = [(name, name) for name in ([given] if isinstance(given, str) else given)]
    else:
        raise ConfigurationError(f"{source} must be a name, several or a mapping, not {given!r}")
    if not pairs:
        raise ConfigurationError(f"{source} names no metric; leave it out to report every scalar")
    selection: dict[str, str] = {}
    for katib_name, framework_name in pairs:
        for name in (katib_name, framework_name):
            if not isinstance(name, str) or not name:
                raise ConfigurationError(f"{source}: a metric's name must be a non-empty str, not {name!r}")
        if katib_name in selection:
            raise ConfigurationError(f"{source}: {katib_name!r} is named twice")
        selection[cast("str", katib_name)] = cast("str", framework_name)
    return selection


_NAMED_PAIR = r'\s*(?:"([^"]*)"|([^"=,]*))\s*(?:=\s*(?:"([^"]*)"|([^",]*))\s*)?(,|$)'
"""A name, perhaps an equals sign and a second name, then a comma or the end; each name may stand in quotes."""


def _named_pairs(text: str) -> list[tuple[object, object]]:
    """Split ``accuracy=val_acc,f1="F1(average=macro, k=5)"``; refuse a comma within a name that is not quoted."""
    pairs: list[tuple[object, object]] = []
    position, separator = 0, ","
    while separator:
        match = re.compile(_NAMED_PAIR).match(text, position)
        if match is None or not all(map(_has_even_brackets, (match[2], match[4]))):
            raise ConfigurationError(
                f"{METRICS}: it is unclear where the names end in {text[position:].strip()!r}. Put a name that has a "
                'comma or an equals sign in double quotes, as in f1="F1(average=macro, k=5)"'
            )
        name = match[2].strip() if match[1] is None else match[1]
        framework_name = match[3] if match[4] is None else match[4].strip()
        pairs.append((name, name if framework_name is None else framework_name))
        position, separator = match.end(), match[5]
    return pairs


def _has_even_brackets(name: str | None) -> bool:
    return name is None or len(re.findall(r"[(\[{]", name)) == len(re.findall(r"[)\]}]", name))
