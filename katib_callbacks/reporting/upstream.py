"""report_metrics: the function of ``kubeflow.katib`` that training scripts call, by a reporter of ours."""

import contextlib
from collections.abc import Mapping
from typing import Any, SupportsFloat

from katib_callbacks import settings
from katib_callbacks.reporting.receipt import ReportReceipt
from katib_callbacks.reporting.reporter import KatibReporter
from katib_callbacks.settings import DEFAULT_RUNTIME

_UPSTREAMS_TIMEOUT_S = 120.0
"""The default of ``kubeflow.katib.report_metrics``; by its identity it is told from a 120 that was passed."""


def report_metrics(
    metrics: Mapping[str, SupportsFloat | str],
    db_manager_address: str | None = None,
    timeout: float = _UPSTREAMS_TIMEOUT_S,
) -> ReportReceipt:
    """Report metrics of this trial once; takes the place of ``kubeflow.katib.report_metrics``.

    Args:
        metrics: Names and numbers; a text that is a number, such as ``"0.912"``, is taken as well.
        db_manager_address: ``host:port``. Default ``KATIB_DB_MANAGER_ADDRESS``, then upstream's own default,
            ``katib-db-manager.kubeflow:6789``.
        timeout: Seconds for the whole report, all retries included. Default ``KATIB_CALLBACKS_TIMEOUT_S``, then 120.

    Raises:
        ConfigurationError: A ValueError: no trial name, or an option that cannot be right.
        MetricValueError: A ValueError: no metrics, or a name or value that cannot be sent.
        DeliveryError: A RuntimeError: not all rows are known to be stored.
    """
    is_given = timeout is not _UPSTREAMS_TIMEOUT_S
    timeout_s = settings.seconds(
        "timeout", timeout if is_given else None, settings.TIMEOUT_S, _UPSTREAMS_TIMEOUT_S, DEFAULT_RUNTIME
    )
    with KatibReporter(db_manager_address, timeout_s=timeout_s) as reporter:
        return reporter.report(_without_texts(metrics) if isinstance(metrics, Mapping) else metrics)


def _without_texts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Read the numbers that are texts; any other text is left for ``report`` to refuse by its name."""
    numbers = dict(metrics)
    for name, value in metrics.items():
        with contextlib.suppress(ValueError):
            numbers[name] = float(value) if isinstance(value, str) else value
    return numbers
