"""An objective function on its way into a trial, as Katib's ``tune`` sends it: only its source.

It is cut out of its file, dedented, followed by one call with a dict, and written to a file by a shell in the trial. So
the same names are missing and the here-document expands the same dollar signs as on a cluster. What would fail only in
the trial is found before, where that is possible.
"""

import builtins
import dis
import importlib.metadata
import importlib.util
import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

from katib_callbacks.errors import ConfigurationError

ENTRYPOINT = "python -u"

_FILE = "objective.${RANK:-0}.py"  # processes of one trial share its folder, and write at the same time
_MARK = "KATIB_OBJECTIVE"
_KNOWN = {
    *vars(builtins),
    *("__name__", "__file__", "__doc__", "__builtins__", "__spec__", "__loader__", "__package__"),
}

# What an unquoted here-document changes: $name, ${...}, $(...), `...` and a backslash before $, `, \ or a line's end.
_EXPANDED = re.compile(r"\$[A-Za-z_0-9{(?$!#*@-]|`|\\[$`\\\n]")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_logger = logging.getLogger(__name__)


def script(objective: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the shell script that runs an objective, made by ``def`` with one argument, in a trial.

    ``arguments`` has ``${trialParameters.name}`` for what is tuned, else values whose ``repr`` reads back.
    """
    source = _source(objective)
    code = f"{source}\n{objective.__name__}({dict(arguments)!r})"
    changed = _EXPANDED.search(re.sub(r"\$\{trialParameters\.[^}]*\}", "", code))
    if changed is not None:
        _logger.warning(
            "objective %s contains %r: Katib writes the source through a shell, which changes that; write it otherwise",
            objective.__name__,
            changed[0],
        )
    return f'cat > "{_FILE}" << {_MARK}\n{code}\n{_MARK}\nexec {ENTRYPOINT} "$PWD/{_FILE}"\n'


def _source(objective: Callable[..., Any]) -> str:
    if not inspect.isfunction(objective) or objective.__name__ == "<lambda>":
        raise ConfigurationError(f"objective must be a function made by def, not {objective!r}")
    try:
        inspect.signature(objective).bind({})
    except TypeError as error:
        raise ConfigurationError(f"objective must take one argument, the dict of parameters: {error}") from error
    try:
        source = textwrap.dedent(inspect.getsource(objective))
        code = compile(source, "<objective>", "exec", dont_inherit=True)
    except (OSError, TypeError) as error:
        raise ConfigurationError(f"objective: its source cannot be found ({error}); define it in a file") from error
    except SyntaxError as error:
        raise ConfigurationError(f"objective: its source cannot be cut out of its file: {error}") from error
    codes = list(_codes(code))
    outside = sorted(set().union(*map(_loaded, codes)) - set().union(*map(_stored, codes)) - _KNOWN)
    if outside:
        raise ConfigurationError(
            f"objective: {', '.join(outside)} {'comes' if len(outside) == 1 else 'come'} from outside the function. "
            "Katib sends only the function's source, so these names do not exist in a trial, here and in a cluster: "
            "import and define them inside the function"
        )
    return source


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _loaded(code: CodeType) -> set[str]:
    """Return the global names that a code object reads; of a class body's own names none."""
    steps = list(dis.get_instructions(code))
    own = {step.argval for step in steps if step.opname == "STORE_NAME"}
    return {
        step.argval
        for step in steps
        if step.opname == "LOAD_GLOBAL" or (step.opname.startswith("LOAD_NAME") and step.argval not in own)
    }


def _stored(code: CodeType) -> set[str]:
    """Return the global names that a code object makes."""
    kinds = {"STORE_GLOBAL", *(("STORE_NAME",) if code.co_name == "<module>" else ())}
    return {step.argval for step in dis.get_instructions(code) if step.opname in kinds}


def check_packages(packages: Sequence[str]) -> None:
    """Check that what a trial would install is installed here; versions are not compared."""
    for package in packages:
        match = _REQUIREMENT.match(str(package).strip())
        if match is None or "://" in str(package):
            _logger.warning("packages_to_install: it cannot be found out whether %r is installed", package)
        elif not _is_installed(match[0]):
            raise ConfigurationError(
                f"packages_to_install: {package} is not installed in this environment, where trials run; "
                f"pip install '{package}'"
            )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        module = name.replace("-", "_")
        return module.isidentifier() and importlib.util.find_spec(module) is not None
    return True
