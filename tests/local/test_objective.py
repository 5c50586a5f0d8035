"""An objective's way into a trial: its source alone, through a shell."""

import os
import shutil
import subprocess
import sys

import pytest

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.tune.source import check_packages, script

OUTSIDE = 3


def run(objective, arguments, folder):
    environ = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}  # noqa: PTH120
    command = [shutil.which("bash"), "-c", script(objective, arguments)]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def plain(parameters):
    import json

    def helper(value):
        return [json.dumps(value) for _ in range(1)]

    class Box:
        size = 2
        double = size * 2

    print(*helper(parameters), Box.double, __name__)


def test_it_is_called_with_its_dict(tmp_path):
    assert run(plain, {"a": "1", "b": [2, None], "c": "it's"}, tmp_path) == (
        '{"a": "1", "b": [2, null], "c": "it\'s"} 4 __main__\n'
    )


def test_a_function_inside_another_is_dedented(tmp_path):
    def inner(parameters):
        print("inner", parameters["a"])

    assert run(inner, {"a": "1"}, tmp_path) == "inner 1\n"


def test_what_a_shell_would_change_is_said_and_changed(tmp_path, caplog):
    def dollars(parameters):
        print("costs $5 and $HOME"[:8])

    assert run(dollars, {}, tmp_path) == "costs  a\n", "as in Katib, whose shell expands $5 to nothing"
    assert "objective dollars contains '$5': Katib writes the source through a shell" in caplog.text


def test_a_dollar_that_a_shell_leaves_alone_is_not_said(tmp_path, caplog):
    def pattern(parameters):
        print(r"^\d+$", "100$")

    assert run(pattern, {"a": "${trialParameters.a}"}, tmp_path).endswith("100$\n") or "bad substitution" in run(
        pattern, {"a": "${trialParameters.a}"}, tmp_path
    )
    assert caplog.text == ""


def uses_a_constant(parameters):
    print(OUTSIDE)


def uses_an_import(parameters):
    sys.exit(os.getpid())


def annotated(parameters: ConfigurationError):
    print(parameters)


def has_a_default(parameters, value=OUTSIDE):
    print(value)


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        (uses_a_constant, "OUTSIDE comes"),
        (uses_an_import, "os, sys come"),
        (annotated, "ConfigurationError comes"),
        (has_a_default, "OUTSIDE comes"),
    ],
)
def test_a_name_from_outside_is_refused_with_the_reason(objective, names):
    with pytest.raises(
        ConfigurationError, match=f"objective: {names} from outside the function. .*only the function's"
    ):
        script(objective, {})


def test_a_closure_is_refused(tmp_path):
    secret = 1

    def closure(parameters):
        print(secret)

    with pytest.raises(ConfigurationError, match="secret comes from outside"):
        script(closure, {})


def two_arguments(a, b):
    print(a, b)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda parameters: parameters, "must be a function made by def"),
        (print, "must be a function made by def"),
        ("objective", "must be a function made by def"),
        (two_arguments, "must take one argument, the dict of parameters"),
    ],
)
def test_what_is_no_function_of_a_dict_is_refused(objective, message):
    with pytest.raises(ConfigurationError, match=message):
        script(objective, {})


def test_a_function_without_a_source_is_refused():
    namespace = {}
    exec("def made(parameters): pass", namespace)  # noqa: S102  as in an interactive session

    with pytest.raises(ConfigurationError, match="its source cannot be found"):
        script(namespace["made"], {})


def test_packages_must_be_there():
    check_packages(["pytest", "pytest>=7", "grpcio[protobuf]==1.*", "PyYAML", "json"])
    with pytest.raises(ConfigurationError, match="packages_to_install: no-such-package==1 is not installed"):
        check_packages(["pytest", "no-such-package==1"])
