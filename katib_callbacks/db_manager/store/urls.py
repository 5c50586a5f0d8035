"""URLs of databases: read, and shown without a password."""

from os import PathLike, fspath

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from katib_callbacks.errors import ConfigurationError


def parse_url(text: str | PathLike[str] | URL) -> URL:
    """Return a database's URL, from a SQLAlchemy URL or the path of an SQLite file."""
    if isinstance(text, URL):
        return text
    if isinstance(text, PathLike):  # no URL: "?" and "%" stand for themselves
        return URL.create("sqlite", database=fspath(text))
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):
        # Not chained: the text is in SQLAlchemy's message, and a password may be in the text.
        shown = f"***@{text.rpartition('@')[2]}" if "@" in text else text
        raise ConfigurationError(f"{shown!r} is not a database URL such as sqlite:///katib.db") from None
    if url.host and "@" in url.host:  # what is behind the first one is taken for the host, and would be shown
        host = url.host.rpartition("@")[2]
        raise ConfigurationError(f"'***@{host}': the user or the password has an @; write it as %40")
    return url


def printable(url: URL) -> str:
    """Return a URL without password and options, for messages."""
    return url.set(query={}).render_as_string(hide_password=True)
