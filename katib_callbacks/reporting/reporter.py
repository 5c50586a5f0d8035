"""KatibReporter: delivers a trial's rows to the Katib DB, each once, before a deadline.

Half of the module is what users read: the options, the errors and what blocks.
"""

import contextlib
import copy
import logging
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, SupportsFloat

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError, MetricValueError
from katib_callbacks.metrics import MetricLog, check_name, format_value, to_number
from katib_callbacks.process_state import trial_state
from katib_callbacks.reporting import termination
from katib_callbacks.reporting.destinations import Destinations
from katib_callbacks.reporting.progress import ALMOST_DONE, Progress
from katib_callbacks.reporting.ranks import ProcessRank, announce_silence, process_rank
from katib_callbacks.reporting.receipt import ReportReceipt
from katib_callbacks.reporting.run import ReporterRun
from katib_callbacks.settings import DEFAULT_RUNTIME, PreviousAttempt, Runtime, Verify
from katib_callbacks.sinks import MetricSink
from katib_callbacks.sinks.auto import KATIB, NAMED, Whereabouts
from katib_callbacks.sinks.katib.endpoint import resolve_endpoint
from katib_callbacks.sinks.registry import ReporterOptions, resolve_sinks

PathLike = str | os.PathLike[str]

logger = logging.getLogger(__name__)


