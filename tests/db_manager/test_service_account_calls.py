"""Kubernetes' tokens on the trial listener: real keys, a real issuer, real connections, and rows read back."""

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import issuers
import pytest
from issuers import Issuer, SigningKey, kubernetes_claims, signing_key, unsigned
from trials import TIMEOUT_S, TrialClient, Trials, refusal

from katib_callbacks import KatibReporter
from katib_callbacks.db_manager import DBManager
from katib_callbacks.db_manager.authentication.issuer import keys
from katib_callbacks.errors import RejectedError
from katib_callbacks.net.addresses import split_url
from katib_callbacks.net.http import HTTPRequest
from katib_callbacks.net.tls import client_context

pytestmark = pytest.mark.usefixtures("fetches_follow_soon")


class Caller:
    """A connection, and calls on it with one token or another."""

    def __init__(self, client: TrialClient) -> None:
        self._client = client

    def report(self, trial: str, token: str | None) -> None:
        self._client.token = token
        self._client.report(trial)

    def get(self, trial: str, token: str | None) -> list[str]:
        self._client.token = token
        return [value for _, _, value in self._client.get(trial)]

    def delete(self, trial: str, token: str | None) -> None:
        self._client.token = token
        self._client.delete(trial)


class Site:
    """A DB manager with a trial listener that believes one issuer."""

    def __init__(self, folder: Path, trials: Trials, issuer: Issuer, **options) -> None:
        self.trials = trials
        self.token_path = folder / "token"
        listener = trials.listener(oidc_issuer=issuer.url, oidc_ca=issuer.ca, **options)
        self.db_manager = DBManager(f"sqlite:///{folder}/katib.db", trial_listener=listener)

    def caller(self) -> Caller:
        """Return a caller with a connection of its own."""
        return Caller(self.trials.client(self.db_manager))

    def reporter(self, trial: str, **options) -> KatibReporter:
        options = {"token_path": self.token_path, "timeout_s": TIMEOUT_S} | options
        ca = self.trials.path("ca.pem")
        return KatibReporter(self.db_manager.trial_address, trial_name=trial, tls_ca=ca, **options)

    def write_token(self, token: str) -> None:
        """Replace the token's file as the kubelet does: never half written."""
        new = self.token_path.with_name("token.new")
        new.write_text(token, encoding="utf-8")
        os.replace(new, self.token_path)  # noqa: PTH105  as rename(2)

    def rows(self, trial: str) -> list[str]:
        """Return what Katib's controller reads on its own port."""
        with grpc.insecure_channel(self.db_manager.address) as channel:
            return Caller(TrialClient(channel)).get(trial, None)


@pytest.fixture
def open_site(tmp_path, issuer):
    with ExitStack() as sites:
        trials = sites.enter_context(Trials(tmp_path))

        def start(**options):
            site = Site(tmp_path, trials, issuer, **options)
            sites.enter_context(site.db_manager)
            return site

        yield start


@pytest.fixture
def site(open_site):
    return open_site()


@pytest.fixture
def caller(site):
    return site.caller()


def audit_lines(caplog) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name == "katib_callbacks.db_manager.trials.audit"
    ]


def test_a_trials_token_writes_and_reads_its_own_trial_alone(site, issuer, caller, caplog):
    token = issuer.token("katib-trial:team-a/trial-1")
    caller.report("trial-1", token)
    assert caller.get("trial-1", token) == ["1"]
    assert site.rows("trial-1") == ["1"]

    assert refusal(caller.report, "trial-2", token)[0] == "PERMISSION_DENIED"
    assert refusal(caller.get, "trial-2", token)[0] == "PERMISSION_DENIED"
    assert refusal(caller.delete, "trial-1", token)[0] == "PERMISSION_DENIED"
    assert refusal(caller.report, "trial-1", None)[0] == "UNAUTHENTICATED"
    assert site.rows("trial-1") == ["1"]
    assert site.rows("trial-2") == []
    lines = audit_lines(caplog)
    assert sum("system:serviceaccount:team-a:default" in line for line in lines) == 3
    assert not any(piece in line for line in lines for piece in token.split("."))


def test_a_trial_of_the_same_name_in_another_namespace_is_refusal(site, issuer, caller):
    first, second = issuer.token(), issuer.token("katib-trial:team-b/trial-1", namespace="team-b")
    caller.report("trial-1", first)
    assert refusal(caller.report, "trial-1", second)[0] == "PERMISSION_DENIED"
    assert refusal(caller.get, "trial-1", second)[0] == "PERMISSION_DENIED"
    assert site.rows("trial-1") == ["1"]
    caller.report("trial-1", first)


