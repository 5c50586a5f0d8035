"""Kubernetes' tokens, signed by real keys and judged by what a real HTTPS issuer publishes."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import issuers
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from issuers import Issuer, SigningKey, kubernetes_claims, signing_key, unsigned

from katib_callbacks.db_manager.authentication.grant import Grant, IssuerUnavailableError, RefusedError
from katib_callbacks.db_manager.authentication.issuer import keys as limits
from katib_callbacks.db_manager.authentication.issuer.key_set import read_key_set
from katib_callbacks.db_manager.authentication.kubernetes_tokens import (
    LEEWAY_S,
    AudienceTemplate,
    ServiceAccountTokens,
)
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime

pytestmark = pytest.mark.usefixtures("fetches_follow_soon")

GRANT = Grant("system:serviceaccount:team-a:default", frozenset({"trial-1"}), namespace="team-a")


@pytest.fixture
def judge_of():
    with ExitStack() as judges:

        def make(issuer, **options):
            judge = ServiceAccountTokens(issuer.url, ca=issuer.ca, **options)
            judges.callback(judge.close)
            return judge

        yield make


@pytest.fixture
def judge(issuer, judge_of):
    return judge_of(issuer)


def refusal(judge, token, kind=RefusedError):
    with pytest.raises(RefusedError) as caught:
        judge.authenticate(token)
    assert type(caught.value) is kind
    reason = str(caught.value)
    for piece in token.split("."):
        assert len(piece) < 20 or piece not in reason
    assert reason.isascii()
    assert reason.isprintable()
    return reason


def eventually(judge, token, seconds=30):
    """Authenticate, once the issuer can be asked again."""
    end = time.monotonic() + seconds
    while True:
        try:
            return judge.authenticate(token)
        except IssuerUnavailableError:  # noqa: PERF203
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


# -- what is accepted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"])
def test_a_pods_token_is_good_for_the_trial_that_its_audience_names(judge_of, algorithm):
    with Issuer(signing_key(f"key-{algorithm}", algorithm)) as issuer:
        assert judge_of(issuer).authenticate(issuer.token()) == GRANT


def test_an_audience_of_another_service_beside_the_trials_does_not_matter(issuer, judge):
    audience = ["https://kubernetes.default.svc", "katib-trial:team-a/trial-1"]
    assert judge.authenticate(issuer.token(audience)) == GRANT
    assert judge.authenticate(issuer.token(aud="katib-trial:team-a/trial-1")) == GRANT


def test_an_audience_template_of_ones_own(issuer, judge_of):
    judge = judge_of(issuer, audience="https://metrics.example.com/{trial}?in={namespace}")
    assert judge.authenticate(issuer.token("https://metrics.example.com/trial-1?in=team-a")) == GRANT
    assert "names no trial" in refusal(judge, issuer.token())
    assert "another namespace" in refusal(judge, issuer.token("https://metrics.example.com/trial-1?in=team-b"))


def test_a_template_without_a_namespace_still_grants_the_tokens_own(issuer, judge_of):
    grant = judge_of(issuer, audience="trial:{trial}").authenticate(issuer.token("trial:t", namespace="team-b"))
    assert (grant.trial_names, grant.namespace) == ({"t"}, "team-b")


def test_clocks_may_differ_by_seconds(issuer, judge_of):
    token = issuer.token(lifetime_s=600)
    now = datetime.fromtimestamp(jwt.decode(token, options={"verify_signature": False})["iat"], timezone.utc)
    for offset_s, accepted in [(-LEEWAY_S - 3, False), (-LEEWAY_S + 3, True), (600 + LEEWAY_S - 3, True)]:
        judge = judge_of(issuer, _runtime=Runtime(now=lambda offset_s=offset_s: now + timedelta(seconds=offset_s)))
        if accepted:
            assert judge.authenticate(token) == GRANT
        else:
            assert "not valid yet" in refusal(judge, token)


# -- what is refused -----------------------------------------------------------------------------------------------

FAR_AHEAD_S = 4_102_444_800  # the year 2100
KUBERNETES = {"namespace": "team-a", "serviceaccount": {"name": "default"}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"age_s": 3700}, "expired 1"),
        ({"exp": None}, "never expires"),
        ({"exp": "9999999999"}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": 1e300}, "exp is not a time"),
        ({"exp": float("nan")}, "claims cannot be read"),
        ({"exp": float("inf")}, "claims cannot be read"),
        ({"nbf": FAR_AHEAD_S}, "not valid yet"),
        ({"iat": FAR_AHEAD_S}, "not valid yet"),
        ({"nbf": []}, "nbf is not a time"),
        ({"iss": "https://other.example.com"}, 'of the issuer "https://other.example.com"'),
        ({"iss": None}, "of the issuer NoneType"),
        ({"iss": ["https://localhost"]}, "of the issuer list"),
        ({"iss": "https://x\n\x1b[31mforged" + "y" * 500}, "https://x\\n\\x1b[31mforged"),
        ({"audience": "katib-trial:team-b/trial-1"}, 'of another namespace than the token, "team-a"'),
        ({"audience": "katib-trial:team-a"}, "names no trial"),
        ({"audience": "katib-trial:team-a/"}, "names no trial"),
        ({"audience": "katib-trial:team-a/a/b"}, "names no trial"),
        ({"audience": "katib-trial:team-a/*"}, "names no trial"),
        ({"audience": "katib-trial:team-a/Trial"}, "names no trial"),
        ({"audience": "katib-trial:team-a/trial-1 "}, "names no trial"),
        ({"audience": "katib-trial:team-a/trial-1\n"}, "names no trial"),
        ({"audience": "katib-trial:team-a/" + "x" * 300}, "names no trial"),
        ({"audience": "xkatib-trial:team-a/trial-1"}, "names no trial"),
        ({"audience": "https://kubernetes.default.svc"}, "names no trial"),
        ({"audience": []}, "names no trial"),
        ({"audience": ["katib-trial:team-a/a", "katib-trial:team-a/b"]}, "several trials"),
        ({"aud": None}, "has no audience"),
        ({"aud": {"katib-trial:team-a/trial-1": 1}}, "has no audience"),
        ({"aud": ["katib-trial:team-a/trial-1", 7]}, "has no audience"),
        ({"namespace": "team-b"}, 'of another namespace than the token, "team-b"'),
        ({"kubernetes.io": None}, "names no namespace"),
        ({"kubernetes.io": "team-a"}, "names no namespace"),
        ({"kubernetes.io": {"namespace": None}}, "names no namespace"),
        ({"kubernetes.io": {"namespace": ["team-a"]}}, "names no namespace"),
        ({"kubernetes.io": {"namespace": "team-a/trial-1"}}, "names no namespace"),
        ({"sub": None}, "not a service account of the namespace team-a"),
        ({"sub": "system:serviceaccount:team-b:default"}, "not a service account of the namespace team-a"),
        ({"sub": "system:serviceaccount:team-a:"}, "not a service account of the namespace team-a"),
        ({"sub": "system:serviceaccount:team-a:x:y"}, "not a service account of the namespace team-a"),
        ({"sub": "system:node:team-a"}, "not a service account of the namespace team-a"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_signed_token_is_refused_for_a_claim(issuer, judge, changes, reason):
    audience = changes.pop("audience", "katib-trial:team-a/trial-1") if "audience" in changes else None
    token = issuer.token(**changes) if audience is None else issuer.token(audience, **changes)
    assert reason in refusal(judge, token)
    assert judge.authenticate(issuer.token()) == GRANT


def test_a_token_of_another_cluster_with_the_same_key_id_is_refused(issuer, judge):
    with Issuer(SigningKey("key-1")) as other:
        forged = other.keys[0].sign(kubernetes_claims(issuer.url))
    assert 'signature is not of the issuer\'s key "key-1"' in refusal(judge, forged)


def test_a_token_that_says_the_key_is_in_its_own_header_is_refused(issuer, judge):
    own = signing_key("own")
    token = own.sign(kubernetes_claims(issuer.url), kid="key-1", jwk=own.public_jwk(), jku=f"{issuer.url}/mine")
    assert "signature is not" in refusal(judge, token)
    assert all(path != "/mine" for path, _ in issuer.requests)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"kid": None}, "names no key"),
        ({"kid": ""}, "names no key"),
        ({"kid": "key-2"}, 'the issuer has no key "key-2"'),
        ({"kid": "\x1b]0;pwned\x07" + "k" * 300}, "the issuer has no key"),
        ({"crit": ["exp"]}, "the token"),
        ({"crit": ["b64"], "b64": True}, "extension"),
    ],
    ids=ascii,
)
def test_a_token_is_refused_for_its_header(issuer, judge, header, reason):
    claims = json.dumps(kubernetes_claims(issuer.url)).encode()
    fields = json.dumps(
        {key: value for key, value in ({"alg": "RS256", "kid": "key-1"} | header).items() if value is not None}
    )
    head, body = (jwt.utils.base64url_encode(part).decode() for part in (fields.encode(), claims))
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
        f"{head}.{body}".encode(), issuer.keys[0].private_key
    )
    assert reason in refusal(judge, f"{head}.{body}.{jwt.utils.base64url_encode(signature).decode()}")


def test_an_unsigned_token_is_refused(issuer, judge):
    claims = kubernetes_claims(issuer.url)
    good = issuer.token()
    for algorithm in ("none", "None", "NONE", "nOnE"):
        assert "not a signed JWT" in refusal(judge, unsigned(claims, alg=algorithm, kid="key-1"))
        assert "is not accepted" in refusal(judge, unsigned(claims, alg=algorithm, kid="key-1") + "AAAA")
    assert "not a signed JWT" in refusal(judge, good.rpartition(".")[0])
    assert "not a signed JWT" in refusal(judge, good.rpartition(".")[0] + ".")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(issuer, judge, algorithm):
    public = issuer.keys[0].private_key.public_key()
    formats = [
        (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ]
    hashing = jwt.algorithms.HMACAlgorithm(getattr(jwt.algorithms.HMACAlgorithm, algorithm.replace("HS", "SHA")))
    for secret in [public.public_bytes(*kind) for kind in formats] + [
        json.dumps(issuer.document("/openid/v1/jwks")).encode()
    ]:
        head = jwt.utils.base64url_encode(json.dumps({"alg": algorithm, "kid": "key-1"}).encode())
        body = jwt.utils.base64url_encode(json.dumps(kubernetes_claims(issuer.url)).encode())
        # By hand: PyJWT refuses to sign with what looks like a public key.
        signature = jwt.utils.base64url_encode(hashing.sign(head + b"." + body, secret))
        token = b".".join([head, body, signature]).decode()
        assert f'algorithm "{algorithm}" is not accepted' in refusal(judge, token)


def test_a_key_verifies_its_own_algorithms_alone(judge_of):
    keys = [signing_key("rsa"), signing_key("curve", "ES256")]
    with Issuer(*keys) as issuer:
        judge = judge_of(issuer)
        claims = kubernetes_claims(issuer.url)
        assert judge.authenticate(keys[0].sign(claims)) == GRANT
        assert '"curve" is not for RS256' in refusal(judge, keys[0].sign(claims, kid="curve"))
        assert '"rsa" is not for ES256' in refusal(judge, keys[1].sign(claims, kid="rsa"))
        assert '"rsa" is not for RS512' in refusal(judge, keys[0].sign(claims, alg="RS512"))  # published for RS256
        assert '"PS256" is not accepted' in refusal(judge, keys[0].sign(claims, alg="PS256"))


def test_a_truncated_or_damaged_token_is_refused(issuer, judge):
    token = issuer.token()
    for length in [*range(0, len(token) - 1, 37), len(token) - 1]:
        refusal(judge, token[:length])
    for place in range(0, len(token), 23):
        letter = "A" if token[place] != "A" else "B"
        refusal(judge, token[:place] + letter + token[place + 1 :])
    for other in (
        "",
        ".",
        "..",
        "...",
        f"{token}.",
        f".{token}",
        f"{token}.{token}",
        f"{token}=",
        f" {token}",
        "ä" * 50,
    ):
        refusal(judge, other)
    assert "not a signed JWT" in refusal(judge, "A" * 20_000)


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"\xff", b"[" * 10_000, b'{"exp": ' + b"9" * 5000 + b"}"])
def test_signed_nonsense_is_refused(issuer, judge, body):
    token = jwt.PyJWS().encode(body, issuer.keys[0].private_key, "RS256", {"kid": "key-1"})
    refusal(judge, token)


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}"))
def test_no_text_is_a_token(shared_judge, text):
    with pytest.raises(RefusedError):
        shared_judge.authenticate(text)


@pytest.fixture(scope="module")
def shared_judge():
    """One for all examples: nothing that they send may change it."""
    with Issuer() as issuer:
        judge = ServiceAccountTokens(issuer.url, ca=issuer.ca)
        yield judge
        judge.close()


# -- keys ----------------------------------------------------------------------------------------------------------


def test_keys_that_must_not_count_are_left_out():
    rsa_key, curve = signing_key("key-1"), signing_key("curve", "ES256")
    private = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.private_key, as_dict=True)
    big = {"kty": "RSA", "kid": "big", "n": "A" * 200_000, "e": "AQAB"}
    entries = [
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
        rsa_key.public_jwk(kid="encrypting", use="enc"),
        rsa_key.public_jwk(kid="wrapping", use=None, key_ops=["wrapKey"]),
        rsa_key.public_jwk(kid=None),
        rsa_key.public_jwk(kid=7),
        rsa_key.public_jwk(kid="hmac", alg="HS256"),
        rsa_key.public_jwk(kid="odd", alg=["RS256"]),
        rsa_key.public_jwk(kid="even", e="AA"),
        rsa_key.public_jwk(kid="no modulus", n=None),
        rsa_key.public_jwk(kid="numeric", n=12345),
        curve.public_jwk(kid="off the curve", x=curve.public_jwk()["y"]),
        curve.public_jwk(kid="another curve", crv="secp256k1"),
        curve.public_jwk(kid="wrong algorithm", alg="RS256"),
        signing_key("weak", bits=1024).public_jwk(),
        big,
        "nothing",
        None,
    ]
    good = [
        rsa_key.public_jwk(),
        {**private, "kid": "private", "key_ops": ["verify"]},
        curve.public_jwk(alg=None, use=None),
        signing_key("other").public_jwk(kid="key-1"),  # too late: the id is taken
    ]
    keys = read_key_set({"keys": [*entries, *good]})
    assert set(keys) == {"key-1", "private", "curve"}
    assert keys["key-1"].public_key.public_numbers() == rsa_key.private_key.public_key().public_numbers()
    assert isinstance(keys["private"].public_key, rsa.RSAPublicKey)
    assert keys["key-1"].algorithms == {"RS256"}
    assert keys["private"].algorithms == {"RS256", "RS384", "RS512"}
    assert keys["curve"].algorithms == {"ES256"}


def test_a_new_key_counts_at_once_and_a_replaced_one_no_longer(issuer, judge):
    old = issuer.token()
    assert judge.authenticate(old) == GRANT
    new = signing_key("key-2")
    issuer.keys = [issuer.keys[0], new]  # Kubernetes publishes both for a while
    assert judge.authenticate(issuer.token()) == GRANT
    assert judge.authenticate(old) == GRANT
    issuer.keys = [new]
    refusal(judge, signing_key("key-3").sign(kubernetes_claims(issuer.url)))  # makes it look
    assert 'the issuer has no key "key-1"' in refusal(judge, old)


def test_a_replaced_key_is_forgotten_without_anybody_asking(issuer, judge_of):
    judge = judge_of(issuer, _refresh_interval_s=0.05)
    old = issuer.token()
    assert judge.authenticate(old) == GRANT
    issuer.keys = [signing_key("key-2")]
    asked = len(issuer.requests)
    while len(issuer.requests) < asked + 5:  # two documents each
        time.sleep(0.02)
    assert 'the issuer has no key "key-1"' in refusal(judge, old)


def test_what_was_replaced_is_refused_within_a_minute():
    assert limits.REFRESH_INTERVAL_S + limits.FETCH_TIMEOUT_S < 60
    assert LEEWAY_S < 60


def test_calls_that_wait_for_a_new_key_share_one_fetch(issuer, judge):
    judge.authenticate(issuer.token())
    issuer.requests.clear()
    issuer.keys.append(signing_key("key-2"))
    token = issuer.token()
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(judge.authenticate, [token] * 32)) == [GRANT] * 32
    assert 2 <= len(issuer.requests) <= 4  # some may have come when one was under way


def test_invented_key_ids_cost_the_issuer_little_and_keep_nobody_out(issuer, judge_of, monkeypatch):
    monkeypatch.undo()  # the interval is what it is about
    judge = judge_of(issuer)
    judge.authenticate(issuer.token())
    issuer.requests.clear()
    claims = kubernetes_claims(issuer.url)
    began_s = time.monotonic()
    stop = threading.Event()

    def invent(thread):
        kinds = set()
        number = 0
        while not stop.is_set():
            number += 1
            try:
                judge.authenticate(signing_key("x").sign(claims, kid=f"invented-{thread}-{number}"))
            except RefusedError as error:
                kinds.add(type(error))
        return kinds

    token = issuer.token()
    with ThreadPoolExecutor(8) as pool:
        try:
            inventors = [pool.submit(invent, thread) for thread in range(8)]
            for _ in range(300):
                assert judge.authenticate(token) == GRANT
            issuer.keys.append(signing_key("key-2"))
            assert eventually(judge, issuer.token()) == GRANT
        finally:
            stop.set()
        assert set().union(*(inventor.result() for inventor in inventors)) <= {RefusedError, IssuerUnavailableError}
    fetches = len(issuer.requests) / 2
    assert fetches <= (time.monotonic() - began_s) / limits.MIN_REFRESH_INTERVAL_S + 2


def test_only_so_many_calls_wait_for_keys(issuer, judge, monkeypatch):
    judge.authenticate(issuer.token())
    monkeypatch.setattr(limits, "UNKNOWN_KEY_WAIT_S", 60.0)
    issuer.behave = issuers.hang
    token = signing_key("x").sign(kubernetes_claims(issuer.url))
    with ThreadPoolExecutor(limits.MAX_WAITING_CALLS) as pool:
        waiting = [pool.submit(judge.authenticate, token) for _ in range(limits.MAX_WAITING_CALLS)]
        while judge._keys._waiting < limits.MAX_WAITING_CALLS:
            time.sleep(0.01)
        assert "too many calls wait" in refusal(judge, token, IssuerUnavailableError)
        judge.close()  # ends them
    assert all("the server stops" in str(call.exception()) for call in waiting)


# -- the issuer ----------------------------------------------------------------------------------------------------

BAD_BEHAVIOURS = [
    issuers.hang,
    issuers.drip,
    issuers.drip_body,
    issuers.reset,
    issuers.server_error,
    issuers.huge,
    issuers.endless,
    issuers.cut_short,
    issuers.redirect,
    issuers.no_json,
    issuers.no_object,
    issuers.deep,
]


@pytest.mark.parametrize("behave", BAD_BEHAVIOURS, ids=lambda behave: behave.__name__)
def test_known_keys_go_on_while_the_issuer_misbehaves_and_unknown_ones_are_put_off(issuer, judge, behave, monkeypatch):
    known = issuer.token()
    assert judge.authenticate(known) == GRANT
    monkeypatch.setattr(limits, "FETCH_TIMEOUT_S", 0.5)
    issuer.behave = behave
    issuer.keys.append(signing_key("key-2"))
    new = issuer.token()
    assert "cannot be asked" in refusal(judge, new, IssuerUnavailableError)
    assert judge.authenticate(known) == GRANT
    monkeypatch.setattr(limits, "FETCH_TIMEOUT_S", 10.0)
    issuer.behave = issuers.answer
    assert eventually(judge, new) == GRANT


def test_known_keys_go_on_while_the_issuer_is_away(issuer, judge):
    known = issuer.token()
    assert judge.authenticate(known) == GRANT
    issuer.keys.append(signing_key("key-2"))
    new = issuer.token()
    issuer.stop()
    reason = refusal(judge, new, IssuerUnavailableError)
    assert "localhost: Connection refused" in reason
    assert judge.authenticate(known) == GRANT
    issuer.start()
    assert eventually(judge, new) == GRANT


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/openid/v1/jwks"])
@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://localhost", "keys": []},
        {"jwks_uri": "http://localhost/keys", "keys": "none"},
        {"jwks_uri": None, "keys": [{"kty": "oct", "kid": "key-1", "k": "AAAA"}]},
        {"jwks_uri": "https://user:password@localhost/", "keys": [{}] * 1000},
        {"jwks_uri": "https://localhost:99999/", "keys": [None]},
    ],
    ids=["wrong", "http", "missing", "odd", "none"],
)
def test_documents_that_cannot_be_right_change_nothing(issuer, judge, path, changes):
    assert judge.authenticate(issuer.token()) == GRANT
    issuer.changes[path] = changes
    refusal(judge, signing_key("x").sign(kubernetes_claims(issuer.url)), IssuerUnavailableError)
    assert judge.authenticate(issuer.token()) == GRANT


def test_an_issuer_that_is_away_at_the_start_is_waited_for(judge_of):
    with Issuer() as issuer:
        token = issuer.token()
        issuer.stop()
        judge = judge_of(issuer)
        assert "cannot be asked" in refusal(judge, token, IssuerUnavailableError)
        issuer.start()
        assert eventually(judge, token) == GRANT


def test_an_issuer_whose_certificate_is_of_another_authority_is_not_believed(issuer, judge_of):
    with Issuer() as other:
        judge = ServiceAccountTokens(issuer.url, ca=other.ca)
        try:
            assert "certificate is not accepted" in refusal(judge, issuer.token(), IssuerUnavailableError)
        finally:
            judge.close()
    assert issuer.requests == []


def test_an_issuer_by_a_name_that_is_not_in_its_certificate_is_not_believed(issuer):
    judge = ServiceAccountTokens(issuer.url.replace("localhost", "127.0.0.1"), ca=issuer.ca)
    try:
        assert "certificate is not accepted" in refusal(judge, issuer.token(), IssuerUnavailableError)
    finally:
        judge.close()


def test_the_api_server_is_shown_the_managers_own_token_as_it_is_now(issuer, judge_of, tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n", encoding="utf-8")
    issuer.required_token = "first"  # noqa: S105
    judge = judge_of(issuer, token_path=path)
    assert judge.authenticate(issuer.token()) == GRANT
    assert {authorization for _, authorization in issuer.requests} == {"Bearer first"}

    path.write_text("second", encoding="utf-8")  # the kubelet replaces it before it expires
    issuer.required_token = "second"  # noqa: S105
    issuer.keys.append(signing_key("key-2"))
    assert judge.authenticate(issuer.token()) == GRANT

    path.unlink()
    issuer.keys.append(signing_key("key-3"))
    reason = refusal(judge, issuer.token(), IssuerUnavailableError)
    assert "No such file" in reason
    assert "second" not in reason


def test_the_managers_token_does_not_go_to_another_host_of_a_public_authority(issuer, tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("secret", encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(issuer.ca))  # what OpenSSL takes for the system's authorities
    with Issuer() as elsewhere:
        elsewhere._certificate.write_bytes(issuer._certificate.read_bytes())
        elsewhere.stop()
        elsewhere.start()
        issuer.changes["/.well-known/openid-configuration"] = {"jwks_uri": f"{elsewhere.url}/openid/v1/jwks"}
        judge = ServiceAccountTokens(issuer.url, token_path=path)
        try:
            assert judge.authenticate(issuer.token()) == GRANT
        finally:
            judge.close()
        assert [authorization for _, authorization in issuer.requests] == ["Bearer secret"]
        assert [authorization for _, authorization in elsewhere.requests] == [None]
        # With the cluster's CA it does: the API server's keys are often at another of its names.
        judge = ServiceAccountTokens(issuer.url, ca=issuer.ca, token_path=path)
        try:
            assert judge.authenticate(issuer.token()) == GRANT
        finally:
            judge.close()
        assert elsewhere.requests[-1][1] == "Bearer secret"


def test_a_clusters_authority_without_key_identifiers_will_do(judge_of):
    with Issuer(has_identifiers=False) as issuer:
        assert judge_of(issuer).authenticate(issuer.token()) == GRANT


def test_a_proxy_of_the_environment_is_not_asked(issuer, judge_of, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert judge_of(issuer).authenticate(issuer.token()) == GRANT


@pytest.mark.parametrize("behave", [issuers.hang, issuers.drip, issuers.drip_body])
def test_close_does_not_wait_for_the_issuer(issuer, behave):
    issuer.behave = behave
    judge = ServiceAccountTokens(issuer.url, ca=issuer.ca)
    while not issuer.requests:
        time.sleep(0.01)
    waiting = threading.Thread(target=lambda: refusal(judge, issuer.token(), IssuerUnavailableError))
    waiting.start()
    judge.close()
    waiting.join()
    assert not judge._keys._thread.is_alive()
    judge.close()


def test_an_outage_is_told_once_and_so_is_its_end(issuer, judge_of, caplog):
    judge = judge_of(issuer, _refresh_interval_s=0.05)
    judge.authenticate(issuer.token())
    issuer.behave = issuers.server_error
    new = signing_key("key-2").sign(kubernetes_claims(issuer.url))
    for _ in range(3):
        refusal(judge, new, IssuerUnavailableError)
    issuer.behave = issuers.answer
    issuer.keys.append(signing_key("key-2"))
    eventually(judge, new)
    end = time.monotonic() + 20
    while "again" not in caplog.text and time.monotonic() < end:
        time.sleep(0.02)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("katib_callbacks")]
    assert [line.partition(";")[0] for line in lines] == [
        "the issuer's keys cannot be fetched",
        "the issuer's keys can be fetched again",
    ]
    assert "answered 500" in lines[0]


# -- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "localhost",
        "",
        "https://",
        "https://user@localhost",
        "https://localhost?x=1",
        "https://localhost?",
        "https://localhost#x",
        "https://localhost:0",
        "https://localhost:x",
        "https://[::1",
        "https://local host",
        "https://localhost\n",
        "file:///etc/passwd",
    ],
)
def test_an_issuer_that_cannot_be_right_is_refused(url):
    with pytest.raises(ConfigurationError, match="https:// URL"):
        ServiceAccountTokens(url)


def test_files_that_cannot_be_used_are_named_at_the_start(issuer, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    for options in (
        {"ca": tmp_path / "missing.pem"},
        {"ca": empty},
        {"ca": issuer.ca, "token_path": tmp_path / "missing"},
        {"ca": issuer.ca, "token_path": empty},
    ):
        with pytest.raises(ConfigurationError, match=str(tmp_path)):
            ServiceAccountTokens(issuer.url, **options)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "katib",
        "{namespace}",
        "{trial}{trial}",
        "{trial}/{namespace}/{namespace}",
        "{trial}{x}",
        "{trial",
        "{{trial}}",
        "{trial}\n",
    ],
)
def test_a_template_that_names_no_trial_or_two_is_refused(template):
    with pytest.raises(ConfigurationError, match="audience"):
        AudienceTemplate(template)


LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
TEMPLATES = st.sampled_from(
    [
        "katib-trial:{namespace}/{trial}",
        "{trial}",
        "{namespace}{trial}",
        "{trial}.{namespace}",
        "a-{namespace}-{trial}-z",
    ]
)


@given(TEMPLATES, LABELS, st.lists(LABELS, min_size=1, max_size=3).map(".".join))
def test_what_a_template_writes_is_what_it_reads(template, namespace, trial):
    audience = template.format(namespace=namespace, trial=trial)
    assert AudienceTemplate(template).trial(audience, namespace) == trial


@given(TEMPLATES, LABELS, st.text(max_size=60) | LABELS)
def test_whatever_is_read_would_be_written_so(template, namespace, audience):
    trial = AudienceTemplate(template).trial(audience, namespace)
    if trial is not None:
        assert template.format(namespace=namespace, trial=trial) == audience
