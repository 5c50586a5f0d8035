"""Try to get past a trial listener: ``fuzz_authentication.py --seconds 60 --seed 1``.

Several threads send tokens that are good for nothing (damaged, signed anew by others, for other trials, random text)
and headers that are none, beside lines that are no TLS, no HTTP/2, and calls that are given up. Meanwhile two rightful
trials report without a pause, by a Kubernetes token whose issuer rotates its keys and by a token from a file. The exit
status is 1 if the server ended, a rightful call failed, a wrongful one was let in or answered with what it should not,
or the database holds rows of anybody but the two.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import random
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
from issuers import Issuer, SigningKey, kubernetes_claims, unsigned

from katib_callbacks.wire import messages, methods

sys.path.append(str(Path(__file__).parents[1]))
from certificates import Authority

THREADS = 4
CALL_TIMEOUT_S = 60.0
GIVEN_UP_AFTER_S = 0.001
ROTATION_S = 5.0
"""How often the issuer gets a new key, beside the old one for as long, and loses it afterwards."""

CALLS_PER_CONNECTION = 2
"""Of an address with many failures the listener judges one wrongful call on each connection, and it is the judging that
is tried."""

RIGHTFUL_TRIAL, FILE_TRIAL = "rightful", "from-file"
STOLEN_TRIALS = [RIGHTFUL_TRIAL, FILE_TRIAL, "other", "another", "*", "", "a\0b", "rightful\n", "x" * 255]

REFUSALS = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
"""RESOURCE_EXHAUSTED: too many on one connection, or a header too large for gRPC. UNAVAILABLE: the token names a key
that the issuer could not be asked about in time."""
GIVEN_UP = {"DEADLINE_EXCEEDED", "CANCELLED"}

PATHS = [
    methods.REPORT_OBSERVATION_LOG,
    methods.GET_OBSERVATION_LOG,
    methods.DELETE_OBSERVATION_LOG,
    "/api.v1.beta1.DBManager/Nothing",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/",
]


class Record:
    """What came of the calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wrongful = Counter[str]()
        self.kinds = Counter[str]()
        self.rightful = Counter[str]()
        self.complaints: list[str] = []

    def count(self, counter: Counter[str], key: str) -> None:
        with self._lock:
            counter[key] += 1

    def complain(self, text: str) -> None:
        with self._lock:
            self.complaints.append(text)


