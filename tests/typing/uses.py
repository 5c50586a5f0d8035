"""One small program for each use of the package, as its users write it: checked by mypy and pyright, never run."""

from collections.abc import Iterator
from pathlib import Path

import katib_callbacks
from katib_callbacks import KatibReporter, MetricLog, ReportReceipt, UnavailableError, keras, lightning, transformers
from katib_callbacks.db_manager import DBManager, TrialListener
from katib_callbacks.local import LocalKatibClient, search
from katib_callbacks.metrics import StoredMetricLog
from katib_callbacks.testing import FakeReporter, RecordingSink


def three_frameworks(reporter: KatibReporter) -> list[ReportReceipt | None]:
    """Make the callback of each framework, with options that all of them have."""
    callbacks = (
        lightning.KatibReportCallback("val_acc", reporter=reporter, on_error="raise"),
        keras.KatibReportCallback({"accuracy": "val_accuracy"}, report="history", early_stopping="asha"),
        transformers.KatibReportCallback(["eval_loss"], report="best", monitor="eval_loss", mode="min"),
    )
    return [callback.receipt for callback in callbacks]


def a_loop_of_ones_own(losses: Iterator[float]) -> int:
    """Report what a loop has come to."""
    with KatibReporter() as reporter:
        for epoch, loss in enumerate(losses):
            reporter.report_progress(epoch / 10, {"loss": loss})
        if reporter.idle_reason is not None:
            return 0
        receipt = reporter.report({"loss": 0.5})
    return receipt.delivered


def a_drop_in() -> ReportReceipt:
    """Report as with upstream's function."""
    return katib_callbacks.report_metrics({"accuracy": 0.9}, "katib-db-manager.kubeflow:6789", timeout=60)


def a_search() -> str:
    """Search on this machine."""
    client = LocalKatibClient(home="katib-local")

    def objective(parameters: dict[str, str]) -> None:
        print("loss", float(parameters["lr"]))  # noqa: T201  an objective that prints

    client.tune(
        name="lr",
        objective=objective,
        parameters={"lr": search.double(min=1e-4, max=1e-1, distribution="logUniform")},
        objective_metric_name="loss",
        objective_type="minimize",
        max_trial_count=12,
    )
    client.wait_for_experiment_condition("lr")
    best = client.get_optimal_hyperparameters("lr")
    return "" if best is None else str(best.best_trial_name)


def a_db_manager(folder: Path) -> str:
    """Serve a database, with a port for trials."""
    listener = TrialListener(
        "127.0.0.1:0", tls_cert=folder / "tls.crt", tls_key=folder / "tls.key", token_file=folder / "tokens.json"
    )
    with DBManager(f"sqlite:///{folder}/katib.db", trial_listener=listener) as db_manager:
        return db_manager.address


def a_test_of_ones_own() -> list[StoredMetricLog] | list[MetricLog]:
    """Hand a training a reporter whose rows end in memory."""
    reporter = FakeReporter(error=UnavailableError("no DB manager"))
    lightning.KatibReportCallback("accuracy", reporter=reporter)
    assert reporter.latest() == {}
    KatibReporter(trial_name="trial", sinks=[RecordingSink()])
    return list(reporter.rows)
