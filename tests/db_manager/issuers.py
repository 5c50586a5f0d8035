"""A token issuer of one's own: an HTTPS server with Kubernetes' two documents, which rotates keys and fails at will."""

import base64
import functools
import http.server
import json
import socket
import ssl
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.append(str(Path(__file__).parents[1]))
from certificates import Authority, kubeadm_certificates

_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def _base64url(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()


class SigningKey:
    """A key pair with an id, as ``kube-apiserver --service-account-signing-key-file`` has it."""

    def __init__(self, key_id: str, algorithm: str = "RS256", *, bits: int = 2048) -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.private_key = (
            ec.generate_private_key(_CURVES[algorithm]())
            if algorithm in _CURVES
            else rsa.generate_private_key(public_exponent=65_537, key_size=bits)
        )

    def public_jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public key as Kubernetes publishes it."""
        public = self.private_key.public_key()
        numbers = public.public_numbers()
        if isinstance(public, rsa.RSAPublicKey):
            jwk = {"kty": "RSA", "n": _base64url(numbers.n, -(-public.key_size // 8)), "e": _base64url(numbers.e, 3)}
        else:
            size = -(-public.curve.key_size // 8)
            names = {"kty": "EC", "crv": f"P-{public.curve.key_size}"}
            jwk = {**names, "x": _base64url(numbers.x, size), "y": _base64url(numbers.y, size)}
        jwk |= {"use": "sig", "kid": self.key_id, "alg": self.algorithm} | changes
        return {name: value for name, value in jwk.items() if value is not None}

    def public_pem(self) -> bytes:
        return self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Return a token. Header fields that are None are left out."""
        fields = {"kid": self.key_id, "typ": None} | header
        algorithm = fields.pop("alg", self.algorithm)
        if fields["kid"] is None:
            del fields["kid"]
        # Not jwt.encode, which refuses to write some of the claims that must be refused.
        return jwt.PyJWS().encode(json.dumps(claims).encode(), self.private_key, algorithm, fields)


@functools.cache
def signing_key(key_id: str, algorithm: str = "RS256", bits: int = 2048) -> SigningKey:
    """Return a key pair, the same for all tests that ask for it: RSA takes its time to find primes."""
    return SigningKey(key_id, algorithm, bits=bits)


def kubernetes_claims(
    issuer: str,
    audience: str | list[str] = "katib-trial:team-a/trial-1",
    *,
    namespace: str = "team-a",
    service_account: str = "default",
    lifetime_s: float = 3600,
    age_s: float = 0,
    **changes: Any,
) -> dict[str, Any]:
    """Return what the API server writes into a projected token (kubernetes/pkg/serviceaccount/claims.go, v1.34).

    Claims among ``changes`` that are None are left out.
    """
    now_s = int(time.time() - age_s)
    claims = {
        "aud": [audience] if isinstance(audience, str) else audience,
        "exp": now_s + int(lifetime_s),
        "iat": now_s,
        "iss": issuer,
        "jti": str(uuid.uuid4()),
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node-1", "uid": str(uuid.uuid4())},
            "pod": {"name": "trial-1-x7k2p", "uid": str(uuid.uuid4())},
            "serviceaccount": {"name": service_account, "uid": str(uuid.uuid4())},
        },
        "nbf": now_s,
        "sub": f"system:serviceaccount:{namespace}:{service_account}",
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


class Issuer:
    """An HTTPS server on 127.0.0.1 and a free port, known by the name localhost.

    Args:
        keys: The pairs that it publishes; tokens are signed by the last one.
        has_identifiers: Whether its certificates are kubeadm's, or older ones without what RFC 5280 demands.

    Attributes:
        behave: What it does in place of an answer: it is given the request's handler.
        required_token: What it asks for as a bearer token; None if it answers anybody.
        changes: What is different in the documents, by their paths.
    """

    def __init__(self, *keys: SigningKey, has_identifiers: bool = True) -> None:
        self.keys = list(keys) or [signing_key("key-1")]
        self.behave: Callable[[_Handler], None] = answer
        self.required_token: str | None = None
        self.changes: dict[str, Any] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="katib-issuer-")
        folder = Path(self._folder.name)
        if has_identifiers:
            ca, pair = kubeadm_certificates("localhost")
        else:
            authority = Authority("the cluster's CA", has_identifiers=False)
            ca, pair = authority.certificate, authority.issue("localhost")
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(ca)
        self._certificate = folder / "issuer.pem"
        self._certificate.write_bytes(pair.certificate + pair.key)
        self._port = 0
        self._server: _Server | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}"

    def start(self) -> None:
        """Listen, always on the same port."""
        self.released = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        self._server = _Server(("127.0.0.1", self._port), self, context)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="issuer")
        self._thread.start()

    def stop(self) -> None:
        """Be away: connections are refused. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            self.released.set()
            server.shutdown()
            self._thread.join()
            server.server_close()

    def token(self, audience: str | list[str] = "katib-trial:team-a/trial-1", **claims: Any) -> str:
        """Return a token that a pod of this cluster would get."""
        return self.keys[-1].sign(kubernetes_claims(self.url, audience, **claims))

    def document(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            document = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/openid/v1/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self.keys}),
            }
        elif path == "/openid/v1/jwks":
            document = {"keys": [key.public_jwk() for key in self.keys]}
        else:
            return None
        return document | self.changes.get(path, {})


class _Server(http.server.ThreadingHTTPServer):
    block_on_close = True
    daemon_threads = False

    def __init__(self, address: tuple[str, int], issuer: Issuer, context: ssl.SSLContext) -> None:
        self.issuer = issuer
        self.context = context
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(20)
        with self.context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: clients that hang up are what the tests are about."""


