"""What authentication costs a call.

Calls that read a trial's one row, one after the other on an open connection, from a server process of each kind: no
TLS, TLS without authentication (the same service behind the same TLS), and the trial listener with tokens from a file,
Kubernetes' tokens (RSA and elliptic curves) and client certificates. The ways take turns in rounds; of each round the
median call counts, and what it takes more than TLS alone did in the same round.
"""

import hashlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import grpc
from figures import Figure, Size, run
from machine import db_manager, started

from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("tests/db_manager", "tests")]
from certificates import Authority
from issuers import Issuer, SigningKey, kubernetes_claims

ROUNDS = 15
CALLS = 100
WARM_UP_CALLS = 50
LIMIT_MS = 1.0
TRIAL = "trial-1"
TIMEOUT_S = 60.0

TLS_ALONE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from katib_callbacks.db_manager.service.arrivals import Arrivals
from katib_callbacks.db_manager.service.health import Health, HealthMonitor
from katib_callbacks.db_manager.service.katib_service import KatibService
from katib_callbacks.db_manager.service.limits import call_places
from katib_callbacks.db_manager.authentication.tls_files import TLSFiles
from katib_callbacks.db_manager.listening import bind, make_server
from katib_callbacks.db_manager.prometheus import ServerMetrics
from katib_callbacks.db_manager.service.replies import LargeReplies
from katib_callbacks.db_manager.service.servicer import Servicer
from katib_callbacks.db_manager.stopping.judge import Judge
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore

db, certificate, key = sys.argv[1:]
store = ObservationLogStore(db, max_connections=10)
server = make_server(ThreadPoolExecutor(64))
servicer = Servicer(store, call_places(64), ServerMetrics(), LargeReplies(), Judge(store))
service = KatibService(servicer, Health(HealthMonitor(store.check)), Arrivals())
server.add_generic_rpc_handlers((service,))
print("listening on", bind(server, "127.0.0.1:0", TLSFiles(certificate, key).credentials()), flush=True)
server.start()
server.wait_for_termination()
"""


class Way:
    """One way to call: a channel, what goes with each call, and how long calls took."""

    def __init__(self, name: str, channel: grpc.Channel, token: str | None = None) -> None:
        self.name = name
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._call = channel.unary_unary(methods.GET_OBSERVATION_LOG)
        self._request = messages.GetObservationLogRequest(trial_name=TRIAL).SerializeToString()
        self.rounds_ms: list[float] = []

    def call(self) -> float:
        """Call once; return its milliseconds."""
        start_s = time.perf_counter()
        reply = self._call(self._request, timeout=TIMEOUT_S, metadata=self._metadata, wait_for_ready=True)
        elapsed_ms = (time.perf_counter() - start_s) * 1000
        assert messages.GetObservationLogReply.FromString(reply).observation_log.metric_logs
        return elapsed_ms

    def round(self) -> None:
        """Call some times, and keep the median."""
        self.rounds_ms.append(statistics.median(self.call() for _ in range(CALLS)))


def measure(size: Size) -> Iterator[Figure]:
    """Call in all ways, in turns."""
    with ExitStack() as stack:
        ways = _open(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for way in ways:
            for _ in range(WARM_UP_CALLS):
                way.call()
        for number in range(size(ROUNDS)):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                way.round()
    plain, tls, *others = ways
    yield Figure("call over TLS", tls.rounds_ms, "ms", plain.name, plain.rounds_ms)
    for way in others:
        more_ms = [own - other for own, other in zip(way.rounds_ms, tls.rounds_ms, strict=True)]
        yield Figure(f"{way.name}, added to a call over TLS", more_ms, "ms", at_most=LIMIT_MS)


def _open(stack: ExitStack, folder: Path) -> list[Way]:
    """Start the servers, and open a connection of each kind."""
    keys = [SigningKey("rsa"), SigningKey("curve", "ES256")]
    issuer = stack.enter_context(Issuer(*keys))
    authority, client_authority = Authority(), Authority("clients")
    pair, client = authority.issue("localhost"), client_authority.issue(f"{TRIAL}.team-a.katib-trial")
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    (folder / "clients.crt").write_bytes(client_authority.certificate)
    file_token = "t" * 43
    entry = {"name": "t", "sha256": hashlib.sha256(file_token.encode()).hexdigest(), "trials": ["trial-*"]}
    (folder / "tokens.json").write_text(json.dumps({"tokens": [entry]}), encoding="utf-8")
    (folder / "tokens.json").chmod(0o600)

    tls = ["--trial-listen-address", "127.0.0.1:0", "--trial-tls-cert", f"{folder}/tls.crt"]
    tls += ["--trial-tls-key", f"{folder}/tls.key"]
    tokens = ["--trial-token-file", f"{folder}/tokens.json", "--trial-oidc-issuer", issuer.url]
    tokens += ["--trial-oidc-ca", str(issuer.ca)]
    certificates = ["--trial-client-ca", f"{folder}/clients.crt"]
    certificates += ["--trial-certificate-name", "{trial}.{namespace}.katib-trial"]
    db = f"sqlite:///{folder}/katib.db"
    plain_address, token_address = _start(stack, folder, [*tls, *tokens])
    _, certificate_address = _start(stack, folder, [*tls, *certificates])
    server = [sys.executable, "-c", TLS_ALONE, db, f"{folder}/tls.crt", f"{folder}/tls.key"]
    _, tls_address = stack.enter_context(started(server))

    plain = stack.enter_context(grpc.insecure_channel(plain_address))
    now = datetime.now(timezone.utc)
    DBManagerStub(plain).report(TRIAL, [MetricLog("loss", 0.5, now)], timeout_s=TIMEOUT_S)

    def secure(address: str, certificate: bytes | None = None, key: bytes | None = None) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(authority.certificate, key, certificate)
        target = f"localhost:{address.rpartition(':')[2]}"
        options = (("grpc.use_local_subchannel_pool", 1),)
        return stack.enter_context(grpc.secure_channel(target, credentials, options))

    tokens_of = [key.sign(kubernetes_claims(issuer.url, f"katib-trial:team-a/{TRIAL}")) for key in keys]
    return [
        Way("no TLS, no authentication", plain),
        Way("TLS alone", secure(tls_address)),
        Way("token from a file", secure(token_address), file_token),
        Way("Kubernetes' token, RS256", secure(token_address), tokens_of[0]),
        Way("Kubernetes' token, ES256", secure(token_address), tokens_of[1]),
        Way("client certificate", secure(certificate_address, client.certificate, client.key)),
    ]


def _start(stack: ExitStack, folder: Path, flags: list[str]) -> tuple[str, str]:
    """Start a DB manager with a trial listener; returns the addresses of both."""
    process, address = stack.enter_context(db_manager(folder / "katib.db", *flags))
    assert process.stdout is not None
    match = re.search(r"listening for trials on (\S+)", process.stdout.readline())
    assert match
    return address, match[1]


if __name__ == "__main__":
    run(__doc__, measure)
