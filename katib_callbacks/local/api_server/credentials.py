"""Credentials: a token, a certificate made for the server, and the kubeconfig that has both."""

import base64
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.local.api.kubernetes_yaml import read_documents
from katib_callbacks.local.certificates import make_certificates
from katib_callbacks.local.tune.command import as_yaml
from katib_callbacks.net.web import LOOPBACK, new_token

CONTEXT = "katib-local"
"""The names of the cluster, the user and the context in a kubeconfig."""

_RENEWED_BEFORE = timedelta(days=30)
_BEFORE = "katib-callbacks/before"


class Credentials(NamedTuple):
    """A token, the authority's certificate, and the file of the server's with its key."""

    token: str
    authority: bytes
    certificate: Path

    @classmethod
    def of(cls, folder: Path) -> "Credentials":
        """Read the credentials in a folder, which is this user's alone, or make them."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        token, authority, certificate = folder / "token", folder / "ca.crt", folder / "server.pem"
        if not token.exists():
            write_private(token, new_token().encode())
        if not authority.exists() or _ends_soon(authority.read_bytes()):
            made = make_certificates("localhost", [LOOPBACK, "::1"])
            write_private(certificate, made[1])
            write_private(authority, made[0])
        return cls(token.read_text("ascii"), authority.read_bytes(), certificate)


def write_private(path: Path, content: bytes) -> None:
    """Put a file that only this user can read in the place of another one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600, exist_ok=False)
    new.write_bytes(content)
    new.replace(path)


def add_context(path: Path, server: str, credentials: Credentials) -> None:
    """Write a context into a kubeconfig, beside what is there, and make it the current one."""
    config = _read(path)
    for kind, value in (
        (
            "cluster",
            {
                "server": server,
                "certificate-authority-data": base64.b64encode(credentials.authority).decode(),
            },
        ),
        ("user", {"token": credentials.token}),
        ("context", {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}),
    ):
        others = [one for one in config.get(f"{kind}s") or () if one.get("name") != CONTEXT]
        config[f"{kind}s"] = [*others, {"name": CONTEXT, kind: value}]
    before = config.get("current-context")
    if before and before != CONTEXT:
        config["extensions"] = [
            *(one for one in config.get("extensions") or () if one.get("name") != _BEFORE),
            {"name": _BEFORE, "extension": {"context": before}},
        ]
    config["current-context"] = CONTEXT
    _write(path, config)


def remove_context(path: Path, server: str) -> None:
    """Take a server's context out of a kubeconfig, and make the earlier one current again; another's stays."""
    if not path.exists():
        return
    config = _read(path)
    ours = [one for one in config.get("clusters") or () if one.get("name") == CONTEXT]
    if not any((one.get("cluster") or {}).get("server") == server for one in ours):
        return
    for kind in ("clusters", "users", "contexts"):
        config[kind] = [one for one in config.get(kind) or () if one.get("name") != CONTEXT]
    extensions = config.pop("extensions", None) or []
    before = next((one["extension"]["context"] for one in extensions if one.get("name") == _BEFORE), "")
    others = [one for one in extensions if one.get("name") != _BEFORE]
    if others:
        config["extensions"] = others
    if config.get("current-context") == CONTEXT:
        config["current-context"] = before
    _write(path, config)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    try:
        documents = read_documents(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} {error}; nothing was written there") from error
    config = documents[0] if documents else {}
    if not isinstance(config, dict):
        raise ConfigurationError(f"{path} is not a kubeconfig; nothing was written there")
    return {"apiVersion": "v1", "kind": "Config", **config}


def _write(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path.resolve(), as_yaml(config).encode())


def _ends_soon(certificate: bytes) -> bool:
    from cryptography import x509  # noqa: PLC0415  the extra `local`

    read = x509.load_pem_x509_certificate(certificate)
    # Its time without a zone is UTC; releases before 42 have no other.
    end = getattr(read, "not_valid_after_utc", None) or read.not_valid_after.replace(tzinfo=timezone.utc)
    return bool(end - datetime.now(timezone.utc) < _RENEWED_BEFORE)
