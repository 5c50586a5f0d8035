"""The errors of this package, as one tree.

KatibCallbacksError
├── ConfigurationError (ValueError)          an argument, environment variable or file that cannot be right
├── MissingDependencyError (ImportError)     an optional package is needed; names the extra that brings it
├── MetricValueError (ValueError)            a metric's name or value that cannot be sent
├── ReporterClosedError (RuntimeError)       report() after close()
├── DeliveryError (RuntimeError)             rows did not arrive
│   ├── RejectedError                        the server refused them for good; sending again cannot help
│   └── UnavailableError                     the deadline passed
├── SpoolError                               a spool file or directory cannot be read or written
├── StoreError                               the DB manager's store cannot be opened, read or written
├── ExperimentError (RuntimeError)           a local experiment or trial is not there, or is not as it was waited for
└── WaitTimeoutError (TimeoutError)          a local experiment did not come into a condition in time

Foreign errors (grpc, SQL) are mapped in one place each and always chained with ``raise ... from``.
"""

from typing import Any, TypeVar

E = TypeVar("E", bound=Exception)

__all__ = [
    "ConfigurationError",
    "DeliveryError",
    "ExperimentError",
    "KatibCallbacksError",
    "MetricValueError",
    "MissingDependencyError",
    "RejectedError",
    "ReporterClosedError",
    "SpoolError",
    "StoreError",
    "UnavailableError",
    "WaitTimeoutError",
]


class KatibCallbacksError(Exception):
    """The base of every error that this package raises."""


class ConfigurationError(KatibCallbacksError, ValueError):
    """An argument, an environment variable or a file that cannot be right; the message names it."""


class MissingDependencyError(KatibCallbacksError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class MetricValueError(KatibCallbacksError, ValueError):
    """A metric's name or value cannot be sent; the message names the metric."""


class ReporterClosedError(KatibCallbacksError, RuntimeError):
    """The reporter was closed before or during this call.

    Attributes:
        spool_path: The file in which the rows lie; None if they were not saved.
    """

    spool_path: str | None = None


class DeliveryError(KatibCallbacksError, RuntimeError):
    """Rows did not arrive, or it could not be found out whether they did.

    Attributes:
        attempts: How many requests were sent to the destination, the ones that read back included.
        pending: How many rows are not known to be stored. A sink that raises it without a number means all of them.
        spool_path: The file in which they lie; None if they were not saved.
    """

    attempts: int = 0
    pending: int = 0
    spool_path: str | None = None

    def __init__(self, message: str, *, attempts: int = 0, pending: int | None = None) -> None:
        super().__init__(message)
        self.attempts = attempts
        if pending is not None:
            self.pending = pending

    def pending_of(self, rows: int) -> int:
        """Return how many of the rows that a sink was handed are pending: all, where the error does not say."""
        return min(max(self.pending, 0), rows) if "pending" in vars(self) else rows

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), str(self)), self.__dict__)


class RejectedError(DeliveryError):
    """The destination refused the rows for good: sending them again cannot help."""


class UnavailableError(DeliveryError):
    """The deadline passed before the rows were known to be stored."""


class SpoolError(KatibCallbacksError):
    """A spool file or directory cannot be read or written; the message names it."""


class StoreError(KatibCallbacksError):
    """The DB manager's store cannot be opened, read or written."""


class ExperimentError(KatibCallbacksError, RuntimeError):
    """A local experiment or trial is not there, exists already, or has failed; Katib's client raises RuntimeError."""


class WaitTimeoutError(KatibCallbacksError, TimeoutError):
    """A local experiment is not in the condition that was waited for; Katib's client raises TimeoutError."""


def retold(error: E, text: str) -> E:
    """Return the same error with another text; a subclass of somebody else's may be made of anything."""
    other = _rebuild(type(error), text)
    other.__dict__.update(error.__dict__)
    return other


def _rebuild(kind: type[E], text: str) -> E:
    """Make an error without its constructor, which has keyword-only arguments or is unknown."""
    return kind.__new__(kind, text)
