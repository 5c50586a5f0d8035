"""Checks of the way to the DB manager: address, name, connection, TLS, token, health, and a row there and back."""

import base64
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

from katib_callbacks import settings
from katib_callbacks.cli.doctor.finding import NOTE, OK, PROBLEM, Checks, Finding, Surroundings
from katib_callbacks.errors import ConfigurationError, KatibCallbacksError
from katib_callbacks.metrics import MetricLog
from katib_callbacks.net.addresses import split_address
from katib_callbacks.net.deadline import Deadline
from katib_callbacks.settings import Runtime
from katib_callbacks.sinks.auto import KATIB

TIMEOUT_S = 5.0
WRITE_S = 30.0

SOON = timedelta(days=30)
"""A certificate that is valid for less may end before a long experiment does."""


def check_address(here: Surroundings) -> Iterator[Finding]:
    """Resolve address and files, look the host up, and connect."""
    from katib_callbacks.sinks.katib.endpoint import resolve_endpoint  # noqa: PLC0415  where one is wanted alone

    if KATIB not in here.where.sinks:
        return
    try:
        endpoint = resolve_endpoint(None, runtime=here.runtime)
    except ConfigurationError as error:
        yield Finding("address", PROBLEM, str(error), "correct the variable or the file")
        return
    host, port = split_address(endpoint.address)
    is_default = here.runtime.variable(settings.DB_MANAGER_ADDRESS) is None
    hint = f"if Katib is elsewhere, set {settings.DB_MANAGER_ADDRESS}" if is_default else ""
    try:
        found = sorted({str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        advice = hint or f"correct {settings.DB_MANAGER_ADDRESS}; a Service is SERVICE.NAMESPACE:PORT"
        yield Finding("address", PROBLEM, f"{endpoint.address} has a host that cannot be found: {error}", advice)
        return
    yield Finding("address", OK, f"{endpoint.address} ({', '.join(found)})", hint)
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as error:
        advice = "see whether the DB manager runs, its Service has this port, and a NetworkPolicy lets this pod through"
        yield Finding("tcp", PROBLEM, f"no connection to {endpoint.address}: {error}", advice)
        return
    yield Finding("tcp", OK, f"{endpoint.address} accepts connections")
    here.endpoint = endpoint


def check_tls(here: Surroundings) -> Iterator[Finding]:
    """Shake hands, or find out that the server wants to where no file is set."""
    if here.endpoint is None:
        return
    host, port = split_address(here.endpoint.address)
    if not here.endpoint.credentials.is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: only whether it answers
        context.set_alpn_protocols(["h2"])
        if handshake(context, host, port) is not None:
            yield Finding("tls", PROBLEM, "the server speaks TLS, and this process does not", f"set {settings.TLS_CA}")
            here.endpoint = None
        return
    from katib_callbacks.sinks.katib.tls_probe import expiry, explain  # noqa: PLC0415  with TLS alone

    tls_cert = here.endpoint.credentials.tls_cert
    ends = None if tls_cert is None else expiry(tls_cert)
    if ends is not None:
        yield _about_end("tls", f"the client certificate {tls_cert} is valid", ends, here.runtime)
    reason = explain(here.endpoint)
    if reason is not None:
        advice = f"correct what {settings.TLS_CA}, {settings.TLS_CERT} and {settings.TLS_KEY} name, or the server's"
        yield Finding("tls", PROBLEM, reason, advice)
        here.endpoint = None
        return
    context = here.endpoint.credentials.ssl_context()
    context.set_alpn_protocols(["h2"])
    yield about_certificate("tls", handshake(context, host, port) or {}, here.runtime)


def check_token(here: Surroundings) -> Iterator[Finding]:
    """Read the token, and what it says of itself."""
    if here.endpoint is None or here.endpoint.credentials.token_path is None:
        return
    path = here.endpoint.credentials.token_path
    yield about_token("token", path, here.endpoint.credentials.read_token(), here.runtime)


def check_health(here: Surroundings) -> Iterator[Finding]:
    """Ask for the server's health."""
    if here.endpoint is None:
        return
    import grpc  # noqa: PLC0415  where something is asked alone

    advice = "look at the log of the DB manager"
    with closing(here.endpoint.open()) as stub:
        try:
            is_serving = stub.is_serving(timeout_s=TIMEOUT_S)
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
            details = error.details() if isinstance(error, grpc.Call) else ""
            is_unknown = code == "UNIMPLEMENTED"
            yield Finding("health", NOTE if is_unknown else PROBLEM, f"no health: {code} {details}".strip(), advice)
            return
    if is_serving:
        yield Finding("health", OK, "the DB manager is serving")
    else:
        yield Finding("health", PROBLEM, "the DB manager says that it is not serving", advice)


def check_writing(here: Surroundings) -> Iterator[Finding]:
    """Report a row under a name of its own, read it back, and delete it."""
    if here.endpoint is None or not here.is_writing:
        return
    from katib_callbacks.sinks.katib.calls import Calls, FailedCallError  # noqa: PLC0415  with --write alone

    name = f"katib-callbacks-doctor-{secrets.token_hex(8)}"
    row = MetricLog("doctor", 1.0, here.runtime.now())
    with closing(Calls(here.endpoint, Deadline(WRITE_S, threading.Event(), here.runtime))) as calls:
        try:
            calls.report(name, [row])
            stored = calls.get(name)
            calls.delete(name)
        except (FailedCallError, KatibCallbacksError) as error:
            advice = "the DB manager's log says why; the listener for trials takes rows of the token's own trial only"
            yield Finding("write", PROBLEM, f"trial {name}: {error}", advice)
            return
    if [each.name for each in stored] == [row.name]:
        yield Finding("write", OK, f"a row of trial {name} was stored, read back and deleted")
    else:
        advice = "see that all replicas of the DB manager use one database"
        yield Finding("write", PROBLEM, f"a row of trial {name} was stored, and not read back", advice)


def about_token(check: str, path: object, token: str, runtime: Runtime) -> Finding:
    """Return what a token says of itself."""
    claims = _claims(token)
    if claims is None:
        return Finding(check, OK, f"{path} holds a token that is no JWT")
    expiry, audience = claims.get("exp"), claims.get("aud")
    detail = f"{path} holds a token for the audience {audience}"
    if isinstance(expiry, int | float) and expiry <= runtime.now().timestamp():
        ended = datetime.fromtimestamp(max(expiry, 0), timezone.utc)
        advice = "project a service account token, which the kubelet renews"
        return Finding(check, PROBLEM, f"{detail}, which has expired on {ended:%Y-%m-%d %H:%M} UTC", advice)
    return Finding(check, OK, detail)


def about_certificate(check: str, certificate: dict[str, Any], runtime: Runtime) -> Finding:
    """Return names and end of a server's certificate, as a handshake has shown it."""
    names = ", ".join(str(name) for _, name in certificate.get("subjectAltName", ()))
    detail = f"the certificate is for {names}"
    if "notAfter" not in certificate:
        return Finding(check, OK, detail)
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), timezone.utc)
    return _about_end(check, detail, ends, runtime)


def _about_end(check: str, detail: str, ends: datetime, runtime: Runtime) -> Finding:
    left, detail = ends - runtime.now(), f"{detail}, until {ends:%Y-%m-%d %H:%M} UTC"
    if left > SOON:
        return Finding(check, OK, detail)
    if left > timedelta():
        return Finding(check, NOTE, f"{detail}: {left.days} days are left", "see that it is renewed before that")
    return Finding(check, PROBLEM, f"{detail}: it has expired", "renew it")


def handshake(context: ssl.SSLContext, host: str, port: int) -> dict[str, Any] | None:
    """Return the server's certificate, empty where it is not verified; None without a handshake."""
    try:
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            return dict(encrypted.getpeercert() or {})
    except OSError:
        return None


def _claims(token: str) -> dict[str, object] | None:
    """Return what a JWT says, unverified; None for what is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return None
    return claims if isinstance(claims, dict) else None


CHECKS: Checks = (
    check_address,
    check_tls,
    check_token,
    check_health,
    check_writing,
)
