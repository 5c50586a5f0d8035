"""A trial listener for tests: its files, replaced as Kubernetes or an operator does, and what trials call it with."""

import hashlib
import json
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from katib_callbacks.db_manager import DBManager, TrialListener
from katib_callbacks.wire import messages, methods

sys.path.append(str(Path(__file__).parents[1]))
from certificates import Authority, Pair

TIMEOUT_S = 60.0
TIME = "2026-01-31T12:00:00.5Z"
ROW = (TIME, "loss", "1")

TEMPLATE = "{trial}.{namespace}.katib-trial"
URI_TEMPLATE = "spiffe://cluster.local/ns/{namespace}/katib-trial/{trial}"


def new_token() -> str:
    return secrets.token_urlsafe(32)


def hashed(name: str, token: str, *trials: str, **more: str) -> dict[str, Any]:
    """Return an entry of a token file."""
    return {"name": name, "sha256": hashlib.sha256(token.encode()).hexdigest(), "trials": list(trials), **more}


class Trials:
    """Files of a trial listener, and connections to it. Closes what it opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server_authority = Authority()
        self.client_authority = Authority("clients")
        self._open = ExitStack()
        self.write_server(self.server_authority.issue())
        self.write("ca.pem", self.server_authority.certificate)

    def __enter__(self) -> "Trials":  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, content: bytes) -> Path:
        """Replace a file at once, as ``mv`` does."""
        new = self.folder / f".{name}.new"
        new.write_bytes(content)
        new.chmod(0o600)
        return new.replace(self.folder / name)

    def write_server(self, pair: Pair) -> None:
        self.write("server.pem", pair.certificate)
        self.write("server.key", pair.key)

    def write_tokens(self, *entries: dict[str, Any]) -> Path:
        return self.write("tokens.json", json.dumps({"tokens": entries}).encode())

    def write_client(self, pair: Pair, name: str = "client") -> dict[str, Path]:
        """Return a client's files as a reporter's arguments."""
        return {
            "tls_cert": self.write(f"{name}.pem", pair.certificate),
            "tls_key": self.write(f"{name}.key", pair.key),
        }

    def listener(self, **options: Any) -> TrialListener:
        """Return what a DB manager is told; without options it takes tokens from the file."""
        if not options.keys() & {"certificate_name", "token_file", "oidc_issuer"}:
            options["token_file"] = self.path("tokens.json")
        return TrialListener("localhost:0", self.path("server.pem"), self.path("server.key"), **options)

    def certificate_listener(self, template: str = TEMPLATE, **options: Any) -> TrialListener:
        """Return what a DB manager is told that knows trials by their certificates."""
        ca = self.write("clients.pem", self.client_authority.certificate)
        return self.listener(client_ca=ca, certificate_name=template, **options)

    def client(self, server: DBManager | str, token: str | None = None, pair: Pair | None = None) -> "TrialClient":
        """Return a client on a connection of its own."""
        address = server if isinstance(server, str) else server.trial_address
        identity = (pair.key, pair.certificate) if pair else ()
        credentials = grpc.ssl_channel_credentials(self.path("ca.pem").read_bytes(), *identity)
        channel = grpc.secure_channel(address, credentials, options=(("grpc.use_local_subchannel_pool", 1),))
        return TrialClient(self._open.enter_context(channel), token)


class TrialClient:
    """Calls with or without a token, with or without manners."""

    def __init__(self, channel: grpc.Channel, token: str | None = None) -> None:
        self.channel = channel
        self.token = token

    def send(self, path: str, request: Any, metadata: Any = None) -> bytes:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        if metadata is None:
            metadata = () if self.token is None else (("authorization", f"Bearer {self.token}"),)
        return self.channel.unary_unary(path)(data, timeout=TIMEOUT_S, metadata=metadata)

    def report(self, trial_name: str, *rows: tuple[str, str, str], metadata: Any = None) -> None:
        logs = [
            messages.MetricLog(time_stamp=time, metric=messages.Metric(name=name, value=value))
            for time, name, value in rows or [ROW]
        ]
        request = messages.ReportObservationLogRequest(
            trial_name=trial_name, observation_log=messages.ObservationLog(metric_logs=logs)
        )
        self.send(methods.REPORT_OBSERVATION_LOG, request, metadata)

    def get(self, trial_name: str) -> list[tuple[str, str, str]]:
        data = self.send(methods.GET_OBSERVATION_LOG, messages.GetObservationLogRequest(trial_name=trial_name))
        logs = messages.GetObservationLogReply.FromString(data).observation_log.metric_logs
        return [(log.time_stamp, log.metric.name, log.metric.value) for log in logs]

    def delete(self, trial_name: str) -> None:
        self.send(methods.DELETE_OBSERVATION_LOG, messages.DeleteObservationLogRequest(trial_name=trial_name))


def refusal(function: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    """Return status and details of a call that must fail."""
    try:
        function(*arguments, **options)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("the call was answered")
