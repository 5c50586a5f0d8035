"""Why TLS fails: one handshake with the standard library, which says what gRPC keeps to itself."""

import socket
import ssl
from datetime import datetime, timezone
from pathlib import Path

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.sinks.katib.endpoint import Endpoint

TIMEOUT_S = 2.0

_UTC_TIME, _VERSION = 0x17, 0xA0
_CENTURY_PIVOT = 50  # RFC 5280: two-digit years from 50 belong to the 20th century


def explain(endpoint: Endpoint) -> str | None:
    """Return why no TLS connection comes about, naming the file at fault; None if the files are not to blame."""
    credentials = endpoint.credentials
    host, _, port = endpoint.address.rpartition(":")
    host = host.strip("[]")
    has_shaken_hands = False
    answer: str | None = None
    try:
        context = credentials.ssl_context()
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, int(port)), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            has_shaken_hands = True
            # TLS 1.3 refuses a client's certificate only now; a server that is content begins with its settings.
            answer = None if encrypted.recv(1) else _explain_refusal(credentials.tls_cert, "")
    except ConfigurationError as error:
        answer = str(error)
    except ssl.SSLCertVerificationError as error:
        trust = f"tls_ca {credentials.tls_ca}" if credentials.tls_ca else "the system's authorities"
        answer = f"the server's certificate is not accepted by {trust}: {error.verify_message}"
    except TimeoutError:
        pass  # the network
    except OSError as error:  # ssl.SSLError as well
        reason = (getattr(error, "reason", None) or "").replace("_", " ").lower()
        if "wrong version" in reason:
            answer = "the server does not speak TLS, for which tls_ca, tls_cert or tls_key asks"
        elif has_shaken_hands or "alert" in reason:
            answer = _explain_refusal(credentials.tls_cert, reason)
    return answer


def _explain_refusal(tls_cert: str | None, reason: str) -> str:
    said = f" ({reason})" if reason else ""
    if tls_cert is None:
        return f"the server closes the connection after the handshake{said}: it may want tls_cert, which is not set"
    expiry = _expiry(tls_cert)
    if expiry is not None and expiry <= datetime.now(timezone.utc):
        return f"the server refuses the certificate in tls_cert {tls_cert}{said}: it has expired on {expiry:%Y-%m-%d}"
    return (
        f"the server closes the connection after the handshake{said}: it may not accept the certificate in tls_cert "
        f"{tls_cert}, by its authority or its purpose"
    )


def _expiry(path: str) -> datetime | None:
    """Return a certificate's notAfter, which no public function of the standard library tells."""
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
        end = "-----END CERTIFICATE-----"
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
        return _not_after(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError, IndexError):
        return None


def _not_after(der: bytes) -> datetime:
    """Walk the DER of RFC 5280's Certificate to tbsCertificate.validity.notAfter."""
    _, position, _ = _element(der, 0)  # Certificate
    _, position, _ = _element(der, position)  # TBSCertificate
    tag, _, end = _element(der, position)
    skipped = 4 if tag == _VERSION else 3  # version (optional), serialNumber, signature, issuer
    for _ in range(skipped):
        _, _, end = _element(der, position)
        position = end
    _, position, _ = _element(der, position)  # Validity
    _, _, position = _element(der, position)  # notBefore
    tag, start, end = _element(der, position)
    digits = der[start:end].decode("ascii").rstrip("Z")
    if tag == _UTC_TIME:
        digits = ("19" if int(digits[:2]) >= _CENTURY_PIVOT else "20") + digits
    fields = [int(digits[:4]), *(int(digits[index : index + 2]) for index in range(4, 14, 2))]
    return datetime(*fields, tzinfo=timezone.utc)  # type: ignore[arg-type,misc]


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """Return the tag at ``position``, and where its content starts and ends."""
    tag, length = der[position], der[position + 1]
    position += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[position : position + size], "big")
        position += size
    return tag, position, position + length
