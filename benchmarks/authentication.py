"""What authentication costs a call: ``authentication.py``, with ``--check`` to fail where it is over a millisecond.

Calls that read a trial's one row, one after the other on an open connection, from a server process of each kind: no
TLS, TLS without authentication (the same service behind the same TLS), and the trial listener with tokens from a file,
Kubernetes' tokens (RSA and elliptic curves) and client certificates. The ways take turns in rounds; of each the median
call is shown, and the median over the rounds of what it takes more than TLS alone did in the same round. The first call
of a connection, with its handshake, is shown beside.
"""

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import grpc

from katib_callbacks.metrics import MetricLog
from katib_callbacks.wire import messages, methods
from katib_callbacks.wire.client import DBManagerStub

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("tests/db_manager", "tests")]
from certificates import Authority
from issuers import Issuer, SigningKey, kubernetes_claims

ROUNDS = 30
CALLS = 100
WARM_UP_CALLS = 50
LIMIT_MS = 1.0
TRIAL = "trial-1"
START_TIMEOUT_S = 60.0

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
from katib_callbacks.db_manager.store.observation_log import ObservationLogStore

db, certificate, key = sys.argv[1:]
store = ObservationLogStore(db, max_connections=10)
server = make_server(ThreadPoolExecutor(64))
servicer = Servicer(store, call_places(64), ServerMetrics(), LargeReplies())
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
        self.first_ms = self.call()
        self.rounds_ms: list[float] = []

    def call(self) -> float:
        """Call once; return its milliseconds."""
        start_s = time.perf_counter()
        reply = self._call(self._request, timeout=START_TIMEOUT_S, metadata=self._metadata, wait_for_ready=True)
        elapsed_ms = (time.perf_counter() - start_s) * 1000
        assert messages.GetObservationLogReply.FromString(reply).observation_log.metric_logs
        return elapsed_ms

    def round(self) -> None:
        """Call some times, and keep the median."""
        self.rounds_ms.append(statistics.median(self.call() for _ in range(CALLS)))


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--check", action="store_true", help=f"fail if a way costs more than {LIMIT_MS} ms")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        ways = _open(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for way in ways:
            for _ in range(WARM_UP_CALLS):
                way.call()
        for number in range(arguments.rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                way.round()
    tls = ways[1]
    print(f"{'':28}{'first call':>12}{'median call':>14}{'beside TLS':>13}")
    is_over = False
    for way in ways:
        more = statistics.median(own - other for own, other in zip(way.rounds_ms, tls.rounds_ms, strict=True))
        is_over |= more > LIMIT_MS
        median = statistics.median(way.rounds_ms)
        print(f"{way.name:28}{way.first_ms:9.1f} ms{median:11.3f} ms{more:+10.3f} ms")
    if arguments.check and is_over:
        print(f"WRONG: authentication costs more than {LIMIT_MS} ms a call")
        return 1
    return 0


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
    plain_address, token_address = _start_db_manager(stack, folder, [*tls, *tokens])
    _, certificate_address = _start_db_manager(stack, folder, [*tls, *certificates])
    tls_address = _start(
        stack, [sys.executable, "-c", TLS_ALONE, db, f"{folder}/tls.crt", f"{folder}/tls.key"], [r"listening on (\S+)"]
    )[0]

    plain = stack.enter_context(grpc.insecure_channel(plain_address))
    now = datetime.now(timezone.utc)
    DBManagerStub(plain).report(TRIAL, [MetricLog("loss", 0.5, now)], timeout_s=START_TIMEOUT_S)

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


def _start_db_manager(stack: ExitStack, folder: Path, flags: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"]
    patterns = [r"listening on (\S+),", r"listening for trials on (\S+)"]
    return _start(stack, [*command, "--db", f"sqlite:///{folder}/katib.db", *flags], patterns)


def _start(stack: ExitStack, command: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Start a server; return the addresses that its first lines name."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.communicate)
    stack.callback(process.kill)
    assert process.stdout is not None
    addresses = []
    for pattern in patterns:
        match = re.search(pattern, process.stdout.readline())
        assert match
        addresses.append(match[1])
    return addresses


if __name__ == "__main__":
    sys.exit(main())
