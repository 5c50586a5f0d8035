"""Which database, as Katib's deployment says it: by the environment variables of its own DB manager.

Source: kubeflow/katib v0.19.0, pkg/db/v1beta1/common/const.go, mysql/mysql.go, postgres/postgres.go.
"""

from typing import NamedTuple

from sqlalchemy import URL

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import Runtime

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
        (settings.MYSQL_HOST, "katib-mysql"),
        (settings.MYSQL_PORT, 3306),
        (settings.MYSQL_DATABASE, "katib"),
    ),
    "postgres": _Kind(
        "postgresql",
        "katib",
        (settings.POSTGRESQL_HOST, "katib-postgres"),
        (settings.POSTGRESQL_PORT, 5432),
        (settings.POSTGRESQL_DATABASE, "katib"),
    ),
}
"""By the value of ``DB_NAME``: the driver, the default user, and each variable with its default."""


def database_url(runtime: Runtime) -> str | None:
    """Return the URL of the database that Katib's variables name; None if ``DB_NAME`` is not set.

    Raises:
        ConfigurationError: A variable has a value that cannot be right.
    """
    name = runtime.variable(settings.DB_NAME)
    if name is None:
        return None
    if name not in _KINDS:
        raise ConfigurationError(f"{settings.DB_NAME} must be one of {', '.join(map(repr, _KINDS))}, not {name!r}")
    kind = _KINDS[name]
    query = {}
    if name == "postgres":
        query["sslmode"] = runtime.variable(settings.POSTGRESQL_SSL_MODE) or "disable"
    url = URL.create(
        kind.driver,
        username=runtime.variable(settings.DB_USER) or kind.user,
        password=runtime.environ().get(settings.DB_PASSWORD, "") or None,  # blanks are part of a password
        host=runtime.variable(kind.host[0]) or kind.host[1],
        port=_port(*kind.port, runtime),
        database=runtime.variable(kind.database[0]) or kind.database[1],
        query=query,
    )
    return url.render_as_string(hide_password=False)


def is_initialized(runtime: Runtime) -> bool:
    """Say whether ``SKIP_DB_INITIALIZATION`` is set: somebody else makes the table.

    Raises:
        ConfigurationError: It is neither true nor false.
    """
    return settings.flag("is_initialized", None, settings.SKIP_DB_INITIALIZATION, runtime)


def _port(variable: str, default: int, runtime: Runtime) -> int:
    text = runtime.variable(variable)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MAX_PORT:
        raise ConfigurationError(f"{variable} must be a port, not {text!r}")
    return int(text)
