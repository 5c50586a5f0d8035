"""Three small tables beside Katib's: the trials that ask, the objectives that they hand in, and asha's rungs.

Every question of theirs goes through a primary key, however many rows there are; Katib's table is never read. They are
made with the first question, so that a database without early stopping has none of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.schema import CreateTable

from katib_callbacks.db_manager.store.owners import MAX_NAMESPACE_CHARACTERS, ExactText
from katib_callbacks.metrics import MAX_NAME_CHARACTERS

RUNNING, SUCCEEDED, STOPPED = "running", "succeeded", "stopped"

MAX_RUN_CHARACTERS = 64
MAX_REASON_CHARACTERS = 255

_METADATA = MetaData()
_NAME = ExactText(MAX_NAME_CHARACTERS)


def _key(name: str, kind: Any = _NAME) -> "Column[Any]":
    return Column(name, kind, primary_key=True, autoincrement=False)


TRIALS = Table(
    "katib_callbacks_stopping_trials",
    _METADATA,
    _key("namespace", String(MAX_NAMESPACE_CHARACTERS)),  # empty for callers of the listener without authentication
    _key("experiment"),
    _key("trial_name"),
    Column("run", String(MAX_RUN_CHARACTERS), nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", BigInteger, nullable=False),  # the last one
    Column("reported", BigInteger, nullable=False),
    Column("best", Double, nullable=False),
    Column("early_sum", Double, nullable=False),  # of the first start_step objectives, of which there are ...
    Column("early_count", BigInteger, nullable=False),
    Column("rung", BigInteger, nullable=False),  # the last one that it came to
    Column("reason", String(MAX_REASON_CHARACTERS), nullable=False),
    Column("asked_s", Double, nullable=False),  # since the epoch
    mysql_engine="InnoDB",
)
VALUES = Table(
    "katib_callbacks_stopping_values",
    _METADATA,
    _key("trial_name"),
    _key("namespace", String(MAX_NAMESPACE_CHARACTERS)),
    _key("step", BigInteger),
    Column("value", Double, nullable=False),
    mysql_engine="InnoDB",
)
RUNGS = Table(
    "katib_callbacks_stopping_rungs",
    _METADATA,
    _key("namespace", String(MAX_NAMESPACE_CHARACTERS)),
    _key("experiment"),
    _key("rung", BigInteger),
    _key("trial_name"),
    Column("step", BigInteger, nullable=False),  # with which it came there
    Column("value", Double, nullable=False),
    mysql_engine="InnoDB",
)
TABLES = (TRIALS, VALUES, RUNGS)


@dataclass(frozen=True)
class TrialKey:
    """A trial, within its namespace and experiment."""

    namespace: str
    experiment: str
    trial_name: str


@dataclass
class Trial:
    """A trial as the columns of ``TRIALS`` have it, behind its key."""

    run: str
    state: str = RUNNING
    step: int = 0
    reported: int = 0
    best: float = 0.0
    early_sum: float = 0.0
    early_count: int = 0
    rung: int = 0
    reason: str = ""
    asked_s: float = 0.0

    def take(self, step: int, value: float, *, start_step: int, is_maximized: bool) -> None:
        """Count an epoch's objective."""
        is_better = value > self.best if is_maximized else value < self.best
        self.best = value if not self.reported or is_better else self.best
        self.step, self.reported = step, self.reported + 1
        if self.early_count < start_step:
            self.early_sum, self.early_count = self.early_sum + value, self.early_count + 1


def create(connection: Connection) -> None:
    """Make the tables unless they are there."""
    for table in TABLES:
        connection.execute(CreateTable(table, if_not_exists=True))


def find(connection: Connection, keys: Iterable[TrialKey]) -> dict[TrialKey, Trial]:
    """Return the trials that are known."""
    wanted = set(keys)
    column = TRIALS.c
    query = select(TRIALS).where(
        column.namespace.in_({key.namespace for key in wanted}),
        column.experiment.in_({key.experiment for key in wanted}),
        column.trial_name.in_({key.trial_name for key in wanted}),
    )
    rows = (tuple(row) for row in connection.execute(query))
    return {key: Trial(*row[3:]) for row in rows if (key := TrialKey(*row[:3])) in wanted}


def store(
    connection: Connection,
    *,
    new: Mapping[TrialKey, Trial],
    known: Mapping[TrialKey, Trial],
    values: Iterable[tuple[TrialKey, int, float]],
    rungs: Iterable[tuple[TrialKey, int, int, float]],
) -> None:
    """Add and change trials, and add objectives (step, value) and comings to rungs (rung, step, value)."""
    if new:
        connection.execute(insert(TRIALS), [{**asdict(key), **asdict(trial)} for key, trial in new.items()])
    if known:
        connection.execute(
            _UPDATE,
            [{**{f"of_{name}": text for name, text in asdict(k).items()}, **asdict(t)} for k, t in known.items()],
        )
    value_rows = [
        {"trial_name": key.trial_name, "namespace": key.namespace, "step": step, "value": value}
        for key, step, value in values
    ]
    if value_rows:
        connection.execute(insert(VALUES), value_rows)
    rung_rows = [{**asdict(key), "rung": rung, "step": step, "value": value} for key, rung, step, value in rungs]
    if rung_rows:
        connection.execute(insert(RUNGS), rung_rows)


_UPDATE = update(TRIALS).where(*(TRIALS.c[name] == bindparam(f"of_{name}") for name in TrialKey.__annotations__))


def succeeded(connection: Connection, namespace: str, experiment: str) -> tuple[int, float]:
    """Return how many trials of an experiment succeeded, and the mean of their early means."""
    column = TRIALS.c
    query = (
        select(func.count(), func.avg(column.early_sum / column.early_count))
        .select_from(TRIALS)
        .filter_by(namespace=namespace, experiment=experiment, state=SUCCEEDED)
        .where(column.early_count > 0)
    )
    count, mean = connection.execute(query).one()
    return int(count), float(mean or 0.0)


def at_rung(connection: Connection, namespace: str, experiment: str, rung: int) -> list[float]:
    """Return the objectives with which an experiment's trials came to a rung."""
    query = select(RUNGS.c.value).filter_by(namespace=namespace, experiment=experiment, rung=rung)
    return list(connection.execute(query).scalars())


def go_back(connection: Connection, key: TrialKey, step: int) -> list[tuple[int, float]]:
    """Forget what a trial handed in of a step and those after it; return its objectives of those before, in order."""
    own = {"trial_name": key.trial_name, "namespace": key.namespace}
    connection.execute(delete(VALUES).filter_by(**own).where(VALUES.c.step >= step))
    connection.execute(delete(RUNGS).filter_by(**asdict(key)).where(RUNGS.c.step >= step))
    query = select(VALUES.c.step, VALUES.c.value).filter_by(**own).order_by(VALUES.c.step)
    return [(row.step, row.value) for row in connection.execute(query)]


def last_asked(connection: Connection) -> dict[str, float]:
    """Return when trials last asked, by their names: seconds since the epoch."""
    if not inspect(connection).has_table(TRIALS.name):
        return {}
    query = select(TRIALS.c.trial_name, func.max(TRIALS.c.asked_s)).group_by(TRIALS.c.trial_name)
    return {name: float(asked_s) for name, asked_s in connection.execute(query)}


def forget(connection: Connection, trial_name: str) -> None:
    """Forget a trial of this name, in whichever namespace and experiment, if there are tables."""
    for table in TABLES if inspect(connection).has_table(TRIALS.name) else ():
        connection.execute(delete(table).filter_by(trial_name=trial_name))