class KatibReporter:
    """Reports metrics of this trial, synchronously, only from global rank zero.

    Making one opens nothing. Each report opens a channel, delivers, and closes it again, so that a reporter may be used
    by several threads and pickled to another process. After a fork it may be used as well: where gRPC had been loaded
    before, a fresh interpreter delivers, since gRPC does not survive a fork. Every option is None by default and
    resolved once: the argument, then its environment variable (``KATIB_CALLBACKS_TIMEOUT_S`` and so on), then the
    default.

    Args:
        db_manager_address: ``host:port``. Variable ``KATIB_DB_MANAGER_ADDRESS``; default Katib's own,
            ``katib-db-manager.kubeflow:6789``.
        trial_name: Default ``KATIB_TRIAL_NAME``, which Katib injects.
        timeout_s: Seconds for one whole report, all retries included. Default 480, below NCCL's 600: other ranks may
            wait for this one.
        tls_ca: PEM file with the authorities that the server's certificate is checked against; turns TLS on.
        tls_cert: PEM file with this client's certificate chain, for mTLS.
        tls_key: PEM file with its private key, unencrypted.
        token_path: File with a bearer token, read again for every call.
        allow_insecure_token: Let the token travel without TLS. Default False.
        spool_dir: Directory where rows lie from before the first attempt until they are known to be stored.
        previous_attempt: What to do about rows that the trial already has before this process's first write, usually
            those of a pod that was restarted: ``"ignore"`` (default, no read), ``"warn"``, ``"clear"`` (delete them).
        verify: ``"ambiguous"`` (default): read back where it is unclear what a call did. ``"always"``: every batch.
        sinks: Where rows go, as names or objects; default ``["auto"]``. The first one that has a destination here
            decides what became of a report. Those after it run beside it, and nothing waits for them but the end of
            the process, for two seconds. Objects are not closed.

    Raises:
        ConfigurationError: An option that cannot be right; the message names the argument or variable.
    """

    def __init__(
        self,
        db_manager_address: str | None = None,
        *,
        trial_name: str | None = None,
        timeout_s: float | None = None,
        tls_ca: PathLike | None = None,
        tls_cert: PathLike | None = None,
        tls_key: PathLike | None = None,
        token_path: PathLike | None = None,
        allow_insecure_token: bool | None = None,
        spool_dir: PathLike | None = None,
        previous_attempt: PreviousAttempt | None = None,
        verify: Verify | None = None,
        sinks: Sequence[MetricSink | str] | None = None,
        _runtime: Runtime = DEFAULT_RUNTIME,
    ) -> None:
        self._runtime = _runtime = settings.heeded(_runtime)
        try:
            trial_name = settings.trial_name(trial_name, _runtime)
            settings.check_rank(_runtime)
            timeout = settings.seconds("timeout_s", timeout_s, settings.TIMEOUT_S, settings.DEFAULT_TIMEOUT_S, _runtime)
            where = resolve_sinks(sinks, _runtime, trial_name=trial_name)
            self._options = ReporterOptions(
                endpoint=resolve_endpoint(
                    db_manager_address,
                    tls_ca=tls_ca,
                    tls_cert=tls_cert,
                    tls_key=tls_key,
                    token_path=token_path,
                    allow_insecure_token=allow_insecure_token,
                    runtime=_runtime,
                ),
                verify=settings.choice(Verify, "verify", verify, settings.VERIFY, "ambiguous", _runtime),
                previous_attempt=settings.choice(
                    PreviousAttempt,
                    "previous_attempt",
                    previous_attempt,
                    settings.PREVIOUS_ATTEMPT,
                    "ignore",
                    _runtime,
                ),
                spool_dir=_spool_dir(spool_dir, where, _runtime),
                timeout_s=timeout,
                trial_name=trial_name,
                runtime=_runtime,
            )
        except ConfigurationError as error:
            termination.explain(_runtime, termination.DELIVERY, str(error))
            raise
        self._destinations = Destinations(where, self._options)
        self._silenced_by: ProcessRank | None = None
        self._loop: tuple[int, Progress] | None = None  # of this process, or of the one that it was forked from
        self._unshown: dict[str, SupportsFloat] = {}  # the latest values that report_progress has not shown yet
        if process_rank(_runtime.environ()).is_global_zero:
            settings.warn_of_unknown_variables(_runtime)

    @classmethod
    def from_env(cls) -> "KatibReporter":
        """Make a reporter from environment variables and defaults only."""
        return cls()

    @property
    def trial_name(self) -> str | None:
        """The trial that this reporter reports for; None outside one."""
        return self._options.trial_name

    @property
    def idle_reason(self) -> str | None:
        """Why there is nothing that could be reported to, such as that this is no trial; None if there is."""
        return self.whereabouts.nothing

    @property
    def whereabouts(self) -> Whereabouts:
        """The sinks that get what is reported here, and why each was chosen; or why nothing is reported."""
        return self._destinations.whereabouts

    @property
    def shows_progress(self) -> bool:
        """Whether a sink shows how far a training is: see :meth:`report_progress`."""
        return self._destinations.show_progress

    def report(self, metrics: Mapping[str, SupportsFloat], *, timestamp: datetime | None = None) -> ReportReceipt:
        """Deliver one row per metric; blocks until they are stored or the deadline has passed. Thread-safe.

        Off rank zero it does nothing.

        Args:
            metrics: Names and numbers: ints, floats, one-element arrays. All are checked before anything is sent.
            timestamp: Timezone-aware; default now. Kept if it is later than every row that this process has reported
                for the trial; the second metric's row and so on follow at steps of 1 us.

        Raises:
            ConfigurationError: There is no trial name.
            MetricValueError: No metrics, or a name or value that cannot be sent, or one that is not finite.
            DeliveryError: Not all rows are known to be stored; the message says where they are.
            ReporterClosedError: The reporter was closed, before or in the meantime.
        """
        run = self._run_of_report()
        if not run.is_reporting:
            return run.deliver(())
        if not isinstance(metrics, Mapping):
            raise MetricValueError(f"metrics must map names to numbers; a {type(metrics).__name__} does not")
        if not metrics:
            raise MetricValueError("there are no metrics to report")
        wanted = self._runtime.now() if timestamp is None else timestamp
        return run.deliver([_finite_log(name, value, wanted) for name, value in metrics.items()])

    def report_progress(self, fraction: float, metrics: Mapping[str, SupportsFloat] | None = None) -> None:
        """Show how far a training is, in the sinks that show it, such as ``trainjob``; returns at once.

        Cheap enough for each step: most calls return before they look at anything. The sinks are told once a second at
        most, but for the first call and for the end. The time that remains is estimated from the calls. A fraction
        that is lower than the last begins another training. Off rank zero, and without such a sink, it does nothing.
        Not for several threads at once.

        Args:
            fraction: The share that is done, from 0 to 1. Only 1 itself says that the training has ended.
            metrics: Latest values by their names; those of other names stay. What is no finite number is left out. An
                array on an accelerator is waited for, when the sinks are told.

        Raises:
            MetricValueError: The fraction is not from 0 to 1.
            ReporterClosedError: The reporter is closed.
        """
        if not 0 <= fraction <= 1:
            raise MetricValueError(f"a share of the training is from 0 to 1, not {fraction!r}")
        pid, progress = self._loop or (None, None)
        if progress is not None and pid != os.getpid():
            self._unshown, progress = {**progress.latest, **self._unshown}, None
        if metrics:
            self._unshown.update(metrics)
        if progress is not None and not progress.is_due() and 0 < fraction < 1 and not self._destinations.is_closed:
            return
        run = self._run_of_report()
        if not run.is_reporting:
            return
        latest, self._unshown = _finite_numbers(self._unshown), {}
        if progress is None or fraction < (progress.fraction or 0.0) - (1 - ALMOST_DONE):
            shown = run.begin_progress(lambda: fraction, lambda: latest)
            progress = shown or Progress((), self._runtime.monotonic)
            self._loop = os.getpid(), progress
        else:
            progress.show(fraction, latest)
        if fraction == 1:
            progress.finish()

    def report_logs(self, logs: Iterable[MetricLog]) -> ReportReceipt:
        """Deliver rows with times of their own, such as a history; NaN and infinities as they are.

        As :meth:`report` otherwise. Rows go out in order of time, in batches of 1,000, each batch all or nothing.

        Args:
            logs: The rows; all are collected before anything is sent.

        Raises:
            ConfigurationError: There is no trial name.
            MetricValueError: Something that is no MetricLog.
            DeliveryError: Not all rows are known to be stored; the message says where they are.
            ReporterClosedError: The reporter was closed, before or in the meantime.
        """
        run = self._run_of_report()
        if not run.is_reporting:
            return run.deliver(())
        rows = list(logs)
        for row in rows:
            if not isinstance(row, MetricLog):
                raise MetricValueError(f"report_logs takes MetricLog objects, not a {type(row).__name__}")
        return run.deliver(rows)

    def open_run(
        self, *, rank: ProcessRank | None = None, late: Collection[str] = (), is_own: bool = False
    ) -> ReporterRun:
        """Open a run, for one training's progress and rows; opens no connection, and never raises.

        Args:
            rank: What the caller knows of this process; None to find it out.
            late: Names of sinks that are shown the end of this run only.
            is_own: Whether the run has sinks of its own, made as this reporter's were, which closing it closes.
                Otherwise it uses this reporter's, and leaves them open.
        """
        destinations = copy.copy(self._destinations) if is_own else self._destinations
        rank = process_rank(self._runtime.environ()) if rank is None else rank
        return ReporterRun(destinations, self._options, rank=rank, late=late, is_own=is_own)

    def close(self) -> None:
        """End reports under way with ReporterClosedError, and refuse new ones. Thread-safe; may be called twice.

        What is on its way to sinks after the first is delivered nevertheless. Where the first one shows progress, the
        end of a training (``report_progress(1.0)``) is delivered before this returns, within the time of a report.
        """
        self._destinations.close()

    def __enter__(self) -> "KatibReporter":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._destinations.is_closed else ""
        return f"<KatibReporter of trial {self.trial_name!r} to {self._options.endpoint.address}{state}>"

    def __getstate__(self) -> dict[str, Any]:
        begun = self.trial_name is not None and trial_state(self.trial_name).has_begun
        unshown = {**(self._loop[1].latest if self._loop else {}), **_finite_numbers(self._unshown)}
        live = {"_destinations": copy.copy(self._destinations), "_loop": None, "_unshown": unshown}
        return {**self.__dict__, **live, "has_begun": begun}

    def __setstate__(self, state: dict[str, Any]) -> None:
        begun = state.pop("has_begun")
        self.__dict__.update(state)
        if begun:  # the other process reported before it sent us: its rows are not to be cleared
            trial_state(str(self.trial_name)).has_begun = True

    def _run_of_report(self) -> ReporterRun:
        """Open the run of one report; raise ReporterClosedError if closed."""
        self._destinations.check_open()
        rank = process_rank(self._runtime.environ())
        if not rank.is_global_zero and rank != self._silenced_by:  # once, not for every report of a loop
            self._silenced_by = rank
            announce_silence(rank, is_in_trial=self.idle_reason is None, runtime=self._runtime)
        return self.open_run(rank=rank)


