"""Kubernetes' projected service account tokens: signed by the cluster, for one trial by their audience.

The API server signs whatever audience a pod's template asks for. So the audience says which trial is meant, and the
namespace that the API server wrote says where the pod really lives: both must fit. Only the issuer's public keys judge
a token; one of a deleted pod holds until it expires. Source: kubernetes/kubernetes, pkg/serviceaccount/*.go.
"""

import json
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any, NoReturn

from katib_callbacks.db_manager.authentication.grant import NAMESPACE, Grant, RefusedError
from katib_callbacks.errors import ConfigurationError, MissingDependencyError
from katib_callbacks.settings import DEFAULT_RUNTIME, Runtime

try:
    import cryptography  # noqa: F401  PyJWT can be installed without it, and then knows no public keys
    import jwt
except ImportError as missing:
    raise MissingDependencyError(
        'tokens of Kubernetes are verified by PyJWT and cryptography: pip install "katib-callbacks[db-manager,auth]"'
    ) from missing

from katib_callbacks.db_manager.authentication.issuer.key_set import ALGORITHMS
from katib_callbacks.db_manager.authentication.issuer.keys import REFRESH_INTERVAL_S, IssuerKeys

DEFAULT_AUDIENCE = "katib-trial:{namespace}/{trial}"

LEEWAY_S = 10.0
"""How far the issuer's clock may be from this one. Kubernetes allows a minute; here a token's end is obeyed within
one."""

MAX_TOKEN_BYTES = 16 * 1024
"""gRPC takes no more metadata than this by default; Kubernetes' tokens have about 1 kB."""

_SUBJECT = "system:serviceaccount:"
_NAME = re.compile(rf"{NAMESPACE}(?:\.{NAMESPACE})*", re.ASCII)  # RFC 1123 subdomain: trials, and service accounts
_MAX_NAME = 253
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_SHOWN_CHARACTERS = 64

_JWS = jwt.PyJWS(algorithms=sorted(ALGORITHMS))


class AudienceTemplate:
    """The trials that audiences name: text with ``{trial}`` once and ``{namespace}`` at most once.

    The namespace is put in before an audience is read, so that there is only one reading of the trial's name.
    """

    def __init__(self, template: str) -> None:
        pieces = re.split(r"\{(namespace|trial)\}", template)
        if pieces[1::2].count("trial") != 1 or pieces[1::2].count("namespace") > 1:
            raise ConfigurationError(
                f"the audience must have {{trial}} once and {{namespace}} at most once, not {template!r}"
            )
        if any(set(piece) & set("{}") for piece in pieces[::2]) or not template.isprintable():
            raise ConfigurationError(f"the audience may have {{namespace}} and {{trial}} in braces, not {template!r}")
        self._head, self._tail = template.split("{trial}")

    def trial(self, audience: str, namespace: str) -> str | None:
        """Return the trial that an audience names for a namespace; None if it names none."""
        head, tail = (part.replace("{namespace}", namespace) for part in (self._head, self._tail))
        name = audience[len(head) : len(audience) - len(tail)]
        is_whole = audience == head + name + tail
        return name if is_whole and len(name) <= _MAX_NAME and _NAME.fullmatch(name) else None

    def may_name_a_trial(self, audience: str) -> bool:
        """Return whether an audience would fit in some namespace; for telling why one was refused."""
        patterns = {"{namespace}": NAMESPACE, "{trial}": _NAME.pattern}
        pieces = re.split(r"(\{namespace\}|\{trial\})", f"{self._head}{{trial}}{self._tail}")
        pattern = "".join(patterns.get(piece, re.escape(piece)) for piece in pieces)
        return len(audience) <= MAX_TOKEN_BYTES and re.fullmatch(pattern, audience, re.ASCII) is not None


