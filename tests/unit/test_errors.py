"""The tree of errors, as its docstring draws it."""

import builtins
import copy
import inspect
import pickle
import re

import pytest

import katib_callbacks
from katib_callbacks import errors

CLONES = {"copy": copy.copy, "pickle": lambda error: pickle.loads(pickle.dumps(error))}  # noqa: S301  our own bytes
ERRORS = [
    value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.KatibCallbacksError)
]


def drawn_bases() -> dict[str, set[type]]:
    """Read ``{name: bases}`` from the picture in the docstring."""
    bases: dict[str, set[type]] = {"KatibCallbacksError": {Exception}}
    path = ["KatibCallbacksError"]
    for indent, name, builtin in re.findall(
        r"^([│ ]*)[├└]── (\w+)(?: \((\w+)\))?", inspect.getdoc(errors), re.MULTILINE
    ):
        depth = 1 + len(indent) // 4
        del path[depth:]
        bases[name] = {getattr(errors, path[-1])} | ({getattr(builtins, builtin)} if builtin else set())
        path.append(name)
    return bases


def test_the_tree_is_as_drawn():
    assert {kind.__name__: set(kind.__bases__) for kind in ERRORS} == drawn_bases()


def test_every_error_is_public():
    assert {kind.__name__ for kind in ERRORS} <= set(katib_callbacks.__all__)


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if not issubclass(kind, errors.DeliveryError)])
@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_errors_travel_between_processes(kind, clone):
    error = clone(kind("what went wrong"))

    assert type(error) is kind
    assert str(error) == "what went wrong"


@pytest.mark.parametrize("kind", [errors.DeliveryError, errors.RejectedError, errors.UnavailableError])
@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_delivery_errors_travel_with_what_they_know(kind, clone):
    error = clone(kind("2 rows did not arrive", attempts=5, pending=2))

    assert type(error) is kind
    assert (str(error), error.attempts, error.pending) == ("2 rows did not arrive", 5, 2)


def test_a_delivery_error_knows_nothing_by_default():
    error = errors.DeliveryError("lost")

    assert (error.attempts, error.pending) == (0, 0)
