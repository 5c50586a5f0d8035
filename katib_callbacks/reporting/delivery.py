"""One report on its way: its rows in order of time, to the first sink, to the secondary ones; and the error, if any."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from katib_callbacks import settings
from katib_callbacks.errors import DeliveryError, ReporterClosedError, retold
from katib_callbacks.metrics import MetricLog, format_value
from katib_callbacks.process_state import in_report, out_of_report
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.timestamps import put_in_order, start_after
from katib_callbacks.sinks import MetricSink, SinkOutcome, checked_outcome
from katib_callbacks.sinks.registry import ReporterOptions

if TYPE_CHECKING:
    from katib_callbacks.reporting.background import BackgroundSender

MAX_ROWS_SHOWN = 5
"""How many rows a message spells out."""


def one_report_a_thread(logs: Sequence[MetricLog]) -> AbstractContextManager[None]:
    """Return what a report happens in; it raises DeliveryError where it interrupts one of the same thread."""
    return in_report(lambda: _where(logs, None, can_spool=False))


def deliver(
    options: ReporterOptions,
    logs: Sequence[MetricLog],
    first: tuple[str, MetricSink],
    secondary: "Sequence[BackgroundSender]",
    idle: Mapping[str, SinkOutcome],
) -> tuple[SinkOutcome, Mapping[str, SinkOutcome]]:
    """Deliver at least one row, in any order; return the first sink's outcome, and every sink's by its name.

    The message of an error says where the rows are that the first sink does not have.
    """
    runtime, address, timeout_s = options.runtime, options.endpoint.address, options.timeout_s
    trial_name = options.trial_name or ""
    start_s = runtime.monotonic()
    name, sink = first
    latest_left_behind = getattr(sink, "latest_left_behind", None)
    latest = None if latest_left_behind is None else latest_left_behind(trial_name)
    if latest is not None:
        start_after(trial_name, address, latest)
    rows = tuple(put_in_order(trial_name, address, logs))  # all sinks get the same: none may take from another
    deliveries = {sender.name: sender.send(trial_name, rows, timeout_s) for sender in secondary}
    left_s = max(timeout_s - (runtime.monotonic() - start_s), 0.0)
    try:
        with nullcontext() if latest_left_behind is not None else out_of_report():  # another sink may report in turn
            outcome = _send(name, sink, trial_name, rows, left_s)
    except DeliveryError as error:
        follows = (
            "When this process ends, Katib marks the trial MetricsUnavailable for good if the objective is among them. "
        )
        pending = error.pending_of(len(rows))
        where = _where(rows[len(rows) - pending :], error.spool_path, can_spool=latest_left_behind is not None)
        termination.explain(runtime, termination.DELIVERY, f"{error}. {where}")
        told = retold(error, f"{error}. {follows if trial_name else ''}{where}")
        told.pending = pending
        raise told from (error.__cause__ or error)
    except ReporterClosedError as error:
        where = _where(rows, error.spool_path, can_spool=latest_left_behind is not None)
        termination.explain(runtime, termination.DELIVERY, f"{error}. {where}")
        raise retold(error, f"{error}. {where}") from error
    termination.withdraw(runtime, (termination.DELIVERY, termination.NOTHING_SHOWN))
    if not deliveries:
        return outcome, {**idle, name: outcome}
    from katib_callbacks.reporting.background import Outcomes  # noqa: PLC0415  only where there are several sinks

    return outcome, Outcomes({**idle, name: outcome, **deliveries})


def _send(name: str, sink: MetricSink, trial_name: str, rows: Sequence[MetricLog], left_s: float) -> SinkOutcome:
    try:
        outcome = checked_outcome(sink.send(trial_name, rows, deadline_s=left_s))
    except (DeliveryError, ReporterClosedError):
        raise
    except Exception as error:
        raise DeliveryError(
            f"the sink {name!r} failed with {type(error).__name__}: {error}", pending=len(rows)
        ) from error
    if outcome.delivered < len(rows) and outcome.skipped is None:
        raise DeliveryError(
            f"the sink {name!r} delivered {outcome.delivered} of {len(rows)} rows: {outcome.error or 'no reason'}",
            attempts=outcome.attempts,
            pending=len(rows) - outcome.delivered,
        )
    return outcome


def _where(rows: Sequence[MetricLog], spool_path: str | None, *, can_spool: bool) -> str:
    """Return where rows are that were not delivered, and what to do."""
    if spool_path is not None:
        from pathlib import PurePath  # noqa: PLC0415  only in an error

        return (
            f"The rows are in {spool_path}; `katib-callbacks replay {PurePath(spool_path).parent}` restores the rows, "
            "not the trial."
        )
    advice = f"; set {settings.SPOOL_DIR} (spool_dir) to keep them" if can_spool else ""
    return f"The rows were not saved{advice}: {spelled_out(rows)}."


def spelled_out(rows: Sequence[MetricLog]) -> str:
    """Return the names and values of the first rows, and how many more there are, for a message."""
    shown = ", ".join(f"{row.name}={format_value(row.value)}" for row in rows[:MAX_ROWS_SHOWN])
    return f"{shown} and {len(rows) - MAX_ROWS_SHOWN:,} more" if len(rows) > MAX_ROWS_SHOWN else shown
