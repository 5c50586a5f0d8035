"""Typed calls on a gRPC channel: what Katib's generated stub does, without the generated code."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from katib_callbacks.metrics import MetricLog, StoredMetricLog, format_timestamp, parse_timestamp
from katib_callbacks.wire import methods
from katib_callbacks.wire.encoding import report_request

if TYPE_CHECKING:
    import grpc

__all__ = ["DBManagerStub"]

Metadata = tuple[tuple[str, str], ...]


class DBManagerStub:
    """The DB manager's methods and its health check on one channel.

    Each call blocks until the answer or ``timeout_s``, raises ``grpc.RpcError``, and may be made by several threads.
    All but :meth:`report` and :meth:`report_first` load protobuf.

    Args:
        channel: Open or lazily connecting.
        read_token: Returns the bearer token that each call carries; None for calls without one.
    """

    def __init__(self, channel: "grpc.Channel", read_token: Callable[[], str] | None = None) -> None:
        self._channel = channel
        self._read_token = read_token

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def report(self, trial_name: str, logs: Iterable[MetricLog], *, timeout_s: float) -> None:
        """Store the rows in one atomic batch."""
        self._call(methods.REPORT_OBSERVATION_LOG, report_request(trial_name, logs), timeout_s)

    def report_first(self, trial_name: str, logs: Iterable[MetricLog], *, timeout_s: float) -> bool:
        """Store the rows as :meth:`report` does; return whether the server tells that the trial has earlier ones.

        Katib's own DB manager tells nothing.
        """
        request, metadata = report_request(trial_name, logs), ((methods.FIRST_REPORT, "1"),)
        _, answered = self._call(methods.REPORT_OBSERVATION_LOG, request, timeout_s, metadata=metadata)
        return any(key == methods.EARLIER_ROWS for key, _ in answered.trailing_metadata() or ())

    def get(
        self,
        trial_name: str,
        *,
        metric_name: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
        timeout_s: float,
    ) -> list[StoredMetricLog]:
        """Return a trial's rows ordered by time.

        Args:
            trial_name: Which trial.
            metric_name: Only this metric, by its exact name: MySQL's comparison ignores case and accents, so what it
                answers is filtered again here. Empty for all.
            start: Only rows at or after this time.
            end: Only rows at or before this time.
            timeout_s: Seconds.
        """
        from katib_callbacks.wire import messages  # noqa: PLC0415  loads protobuf

        request = messages.GetObservationLogRequest(
            trial_name=trial_name,
            metric_name=metric_name,
            start_time="" if start is None else format_timestamp(start),
            end_time="" if end is None else format_timestamp(end),
        )
        reply = self._ask(methods.GET_OBSERVATION_LOG, request, messages.GetObservationLogReply, timeout_s)
        return [
            StoredMetricLog(log.metric.name, log.metric.value, parse_timestamp(log.time_stamp))
            for log in reply.observation_log.metric_logs
            if not metric_name or log.metric.name == metric_name
        ]

    def delete(self, trial_name: str, *, timeout_s: float) -> None:
        """Delete all rows of a trial, as those of an earlier attempt at it."""
        from katib_callbacks.wire import messages  # noqa: PLC0415  loads protobuf

        request = messages.DeleteObservationLogRequest(trial_name=trial_name).SerializeToString()
        self._call(methods.DELETE_OBSERVATION_LOG, request, timeout_s, metadata=((methods.CLEARS_ATTEMPT, "1"),))

    def judge(
        self,
        trial_name: str,
        *,
        experiment: str,
        policy: str,
        run: str,
        epochs: Iterable[tuple[int, float]],
        has_ended: bool = False,
        timeout_s: float,
    ) -> tuple[bool, str]:
        """Hand in epochs and their objectives; return whether the training is to stop now, and on what grounds."""
        from katib_callbacks.wire import extension  # noqa: PLC0415  loads protobuf

        request = extension.JudgeRequest(
            trial_name=trial_name,
            experiment=experiment,
            policy=policy,
            run=run,
            epochs=[extension.Epoch(step=step, value=value) for step, value in epochs],
            has_ended=has_ended,
        )
        reply = self._ask(methods.JUDGE, request, extension.JudgeReply, timeout_s)
        return reply.stop, reply.reason

    def is_serving(self, *, timeout_s: float) -> bool:
        """Ask for the server's overall health."""
        from katib_callbacks.wire import messages  # noqa: PLC0415  loads protobuf

        request = messages.HealthCheckRequest()
        status: int = self._ask(methods.HEALTH_CHECK, request, messages.HealthCheckResponse, timeout_s).status
        return status == messages.SERVING

    def _ask(self, path: str, request: Any, reply: Any, timeout_s: float) -> Any:
        return self._call(path, request.SerializeToString(), timeout_s, reply=reply)[0]

    def _call(self, path: str, data: bytes, timeout_s: float, *, reply: Any = None, metadata: Metadata = ()) -> Any:
        """Return a reply, as bytes where no class is given, and the call."""
        if self._read_token is not None:
            metadata = (*metadata, ("authorization", f"Bearer {self._read_token()}"))
        call: Any = self._channel.unary_unary(path, response_deserializer=reply and reply.FromString)
        return call.with_call(data, timeout=timeout_s, metadata=metadata)
