"""Certificates of servers on this machine, with an authority that vouches for them alone."""

import ssl
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

VALID_DAYS = 365


def make_certificates(names: Sequence[str], addresses: Sequence[str]) -> tuple[bytes, bytes]:
    """Make an authority and a server's certificate for its names; returns the authority, and the server's with its key.

    Both are PEM. The authority's key is forgotten.
    """
    from cryptography import x509  # noqa: PLC0415  of an OptimizationJob and of the API server only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  as above

    now = datetime.now(timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    subjects = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("katib-callbacks", names[0])
    ]
    signs = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    made = []
    for number, (key, name) in enumerate(zip(keys, subjects, strict=True)):
        is_authority = number == 0
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(subjects[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **signs),
                critical=True,
            )
        )
        if not is_authority:
            others = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(one)) for one in addresses)]
            builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return made[0], keys[1].private_bytes(*pem) + made[1]


def server_context(pem: bytes) -> ssl.SSLContext:
    """Return the context of a server with this certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # Python reads keys from files only
        path = Path(folder, "server.pem")
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context
