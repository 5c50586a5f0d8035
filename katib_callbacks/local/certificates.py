"""The certificates of servers on this machine: an authority that vouches for one server alone, and the server's."""

import ssl
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from katib_callbacks.errors import MissingDependencyError

_OTHER_USES = (
    "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
)  # fmt: skip


def check_installed() -> None:
    """Check that the package is there that makes certificates."""
    if find_spec("cryptography") is None:
        raise MissingDependencyError(
            'an OptimizationJob needs cryptography, for its status server: pip install "katib-callbacks[local]"'
        )


def make_certificates(name: str, addresses: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """Make an authority and a server's certificate; returns the authority's, and the server's with its key, as PEM."""
    from cryptography import x509  # noqa: PLC0415  of an OptimizationJob only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  as above

    now = datetime.now(timezone.utc)
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in ("katib-callbacks", name)
    )
    made = []
    for key, owner in ((authority, issuer), (server, subject)):
        signs = key is authority
        uses = x509.KeyUsage(
            digital_signature=True, key_cert_sign=signs, crl_sign=signs, **dict.fromkeys(_OTHER_USES, False)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(owner)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
            .add_extension(uses, critical=True)
        )
        if not signs:
            names = [x509.DNSName(name), *(x509.IPAddress(ip_address(one)) for one in addresses)]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made.append(builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return made[0], server.private_bytes(*pem) + made[1]


def server_context(pem: bytes) -> ssl.SSLContext:
    """Return the context of a server with its certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # Python reads keys from files only
        path = Path(folder, "server.pem")
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context
