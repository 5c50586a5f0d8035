"""The sinks that have a name, and how each is made. None is imported before it is asked for.

What stands before a name's first colon chooses the sink: one of ours, or else what an installed package offers in the
entry-point group ``katib_callbacks.sinks``; packages are looked through only then, since that takes milliseconds.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.masking import label_of, scheme_of, scrub
from katib_callbacks.process_state import out_of_report
from katib_callbacks.settings import PreviousAttempt, Runtime, Verify
from katib_callbacks.sinks import MetricSink, SinkOptions
from katib_callbacks.sinks.auto import (
    AUTO,
    KATIB,
    METRICS_FILE,
    NAMED,
    NO_TRIAL,
    NOWHERE,
    STDOUT,
    TRAINJOB,
    ChosenSink,
    Whereabouts,
    sinks_here,
)
from katib_callbacks.sinks.katib.endpoint import Endpoint

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "katib_callbacks.sinks"
"""The entry-point group of plug-ins. A value is a callable that takes :class:`katib_callbacks.SinkOptions`."""


_making: set[tuple[str, int]] = set()
"""Names of sinks that are being made, and in which threads."""


@dataclass(frozen=True)
class ReporterOptions:
    """The options of one reporter, resolved; see ``KatibReporter``. Makes the sinks that have a name."""

    endpoint: Endpoint
    verify: Verify
    previous_attempt: PreviousAttempt
    spool_dir: str | None
    timeout_s: float
    trial_name: str | None
    runtime: Runtime

    def make(self, name: str) -> MetricSink:
        """Make the sink of a name that :func:`resolve_sinks` has let pass; the caller closes it."""
        if name == KATIB:
            return self._make_katib()
        options = SinkOptions(name, label_of(name), self.trial_name, self.runtime)
        making = (name, threading.get_ident())
        if making in _making:
            raise ConfigurationError(
                f"the sink {options.label!r} makes a reporter that has this sink again, and so for ever; that reporter "
                f"needs sinks of its own, as KatibReporter(sinks=[{KATIB!r}])"
            )
        _making.add(making)
        try:
            with out_of_report():  # a plug-in may make a reporter of its own, and use it
                return _MAKERS.get(scheme_of(name), _make_plug_in)(options)
        finally:
            _making.discard(making)

    def _make_katib(self) -> MetricSink:
        from katib_callbacks.sinks.katib.sink import DBManagerSink  # noqa: PLC0415  not where all sinks are others

        return DBManagerSink(
            self.endpoint,
            verify=self.verify,
            previous_attempt=self.previous_attempt,
            spool_dir=self.spool_dir,
            runtime=self.runtime,
        )


def resolve_sinks(sinks: Sequence[MetricSink | str] | None, runtime: Runtime, *, trial_name: str | None) -> Whereabouts:
    """Resolve where rows go, and why: the argument, the variable, then ``auto``; nowhere where all is turned off.

    Raises:
        ConfigurationError: A sink that cannot be, or is named twice.
    """
    if settings.is_disabled(runtime):
        return NOWHERE
    source: str = "sinks"
    given: Sequence[MetricSink | str] | None = sinks
    if given is None:
        source, given = settings.SINKS, settings.sink_names(runtime) or [AUTO]
    elif isinstance(given, str) or not isinstance(given, Sequence):
        shown = label_of(given) if isinstance(given, str) else given
        raise ConfigurationError(f"sinks must be several sinks or their names, such as [{KATIB!r}], not {shown!r}")
    if not given:
        raise ConfigurationError(f"{source} names no sink")
    chosen: list[ChosenSink] = []
    advice = ""
    for sink in given:
        if isinstance(sink, str) and sink == AUTO:
            here = sinks_here(runtime, trial_name)
            advice = here.advice
            chosen += [each for each in here.chosen if each.sink not in [*given, *(other.sink for other in chosen)]]
            continue
        _check_sink(source, sink)
        label = label_of(sink) if isinstance(sink, str) else type(sink).__name__
        if any(sink is other.sink or (isinstance(sink, str) and sink == other.sink) for other in chosen):
            raise ConfigurationError(f"{source} has {label if isinstance(sink, str) else sink!r} twice")
        chosen.append(ChosenSink(sink, NAMED, f"{source} has {label}"))
    return Whereabouts(tuple(chosen), None if chosen else NO_TRIAL, "" if chosen else advice)


def _check_sink(source: str, sink: object) -> None:
    if isinstance(sink, str):
        scheme, label = scheme_of(sink), label_of(sink)
        if scheme in _BARE and sink != scheme:
            raise ConfigurationError(f"{source}: nothing may follow the name {scheme!r}, as in {label!r}")
        if scheme not in _BARE and scheme not in _MAKERS and not _plug_ins(scheme):
            from importlib.metadata import entry_points  # noqa: PLC0415  for plug-ins alone

            offered = sorted(entry.name for entry in entry_points(group=GROUP))
            known = ", ".join(map(repr, dict.fromkeys([*_BARE, *_MAKERS, *offered])))
            raise ConfigurationError(
                f"{source}: there is no sink {label!r}; known are {known}, and no installed package has another of "
                f"that name (entry-point group {GROUP})"
            )
    elif isinstance(sink, type) or not isinstance(sink, MetricSink):
        raise ConfigurationError(f"{source}: {sink!r} is neither a sink's name nor an object with send() and close()")


# -- plug-ins ------------------------------------------------------------------------------------------------------


def _plug_ins(scheme: str) -> "list[EntryPoint]":
    """Return the entry points of a name; those that lead to the same place count once."""
    from importlib.metadata import entry_points  # noqa: PLC0415  for plug-ins alone

    found = entry_points(group=GROUP, name=scheme)
    return list({entry.value: entry for entry in found}.values())


def _make_plug_in(options: SinkOptions) -> MetricSink:
    entry, *others = _plug_ins(scheme_of(options.name))
    if others:
        packages = " and ".join(map(_package_of, [entry, *others]))
        raise ConfigurationError(f"the sink {options.label!r} is offered by {packages}: uninstall all but one")
    where = f"the sink {options.label!r}, of {_package_of(entry)}"
    maker: Any = _attempt(entry.load, options.name, f"{where}, cannot be imported")
    sink: object = _attempt(lambda: maker(options), options.name, f"{where}, cannot be made")
    if isinstance(sink, type) or not isinstance(sink, MetricSink):
        raise ConfigurationError(f"{where}, cannot be made: {entry.value} gave no object with send() and close()")
    return sink


def _attempt(step: Callable[[], Any], name: str, what: str) -> Any:
    try:
        return step()
    except Exception as error:  # noqa: BLE001  whatever a plug-in raises
        text = f"{type(error).__name__}: {scrub(str(error), name)}"
        cause = error if text == f"{type(error).__name__}: {error}" else None  # a traceback would show the secret
        raise ConfigurationError(f"{what}: {text}") from cause


def _package_of(entry: "EntryPoint") -> str:
    package = f"package {entry.dist.name} {entry.dist.version}" if entry.dist else "a package without a name"
    return f"{package} ({entry.value})"


def _lazily(module: str, name: str) -> Callable[[SinkOptions], MetricSink]:
    """Return what makes a sink of ours, from a module that is imported where it is asked for."""

    def make(options: SinkOptions) -> MetricSink:
        sink: MetricSink = getattr(import_module(f"katib_callbacks.sinks.{module}"), name)(options)
        return sink

    return make


_MAKERS: dict[str, Callable[[SinkOptions], MetricSink]] = {
    STDOUT: _lazily("stdout", "StdoutSink"),
    METRICS_FILE: _lazily("metrics_file", "MetricsFileSink"),
    f"{METRICS_FILE}+json": _lazily("metrics_file", "MetricsFileSink"),
    TRAINJOB: _lazily("trainjob.sink", "make_trainjob"),
    "prometheus+http": _lazily("prometheus", "PushgatewaySink"),
    "prometheus+https": _lazily("prometheus", "PushgatewaySink"),
    "file": _lazily("file", "JsonLinesSink"),
}
"""Our own sinks by what their names begin with, except ``katib``, which needs more than its name."""

_BARE = (KATIB, STDOUT, TRAINJOB, AUTO)
"""Those whose names are complete."""


def is_built_in(name: str) -> bool:
    """Return whether the sink of a name is ours, so that closing it returns at once where nothing is under way."""
    return scheme_of(name) in {KATIB, *_MAKERS}