class ServiceAccountTokens:
    """Judges the tokens of one issuer. Thread-safe.

    A thread of its own fetches the issuer's keys from the start on; until they were had once, nobody can be judged. The
    arguments are those of ``TrialListener``. The issuer is told by ``kubectl get --raw
    /.well-known/openid-configuration``; Kubernetes' API server shows its keys only to service accounts.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str = DEFAULT_AUDIENCE,
        ca: str | PathLike[str] | None = None,
        token_path: str | PathLike[str] | None = None,
        _runtime: Runtime = DEFAULT_RUNTIME,
        _refresh_interval_s: float = REFRESH_INTERVAL_S,
    ) -> None:
        self._issuer = issuer
        self._audience = AudienceTemplate(audience)
        self._runtime = _runtime
        self._keys = IssuerKeys(issuer, ca=ca, token_path=token_path, refresh_interval_s=_refresh_interval_s)

    def authenticate(self, token: str) -> Grant:
        """Return what a token grants: one trial, in its pod's namespace. Waits up to 3 s, for an unknown key only."""
        claims = self._verified(token)
        if claims.get("iss") != self._issuer:
            raise RefusedError(f"the token is of the issuer {_shown(claims.get('iss'))}")
        self._check_times(claims)
        namespace = _namespace(claims)
        try:
            trial_name = self._trial(claims, namespace)
        except ValueError as error:
            raise RefusedError(str(error), is_for_no_trial=True) from error
        return Grant(caller=claims["sub"], trial_names=frozenset({trial_name}), namespace=namespace)

    def close(self) -> None:
        """End the thread that fetches keys. May be called twice."""
        self._keys.close()

    def _verified(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token that the issuer has signed."""
        algorithm, key_id = _header(token)
        key = self._keys.find(key_id)
        if key is None:
            raise RefusedError(f"the issuer has no key {_shown(key_id)}")
        if algorithm not in key.algorithms:
            raise RefusedError(f"the issuer's key {_shown(key_id)} is not for {algorithm}")
        try:
            payload = _JWS.decode_complete(token, key.public_key, algorithms=[algorithm])["payload"]
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise RefusedError(f"the signature is not of the issuer's key {_shown(key_id)}") from error
        try:
            claims = json.loads(payload, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise RefusedError("the token's claims cannot be read") from error
        if not isinstance(claims, dict):
            raise RefusedError("the token has no claims")
        return claims

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now_s = self._runtime.now().timestamp()
        expires_s, not_before_s, issued_s = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
        if expires_s is None:
            raise RefusedError("the token never expires")
        if now_s >= expires_s + LEEWAY_S:
            raise RefusedError(f"the token expired {now_s - expires_s:.0f} s ago")
        for seconds in (not_before_s, issued_s):
            if seconds is not None and now_s < seconds - LEEWAY_S:
                raise RefusedError(f"the token is not valid yet, for {seconds - now_s:.0f} s")

    def _trial(self, claims: Mapping[str, Any], namespace: str) -> str:
        audiences = claims.get("aud")
        if isinstance(audiences, str):
            audiences = [audiences]
        if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
            raise ValueError("the token has no audience")
        trials = [trial for audience in audiences if (trial := self._audience.trial(audience, namespace)) is not None]
        if len(trials) > 1:
            raise ValueError("the token's audience names several trials")  # a pod's trial is one
        if trials:
            return trials[0]
        for audience in audiences:
            if self._audience.may_name_a_trial(audience):
                raise ValueError(
                    f"the audience {_shown(audience)} is of another namespace than the token, {_shown(namespace)}"
                )
        raise ValueError(f"the audience {_shown(audiences[0] if audiences else None)} names no trial")


def _header(token: str) -> tuple[str, str]:
    """Return algorithm and key id, which nobody has signed yet."""
    if len(token) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(token):
        raise RefusedError("the token is not a signed JWT")
    try:
        header = _JWS.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise RefusedError("the token cannot be read") from error
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise RefusedError(f"the token's algorithm {_shown(algorithm)} is not accepted")
    if "crit" in header or "b64" in header:
        raise RefusedError("the token's header asks for an extension")
    if not isinstance(key_id, str) or not key_id:
        raise RefusedError("the token names no key")  # Kubernetes' always do
    return algorithm, key_id


def _namespace(claims: Mapping[str, Any]) -> str:
    """Return where the token's pod lives: what the API server wrote, twice."""
    kubernetes = claims.get("kubernetes.io")
    namespace = kubernetes.get("namespace") if isinstance(kubernetes, dict) else None
    if not isinstance(namespace, str) or not re.fullmatch(NAMESPACE, namespace, re.ASCII):
        raise RefusedError("the token names no namespace")
    subject = claims.get("sub")
    head = f"{_SUBJECT}{namespace}:"
    name = subject[len(head) :] if isinstance(subject, str) and subject.startswith(head) else ""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise RefusedError(f"the subject {_shown(subject)} is not a service account of the namespace {namespace}")
    return namespace


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**53) < value < 2**53:
        raise RefusedError(f"the token's claim {name} is not a time")
    return float(value)


def _shown(value: object) -> str:
    """Return a claim or a header of anybody's for a line of a log: short, printable ASCII."""
    if not isinstance(value, str):
        return type(value).__name__
    text = ascii(value.replace('"', "'"))[1:-1]
    return f'"{text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."}"'


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which JSON has not and Python reads: no time is before or after NaN."""
    raise ValueError(f"{name} is not JSON")
