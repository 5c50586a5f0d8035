"""The public API as its users write it: checked by mypy in strict mode, never run.

Each ``type: ignore`` is a mistake that type checkers must find; strict mode complains where one is not needed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from typing_extensions import assert_type

import katib_callbacks
from katib_callbacks import (
    ConfigurationError,
    DeliveryError,
    ExperimentError,
    KatibCallbacksError,
    KatibReporter,
    MetricLog,
    MetricSink,
    MetricValueError,
    MissingDependencyError,
    RejectedError,
    ReporterClosedError,
    ReportReceipt,
    SinkOutcome,
    SpoolError,
    StoredMetricLog,
    StoreError,
    UnavailableError,
    WaitTimeoutError,
    autolog,
    hyperparameters,
    report_metrics,
)
from katib_callbacks.lightning import KatibReportCallback
from katib_callbacks.local import LocalKatibClient, TrainerResources, search
from katib_callbacks.local.api.models import (
    V1beta1Experiment,
    V1beta1OptimalTrial,
    V1beta1ParameterAssignment,
    V1beta1ParameterSpec,
    V1beta1Trial,
)


class ListSink:
    """A sink of a user's own needs no base class."""

    def send(self, trial_name: str, logs: Sequence[MetricLog], *, deadline_s: float) -> SinkOutcome:
        """Take everything."""
        del trial_name, deadline_s
        return SinkOutcome(delivered=len(logs), attempts=1)

    def close(self) -> None:
        """Do nothing."""


class NoSink:
    """Not a sink."""


def reporters(path: Path) -> None:
    """Make reporters from arguments of every kind."""
    assert_type(KatibReporter(), KatibReporter)
    assert_type(KatibReporter.from_env(), KatibReporter)
    KatibReporter(
        "localhost:6789",
        trial_name="trial-1",
        timeout_s=10,
        tls_ca=path,
        tls_cert="client.pem",
        tls_key=path,
        token_path=path,
        allow_insecure_token=False,
        spool_dir=path,
        previous_attempt="warn",
        verify="always",
        sinks=["katib", ListSink()],
    )
    KatibReporter(previous_attempt="forget")  # type: ignore[arg-type]
    KatibReporter(verify=True)  # type: ignore[arg-type]
    KatibReporter(sinks=[NoSink()])  # type: ignore[list-item]
    KatibReporter("localhost:6789", "trial-1")  # type: ignore[call-arg]


def reports(reporter: KatibReporter) -> None:
    """Report, and read the receipt."""
    with reporter as entered:
        assert_type(entered, KatibReporter)
        receipt = entered.report({"accuracy": 0.9, "epochs": 3}, timestamp=datetime.now(timezone.utc))
    assert_type(receipt, ReportReceipt)
    assert_type(receipt.trial_name, str | None)
    assert_type(receipt.delivered, int)
    assert_type(receipt.spooled, int)
    assert_type(receipt.dropped, int)
    assert_type(receipt.attempts, int)
    assert_type(receipt.verified, bool)
    assert_type(receipt.elapsed_s, float)
    assert_type(receipt.skipped, str | None)
    assert_type(receipt.sinks, Mapping[str, SinkOutcome])
    assert_type(reporter.report_logs([MetricLog("loss", 0.1, datetime.now(timezone.utc))]), ReportReceipt)
    assert_type(reporter.report_progress(0.5, {"loss": 0.1}), None)
    assert_type(report_metrics({"accuracy": 0.9}), ReportReceipt)
    assert_type(report_metrics({"accuracy": 0.9}, "localhost:6789", 10), ReportReceipt)
    assert_type(report_metrics({"accuracy": 0.9}, db_manager_address="localhost:6789", timeout=1.5), ReportReceipt)
    assert_type(hyperparameters(), Mapping[str, int | float | str])
    reporter.report({"accuracy": "0.9"})  # type: ignore[dict-item]
    reporter.report([0.9])  # type: ignore[arg-type]
    receipt.delivered = 3  # type: ignore[misc]


