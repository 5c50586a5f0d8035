"""Checks of the place: where results go, whose they are, whether this process reports, and where it says why not."""

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial

from katib_callbacks import settings
from katib_callbacks.cli.doctor.finding import NOTE, OK, PROBLEM, Checks, Finding, Surroundings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.masking import label_of
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.ranks import process_rank
from katib_callbacks.settings.early_stopping import resolve_policy
from katib_callbacks.settings.metric_names import metric_selection
from katib_callbacks.sinks.auto import DISABLED, KATIB
from katib_callbacks.sinks.collector import collector_here
from katib_callbacks.sinks.registry import resolve_sinks

_NAME_CHARACTERS = 40
"""Kubernetes may cut the end of a long name to make a pod's."""


def check_sinks(here: Surroundings) -> Iterator[Finding]:
    """Find out where metrics go, and why."""
    runtime = here.runtime
    try:
        here.trial_name = settings.trial_name(None, runtime)
        here.where = resolve_sinks(None, runtime, trial_name=here.trial_name)
        collector = collector_here(runtime, here.trial_name)
    except ConfigurationError as error:
        yield Finding("sinks", PROBLEM, str(error), "correct the variable")
        return
    if here.where.nothing is not None:
        is_expected = "KUBERNETES_SERVICE_HOST" in runtime.environ() and not settings.is_disabled(runtime)
        what_to_do = f"set {settings.TRIAL_NAME}, or name sinks in {settings.SINKS}"
        if here.where.nothing == DISABLED:
            what_to_do = f"unset {settings.DISABLE} if this training is to report"
        advice = here.where.advice.rstrip(".") or what_to_do
        detail = f"nothing is reported: {here.where.nothing}"
        yield Finding("sinks", PROBLEM if is_expected else NOTE, detail, advice)
    for chosen in here.where.chosen:
        name = label_of(chosen.sink) if isinstance(chosen.sink, str) else type(chosen.sink).__name__
        yield Finding("sinks", OK, f"{name}: {chosen.reason} ({chosen.sign})")
    if collector is not None and here.where.sinks[:1] == (KATIB,):
        yield Finding(
            "collector",
            PROBLEM,
            f"metrics are pushed, but Katib collects them in mode {collector.kind} ({collector.sign})",
            "set the experiment's metricsCollectorSpec.collector.kind to Push, or let the output reach the collector",
        )


def check_trial(here: Surroundings) -> Iterator[Finding]:
    """Compare the trial's name with the pod's."""
    if here.trial_name is None:
        return
    pod = here.runtime.variable("HOSTNAME")
    in_pod = "KUBERNETES_SERVICE_HOST" in here.runtime.environ()
    if in_pod and pod is not None and not pod.startswith(here.trial_name[:_NAME_CHARACTERS]):
        yield Finding(
            "trial",
            NOTE,
            f"{settings.TRIAL_NAME} is {here.trial_name!r}, but the pod is {pod!r}",
            "see that the template does not set the name of another trial",
        )
    else:
        yield Finding("trial", OK, here.trial_name)


def check_rank(here: Surroundings) -> Iterator[Finding]:
    """Find out whether this process reports."""
    try:
        settings.check_rank(here.runtime)
    except ConfigurationError as error:
        yield Finding("rank", PROBLEM, str(error), "correct the variable")
        return
    rank = process_rank(here.runtime.environ())
    if rank.is_global_zero:
        yield Finding("rank", OK, f"this process reports: {rank}")
    elif rank.is_certain:
        yield Finding("rank", NOTE, f"this process reports nothing: {rank}", "rank zero reports")
    else:
        detail = f"this process reports nothing: {rank}, and no variable says that there are other processes"
        yield Finding("rank", PROBLEM, detail, f"unset {rank.source}, or set {settings.RANK}=0")


_CHOICES = (
    (settings.Report, settings.REPORT),
    (settings.Mode, settings.MODE),
    (settings.AfterTraining, settings.AFTER_TRAINING),
    (settings.OnMissing, settings.ON_MISSING),
    (settings.OnNan, settings.ON_NAN),
    (settings.OnError, settings.ON_ERROR),
    (settings.PreviousAttempt, settings.PREVIOUS_ATTEMPT),
    (settings.Verify, settings.VERIFY),
)


def check_variables(here: Surroundings) -> Iterator[Finding]:
    """Read the other variables as callbacks and reporters do, which raise where one is wrong."""
    try:
        runtime = settings.heeded(here.runtime)
    except ConfigurationError:  # said of the sinks
        return
    readings: tuple[Callable[[], object], ...] = (
        *(partial(settings.choice, words, "", None, variable, None, runtime) for words, variable in _CHOICES),
        partial(settings.seconds, "", None, settings.TIMEOUT_S, settings.DEFAULT_TIMEOUT_S, runtime),
        partial(metric_selection, None, runtime),
        partial(settings.is_autolog_on, runtime),
        partial(resolve_policy, None, runtime),
    )
    for read in readings:
        try:
            read()
        except ConfigurationError as error:  # noqa: PERF203  each on its own
            yield Finding("variables", PROBLEM, str(error), "correct the variable")
    for name, nearest in settings.unknown_variables(runtime).items():
        advice = "remove it, or see docs/environment.md" if nearest is None else f"write {nearest} if that is meant"
        yield Finding("variables", NOTE, f"{name} is not a variable of katib-callbacks, so it has no effect", advice)


def check_termination_message(here: Surroundings) -> Iterator[Finding]:
    """Find out whether a reason for no number could be written where ``kubectl describe pod`` shows it."""
    path = termination.message_path(here.runtime)
    if path is None:
        return
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            is_free = is_regular and termination.is_ours(file.read(termination.MAX_BYTES + 1))
    except OSError as error:
        advice = f"set {settings.TERMINATION_MESSAGE_PATH} to the container's terminationMessagePath"
        yield Finding("message", NOTE, f"no termination message can be written: {error}", advice)
        return
    if is_free:
        yield Finding("message", OK, f"{path} takes the reason if there is no number")
    elif is_regular:
        detail = f"the program has written a termination message of its own to {path}, which stays"
        yield Finding("message", NOTE, detail, "leave it empty if the reason for no number is to stand there")
    else:
        detail = f"no termination message can be written: {path} is no file"
        yield Finding("message", NOTE, detail, f"set {settings.TERMINATION_MESSAGE_PATH} to a file, or unset it")


CHECKS: Checks = (
    check_sinks,
    check_trial,
    check_rank,
    check_variables,
    check_termination_message,
)
