"""Certificates for a test, good and bad."""

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SIGNS = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Pair(NamedTuple):
    key: bytes
    certificate: bytes


class Authority:
    """Signs certificates.

    Args:
        name: Its name.
        has_identifiers: Whether its certificates have all that RFC 5280 demands. Those of many clusters have not.
    """

    def __init__(self, name: str = "authority", *, has_identifiers: bool = True) -> None:
        self._has_identifiers = has_identifiers
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key, timedelta(days=10))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if has_identifiers:
            identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
            builder = builder.add_extension(identifier, critical=False).add_extension(_SIGNS, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, *hosts: str, uris: Iterable[str] = (), valid_for: timedelta = timedelta(days=5)) -> Pair:
        """Return a key and its certificate for names, ``localhost`` where none is given."""
        if not hosts and not uris:
            hosts = ("localhost",)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name((*hosts, "somebody")[0]), self._name, key, valid_for)
        names = [*map(x509.DNSName, hosts), *map(x509.UniformResourceIdentifier, uris)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if self._has_identifiers:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(identifier, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def kubeadm_certificates(*hosts: str) -> tuple[bytes, Pair]:
    """Return a cluster's CA, and its API server's key and certificate, with the extensions that kubeadm gives them.

    Source: kubernetes/client-go, util/cert/cert.go (NewSelfSignedCACert), and kubernetes/cmd/kubeadm/app/util/pkiutil
    (NewSignedCert). Go's x509 adds the identifiers: the subject's to a CA, the authority's to what it signs.
    """
    ca_key, key = rsa.generate_private_key(65_537, 2_048), rsa.generate_private_key(65_537, 2_048)
    ca_name = _name("kubernetes")
    ca = (
        _builder(ca_name, ca_name, ca_key, timedelta(days=3_650))
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("kubernetes")]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    services = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    names = [
        *map(x509.DNSName, [*hosts, *services]),
        *map(x509.IPAddress, map(ip_address, ["10.96.0.1", "172.18.0.2"])),
    ]
    leaf = (
        _builder(_name("kube-apiserver"), ca_name, key, timedelta(days=365))
        .add_extension(_key_usage(key_cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return ca.public_bytes(serialization.Encoding.PEM), Pair(pem(key), leaf.public_bytes(serialization.Encoding.PEM))


def _key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(key, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def encrypted_key() -> bytes:
    return pem(ec.generate_private_key(ec.SECP256R1()), b"password")


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject, issuer, key, valid_for) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + valid_for)
    )
