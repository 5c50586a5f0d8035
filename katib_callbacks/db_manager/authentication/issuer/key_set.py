"""The usable public keys of a token issuer's JSON Web Key Set (RFC 7517).

An issuer that is attacked may publish a trap. Left out are secrets (``oct``), keys for encryption, keys without an id,
RSA below 2,048 bits, other curves, and whatever cannot be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512"})

CURVE_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
"""Each curve signs by one algorithm (RFC 7518, 3.4)."""

ALGORITHMS = RSA_ALGORITHMS | frozenset(CURVE_ALGORITHMS.values())
"""Algorithms of tokens: those that Kubernetes can sign with (pkg/serviceaccount/jwt.go), and RSA's longer hashes.
Nothing symmetric and no ``none``, so that nobody signs with a public key."""

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Verifying takes time with the square of the length."""

MAX_RSA_EXPONENT = 2**32
_MAX_RSA_CHARACTERS = MAX_RSA_BITS // 6 + 8  # of base64url: a number that is too long is not even read
MAX_KEYS = 64
MAX_KEY_ID = 256


@dataclass(frozen=True)
class IssuerKey:
    """A public key, and which algorithms may be verified with it."""

    public_key: RSAPublicKey | EllipticCurvePublicKey
    algorithms: frozenset[str]


def read_key_set(document: Mapping[str, Any]) -> dict[str, IssuerKey]:
    """Return a key set's usable keys by id, the first of two with one id; ValueError if it is none, or too large."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("the key set has no list of keys")  # noqa: TRY004  what was read is wrong, not what was passed
    if len(entries) > MAX_KEYS:
        raise ValueError(f"the key set has {len(entries)} keys; at most {MAX_KEYS} are read")
    keys: dict[str, IssuerKey] = {}
    for entry in entries:
        key = _read(entry) if isinstance(entry, dict) else None
        if key is not None:
            keys.setdefault(entry["kid"], key)
    return keys


def _read(entry: dict[str, Any]) -> IssuerKey | None:
    key_id, use, operations = entry.get("kid"), entry.get("use", "sig"), entry.get("key_ops", ["verify"])
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID or use != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = _rsa(entry) if entry.get("kty") == "RSA" else _curve(entry) if entry.get("kty") == "EC" else None
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if key is None or "alg" not in entry:
        return key
    algorithms = key.algorithms & {entry["alg"]} if isinstance(entry["alg"], str) else frozenset[str]()
    return IssuerKey(key.public_key, algorithms) if algorithms else None


def _rsa(entry: dict[str, Any]) -> IssuerKey | None:
    # The public numbers alone: whoever publishes a private key has lost it, and here nothing is signed.
    if len(entry["n"]) > _MAX_RSA_CHARACTERS or len(entry["e"]) > _MAX_RSA_CHARACTERS:
        return None
    key = RSAAlgorithm.from_jwk({name: entry[name] for name in ("kty", "n", "e")})
    if not isinstance(key, RSAPublicKey) or not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return None
    if key.public_numbers().e > MAX_RSA_EXPONENT:
        return None
    return IssuerKey(key, RSA_ALGORITHMS)


def _curve(entry: dict[str, Any]) -> IssuerKey | None:
    algorithm = CURVE_ALGORITHMS.get(entry["crv"])
    if algorithm is None:
        return None
    key = ECAlgorithm.from_jwk({name: entry[name] for name in ("kty", "crv", "x", "y")})  # refuses points off the curve
    return IssuerKey(key, frozenset({algorithm})) if isinstance(key, EllipticCurvePublicKey) else None