def _spool_dir(given: PathLike | None, where: Whereabouts, runtime: Runtime) -> str | None:
    """Return the directory of the spool; None where the first sink has none."""
    spool = settings.text(given, settings.SPOOL_DIR, runtime)
    if where.sinks[:1] == (KATIB,):
        return spool
    # A cluster-wide variable need not fit every script, nor a script every place that "auto" finds.
    if given is not None and where.chosen and where.chosen[0].reason == NAMED:
        raise ConfigurationError(
            f"spool_dir is for the sink {KATIB!r}, because rows can be replayed only there; it has to be the first of "
            f"sinks ({settings.SINKS})"
        )
    return None


def _finite_log(name: str, value: SupportsFloat, timestamp: datetime) -> MetricLog:
    number = to_number(check_name(name), value)
    if not math.isfinite(number):
        raise MetricValueError(
            f"metric {name!r} is {format_value(number)}, which Katib cannot compare; if it is meant, send it with "
            "report_logs([MetricLog(...)])"
        )
    return MetricLog(name, number, timestamp)


def _finite_numbers(metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    numbers = {}
    for name, value in metrics.items():
        with contextlib.suppress(MetricValueError):
            numbers[name] = to_number(name, value)
    return {name: number for name, number in numbers.items() if math.isfinite(number)}
