"""Addresses: ``host:port`` and HTTP URLs, read strictly; no message quotes what may hold a password."""

import re
from typing import NamedTuple

MAX_PORT = 65_535

_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]):([0-9]{1,5})", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class URL(NamedTuple):
    """A server and a path (``target``, with the query); an IPv6 ``host`` is without brackets."""

    is_tls: bool
    host: str
    port: int
    target: str

    def __str__(self) -> str:
        """Return the URL for messages; of its query no more than that there is one."""
        path, question, _ = self.target.partition("?")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{path}{question and '?...'}"


def split_address(address: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """Return host and port of ``host:port``, an IPv6 host without its brackets; anything else is a ValueError."""
    match = _HOST_PORT.fullmatch(address) if isinstance(address, str) else None
    if match is None or not lowest_port <= int(match[2]) <= MAX_PORT:
        raise ValueError("no host:port")
    return match[1].strip("[]"), int(match[2])


def split_url(url: str) -> URL:
    """Return the parts of a URL without user and fragment; the message of a ValueError does not quote it."""
    from urllib.parse import urlsplit  # noqa: PLC0415  a report to a DB manager has no URL

    if re.search(r"[^!-~]", url):
        raise ValueError("it has a blank or a character that is not ASCII")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            "its host or port cannot be right (a password's @ : / ? # are to be written in percent)"
        ) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("it begins with neither http:// nor https://")
    if not host:
        raise ValueError("it has no host")
    if port == 0:
        raise ValueError("no server listens on port 0")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("it has a user or a fragment")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return URL(parts.scheme == "https", host, port or _DEFAULT_PORTS[parts.scheme], target)
