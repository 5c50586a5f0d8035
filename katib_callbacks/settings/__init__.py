"""Every environment variable, read in this one place, and the runtime that tests replace.

An option is resolved once: the argument, then the variable, then the default. An empty variable counts as unset:
that is what an unset ``${trialSpec...}`` reference or an empty Helm value leaves behind. An empty argument is refused:
somebody wrote it. A bad value raises ``ConfigurationError`` naming the argument or the variable.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeVar, cast, get_args

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import name_problem
from katib_callbacks.settings.runtime import DEFAULT_RUNTIME as DEFAULT_RUNTIME
from katib_callbacks.settings.runtime import Runtime as Runtime

__all__ = ["Runtime"]

logger = logging.getLogger(__name__)

TRIAL_NAME = "KATIB_TRIAL_NAME"
"""Injected by Katib's pod webhook into the primary container of every pod of a trial."""

DB_MANAGER_ADDRESS = "KATIB_DB_MANAGER_ADDRESS"
"""Ours, ``host:port``: Katib does not inject it, and ``KATIB_DB_MANAGER_PORT`` is a service link, never read."""

PREFIX = "KATIB_CALLBACKS_"

METRICS = PREFIX + "METRICS"
REPORT = PREFIX + "REPORT"
MONITOR = PREFIX + "MONITOR"
MODE = PREFIX + "MODE"
AFTER_TRAINING = PREFIX + "AFTER_TRAINING"
ON_MISSING = PREFIX + "ON_MISSING"
ON_NAN = PREFIX + "ON_NAN"
ON_ERROR = PREFIX + "ON_ERROR"
TIMEOUT_S = PREFIX + "TIMEOUT_S"
TLS_CA = PREFIX + "TLS_CA"
TLS_CERT = PREFIX + "TLS_CERT"
TLS_KEY = PREFIX + "TLS_KEY"
TOKEN_PATH = PREFIX + "TOKEN_PATH"
ALLOW_INSECURE_TOKEN = PREFIX + "ALLOW_INSECURE_TOKEN"
SPOOL_DIR = PREFIX + "SPOOL_DIR"
PREVIOUS_ATTEMPT = PREFIX + "PREVIOUS_ATTEMPT"
VERIFY = PREFIX + "VERIFY"
SINKS = PREFIX + "SINKS"
RANK = PREFIX + "RANK"
NAMESPACE = PREFIX + "NAMESPACE"
EXPERIMENT = PREFIX + "EXPERIMENT"
EARLY_STOPPING = PREFIX + "EARLY_STOPPING"
AUTOLOG = PREFIX + "AUTOLOG"
DISABLE = PREFIX + "DISABLE"

TERMINATION_MESSAGE_PATH = PREFIX + "TERMINATION_MESSAGE_PATH"
"""Where the container's template has another ``terminationMessagePath`` than Kubernetes' default, which no process can
read."""

TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default, mounted into every container."""

LOCAL_ATTEMPT = PREFIX + "LOCAL_ATTEMPT"
"""Set by the runner of local trials in every process of a trial, and read by the runner alone."""

LOCAL_COLLECTOR = PREFIX + "LOCAL_COLLECTOR"
"""Set by the runner of local trials where metrics are collected: what reads them, as a JSON object."""

LOCAL_PROGRESS = PREFIX + "LOCAL_PROGRESS"
"""Set by the runner of local trials: the file in which a callback shows how far it is."""

SUBMIT_DIR = PREFIX + "SUBMIT_DIR"
"""Set by the runner of local trials: the folder in which the experiment was started, for the trial's own program."""

TRAINER_SERVER_URL = "KUBEFLOW_TRAINER_SERVER_URL"
"""Injected by Kubeflow Trainer into every pod of a TrainJob whose status can be shown, as the next two are."""

TRAINER_SERVER_CA_CERT = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
"""A path."""

TRAINER_SERVER_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105  a path, too
"""A path."""

TRAINER_OPT_PREFIX = "KUBEFLOW_TRAINER_OPT_"
"""Of the variables in which a trial of an OptimizationJob finds its hyperparameters, each by its name in upper case."""

NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
"""Mounted by Kubernetes into every pod that has a service account token."""

DEFAULT_DB_MANAGER_ADDRESS = "katib-db-manager.kubeflow:6789"
"""Katib's own default (sdk/python/v1beta1/kubeflow/katib/constants/constants.py)."""

DEFAULT_TIMEOUT_S = 480.0
"""Seconds for one whole report: below NCCL's 600 s, because other ranks may already wait for rank zero."""

Report = Literal["final", "best", "history", "kept"]
Mode = Literal["min", "max"]
AfterTraining = Literal["missing", "update", "ignore"]
OnMissing = Literal["warn", "raise", "ignore"]
OnNan = Literal["skip", "raise", "send"]
OnError = Literal["warn", "raise"]
PreviousAttempt = Literal["ignore", "warn", "clear"]
Verify = Literal["ambiguous", "always"]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

T = TypeVar("T")


def _given(argument: str, value: object, variable: str, runtime: Runtime) -> tuple[str, object]:
    """Return what names an option's value, the argument or the variable, and the value; None where neither is set."""
    return (argument, value) if value is not None else (variable, runtime.variable(variable))


def choice(options: object, argument: str, value: T | None, variable: str, default: T, runtime: Runtime) -> T:
    """Resolve an option that is one of the words of a ``Literal`` type, ``options``.

    Raises:
        ConfigurationError: Another word; the message lists the known ones.
    """
    allowed = get_args(options)
    source, given = _given(argument, value, variable, runtime)
    if given is None:
        return default
    if given not in allowed:
        raise ConfigurationError(f"{source} must be one of {', '.join(map(repr, allowed))}, not {given!r}")
    return cast("T", given)


def text(value: str | os.PathLike[str] | None, variable: str, runtime: Runtime) -> str | None:
    """Resolve an option that is a text or a path.

    Raises:
        ConfigurationError: Neither, or empty, or with a NUL, which no path can have.
    """
    if value is None:
        return runtime.variable(variable)
    argument = variable.removeprefix(PREFIX).lower()
    try:
        given: object = os.fspath(value)
    except TypeError:
        given = None
    if not isinstance(given, str):
        raise ConfigurationError(f"{argument} must be a str or a path, not {value!r}")
    if not given.strip():
        raise ConfigurationError(f"{argument} is an empty text; leave it out, or pass None, to use {variable}")
    if "\0" in given:
        raise ConfigurationError(f"{argument} has a NUL character: {given!r}")
    return given


def flag(argument: str, value: bool | None, variable: str, runtime: Runtime) -> bool:
    """Resolve an option that is yes or no, no by default.

    Raises:
        ConfigurationError: Not a bool, or a variable that is none of 1/true/yes/on and 0/false/no/off.
    """
    if value is not None:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{argument} must be True or False, not {value!r}")
        return value
    word = runtime.variable(variable)
    if word is None or word.lower() in _FALSE:
        return False
    if word.lower() in _TRUE:
        return True
    raise ConfigurationError(f"{variable} must be 1 or 0 (or true, yes, on, false, no, off), not {word!r}")


LONGEST_S = 1e9
"""30 years. Timers and gRPC's deadlines overflow at some ten times that; who asks for more means for ever."""


def seconds(argument: str, value: float | None, variable: str, default: float, runtime: Runtime) -> float:
    """Resolve an option that is a positive number of seconds, at most ``LONGEST_S``.

    Raises:
        ConfigurationError: Not a positive finite number.
    """
    source, given = _given(argument, value, variable, runtime)
    if given is None:
        return default
    try:
        number = float(cast("str", given))
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(given, bool) or not 0 < number < float("inf"):
        raise ConfigurationError(f"{source} must be a positive number of seconds, not {given!r}")
    return min(number, LONGEST_S)


def is_disabled(runtime: Runtime) -> bool:
    """Return whether ``KATIB_CALLBACKS_DISABLE`` turns the callbacks off."""
    return flag("disable", None, DISABLE, runtime)


