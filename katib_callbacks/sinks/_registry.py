"""The sinks that have a name, and how each is made. None is imported before it is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import PreviousAttempt, Runtime, Verify
from katib_callbacks.sinks import MetricSink
from katib_callbacks.sinks._endpoint import Endpoint

KATIB = "katib"


@dataclass(frozen=True)
class SinkOptions:
    """What sinks with a name are made from.

    Args:
        endpoint: The DB manager's.
        verify: See ``KatibReporter``.
        previous_attempt: See ``KatibReporter``.
        runtime: Clock and the like.
    """

    endpoint: Endpoint
    verify: Verify
    previous_attempt: PreviousAttempt
    runtime: Runtime


def resolve_sinks(sinks: Sequence[MetricSink | str] | None, runtime: Runtime) -> tuple[MetricSink | str, ...]:
    """Resolve which sinks rows go to, by name or as objects: the argument, the variable, then ``katib``.

    Raises:
        ConfigurationError: No sink, one twice, an unknown name (the message lists the known ones), or no sink at all.
    """
    source: str = "sinks"
    given: Sequence[MetricSink | str] | None = sinks
    if given is None:
        source, given = settings.SINKS, settings.sink_names(runtime) or [KATIB]
    elif isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigurationError(f"sinks must be several sinks or their names, such as [{KATIB!r}], not {given!r}")
    if not given:
        raise ConfigurationError(f"{source} names no sink")
    chosen: list[MetricSink | str] = []
    for sink in given:
        _check_sink(source, sink)
        if any(sink is other or (isinstance(sink, str) and sink == other) for other in chosen):
            raise ConfigurationError(f"{source} has {sink!r} twice")
        chosen.append(sink)
    return tuple(chosen)


def make_sink(name: str, options: SinkOptions) -> MetricSink:
    """Make the sink of a name that :func:`resolve_sinks` has let pass. The caller closes it."""
    return _MAKERS[name](options)


def _check_sink(source: str, sink: object) -> None:
    if isinstance(sink, str):
        if sink not in _MAKERS:
            known = ", ".join(map(repr, _MAKERS))
            raise ConfigurationError(f"{source}: there is no sink {sink!r}; known are {known}")
    elif isinstance(sink, type) or not isinstance(sink, MetricSink):
        raise ConfigurationError(f"{source}: {sink!r} is neither a sink's name nor an object with send() and close()")


def _make_katib(options: SinkOptions) -> MetricSink:
    from katib_callbacks.sinks.db_manager import DBManagerSink  # noqa: PLC0415  not where all sinks are custom ones

    return DBManagerSink(
        options.endpoint,
        verify=options.verify,
        previous_attempt=options.previous_attempt,
        runtime=options.runtime,
    )


_MAKERS: dict[str, Callable[[SinkOptions], MetricSink]] = {KATIB: _make_katib}
