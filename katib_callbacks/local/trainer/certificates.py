"""The certificates of a status server on this machine: an authority of each run's own, and the server's."""

import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path

from katib_callbacks.errors import MissingDependencyError

HOST = "localhost"
"""The one name in the certificate, as the real one has one only."""

_OTHER_USES = (
    "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
)  # fmt: skip


def check_installed() -> None:
    """Check that the package is there that makes certificates."""
    if find_spec("cryptography") is None:
        raise MissingDependencyError(
            'an OptimizationJob needs cryptography, for its status server: pip install "katib-callbacks[local]"'
        )


def make_certificates() -> tuple[bytes, ssl.SSLContext]:
    """Make an authority; returns its certificate, and the context of a server that it vouches for."""
    from cryptography import x509  # noqa: PLC0415  of an OptimizationJob only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  as above

    now = datetime.now(timezone.utc)
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("katib-callbacks", HOST)
    )
    made = []
    for key, name in ((authority, issuer), (server, subject)):
        signs = key is authority
        uses = x509.KeyUsage(
            digital_signature=True, key_cert_sign=signs, crl_sign=signs, **dict.fromkeys(_OTHER_USES, False)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
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
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        made.append(builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # Python reads keys from files only
        path = Path(folder, "server.pem")
        path.touch(mode=0o600)
        path.write_bytes(server.private_bytes(*pem) + made[1])
        context.load_cert_chain(path)
    return made[0], context
