"""Why TLS fails: one handshake with the standard library, which says what gRPC keeps to itself."""

import ssl
from datetime import datetime, timezone

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.addresses import URL, split_address
from katib_callbacks.net.http import HTTPRequest
from katib_callbacks.sinks.katib.endpoint import Endpoint

TIMEOUT_S = 2.0


def explain(endpoint: Endpoint) -> str | None:
    """Return why no TLS connection comes about, naming the file at fault; None if the files are not to blame."""
    credentials = endpoint.credentials
    host, port = split_address(endpoint.address)
    has_shaken_hands = False
    answer: str | None = None
    try:
        context = credentials.ssl_context()
        context.set_alpn_protocols(["h2"])
        with HTTPRequest(URL(is_tls=True, host=host, port=port, target="/"), TIMEOUT_S).connected(context) as encrypted:
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
    ends = expiry(tls_cert)
    if ends is not None and ends <= datetime.now(timezone.utc):
        return f"the server refuses the certificate in tls_cert {tls_cert}{said}: it has expired on {ends:%Y-%m-%d}"
    return (
        f"the server closes the connection after the handshake{said}: it may not accept the certificate in tls_cert "
        f"{tls_cert}, by its authority or its purpose"
    )


def expiry(path: str) -> datetime | None:
    """Return a certificate's notAfter. The standard library decodes files only for its own tests, so it may not."""
    try:
        decoded = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # noqa: SLF001
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(decoded["notAfter"]), timezone.utc)
    except (AttributeError, OSError, ValueError, KeyError):
        return None
