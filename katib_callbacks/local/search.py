"""The search space in Python: the functions of ``kubeflow.katib.search``, with Katib's distributions besides.

parameters = {"lr": search.double(min=1e-4, max=1e-1, distribution="logUniform"), "layers": search.int(min=1, max=4)}
"""

import builtins
from collections.abc import Sequence
from typing import Literal, TypeAlias

from katib_callbacks.local.api.models import V1beta1FeasibleSpace, V1beta1ParameterSpec

Distribution = Literal["uniform", "logUniform", "normal", "logNormal"]


_Int: TypeAlias = builtins.int


def double(
    min: float,  # noqa: A002  Katib's name
    max: float,  # noqa: A002  Katib's name
    step: float | None = None,
    distribution: Distribution | None = None,
) -> V1beta1ParameterSpec:
    """Search a float.

    Args:
        min: The least value.
        max: The greatest value.
        step: Only ``min``, ``min + step``, and so on; None for every float between.
        distribution: ``uniform`` (the default), ``logUniform``, ``normal`` or ``logNormal``.
    """
    return _number("double", min, max, step, distribution)


def int(  # noqa: A001  Katib's name
    min: _Int,  # noqa: A002  Katib's name
    max: _Int,  # noqa: A002  Katib's name
    step: _Int | None = None,
    distribution: Distribution | None = None,
) -> V1beta1ParameterSpec:
    """Search a whole number. The arguments are those of :func:`double`; the default step is 1."""
    return _number("int", min, max, step, distribution)


def categorical(list: Sequence[object]) -> V1beta1ParameterSpec:  # noqa: A002  Katib's name
    """Choose one of the values of ``list``; the trial gets it as a string."""
    return V1beta1ParameterSpec(
        parameter_type="categorical", feasible_space=V1beta1FeasibleSpace(list=[str(value) for value in list])
    )


def _number(
    kind: str, low: object, high: object, step: object | None, distribution: str | None
) -> V1beta1ParameterSpec:
    space = V1beta1FeasibleSpace(
        min=str(low), max=str(high), step=None if step is None else str(step), distribution=distribution
    )
    return V1beta1ParameterSpec(parameter_type=kind, feasible_space=space)
