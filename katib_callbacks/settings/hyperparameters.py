"""hyperparameters: what the trial that this process belongs to is to train with."""

import re
from collections.abc import Iterator, Mapping

from katib_callbacks.settings import TRAINER_OPT_PREFIX
from katib_callbacks.settings.runtime import DEFAULT_RUNTIME

Value = int | float | str

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""As the API of OptimizationJob writes numbers; ``007``, ``+1`` and ``inf`` are words."""


def hyperparameters() -> Mapping[str, Value]:
    """Return the hyperparameters of this trial, from ``KUBEFLOW_TRAINER_OPT_<NAME>``; empty outside of a trial.

    Kubeflow's OptimizationJob sets these variables, and so can the template of a Katib trial. They have each name in
    upper case, so the case of a name does not matter in a look-up, ``hyperparameters()["learningRate"]``, and names are
    listed in lower case. Reads the environment anew with each call, on every rank.

    Returns:
        By name, an int for ``8``, a float for ``0.1``, ``8.0`` and ``1e-3``, a str for anything else, such as ``adam``,
        ``007`` and an empty text.
    """
    start, environ = len(TRAINER_OPT_PREFIX), DEFAULT_RUNTIME.environ()
    texts = {name[start:]: text for name, text in environ.items() if name.startswith(TRAINER_OPT_PREFIX)}
    return _Hyperparameters({name.upper(): _value(text) for name, text in texts.items() if name})


class _Hyperparameters(Mapping[str, Value]):
    """Values by the upper case of their names."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Value:
        if name.upper() not in self._values:
            raise KeyError(name)
        return self._values[name.upper()]

    def __iter__(self) -> Iterator[str]:
        return (name.lower() for name in self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))


def _value(text: str) -> Value:
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    return int(text) if number[2] is None and number[3] is None else float(text)
