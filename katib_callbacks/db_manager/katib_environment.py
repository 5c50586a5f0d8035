"""The database that the environment variables of Katib's own DB manager name.

Source: kubeflow/katib v0.19.0, pkg/db/v1beta1/common/const.go, mysql/mysql.go, postgres/postgres.go.
"""

from sqlalchemy import URL

from katib_callbacks import settings
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.net.addresses import MAX_PORT
from katib_callbacks.settings import Runtime

DB_NAME = "DB_NAME"
DB_USER = "DB_USER"
DB_PASSWORD = "DB_PASSWORD"  # noqa: S105  the variable's name
POSTGRESQL_SSL_MODE = "KATIB_POSTGRESQL_SSL_MODE"
SKIP_DB_INITIALIZATION = "SKIP_DB_INITIALIZATION"

_KINDS = {
    "mysql": ("mysql", "KATIB_MYSQL_DB", "root", "katib-mysql", 3306),
    "postgres": ("postgresql", "KATIB_POSTGRESQL_DB", "katib", "katib-postgres", 5432),
}
"""By the value of ``DB_NAME`` the driver, how the variables begin that say where its database is, and the defaults of
user, host and port."""


def database_url(runtime: Runtime) -> URL | None:
    """Return the URL of the database that Katib's variables name; None if ``DB_NAME`` is not set.

    Not as text: SQLAlchemy 2.0.0 does not read back every password that it writes.
    """
    name = runtime.variable(DB_NAME)
    if name is None:
        return None
    if name not in _KINDS:
        raise ConfigurationError(f"{DB_NAME} must be one of {', '.join(map(repr, _KINDS))}, not {name!r}")
    driver, prefix, user, host, port = _KINDS[name]
    query = {"sslmode": runtime.variable(POSTGRESQL_SSL_MODE) or "disable"} if name == "postgres" else {}
    return URL.create(
        driver,
        username=runtime.variable(DB_USER) or user,
        password=runtime.environ().get(DB_PASSWORD, "") or None,  # blanks are part of a password
        host=runtime.variable(f"{prefix}_HOST") or host,
        port=_port(f"{prefix}_PORT", port, runtime),
        database=runtime.variable(f"{prefix}_DATABASE") or "katib",
        query=query,
    )


def is_initialized(runtime: Runtime) -> bool:
    """Return whether ``SKIP_DB_INITIALIZATION`` is set: somebody else makes the table."""
    return settings.flag("is_initialized", None, SKIP_DB_INITIALIZATION, runtime)


def _port(variable: str, default: int, runtime: Runtime) -> int:
    text = runtime.variable(variable)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_PORT:
        raise ConfigurationError(f"{variable} must be a port, not {text!r}")
    return int(text)