class Site:
    """What stands around the server: its files, its issuer, and how to reach it."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        authority = Authority("authority of the DB manager")
        pair = authority.issue("localhost")
        self.folder = folder
        self.issuer = issuer
        self.ca = authority.certificate
        self.file_token = "f" * 20 + base64.b16encode(hashlib.sha256(b"fuzz").digest()).decode()
        self.elsewhere = [SigningKey("key-1"), SigningKey("key-1", "ES256"), SigningKey("elsewhere")]
        digest = hashlib.sha256(self.file_token.encode()).hexdigest()
        tokens = {"tokens": [{"name": "file", "sha256": digest, "trials": [FILE_TRIAL]}]}
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key)
        (folder / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
        (folder / "tokens.json").chmod(0o600)
        self.address = self.trial_address = ""

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "katib_callbacks.cli", "db-manager", "--listen", "127.0.0.1:0"),
            *("--db", f"sqlite:///{self.folder}/katib.db", "--trial-listen-address", "127.0.0.1:0"),
            *("--trial-tls-cert", f"{self.folder}/tls.crt", "--trial-tls-key", f"{self.folder}/tls.key"),
            *("--trial-token-file", f"{self.folder}/tokens.json"),
            *("--trial-oidc-issuer", self.issuer.url, "--trial-oidc-ca", str(self.issuer.ca)),
        ]

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        credentials = grpc.ssl_channel_credentials(self.ca)
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 64 * 1024))
        with grpc.secure_channel(f"localhost:{self.trial_address.rpartition(':')[2]}", credentials, options) as channel:
            yield channel


def report(trial: str, number: int = 0) -> bytes:
    """Return a request of one row."""
    time_stamp = f"2026-01-31T{number // 3_600_000_000 % 24:02}:{number // 60_000_000 % 60:02}:00.{number % 10**6:06}Z"
    log = messages.MetricLog(time_stamp=time_stamp, metric=messages.Metric(name="loss", value=str(number)))
    return messages.ReportObservationLogRequest(
        trial_name=trial, observation_log=messages.ObservationLog(metric_logs=[log])
    ).SerializeToString()


class Fuzzer:
    """One thread's wrongful calls."""

    def __init__(self, site: Site, seed: str, record: Record) -> None:
        self._site = site
        self._random = random.Random(seed)  # noqa: S311  to be repeated
        self._record = record
        self._good_once = ""
        self._trial = ""  # the one that the call at hand is after
        self._makers: list[Callable[[], str]] = [
            self._damaged,
            self._edited,
            self._signed_elsewhere,
            self._signed_with_the_public_key,
            self._unsigned,
            self._wrong_claims,
            self._wrong_header,
            self._text,
        ]

    def run(self, end_s: float) -> None:
        try:
            while time.monotonic() < end_s and not self._record.complaints:
                if self._random.random() < 0.1:
                    self._send_garbage()
                with self._site.channel() as channel:
                    for _ in range(CALLS_PER_CONNECTION):
                        self._call(channel)
        except Exception as error:  # noqa: BLE001  a thread's error must not be lost
            self._record.complain(f"the fuzzer failed: {error!r}")

    def _call(self, channel: grpc.Channel) -> None:
        path = self._random.choices(PATHS, [10, 4, 3, 1, 1, 1])[0]
        self._trial = trial = self._random.choice(STOLEN_TRIALS)
        kind, metadata = self._metadata(trial)
        is_garbage = self._random.random() < 0.05
        data = self._random.randbytes(self._random.choice([0, 9, 500])) if is_garbage else report(trial)
        is_given_up = self._random.random() < 0.03
        try:
            channel.unary_unary(path)(
                data, timeout=GIVEN_UP_AFTER_S if is_given_up else CALL_TIMEOUT_S, metadata=metadata
            )
            status, details = "OK", ""
        except grpc.RpcError as error:
            status, details = error.code().name, error.details()
        self._record.count(self._record.wrongful, status)
        self._record.count(self._record.kinds, kind)
        refusals = REFUSALS | ({"INVALID_ARGUMENT"} if is_garbage else set()) | (GIVEN_UP if is_given_up else set())
        if status not in refusals:
            self._record.complain(f"{status} {details!r} for {path} of {trial!r} with {kind}: {str(metadata)[:3000]}")
        secrets = [value for _, value in metadata if isinstance(value, str) and len(value) > 40]
        if details and any(secret[-40:] in details for secret in secrets):
            self._record.complain(f"the answer quotes a credential: {details!r}")

    # -- credentials ---------------------------------------------------------------------------------------------

    def _metadata(self, trial: str) -> tuple[str, list[tuple[str, str | bytes]]]:
        """Return headers that must not let anybody report for ``trial``, and what kind they are."""
        kind = self._random.random()
        if kind < 0.05:
            return "no header", []
        if kind < 0.1:
            good = self._good()
            return "several headers", [("authorization", f"Bearer {token}") for token in (good, good)]
        if kind < 0.2:
            name, value = self._random.choice(self._odd_headers())
            return "odd header", [(name, value)]
        if kind < 0.3:  # a good token, for a trial that it is not for
            tokens = {FILE_TRIAL: self._site.file_token, RIGHTFUL_TRIAL: self._good()}
            token = self._random.choice([token for name, token in tokens.items() if name != trial])
            return "another trial's token", [("authorization", f"Bearer {token}")]
        maker = self._random.choice(self._makers)
        token = maker()
        if token.strip() in {self._site.file_token, self._good_once}:
            token = ""
        return maker.__name__.strip("_"), [("authorization", f"Bearer {token}")]

    def _odd_headers(self) -> list[tuple[str, str | bytes]]:
        good = self._good()
        return [
            ("authorization", good),
            ("authorization", f"Basic {good}"),
            ("authorization", f"Bearer {good} {good}"),
            ("authorization", f"Bearer {good},Bearer {good}"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("authorization", ""),
            ("authorization", "Bearer " + "A" * self._random.choice([8_000, 16_000, 20_000, 60_000])),
            ("authorization-bin", f"Bearer {good}".encode()),
            ("proxy-authorization", f"Bearer {good}"),
            ("x-forwarded-client-cert", "By=spiffe://cluster.local/ns/team-a/trial/rightful"),
            ("cookie", f"token={good}"),
            ("te", f"Bearer {good}"),
        ]

    def _good(self, **changes) -> str:
        """Return the rightful trial's token, or one with other claims that the issuer has really signed."""
        self._good_once = self._site.issuer.token(f"katib-trial:team-a/{RIGHTFUL_TRIAL}", **changes)
        return self._good_once

    def _damaged(self) -> str:
        token = self._good() if self._random.random() < 0.7 else self._site.file_token
        for _ in range(self._random.randint(1, 3)):
            # Not in the last characters, some of whose bits are of no byte: another text, and the same token.
            place = self._random.randrange(len(token) - 3)
            piece = "".join(self._random.choices("AQgw-_.=+/ %", k=self._random.randint(1, 3)))
            kind = self._random.randrange(4)
            if kind == 0:
                token = token[:place] + piece + token[place + len(piece) :]
            elif kind == 1:
                token = token[:place] + piece + token[place:]
            elif kind == 2:
                token = token[:place] + token[place + self._random.randint(1, 40) :]
            else:
                token = token[:place] or "x"
            if len(token) < 8:
                break
        return token

    def _edited(self) -> str:
        """Return a good token with other claims and its old signature."""
        head, body, signature = self._good().split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims[self._random.choice(["aud", "exp", "kubernetes.io", "sub", "new"])] = self._random.choice(
            ["katib-trial:team-a/other", 9_999_999_999, {"namespace": "team-b"}, None, []]
        )
        return f"{head}.{_encoded(claims)}.{signature}"

    def _signed_elsewhere(self) -> str:
        key = self._random.choice(self._site.elsewhere)
        ids = [self._site.issuer.keys[-1].key_id, key.key_id, f"invented-{self._random.randrange(10**6)}", "../../key"]
        header = {"kid": self._random.choice(ids)}
        if self._random.random() < 0.3:
            header |= {"jwk": key.public_jwk(), "jku": f"{self._site.issuer.url}/x", "x5u": "https://localhost/x"}
        return key.sign(self._claims(), **header)

    def _signed_with_the_public_key(self) -> str:
        key = self._site.issuer.keys[-1]
        algorithm, hashing = self._random.choice([("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")])
        secret = self._random.choice([key.public_pem(), json.dumps(key.public_jwk()).encode(), b"", b"secret"])
        text = f"{_encoded({'alg': algorithm, 'kid': key.key_id})}.{_encoded(self._claims())}"
        signature = hmac.digest(secret, text.encode(), hashing)
        return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def _unsigned(self) -> str:
        algorithm = self._random.choice(["none", "None", "NONE", "", "nOnE"])
        signature = self._random.choice(["", "AAAA", self._good().rpartition(".")[2]])
        return unsigned(self._claims(), alg=algorithm, kid=self._site.issuer.keys[-1].key_id) + signature

    def _wrong_claims(self) -> str:
        """Return a token that the issuer has signed, and that is good for nothing."""
        wanted = f"katib-trial:team-a/{self._trial}"
        changes = {"audience": wanted} | self._random.choice(
            [
                {"age_s": 4000},
                {"nbf": time.time() + 600},
                {"exp": self._random.choice([None, True, "soon", [], -1, 0, float("nan"), 1e400])},
                {"iss": self._random.choice(["https://localhost", None, 7, [self._site.issuer.url]])},
                {"aud": self._random.choice([None, 7, {}, [7], "katib-trial:", "*", [wanted, f"{wanted}-2"]])},
                {"audience": f"katib-trial:team-b/{self._trial}"},
                {"audience": f"katib-trial:team-a/../{self._trial}"},
                {"audience": "katib-trial:{namespace}/{trial}"},
                {"audience": "https://kubernetes.default.svc"},
                {"kubernetes.io": self._random.choice([None, 7, [], {}, {"namespace": ["team-a"]}])},
                {"namespace": "team-b"},
                {"sub": self._random.choice([None, 7, "system:serviceaccount:team-b:default", "system:admin"])},
            ]
        )
        return self._site.issuer.token(**changes)

    def _wrong_header(self) -> str:
        key = self._site.issuer.keys[-1]
        header = self._random.choice(
            [{"kid": None}, {"kid": ""}, {"kid": "x" * 5_000}, {"alg": "PS256"}, {"alg": "RS512"}, {"crit": ["b64"]}]
        )
        if key.algorithm != "RS256":
            header.pop("alg", None)
            header.setdefault("kid", None)
        return key.sign(self._claims(), **header)

    def _text(self) -> str:
        characters = self._random.choice(["abcXYZ019-_.", " !~%'\"\\,;=", "."])
        return "".join(self._random.choices(characters, k=self._random.choice([0, 1, 3, 40, 3_000])))

    def _claims(self) -> dict:
        return kubernetes_claims(self._site.issuer.url, f"katib-trial:team-a/{self._trial}")

    def _send_garbage(self) -> None:
        _, _, port = self._site.trial_address.rpartition(":")
        garbage = self._random.choice(
            [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]
        )
        garbage += self._random.randbytes(self._random.choice([0, 1, 100, 10_000]))
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", int(port)), timeout=CALL_TIMEOUT_S) as line,
        ):
            if self._random.random() < 0.5:
                line.sendall(garbage)
                return
            context = ssl.create_default_context(cadata=self._site.ca.decode())
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(line, server_hostname="localhost") as secure:
                secure.sendall(garbage)


