"""Tokens from a file, read again when it changes.

The file is JSON, so that one that is half written is no token file and the old one stays in force::

    {"tokens": [
        {"name": "team-a", "sha256": "<64 hex digits>", "trials": ["digits-*"], "namespace": "team-a"},
        {"name": "laptop", "token": "<32 characters or more>", "trials": ["*"]}
    ]}

``sha256`` is the hash of the token and spares the file the secret; ``token`` is the token itself. ``trials`` are
patterns of whole names, ``namespace`` may be left out.
"""

import hashlib
import json
import logging
import re
import stat
import threading
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from katib_callbacks.db_manager.authentication.grant import NAMESPACE, Grant, RefusedError
from katib_callbacks.db_manager.authentication.reload_log import ReloadLog
from katib_callbacks.errors import ConfigurationError

MIN_TOKEN_CHARACTERS = 32
"""Of hexadecimal digits that is 128 bits, which nobody guesses; ``secrets.token_urlsafe()`` makes 43 characters."""

MAX_FILE_BYTES = 8 * 1024 * 1024

_TOKEN = re.compile(rf"[\x21-\x7e]{{{MIN_TOKEN_CHARACTERS},}}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_KEYS = {"name", "sha256", "token", "trials", "namespace"}

_UNSETTLED_NS = 2_000_000_000  # file systems tell times by ticks: within one a file may change and look the same

_logger = logging.getLogger(__name__)


class TokenFile:
    """Judges tokens by what a file holds now. Thread-safe.

    A call looks at the file's times (2 us). Except at the start, a file that is no good leaves the last one in force.
    """

    def __init__(self, path: str | PathLike[str], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._is_settled = False
        self._data: bytes | None = None
        self._problem: str | None = None  # of the content that was read last
        self._reload_log = ReloadLog(_logger, monotonic)
        self._grants: dict[bytes, Grant] = {}
        try:
            self._look()
        except _BadFileError as error:
            raise ConfigurationError(f"token file {self._path}: {error}") from error

    def authenticate(self, token: str) -> Grant:
        """Return what a token grants; RefusedError if the file does not have it."""
        self._refresh()
        # A look-up by hash: how long it takes tells of the hash of a guess, which says nothing of any token.
        grant = self._grants.get(hashlib.sha256(token.encode()).digest())
        if grant is None:
            raise RefusedError("the token is not in the token file")
        return grant

    def _refresh(self) -> None:
        with self._lock:
            try:
                self._look()
            except _BadFileError as error:
                self._reload_log.add(f"token file {self._path}: {error}")

    def _look(self) -> None:
        """Read the file if it is another than the one that was read last."""
        try:
            status = self._path.stat()  # through links: Kubernetes swaps one for another
            seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if seen == self._seen and self._is_settled:
                if self._problem is not None:
                    raise _BadFileError(self._problem)
                return
            now_ns = time.time_ns()
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            self._seen = None
            raise _BadFileError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        self._seen, self._is_settled = seen, not 0 <= now_ns - status.st_ctime_ns < _UNSETTLED_NS
        self._problem = None
        if data == self._data:
            self._reload_log.clear()
            return
        try:
            grants = _parse(data)
        except _BadFileError as error:
            self._problem = str(error)  # said for as long as it stays, though the file is not read again
            raise
        self._grants, self._data = grants, data
        self._reload_log.clear()
        _logger.info("token file %s: %d tokens", self._path, len(grants))
        if status.st_mode & stat.S_IROTH:
            _logger.warning("token file %s can be read by everybody on this machine", self._path)


class _BadFileError(Exception):
    """Why a file is no token file; quotes nothing that may be a token."""


def _parse(data: bytes) -> dict[bytes, Grant]:
    """Return the grants by the hashes of their tokens."""
    if len(data) > MAX_FILE_BYTES:
        raise _BadFileError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # whose text would quote the file
        raise _BadFileError("is not JSON") from None
    entries = content.get("tokens") if isinstance(content, dict) and set(content) == {"tokens"} else None
    if not isinstance(entries, list):
        raise _BadFileError('is not {"tokens": [...]}')
    grants: dict[bytes, Grant] = {}
    names = set()
    for index, entry in enumerate(entries):
        digest, grant = _parse_entry(f"tokens[{index}]", entry)
        if digest in grants or grant.caller in names:
            raise _BadFileError(f"tokens[{index}]: the token or its name stands twice")
        names.add(grant.caller)
        grants[digest] = grant
    return grants


def _parse_entry(place: str, entry: Any) -> tuple[bytes, Grant]:
    if not isinstance(entry, dict):
        raise _BadFileError(f"{place} is not an object")
    if set(entry) - _KEYS:
        raise _BadFileError(f"{place} has other keys than {', '.join(sorted(_KEYS))}")
    name, trials, namespace = entry.get("name"), entry.get("trials"), entry.get("namespace")
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise _BadFileError(f"{place}.name must be a printable text")
    if not isinstance(trials, list) or not trials or not all(isinstance(trial, str) and trial for trial in trials):
        raise _BadFileError(f"{place}.trials must be a list of patterns")
    if namespace is not None and not (isinstance(namespace, str) and re.fullmatch(NAMESPACE, namespace, re.ASCII)):
        raise _BadFileError(f"{place}.namespace must be the name of a namespace")
    if ("sha256" in entry) == ("token" in entry):
        raise _BadFileError(f"{place} must have either sha256 or token")
    grant = Grant(name, trial_patterns=tuple(trials), namespace=namespace)
    if "sha256" in entry:
        if not isinstance(entry["sha256"], str) or not _SHA256.fullmatch(entry["sha256"]):
            raise _BadFileError(f"{place}.sha256 must be 64 hexadecimal digits")
        return bytes.fromhex(entry["sha256"]), grant
    if not isinstance(entry["token"], str) or not _TOKEN.fullmatch(entry["token"]):
        raise _BadFileError(f"{place}.token must have {MIN_TOKEN_CHARACTERS} printable ASCII characters or more")
    return hashlib.sha256(entry["token"].encode()).digest(), grant
