"""Policy: how trials of one experiment are stopped early, as its text in a template, a variable or an argument says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import name_problem
from katib_callbacks.settings import Runtime

ObjectiveType = Literal["minimize", "maximize"]
"""Katib's words (``spec.objective.type``)."""

_OPTIONS: Mapping[str, Mapping[str, tuple[int | None, int]]] = MappingProxyType(
    {
        "medianstop": {"min_trials_required": (3, 1), "start_step": (4, 1)},
        "asha": {"reduction_factor": (3, 2), "min_resource": (1, 1), "max_resource": (None, 1)},
    }
)
"""For each policy its options, with their defaults (medianstop's are Katib's) and the least that each may be."""

POLICIES = tuple(_OPTIONS)

_WORD = re.compile(r'\s*(?:"[^"]*"|[^",])*')


@dataclass(frozen=True)
class Policy:
    """A policy and its options; ``text`` is what it was read from, with every option written out.

    Args:
        name: One of ``POLICIES``.
        options: Whole numbers by name; an option without a value is left out.
        objective: The metric's name in Katib that decides; None where the text names none.
        objective_type: Whether less or more of it is better; None where the text does not say.
    """

    name: str
    options: Mapping[str, int] = field(default_factory=dict)
    objective: str | None = None
    objective_type: ObjectiveType | None = None

    @property
    def is_maximized(self) -> bool:
        """Whether more of the objective is better."""
        return self.objective_type == "maximize"

    @property
    def text(self) -> str:
        """The policy as :func:`parse_policy` reads it."""
        words = [self.name, *(f"{name}={number}" for name, number in self.options.items())]
        if self.objective is not None:
            words.append(f'objective="{self.objective}"')
        if self.objective_type is not None:
            words.append(f"type={self.objective_type}")
        return ",".join(words)


def parse_policy(source: str, text: str) -> Policy:
    """Read a policy such as ``medianstop,start_step=4,objective=val_acc,type=maximize``; errors name ``source``.

    A metric's name with a comma stands in double quotes.
    """
    name, *words = _split(source, text)
    pairs: dict[str, str] = {}
    for word in words:
        option, separator, value = (part.strip() for part in word.partition("="))
        if not separator or option in pairs:
            raise ConfigurationError(f"{source}: write each option once, as option=value, not {word!r}")
        pairs[option] = value.strip('"')
    return make_policy(source, name, pairs)


def _split(source: str, text: str) -> list[str]:
    words, position = [], 0
    while position <= len(text):
        match = _WORD.match(text, position)
        end = position if match is None else match.end()
        if text[end : end + 1] == '"':
            raise ConfigurationError(f"{source}: a double quote is not closed in {text!r}")
        words.append(text[position:end].strip())
        position = end + 1
    return words


def make_policy(source: str, name: str, words: Mapping[str, str]) -> Policy:
    """Return the policy of a name and its options as texts; the ConfigurationError names ``source``."""
    if name not in _OPTIONS:
        raise ConfigurationError(f"{source}: {name!r} is not known; known: {', '.join(POLICIES)}")
    options = {option: default for option, (default, _) in _OPTIONS[name].items() if default is not None}
    given = dict(words)
    objective, kind = given.pop("objective", None), given.pop("type", None)
    if objective is not None and (not objective or '"' in objective or name_problem(objective)):
        raise ConfigurationError(f"{source}: objective must be the name of a metric, not {objective!r}")
    if kind is not None and kind not in get_args(ObjectiveType):
        raise ConfigurationError(f"{source}: type must be minimize or maximize, not {kind!r}")
    for option, word in given.items():
        if option not in _OPTIONS[name]:
            known = ", ".join((*_OPTIONS[name], "objective", "type"))
            raise ConfigurationError(f"{source}: {name} has no {option!r}; it has {known}")
        least = _OPTIONS[name][option][1]
        if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) >= least):  # noqa: PLR2004  a 32-bit number
            raise ConfigurationError(f"{source}: {option} must be a whole number, {least} or more, not {word!r}")
        options[option] = int(word)
    objective_type: ObjectiveType | None = "maximize" if kind == "maximize" else "minimize" if kind else None
    return Policy(name, options, objective, objective_type)


def resolve_policy(value: str | None, runtime: Runtime) -> Policy | None:
    """Resolve ``early_stopping``: the argument, then its variable; None where there is no policy."""
    text = settings.text(value, settings.EARLY_STOPPING, runtime)
    if text is None:
        return None
    return parse_policy(settings.EARLY_STOPPING if value is None else "early_stopping", text)
