"""One report on its way: into order of time, into the spool, to the sinks, and out of the spool again."""

import logging
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from katib_callbacks import settings
from katib_callbacks.errors import DeliveryError, ReporterClosedError, SpoolError
from katib_callbacks.metrics import MetricLog, format_value
from katib_callbacks.reporting.timestamps import put_in_order, start_after
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks import MetricSink, SinkOutcome, checked_outcome

if TYPE_CHECKING:
    from katib_callbacks.reporting.background import BackgroundSender, PendingOutcome
    from katib_callbacks.sinks.katib.spool import SpoolFile

MAX_ROWS_SHOWN = 5
"""How many of the rows that are lost an error spells out."""

logger = logging.getLogger(__name__)

_known_spools: set[tuple[str, str, str]] = set()
"""Directories, trials and addresses for which this process knows what an earlier one left behind."""


@dataclass(frozen=True)
class DeliveryOptions:
    """The options of one reporter that its deliveries need.

    Args:
        trial_name: The trial; None outside one, where only sinks come that need none.
        address: The DB manager's, beside which rows are kept in order of time.
        timeout_s: Seconds for one whole delivery.
        spool_dir: Where rows lie until the first sink has them; None for nowhere.
        is_clearing: Whether the first sink deletes rows of an earlier attempt.
        runtime: Clock and the like.
    """

    trial_name: str | None
    address: str
    timeout_s: float
    spool_dir: str | None
    is_clearing: bool
    runtime: Runtime


class Result(NamedTuple):
    """The outcomes of one delivery.

    Args:
        first: The outcome of the sink that counts.
        sinks: Every sink's, by its name; those after the first are known when they are read.
        spooled: How many rows still lie in the spool.
    """

    first: SinkOutcome
    sinks: Mapping[str, SinkOutcome]
    spooled: int


def deliver(
    options: DeliveryOptions,
    logs: Sequence[MetricLog],
    first: tuple[str, MetricSink],
    secondary: "Sequence[BackgroundSender]",
    idle: Mapping[str, SinkOutcome],
) -> Result:
    """Deliver one report's rows.

    Args:
        options: See there.
        logs: At least one row, in any order.
        first: Name and sink that count.
        secondary: Those who take the rows to the other sinks.
        idle: The outcomes of the sinks that get nothing.

    Raises:
        DeliveryError: The first sink does not have all rows; the message says where they are.
        ReporterClosedError: Closed in the meantime; likewise.
    """
    runtime, trial_name = options.runtime, options.trial_name or ""
    address, spool_dir = options.address, options.spool_dir
    start_s = runtime.monotonic()
    if spool_dir is not None:
        _continue_after(spool_dir, trial_name, address, is_clearing=options.is_clearing)
    rows = tuple(put_in_order(trial_name, address, logs))  # all sinks get the same: none may take from another
    spooled = None if spool_dir is None else _spool(spool_dir, trial_name, rows)
    try:
        name, sink = first
        deliveries = {sender.name: sender.send(trial_name, rows, options.timeout_s) for sender in secondary}
        left_s = max(options.timeout_s - (runtime.monotonic() - start_s), 0.0)
        try:
            outcome = _send(name, sink, trial_name, rows, left_s)
        except DeliveryError as error:
            consequence = (
                "When this process ends, Katib marks the trial MetricsUnavailable for good if the objective is among "
                "them. "
            )
            raise type(error)(
                f"{error}. {consequence if trial_name else ''}{_say_where(spooled, rows[len(rows) - error.pending :])}",
                attempts=error.attempts,
                pending=error.pending,
            ) from (error.__cause__ or error)
        except ReporterClosedError as error:
            raise ReporterClosedError(f"{error}. {_say_where(spooled, rows)}") from error
        remaining = 0 if spooled is None else _remove(spooled, len(rows))
        return Result(outcome, _outcomes(name, outcome, deliveries, idle), remaining)
    finally:
        if spooled is not None:
            spooled.release()


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


def _outcomes(
    name: str, outcome: SinkOutcome, secondary: "Mapping[str, PendingOutcome]", idle: Mapping[str, SinkOutcome]
) -> Mapping[str, SinkOutcome]:
    sent: Mapping[str, SinkOutcome] = {name: outcome}
    if secondary:
        from katib_callbacks.reporting.background import Outcomes  # noqa: PLC0415  only where there are several sinks

        sent = Outcomes((name, outcome), secondary)
    # A look at the secondary ones would wait for them.
    return ChainMap({}, cast("dict[str, SinkOutcome]", sent), cast("dict[str, SinkOutcome]", idle)) if idle else sent


# -- the spool -----------------------------------------------------------------------------------------------------


def _continue_after(spool_dir: str, trial_name: str, address: str, *, is_clearing: bool) -> None:
    """Let timestamps begin after those that an earlier process left in the spool."""
    if (spool_dir, trial_name, address) in _known_spools:
        return
    _known_spools.add((spool_dir, trial_name, address))
    from pathlib import Path  # noqa: PLC0415  only where a spool is used

    from katib_callbacks.sinks.katib import spool  # noqa: PLC0415  as above

    count, latest = spool.left_behind(Path(spool_dir), trial_name)
    if latest is not None:
        start_after(trial_name, address, latest)
    if count and is_clearing:
        logger.warning(
            "%s holds %d undelivered reports of an earlier attempt of trial %r; previous_attempt='clear' leaves them "
            "there, and a replay would bring their rows back.",
            spool_dir,
            count,
            trial_name,
        )


def _spool(spool_dir: str, trial_name: str, rows: Sequence[MetricLog]) -> "SpoolFile | None":
    """Write the rows; a disk that does not take them is no reason not to deliver them."""
    from pathlib import Path  # noqa: PLC0415  only where a spool is used

    from katib_callbacks.sinks.katib import spool  # noqa: PLC0415  as above

    try:
        return spool.write(Path(spool_dir), trial_name, rows)
    except SpoolError as error:
        logger.warning("Delivering without a spool: %s", error)
        return None


def _remove(spooled: "SpoolFile", rows: int) -> int:
    """Delete the file of rows that are delivered; return how many lie there nevertheless."""
    try:
        spooled.remove()
    except SpoolError as error:
        logger.warning("The rows are delivered, and a replay will find that: %s", error)
        return rows
    return 0


def _say_where(spooled: "SpoolFile | None", rows: Sequence[MetricLog]) -> str:
    if spooled is not None:
        return (
            f"The rows lie in {spooled.path}; `katib-callbacks replay {spooled.path.parent}` restores the rows, not "
            "the trial."
        )
    shown = ", ".join(f"{row.name}={format_value(row.value)}" for row in rows[:MAX_ROWS_SHOWN])
    more = f" and {len(rows) - MAX_ROWS_SHOWN:,} more" if len(rows) > MAX_ROWS_SHOWN else ""
    return f"The rows lie nowhere else, for want of a spool (spool_dir, {settings.SPOOL_DIR}): {shown}{more}."