MEDIA_TYPES = {
    "/.well-known/openid-configuration": "application/json",
    "/openid/v1/jwks": "application/jwk-set+json",
}
"""What Kubernetes serves each document as, and as nothing else (kubernetes/pkg/routes/openidmetadata.go, v1.34)."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        issuer: Issuer = self.server.issuer
        issuer.requests.append((self.path, self.headers.get("Authorization")))
        issuer.behave(self)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reply_in_chunks(self, body: bytes, media_type: str) -> None:
        """Send a document as Go's server does that has not been told its length."""
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Cache-Control", "public, max-age=3600")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), 100):
            chunk = body[start : start + 100]
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def reply_status(self, code: int, reason: str, message: str) -> None:
        """Send an error as the API server does."""
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": message, "reason": reason, "details": {}, "code": code}
        self.reply(code, json.dumps(status).encode(), **{"Content-Type": "application/json"})

    def accepts(self, media_type: str) -> bool:
        """Judge ``Accept`` as go-restful does (route.go, matchesAccept): no wildcard but ``*/*``."""
        asked = (part.partition(";")[0].strip() for part in self.headers.get("Accept", "*/*").split(","))
        return any(part in {"*/*", media_type} for part in asked)

    def log_message(self, *_: object) -> None:
        pass


# -- behaviours ----------------------------------------------------------------------------------------------------


def answer(handler: _Handler) -> None:
    issuer = handler.server.issuer
    document = issuer.document(handler.path)
    authorization = handler.headers.get("Authorization")
    if issuer.required_token is not None and authorization is None:
        message = f'forbidden: User "system:anonymous" cannot get path "{handler.path}"'
        handler.reply_status(403, "Forbidden", message)
    elif issuer.required_token is not None and authorization != f"Bearer {issuer.required_token}":
        handler.reply_status(401, "Unauthorized", "Unauthorized")
    elif document is None:
        handler.reply(404, b"404 page not found\n", **{"Content-Type": "text/plain; charset=utf-8"})
    elif not handler.accepts(MEDIA_TYPES[handler.path]):
        message = "only the following media types are accepted: application/json, application/yaml"
        handler.reply_status(406, "NotAcceptable", message)
    else:
        handler.reply_in_chunks(json.dumps(document).encode(), MEDIA_TYPES[handler.path])


def hang(handler: _Handler) -> None:
    handler.server.issuer.released.wait(60)


def drip(handler: _Handler) -> None:
    """Send a header a byte at a time, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.issuer.released.wait(0.05):
        handler.wfile.write(b"x")


def drip_body(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not handler.server.issuer.released.wait(0.05):
        handler.wfile.write(b" ")


def reset(handler: _Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    socket.socket.close(handler.connection)


def server_error(handler: _Handler) -> None:
    handler.reply(500, b'{"keys": []}')


def huge(handler: _Handler) -> None:
    """Send a right document, and blanks after it; without its length, so that a part of it looks whole."""
    document = json.dumps(handler.server.issuer.document(handler.path)).encode()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + document + b" " * 1_000_000)


def endless(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n{")
    while not handler.server.issuer.released.is_set():
        handler.wfile.write(b" " * 65_536)


def cut_short(handler: _Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"keys": []}')


def redirect(handler: _Handler) -> None:
    handler.reply(302, b"", Location=f"{handler.server.issuer.url}{handler.path}")


def no_json(handler: _Handler) -> None:
    handler.reply(200, b"<html>")


def no_object(handler: _Handler) -> None:
    handler.reply(200, b"[]")


def deep(handler: _Handler) -> None:
    handler.reply(200, b"[" * 100_000)


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """Return a token without a signature, ``alg`` none."""
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none"} | header, claims)
    )
    return f"{head}.{body}."
