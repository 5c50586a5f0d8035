"""The namespace that a trial's name belongs to: a small table beside Katib's, which knows only names.

The first namespace that reports for a name over the trial listener owns it until the rows are deleted. It is looked up
in the transaction that reads or writes the rows, under the trial's lock and behind that the primary key.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    MetaData,
    String,
    Table,
    TypeDecorator,
    delete,
    insert,
    select,
)
from sqlalchemy.dialects.mysql import VARBINARY

from katib_callbacks.db_manager.store.errors import ForeignTrialError
from katib_callbacks.db_manager.store.group_commit import Batch
from katib_callbacks.metrics import MAX_NAME_CHARACTERS

MAX_NAMESPACE_CHARACTERS = 63
"""Kubernetes' namespaces are DNS labels."""

_BYTES_PER_CHARACTER = 4


class ExactText(TypeDecorator[str]):
    """A text that equals itself alone; MySQL's equals those of another case, accent or number of blanks at its end."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Return the column's type: bytes, where texts do not only equal themselves."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(VARBINARY(MAX_NAME_CHARACTERS * _BYTES_PER_CHARACTER))
        return super().load_dialect_impl(dialect)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Return a text as the column has it."""
        return value.encode() if value is not None and dialect.name in {"mysql", "mariadb"} else value

    def process_result_value(self, value: Any, _dialect: Dialect) -> str | None:
        """Return the text."""
        return value.decode() if isinstance(value, bytes) else value


TRIAL_NAMESPACES = Table(
    "katib_callbacks_trial_namespaces",
    MetaData(),
    Column("trial_name", ExactText(MAX_NAME_CHARACTERS), primary_key=True),
    Column("namespace", String(MAX_NAMESPACE_CHARACTERS), nullable=False),
    mysql_engine="InnoDB",  # the server's default may be one without transactions
)


def admit(connection: Connection, batches: Sequence[Batch]) -> list[Batch]:
    """Return the batches that may be written; a trial without an owner becomes the first one's, others fail."""
    for batch in batches:
        batch.error = None  # of a first try
    names = {batch.trial_name for batch in batches if batch.namespace is not None}
    if not names:
        return list(batches)
    owners = _owners(connection, names)
    claims: dict[str, str] = {}
    admitted = []
    for batch in batches:
        if batch.namespace is not None:
            owner = owners.get(batch.trial_name) or claims.setdefault(batch.trial_name, batch.namespace)
            if owner != batch.namespace:
                batch.error = _foreign(batch.trial_name)
                continue
        admitted.append(batch)
    if claims:
        query: Insert = insert(TRIAL_NAMESPACES)
        connection.execute(query, [{"trial_name": name, "namespace": namespace} for name, namespace in claims.items()])
    return admitted


def check_owner(connection: Connection, trial_name: str, namespace: str) -> None:
    """Find out whether a trial is a namespace's, or nobody's; else ForeignTrialError."""
    if _owners(connection, [trial_name]).get(trial_name, namespace) != namespace:
        raise _foreign(trial_name)


def release(connection: Connection, trial_name: str) -> None:
    """Forget whose a trial is."""
    connection.execute(delete(TRIAL_NAMESPACES).where(TRIAL_NAMESPACES.c.trial_name == trial_name))


def is_not_foreign(trial_name: str, namespace: str) -> ColumnElement[bool]:
    """Return the condition that a trial belongs to no other namespace."""
    column = TRIAL_NAMESPACES.c
    return ~select(column.trial_name).where(column.trial_name == trial_name, column.namespace != namespace).exists()


def _owners(connection: Connection, trial_names: Iterable[str]) -> dict[str, str]:
    column = TRIAL_NAMESPACES.c
    rows = connection.execute(select(column.trial_name, column.namespace).where(column.trial_name.in_(trial_names)))
    return {row.trial_name: row.namespace for row in rows}


def _foreign(trial_name: str) -> ForeignTrialError:
    return ForeignTrialError(f"trial {trial_name!r} belongs to another namespace")
