"""Where the metrics of this process go, and why: the one answer that reporter, autolog, messages and doctor ask for.

``auto`` stands for the destinations that this process has, the one that counts first. Each is told by a sign: a
variable, or what Katib's webhook has made of the container.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks import MetricSink
from katib_callbacks.sinks.collector import collector_here

AUTO = "auto"
KATIB = "katib"
TRAINJOB = "trainjob"
STDOUT = "stdout"
METRICS_FILE = "metrics-file"

NO_TRIAL = f"{settings.TRIAL_NAME} is not set"
"""Why most sinks get nothing outside a trial."""

NAMED = "it is named"
"""Why a sink was chosen that the argument or the variable names."""

DISABLED = f"{settings.DISABLE} is set"
"""Why nothing is reported at all."""


class ChosenSink(NamedTuple):
    """A sink that gets the rows of this process.

    Args:
        sink: Its name, or an object that was handed in.
        reason: Why it was chosen, in words: ``this is a Katib trial in Push mode``.
        sign: What that was read from: ``KATIB_TRIAL_NAME=digits-abc``.
    """

    sink: MetricSink | str
    reason: str
    sign: str


class Whereabouts(NamedTuple):
    """Where the metrics of this process go.

    Args:
        chosen: The sinks in order; the first one that has a destination here counts. None if nothing is reported.
        nothing: Why nothing is reported, as a sign: ``KATIB_TRIAL_NAME is not set``; None if something is.
        advice: What to do about that, as sentences; empty if there is nothing to do.
    """

    chosen: tuple[ChosenSink, ...]
    nothing: str | None = None
    advice: str = ""

    @property
    def sinks(self) -> tuple[MetricSink | str, ...]:
        """The sinks, by name or as objects."""
        return tuple(each.sink for each in self.chosen)

    def level_of_nothing(self, runtime: Runtime) -> int:
        """Return how loudly it is to be said that nothing is reported: WARNING where somebody seems to expect it."""
        is_expected = self.nothing == DISABLED or not settings.is_conspicuous(runtime)
        return logging.INFO if is_expected else logging.WARNING

    def why_nothing(self, trial_name: str | None) -> str:
        """Return why nothing is reported, and what to do, as the line of a log."""
        if self.nothing == DISABLED:
            return f"{DISABLED}: nothing will be reported."
        where = "a Katib trial" if trial_name is None else "reach of a sink"
        advice = f" {self.advice}" if self.advice else ""
        return f"Not in {where} ({self.nothing}): nothing will be reported.{advice}"


NOWHERE = Whereabouts((), DISABLED)
"""Where all is turned off."""


def sinks_here(runtime: Runtime, trial_name: str | None) -> Whereabouts:
    """Return what ``auto`` stands for: the trial's collector or DB manager, then the TrainJob's status."""
    found: list[ChosenSink] = []
    advice = ""
    if trial_name is not None:
        found.append(_sink_of_trial(runtime, trial_name))
    url = runtime.variable(settings.TRAINER_SERVER_URL)
    if url is not None:
        problem = _problem_of_status_server(runtime)
        if problem is None:
            sign = f"{settings.TRAINER_SERVER_URL} is set"
            found.append(ChosenSink(TRAINJOB, "this is a TrainJob that shows its status", sign))
        else:
            advice = f"The TrainJob's status will not be shown: {problem}"
            logging.getLogger(__name__).warning("%s", advice)
    return Whereabouts(tuple(found), None if found else NO_TRIAL, "" if found else advice)


def _sink_of_trial(runtime: Runtime, trial_name: str) -> ChosenSink:
    """Return where Katib looks for the metrics of this trial: its collector in StdOut and File mode, else the DB."""
    collector = collector_here(runtime, trial_name)
    if collector is None:
        return ChosenSink(KATIB, "this is a Katib trial in Push mode", f"{settings.TRIAL_NAME}={trial_name}")
    if collector.kind == "File":
        return ChosenSink(METRICS_FILE, "Katib collects this trial's metrics from a file", collector.sign)
    if collector.kind != "StdOut":
        reason = "Katib collects this trial's metrics from files that this package does not write"
        return ChosenSink(KATIB, reason, collector.sign)
    reason = "Katib collects this trial's metrics from its output"
    if collector.lost is None:
        return ChosenSink(STDOUT, reason, collector.sign)
    return ChosenSink(KATIB, f"{reason}, but that of this process goes to {collector.lost}", collector.sign)


def advice_of_nothing(sinks: Sequence[MetricSink | str], runtime: Runtime) -> str:
    """Return what to do where none of the sinks that were named has a destination here."""
    if TRAINJOB in sinks or settings.is_disabled(runtime) or runtime.variable(settings.TRAINER_SERVER_URL) is None:
        return ""
    return f"{settings.TRAINER_SERVER_URL} is set: name the sink {TRAINJOB!r} to show the status of this TrainJob."


def _problem_of_status_server(runtime: Runtime) -> str | None:
    """Return why what Kubeflow Trainer injects cannot be right; nobody has asked for it, so it must not raise."""
    from katib_callbacks.sinks.trainjob.server import resolve_status_server  # noqa: PLC0415  in a TrainJob alone

    try:
        resolve_status_server(runtime)
    except ConfigurationError as error:
        return str(error)
    return None