def _encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def report_rightfully(site: Site, trial: str, token: Callable[[], str], end_s: float, record: Record) -> None:
    """Report and read back without a pause; whatever fails is a complaint."""
    number = 0
    try:
        with site.channel() as channel:
            while time.monotonic() < end_s and not record.complaints:
                number += 1
                metadata = [("authorization", f"Bearer {token()}")]
                channel.unary_unary(methods.REPORT_OBSERVATION_LOG)(
                    report(trial, number), timeout=CALL_TIMEOUT_S, metadata=metadata
                )
                record.count(record.rightful, trial)
                if number % 100 == 0:
                    stored = _read(channel, trial, metadata)
                    if stored != number:
                        record.complain(f"{trial}: {number} rows were reported, and {stored} are there")
                time.sleep(0.005)
    except Exception as error:  # noqa: BLE001  a thread's error must not be lost
        record.complain(f"a rightful call of {trial} failed: {error!r}")


def _read(channel: grpc.Channel, trial: str, metadata: list[tuple[str, str]]) -> int:
    get = channel.unary_unary(
        methods.GET_OBSERVATION_LOG, response_deserializer=messages.GetObservationLogReply.FromString
    )
    request = messages.GetObservationLogRequest(trial_name=trial).SerializeToString()
    return len(get(request, timeout=CALL_TIMEOUT_S, metadata=metadata).observation_log.metric_logs)