def hmac_signed(issuer: Issuer) -> str:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": issuer.keys[0].key_id}, kubernetes_claims(issuer.url))
    )
    secret = issuer.keys[0].public_pem()
    signature = hmac.digest(secret, head + b"." + body, hashlib.sha256)
    return b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


BAD_TOKENS = {
    "expired": (lambda issuer: issuer.token(age_s=4000), "expired"),
    "not yet valid": (lambda issuer: issuer.token(nbf=time.time() + 600), "not valid yet"),
    "wrong issuer": (lambda issuer: issuer.token(iss="https://kubernetes.default.svc"), "of the issuer"),
    "wrong audience": (lambda issuer: issuer.token("https://kubernetes.default.svc"), "names no trial"),
    "wrong namespace": (lambda issuer: issuer.token(namespace="team-b"), "of another namespace than the token"),
    "truncated": (lambda issuer: issuer.token()[:-42], "the signature is not"),
    "without a signature": (lambda issuer: issuer.token().rpartition(".")[0], "not a signed JWT"),
    "unsigned": (lambda issuer: unsigned(kubernetes_claims(issuer.url), kid="key-1"), "not a signed JWT"),
    "HMAC with the public key": (hmac_signed, 'algorithm "HS256" is not accepted'),
    "unknown key": (lambda issuer: signing_key("key-9").sign(kubernetes_claims(issuer.url)), "has no key"),
    "another key": (lambda issuer: SigningKey("key-1").sign(kubernetes_claims(issuer.url)), "the signature is not"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_bad_token_is_refused_and_the_audit_line_alone_says_why(site, issuer, caller, caplog, name):
    make, reason = BAD_TOKENS[name]
    token = make(issuer)
    code, details = refusal(caller.report, "trial-1", token)
    assert code == "UNAUTHENTICATED"
    assert "audit log" in details
    (line,) = audit_lines(caplog)
    assert reason in line
    assert not any(piece in line + details for piece in token.split(".") if piece)
    assert refusal(caller.get, "trial-1", token)[0] == "UNAUTHENTICATED"
    assert site.rows("trial-1") == []
    caller.report("trial-1", issuer.token())
    assert site.rows("trial-1") == ["1"]


def test_a_token_of_a_replaced_key_is_refusal(site, issuer, caller, caplog):
    old = issuer.token()
    caller.report("trial-1", old)
    issuer.keys = [signing_key("key-2")]
    caller.report("trial-1", issuer.token())  # makes it fetch what there is now
    assert refusal(caller.report, "trial-1", old)[0] == "UNAUTHENTICATED"
    assert "has no key" in audit_lines(caplog)[-1]


def test_the_reporter_is_accepted_as_it_is(site, issuer):
    site.write_token(issuer.token())
    with site.reporter("trial-1", verify="always") as reporter:
        receipt = reporter.report({"accuracy": 0.9, "loss": 0.25})
    assert (receipt.delivered, receipt.verified) == (2, True)
    assert sorted(site.rows("trial-1")) == ["0.25", "0.9"]
    with site.reporter("trial-2") as reporter, pytest.raises(RejectedError):
        reporter.report({"accuracy": 0.9})


@pytest.mark.parametrize(
    "make",
    [lambda issuer: issuer.token("https://kubernetes.default.svc"), lambda issuer: issuer.token(namespace="team-b")],
    ids=["audience", "namespace"],
)
def test_a_token_that_is_for_no_trial_is_not_tried_again(site, issuer, make):
    site.write_token(make(issuer))
    with site.reporter("trial-1") as reporter, pytest.raises(RejectedError, match="names no trial") as caught:
        reporter.report({"accuracy": 0.9})

    assert caught.value.attempts == 1
    assert site.rows("trial-1") == []


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/openid/v1/jwks", "application/json"), ("/.well-known/openid-configuration", "application/jwk-set+json")],
)
def test_the_tests_issuer_serves_each_document_as_kubernetes_does(issuer, path, media_type):
    request = HTTPRequest(split_url(issuer.url + path), TIMEOUT_S)
    answer = request.send("GET", headers={"Accept": media_type}, context=client_context("ca", issuer.ca))

    status = json.loads(answer.body)
    assert (answer.status, status["kind"], status["reason"]) == (406, "Status", "NotAcceptable")


def test_no_call_of_a_rightful_trial_fails_while_keys_and_tokens_are_rotated(site, issuer):
    """Eight trials report without a pause, through five signing keys, as Kubernetes rotates them, and fifty tokens."""
    site.write_token(issuer.token())
    first = issuer.token()
    trials = [f"trial-{number}" for number in range(8)]
    audience = [f"katib-trial:team-a/{trial}" for trial in trials]
    tokens = {trial: issuer.token(aud) for trial, aud in zip(trials, audience, strict=True)}
    counts = dict.fromkeys(trials, 0)
    failures: list[str] = []
    stop = threading.Event()

    def report(trial):
        path = site.token_path.with_name(f"token-{trial}")
        try:
            caller = site.caller()
            while not stop.is_set():
                caller.report(trial, tokens[trial])
                counts[trial] += 1
            path.write_text(tokens[trial], encoding="utf-8")
            with site.reporter(trial, token_path=path) as reporter:
                assert reporter.report({"accuracy": 2}).delivered == 1
        except Exception as error:  # noqa: BLE001  a thread's error must not be lost
            failures.append(repr(error))

    threads = [threading.Thread(target=report, args=(trial,)) for trial in trials]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 6):
            issuer.keys.append(signing_key(f"key-{number}", "ES256"))  # published beside the old one, and signing
            for _ in range(10):
                tokens |= {trial: issuer.token(aud) for trial, aud in zip(trials, audience, strict=True)}
                time.sleep(0.02)
            before = dict(counts)
            while not failures and any(counts[trial] < before[trial] + 2 for trial in trials):
                time.sleep(0.02)
            del issuer.keys[0]  # no token of it is in use any more
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    for trial in trials:
        assert sorted(site.rows(trial)) == ["1", "2"]
    caller = site.caller()
    refusal(caller.report, "trial-1", signing_key("key-9").sign(kubernetes_claims(issuer.url)))  # fetches
    assert refusal(caller.report, "trial-1", first)[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("behave", ["away", issuers.hang, issuers.server_error, issuers.reset])
def test_while_the_issuer_is_away_known_keys_go_on_and_unknown_ones_are_told_to_come_again(
    site, issuer, caller, behave, monkeypatch
):
    monkeypatch.setattr(keys, "UNKNOWN_KEY_WAIT_S", 0.5)  # all of which one that hangs takes, three times
    known = issuer.token()
    caller.report("trial-1", known)
    issuer.keys.append(signing_key("key-2"))
    new = issuer.token("katib-trial:team-a/trial-2")
    if behave == "away":
        issuer.stop()
    else:
        issuer.behave = behave
    for _ in range(3):
        assert refusal(caller.report, "trial-2", new)[0] == "UNAVAILABLE"
        caller.report("trial-1", known)
    if behave == "away":
        issuer.start()
    else:
        issuer.behave = issuers.answer
        issuer.released.set()
    site.write_token(new)
    with site.reporter("trial-2") as reporter:
        assert reporter.report({"loss": 0.75}).delivered == 1
    assert site.rows("trial-2") == ["0.75"]


def test_the_server_starts_without_the_issuer_and_a_trial_waits_for_it(open_site, issuer):
    token = issuer.token()
    issuer.stop()
    site = open_site()
    site.write_token(token)
    caller = site.caller()
    assert refusal(caller.report, "trial-1", token)[0] == "UNAVAILABLE"
    delivered = []
    with site.reporter("trial-1") as reporter:
        thread = threading.Thread(target=lambda: delivered.append(reporter.report({"loss": 0.25}).delivered))
        thread.start()
        issuer.start()
        thread.join()
    assert delivered == [1]
    assert site.rows("trial-1") == ["0.25"]


def test_an_audience_of_the_operators_own(open_site, issuer):
    site = open_site(oidc_audience="https://metrics.example.com/{namespace}/{trial}")
    caller = site.caller()
    caller.report("trial-1", issuer.token("https://metrics.example.com/team-a/trial-1"))
    assert refusal(caller.report, "trial-1", issuer.token())[0] == "UNAUTHENTICATED"
    assert site.rows("trial-1") == ["1"]


def test_namespaces_that_may_not_report_are_refusal(open_site, issuer):
    site = open_site(namespaces=("team-a", "vision-*"))
    caller = site.caller()
    caller.report("trial-1", issuer.token())
    caller.report("trial-2", issuer.token("katib-trial:vision-2/trial-2", namespace="vision-2"))
    other = issuer.token("katib-trial:team-b/trial-3", namespace="team-b")
    assert refusal(caller.report, "trial-3", other)[0] == "PERMISSION_DENIED"


def test_the_managers_own_token_is_shown_to_the_issuer(open_site, issuer, tmp_path):
    path = tmp_path / "own-token"
    path.write_text("of-the-manager", encoding="utf-8")
    issuer.required_token = "of-the-manager"  # noqa: S105
    site = open_site(oidc_token=path)
    caller = site.caller()
    caller.report("trial-1", issuer.token())
    assert site.rows("trial-1") == ["1"]
