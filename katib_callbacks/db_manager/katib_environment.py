"""The database that the environment variables of Katib's own DB manager name.

Source: kubeflow/katib v0.19.0, pkg/db/v1beta1/common/const.go, mysql/mysql.go, postgres/postgres.go.
"""

from typing import NamedTuple

from sqlalchemy import URL

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime

DB_NAME = "DB_NAME"
DB_USER = "DB_USER"
DB_PASSWORD = "DB_PASSWORD"  # noqa: S105  the variable's name
MYSQL_HOST = "KATIB_MYSQL_DB_HOST"
MYSQL_PORT = "KATIB_MYSQL_DB_PORT"
MYSQL_DATABASE = "KATIB_MYSQL_DB_DATABASE"
POSTGRESQL_HOST = "KATIB_POSTGRESQL_DB_HOST"
POSTGRESQL_PORT = "KATIB_POSTGRESQL_DB_PORT"
POSTGRESQL_DATABASE = "KATIB_POSTGRESQL_DB_DATABASE"
POSTGRESQL_SSL_MODE = "KATIB_POSTGRESQL_SSL_MODE"
SKIP_DB_INITIALIZATION = "SKIP_DB_INITIALIZATION"

_MAX_PORT = 65_535


class _Kind(NamedTuple):
    driver: str
    user: str
    host: tuple[str, str]
    port: tuple[str, int]
    database: tuple[str, str]


_KINDS = {
    "mysql": _Kind(
        "mysql",
        "root",
        (MYSQL_HOST, "katib-mysql"),
        (MYSQL_PORT, 3306),
        (MYSQL_DATABASE, "katib"),
    ),
    "postgres": _Kind(
        "postgresql",
        "katib",
        (POSTGRESQL_HOST, "katib-postgres"),
        (POSTGRESQL_PORT, 5432),
        (POSTGRESQL_DATABASE, "katib"),
    ),
}
"""By the value of ``DB_NAME``: the driver, the default user, and each variable with its default."""


def database_url(runtime: Runtime) -> URL | None:
    """Return the URL of the database that Katib's variables name; None if ``DB_NAME`` is not set.

    Not as text: SQLAlchemy 2.0.0 does not read back every password that it writes.
    """
    name = runtime.variable(DB_NAME)
    if name is None:
        return None
    if name not in _KINDS:
        raise ConfigurationError(f"{DB_NAME} must be one of {', '.join(map(repr, _KINDS))}, not {name!r}")
    kind = _KINDS[name]
    query = {}
    if name == "postgres":
        query["sslmode"] = runtime.variable(POSTGRESQL_SSL_MODE) or "disable"
    return URL.create(
        kind.driver,
        username=runtime.variable(DB_USER) or kind.user,
        password=runtime.environ().get(DB_PASSWORD, "") or None,  # blanks are part of a password
        host=runtime.variable(kind.host[0]) or kind.host[1],
        port=_port(*kind.port, runtime),
        database=runtime.variable(kind.database[0]) or kind.database[1],
        query=query,
    )


def is_initialized(runtime: Runtime) -> bool:
    """Return whether ``SKIP_DB_INITIALIZATION`` is set: somebody else makes the table."""
    return settings.flag("is_initialized", None, SKIP_DB_INITIALIZATION, runtime)


def _port(variable: str, default: int, runtime: Runtime) -> int:
    text = runtime.variable(variable)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MAX_PORT:
        raise ConfigurationError(f"{variable} must be a port, not {text!r}")
    return int(text)