def rotate_keys(issuer: Issuer, stop: threading.Event) -> None:
    """Give the issuer a new key now and then, and take the oldest away when nobody signs with it any more."""
    for number in itertools.count(2):
        if stop.wait(ROTATION_S):
            return
        issuer.keys.append(SigningKey(f"key-{number}", "ES256"))
        if stop.wait(ROTATION_S):
            return
        del issuer.keys[0]


def main() -> int:
    """Fuzz, look who was let in, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    record = Record()
    with tempfile.TemporaryDirectory() as name, Issuer(SigningKey("key-1")) as issuer:
        site = Site(Path(name), issuer)
        log_path = Path(name, "log")
        with log_path.open("w") as log:
            process = subprocess.Popen(site.command(), stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            _find_addresses(process, site)
            _fuzz(site, arguments, record)
            if process.poll() is not None:
                record.complain(f"the server ended with {process.returncode}")
            else:
                _compare(site, record)
                process.terminate()
                if process.wait(timeout=CALL_TIMEOUT_S) != 0:
                    record.complain(f"the server did not stop well: {process.returncode}")
        finally:
            process.kill()
            process.communicate()
        text = log_path.read_text(encoding="utf-8")
        for line in text.splitlines():
            if re.search(r"not foreseen|Error in|Fatal|Traceback", line):
                record.complain(f"logged: {line}")
        if site.file_token in text or re.search(r"eyJ[A-Za-z0-9_-]{40}", text):
            record.complain("a token is in the log")
        if "refused" not in text:
            record.complain("no refusal is in the log")
    _say(f"wrongful calls   {dict(sorted(record.wrongful.items()))}, {sum(record.wrongful.values()):,} in all")
    _say(f"their kinds      {dict(sorted(record.kinds.items()))}")
    _say(f"rightful calls   {dict(sorted(record.rightful.items()))}, all answered")
    for complaint in record.complaints[:20]:
        _say(f"WRONG: {complaint}")
    return 1 if record.complaints else 0


def _find_addresses(process: "subprocess.Popen[str]", site: Site) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"listening on (\S+), database", line):
            site.address = match[1]
        elif match := re.search(r"listening for trials on (\S+)", line):
            site.trial_address = match[1]
        if site.address and site.trial_address:
            return
    raise RuntimeError("the server did not start")


def _fuzz(site: Site, arguments: argparse.Namespace, record: Record) -> None:
    end_s = time.monotonic() + arguments.seconds
    stop = threading.Event()
    rotation = threading.Thread(target=rotate_keys, args=(site.issuer, stop))
    jwt_token = lambda: site.issuer.token(f"katib-trial:team-a/{RIGHTFUL_TRIAL}")  # noqa: E731
    threads = [
        threading.Thread(target=report_rightfully, args=(site, RIGHTFUL_TRIAL, jwt_token, end_s, record)),
        threading.Thread(target=report_rightfully, args=(site, FILE_TRIAL, lambda: site.file_token, end_s, record)),
    ]
    for number in range(THREADS):
        fuzzer = Fuzzer(site, f"{arguments.seed}-{number}", record)
        threads.append(threading.Thread(target=fuzzer.run, args=(end_s,)))
    rotation.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    rotation.join()


def _compare(site: Site, record: Record) -> None:
    """See on the plaintext port that nobody's rows but the two trials' are there."""
    with grpc.insecure_channel(site.address) as channel:
        for trial in STOLEN_TRIALS:
            if trial and "\0" not in trial:
                stored = _read(channel, trial, [])
                if stored != record.rightful[trial]:
                    record.complain(f"{trial!r} has {stored} rows, {record.rightful[trial]} of its own")
    for trial in (RIGHTFUL_TRIAL, FILE_TRIAL):
        if not record.rightful[trial]:
            record.complain(f"{trial} never reported")
    if not record.wrongful["UNAUTHENTICATED"] or not record.wrongful["PERMISSION_DENIED"]:
        record.complain("hardly anything was tried")


def _say(line: str) -> None:
    print(line)  # noqa: T201  it talks to a person


if __name__ == "__main__":
    sys.exit(main())
