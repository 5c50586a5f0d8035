"""The usable public keys of a token issuer's JSON Web Key Set (RFC 7517).

An issuer that is attacked may publish a trap. Left out are secrets (``oct``), keys for encryption, keys without an id,
RSA below 2,048 bits, other curves, and whatever cannot be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

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
_MAX_CHARACTERS = MAX_RSA_BITS // 6 + 8  # of base64url: a number that is too long is not even read
MAX_KEYS = 64
MAX_KEY_ID = 256


_NUMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}
"""The public ones alone: whoever publishes a private key has lost it, and here nothing is signed."""


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
    kind = entry.get("kty")
    try:
        algorithms = RSA_ALGORITHMS if kind == "RSA" else frozenset({CURVE_ALGORITHMS[entry["crv"]]})
        numbers = {name: entry[name] for name in _NUMBERS[str(kind)]}
        if max(map(len, numbers.values())) > _MAX_CHARACTERS:
            return None
        key = PyJWK({"kty": kind, **numbers}).key  # refuses points off the curve
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    is_rsa = isinstance(key, RSAPublicKey)
    if is_rsa and not (MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e <= MAX_RSA_EXPONENT):
        return None
    if "alg" in entry:
        algorithms &= {entry["alg"]} if isinstance(entry["alg"], str) else frozenset()
    return IssuerKey(key, algorithms) if algorithms else None
