"""FakeReporter and RecordingSink: rows that end in memory."""

from collections.abc import Collection, Sequence

from katib_callbacks.metrics import MetricLog
from katib_callbacks.reporting.ranks import ProcessRank
from katib_callbacks.reporting.receipt import ReportReceipt
from katib_callbacks.reporting.reporter import KatibReporter
from katib_callbacks.reporting.run import ReporterRun
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks import SinkOutcome

DEFAULT_TRIAL_NAME = "test-trial"


class RecordingSink:
    """A sink that keeps what it gets; for ``KatibReporter(sinks=[...])`` or beside other sinks. Pickles.

    Args:
        error: Raised by each delivery from now on, instead of keeping the rows; None for a sink that works.

    Attributes:
        rows: The rows, in the order of their arrival.
        error: As the argument; may be changed.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.rows: list[MetricLog] = []
        self.error = error

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Keep the rows, or raise the error."""
        if self.error is not None:
            raise self.error
        self.rows.extend(logs)
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self) -> None:
        """Do nothing: the rows stay."""

    def latest(self) -> dict[str, float]:
        """Return each metric's latest value by its name, as Katib picks it: the row of the greatest time."""
        return {row.name: row.value for row in self.rows}


class FakeReporter(KatibReporter):
    """A ``KatibReporter`` whose rows end in memory, for tests of training code: no server, no network, no environment.

    ::

        reporter = FakeReporter()
        Trainer(callbacks=[KatibReportCallback("val_acc", reporter=reporter)]).fit(model, loader, loader)
        assert reporter.latest()["val_acc"] > 0.5

    Everything before the sink is real: names and values are checked, times strictly increase, receipts are those of a
    delivery. The environment does not reach it; a callback that it is handed to still reads its own variables.

    Args:
        trial_name: The trial that it reports for.
        error: Raised by each delivery, such as ``UnavailableError("no DB manager")``; None for one that works.
            May be changed through :attr:`sink`.

    Attributes:
        sink: The :class:`RecordingSink` that has the rows.
        receipts: The answers to the deliveries that did not fail, of callbacks and of calls of :meth:`report`.
    """

    def __init__(self, *, trial_name: str = DEFAULT_TRIAL_NAME, error: Exception | None = None) -> None:
        self.sink = RecordingSink(error)
        self.receipts: list[ReportReceipt] = []
        super().__init__(trial_name=trial_name, sinks=[self.sink], _runtime=Runtime(environ=dict))

    @property
    def rows(self) -> list[MetricLog]:
        """The rows that were delivered, in the order of their arrival."""
        return self.sink.rows

    def latest(self) -> dict[str, float]:
        """Return each metric's latest value by its name in Katib."""
        return self.sink.latest()

    def open_run(
        self, *, rank: ProcessRank | None = None, late: Collection[str] = (), is_own: bool = False
    ) -> ReporterRun:
        """Open a run whose receipts are kept; see ``KatibReporter``."""
        run = super().open_run(rank=rank, late=late, is_own=is_own)
        return _NotingRun(run, self.receipts)


class _NotingRun(ReporterRun):
    """A run that notes its receipts."""

    def __init__(self, run: ReporterRun, receipts: list[ReportReceipt]) -> None:
        self.__dict__.update(run.__dict__)
        self._receipts = receipts

    def deliver(self, rows: Sequence[MetricLog]) -> ReportReceipt:
        receipt = super().deliver(rows)
        self._receipts.append(receipt)
        return receipt
