"""Callbacks that deliver the metrics of a Katib trial.

Everything here is loaded on first use: importing the package loads no framework, no grpc and no protobuf.
"""

from katib_callbacks._version import __version__

TYPE_CHECKING = False  # as type checkers know it; importing typing would cost more than all the rest
if TYPE_CHECKING:
    from katib_callbacks._autolog import autolog
    from katib_callbacks.errors import (
        ConfigurationError,
        DeliveryError,
        ExperimentError,
        KatibCallbacksError,
        MetricValueError,
        MissingDependencyError,
        RejectedError,
        ReporterClosedError,
        SpoolError,
        StoreError,
        UnavailableError,
        WaitTimeoutError,
    )
    from katib_callbacks.metrics import MetricLog, StoredMetricLog
    from katib_callbacks.reporting.receipt import ReportReceipt
    from katib_callbacks.reporting.reporter import KatibReporter
    from katib_callbacks.reporting.upstream import report_metrics
    from katib_callbacks.settings.hyperparameters import hyperparameters
    from katib_callbacks.sinks import MetricSink, SinkOptions, SinkOutcome

__all__ = [
    "ConfigurationError",
    "DeliveryError",
    "ExperimentError",
    "KatibCallbacksError",
    "KatibReporter",
    "MetricLog",
    "MetricSink",
    "MetricValueError",
    "MissingDependencyError",
    "RejectedError",
    "ReportReceipt",
    "ReporterClosedError",
    "SinkOptions",
    "SinkOutcome",
    "SpoolError",
    "StoreError",
    "StoredMetricLog",
    "UnavailableError",
    "WaitTimeoutError",
    "__version__",
    "autolog",
    "hyperparameters",
    "report_metrics",
]

_HOMES = {
    "autolog": "_autolog",
    "KatibReporter": "reporting.reporter",
    "report_metrics": "reporting.upstream",
    "ReportReceipt": "reporting.receipt",
    "hyperparameters": "settings.hyperparameters",
    "SinkOptions": "sinks",
    "SinkOutcome": "sinks",
    "MetricSink": "sinks",
    "MetricLog": "metrics",
    "StoredMetricLog": "metrics",
}


if not TYPE_CHECKING:  # hidden from type checkers, which would take any misspelt name for a name of ours

    def __getattr__(name: str) -> object:
        """Load a public name from its module on first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415

        value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