def logs(log: MetricLog, stored: StoredMetricLog) -> None:
    """Read rows: what is sent is a number, what is stored is a text."""
    assert_type(log.name, str)
    assert_type(log.value, float)
    assert_type(log.timestamp, datetime)
    assert_type(stored.value, str)
    assert_type(stored.timestamp, datetime)


def sinks(sink: MetricSink) -> None:
    """Use a sink, and hand in one."""
    assert_type(sink.send("trial-1", [], deadline_s=1.0), SinkOutcome)
    assert_type(SinkOutcome(1, 1).error, str | None)
    used: MetricSink = ListSink()
    refused: MetricSink = NoSink()  # type: ignore[assignment]
    del used, refused


def errors(error: DeliveryError) -> None:
    """Catch what is raised, by its own class or by the builtin one that upstream raises."""
    assert_type(error.attempts, int)
    assert_type(error.pending, int)
    value_errors: list[type[ValueError]] = [ConfigurationError, MetricValueError]
    runtime_errors: list[type[RuntimeError]] = [DeliveryError, RejectedError, UnavailableError, ReporterClosedError]
    runtime_errors.append(ExperimentError)
    timeout_error: type[TimeoutError] = WaitTimeoutError
    import_error: type[ImportError] = MissingDependencyError
    every: list[type[KatibCallbacksError]] = [*runtime_errors, SpoolError, StoreError]  # type: ignore[list-item]
    del value_errors, import_error, timeout_error, every


def callbacks(reporter: KatibReporter) -> None:
    """Make callbacks from arguments of every kind."""
    KatibReportCallback()
    KatibReportCallback("val_acc")
    KatibReportCallback(["val_acc", "val_loss"], report="history")
    KatibReportCallback({"accuracy": "val_acc"}, report="best", monitor="val_loss", mode="min")
    callback = KatibReportCallback(
        ("val_acc",),
        after_training="update",
        on_missing="raise",
        on_nan="send",
        on_error="raise",
        reporter=reporter,
    )
    assert_type(callback.receipt, ReportReceipt | None)
    KatibReportCallback(report="last")  # type: ignore[arg-type]
    KatibReportCallback(mode="lower")  # type: ignore[arg-type]
    KatibReportCallback("val_acc", "final")  # type: ignore[call-arg]


def experiments(path: Path) -> None:
    """Run experiments on this machine."""
    space = {"lr": search.double(min=1e-4, max=0.1, step=None, distribution="logUniform"), "epochs": 3}
    assert_type(search.int(min=1, max=2), V1beta1ParameterSpec)
    search.double(min=0, max=1, distribution="log")  # type: ignore[arg-type]
    with LocalKatibClient(home=path) as client:
        client.tune(
            "one",
            objective=print,
            parameters=space,
            objective_metric_name="loss",
            metrics_collector_config={"kind": "Push"},
            resources_per_trial=TrainerResources(num_workers=2, num_procs_per_worker=1),
        )
        client.tune("one", objective_metrics="loss")  # type: ignore[call-arg]
        experiment = client.wait_for_experiment_condition("one", timeout=10.5)
        assert_type(experiment, V1beta1Experiment)
        best = client.get_optimal_hyperparameters("one")
        assert_type(best, V1beta1OptimalTrial | None)
        if best is not None:
            assert_type(best.parameter_assignments, list[V1beta1ParameterAssignment] | None)
        assert_type(client.list_trials("one"), list[V1beta1Trial])
        assert_type(client.is_experiment_succeeded("one"), bool)


def without_code(reporter: KatibReporter) -> None:
    """Turn autolog on, with the callbacks' arguments by name, and off."""
    autolog()
    autolog(metrics={"accuracy": "val_acc"}, report="best", monitor="val_loss", mode="min", reporter=reporter)
    autolog(disable=True)
    autolog(report="last")  # type: ignore[arg-type]
    autolog(metric="val_acc")  # type: ignore[call-arg]
    autolog("val_acc")  # type: ignore[call-arg, arg-type]


def the_package() -> None:
    """Its names are known to type checkers, and no others are."""
    assert_type(katib_callbacks.__version__, str)
    katib_callbacks.KatibReportCallback  # type: ignore[attr-defined]  # noqa: B018