def heeded(runtime: Runtime) -> Runtime:
    """Return the runtime whose environment counts: disabled, no other variable is read, so that none can be wrong."""
    return replace(runtime, environ=_only_disabled) if is_disabled(runtime) else runtime


def _only_disabled() -> Mapping[str, str]:
    return {DISABLE: "1"}


def is_autolog_on(runtime: Runtime) -> bool:
    """Return whether ``KATIB_CALLBACKS_AUTOLOG`` turns autolog on where the code says nothing of it."""
    return flag("autolog", None, AUTOLOG, runtime)


_said_unknown: set[str] = set()


def warn_of_unknown_variables(runtime: Runtime) -> None:
    """Log each variable with our prefix that nothing reads, once in a process, with the nearest one that is read."""
    for name, nearest in unknown_variables(runtime).items():
        if name not in _said_unknown:
            _said_unknown.add(name)
            question = f" Did you mean {nearest}?" if nearest else ""
            logger.warning("%s is not a variable of katib-callbacks, so it has no effect.%s", name, question)


def unknown_variables(runtime: Runtime) -> dict[str, str | None]:
    """Return the variables with our prefix that nothing reads, each with the nearest one that is read, if any."""
    known = {each for each in globals().values() if isinstance(each, str) and each.startswith(PREFIX)} - {PREFIX}
    nearest = {}
    for name in sorted(runtime.environ()):
        if name.startswith(PREFIX) and name not in known:
            from difflib import get_close_matches  # noqa: PLC0415  rarely needed

            words = [variable.removeprefix(PREFIX) for variable in known]
            near = get_close_matches(name.removeprefix(PREFIX), words, n=1)
            nearest[name] = PREFIX + near[0] if near else None
    return nearest


def is_conspicuous(runtime: Runtime) -> bool:
    """Return whether somebody seems to expect reports here: a pod, or any variable of ours.

    There a missing trial name is worth a WARNING; on a laptop an INFO is enough.
    """
    environ = runtime.environ()
    return "KUBERNETES_SERVICE_HOST" in environ or any(
        name == DB_MANAGER_ADDRESS or name.startswith(PREFIX) for name, value in environ.items() if value
    )


def trial_name(value: str | None, runtime: Runtime) -> str | None:
    """Resolve the trial's name; None outside a trial.

    Raises:
        ConfigurationError: It cannot be one: not a str, empty, too long, or with characters that cannot be stored.
    """
    source, name = _given("trial_name", value, TRIAL_NAME, runtime)
    if name is None:
        return None
    problem = name_problem(name) if isinstance(name, str) else f"is a {type(name).__name__}, not a str"
    if problem:
        raise ConfigurationError(f"{source} {problem}")
    return str(name)


def whole_number(word: str) -> int | None:
    """Read a rank or a count of processes; None for what is none: ``abc``, ``-1``, or more than 20 digits."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 20 else None  # noqa: PLR2004


def check_rank(runtime: Runtime) -> None:
    """Refuse a ``KATIB_CALLBACKS_RANK`` that is no rank; what reads it later takes such a one for unset.

    Raises:
        ConfigurationError: It is not a whole number, 0 or more.
    """
    given = runtime.variable(RANK)
    if given is not None and whole_number(given) is None:
        raise ConfigurationError(f"{RANK} must be a whole number, 0 for the process that reports, not {given!r}")


def sink_names(runtime: Runtime) -> list[str]:
    """Resolve ``KATIB_CALLBACKS_SINKS``, names separated by commas; empty if it is unset."""
    return [name.strip() for name in (runtime.variable(SINKS) or "").split(",") if name.strip()]


def namespace(runtime: Runtime, file: str = NAMESPACE_FILE) -> str | None:
    """Resolve the Kubernetes namespace: ``KATIB_CALLBACKS_NAMESPACE``, then the file in every pod; None outside one."""
    named = runtime.variable(NAMESPACE)
    if named is not None:
        return named
    try:
        with open(file, encoding="utf-8") as mounted:  # noqa: PTH123  pathlib is not imported for this
            return mounted.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
