"""Connection: calls to one DB manager, each mapped from gRPC's errors to a fate, over channels that are opened anew."""

import re
import threading
from typing import TYPE_CHECKING, Any

from katib_callbacks.errors import ConfigurationError, ReporterClosedError
from katib_callbacks.sinks.katib.fates import Fate, classify, may_be_replaced
from katib_callbacks.wire.forks import calling

if TYPE_CHECKING:
    import grpc

    from katib_callbacks.sinks.katib.endpoint import Endpoint
    from katib_callbacks.wire.client import DBManagerStub

_MAX_TEXT = 300

_NO_CONNECTION = re.compile(r"failed to connect", re.IGNORECASE)

_NO_ANSWER = re.compile(r"timed? ?out|deadline|unreachable|no route", re.IGNORECASE)
"""The network is why, and a look at TLS would only wait for it again. Whatever else is said (gRPC's releases have many
words for a certificate that is not accepted, and of several addresses only the last one's failure shows) may be TLS."""

_GIVEN_UP = re.compile(r"handshake|verification|socket closed|settings|http/2", re.IGNORECASE)
"""A connection that the other side gave up while it was made, as it does with one that should have begun with TLS."""


class FailedCallError(Exception):
    """A call that failed; the one place where gRPC's errors are mapped.

    Args:
        status: The gRPC status code's name.
        text: What the other side or gRPC said.
        fate: What became of the rows.
        is_local: Whether files of ours are at fault, or seem to be: these heal by rotation alone, and soon.
    """

    def __init__(self, status: str, text: str, fate: Fate, *, is_local: bool = False) -> None:
        super().__init__(f"{status}: {text}" if text else status)
        self.status = status
        self.fate = fate
        self.is_local = is_local


class Connection:
    """One delivery's way to the DB manager.

    Every delivery has its own: nothing is left open between them, and no failure of one reaches another. A call that
    failed drops the channel, so that the next one resolves and connects anew; and so does a fork.

    Args:
        endpoint: Where the DB manager listens.
    """

    def __init__(self, endpoint: "Endpoint") -> None:
        self._endpoint = endpoint
        self._lock = threading.RLock()  # a signal handler that forks drops what its thread may be opening
        self._channel: grpc.Channel | None = None
        self._stub: DBManagerStub | None = None
        self._is_closed = False
        self.calls = 0

    def call(self, method: str, *arguments: object, timeout_s: float, **options: object) -> Any:
        """Call a method of :class:`DBManagerStub`.

        Raises:
            FailedCallError: It failed.
            ReporterClosedError: The connection was closed, before or during the call.
        """
        import grpc  # noqa: PLC0415  only when something is sent

        try:
            with calling(self):
                stub = self._open()
                self.calls += 1
                return getattr(stub, method)(*arguments, timeout_s=timeout_s, **options)
        except ConfigurationError as error:  # a file of the credentials
            self.drop()
            raise FailedCallError("UNAUTHENTICATED", str(error), Fate.NOT_WRITTEN, is_local=True) from error
        except (grpc.RpcError, ValueError) as error:  # ValueError: a closed channel, or an answer that is no time
            if self._is_closed:
                raise ReporterClosedError("the reporter was closed while it delivered") from error
            self.drop()
            raise self._failed_call(error) from error

    def drop(self) -> None:
        """Close the channel; the next call opens another."""
        with calling(self):
            with self._lock:
                channel, self._channel, self._stub = self._channel, None, None
            if channel is not None:
                channel.close()
            del channel  # what is left of it is freed here too, where no fork can meet it

    def close(self) -> None:
        """End the call in flight, and let no other begin. May be called by any thread, and twice."""
        self._is_closed = True
        self.drop()

    def _open(self) -> "DBManagerStub":
        from katib_callbacks.wire.client import DBManagerStub  # noqa: PLC0415  loads protobuf

        with self._lock:
            if self._is_closed:
                raise ReporterClosedError("the reporter was closed while it delivered")
            if self._stub is None:
                self._channel = self._endpoint.open_channel()
                self._stub = DBManagerStub(self._channel)
            return self._stub

    def _failed_call(self, error: Exception) -> FailedCallError:
        import grpc  # noqa: PLC0415  only when something is sent

        if not isinstance(error, grpc.Call):
            return FailedCallError("UNKNOWN", f"unreadable answer: {error}", Fate.UNCLEAR)
        status = error.code().name
        text = " ".join((error.details() or "").split())
        fate = classify(status, text)
        shown = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
        credentials = self._endpoint.credentials
        if _NO_CONNECTION.search(text) and not _NO_ANSWER.search(text):
            if credentials.is_tls:
                from katib_callbacks.sinks.katib.tls_probe import explain  # noqa: PLC0415  with TLS, and after a failure

                reason = explain(self._endpoint)
                if reason is not None:
                    return FailedCallError(status, f"{reason}; gRPC says: {shown}", fate, is_local=True)
            elif _GIVEN_UP.search(text):
                shown += " (does it want TLS? tls_ca is not set)"
        if credentials.token_path is not None and status in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
            shown += f" (the token is that of token_path {credentials.token_path})"
            if may_be_replaced(status, text):
                return FailedCallError(status, shown, Fate.NOT_WRITTEN, is_local=True)
        return FailedCallError(status, shown, fate)
