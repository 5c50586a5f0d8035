"""Katib's table ``observation_logs``, and what a row is on its way there.

Source: kubeflow/katib v0.19.0, pkg/db/v1beta1/mysql/init.go and postgres/init.go. Columns, order and types are Katib's,
so that either manager starts on what the other one filled. The index is ours: without it a read scans all trials.
"""

from datetime import datetime, timezone
from typing import NamedTuple

from sqlalchemy import Column, DateTime, Index, Integer, MetaData, String, Table, Text

from katib_callbacks.metrics import MAX_NAME_CHARACTERS

METADATA = MetaData()

OBSERVATION_LOGS = Table(
    "observation_logs",
    METADATA,
    Column("trial_name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", DateTime),  # naive UTC, as Katib writes it
    Column("metric_name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("value", Text, nullable=False),
    sqlite_autoincrement=True,  # ids are never used again, so that they tell the order of arrival
)
TRIAL_TIME_INDEX = "idx_observation_logs_trial_time"
TRIAL_TIME = Index(TRIAL_TIME_INDEX, OBSERVATION_LOGS.c.trial_name, OBSERVATION_LOGS.c.time)


Log = tuple[str, str, str]
"""A trial's row: time, metric name, value. The time is naive UTC as all databases read it, and as it sorts:
``2026-01-31 12:00:00.123456``."""

Row = tuple[str, str, str, str]
"""The same behind the trial's name, in the order of the table's columns."""


class Span(NamedTuple):
    """A trial and the times, both inclusive, between which a batch's rows lie."""

    trial_name: str
    first: str
    last: str


def column_time(timestamp: datetime) -> str:
    """Return an aware time as a row has it."""
    return naive_utc(timestamp).isoformat(" ", "microseconds")


def naive_utc(timestamp: datetime) -> datetime:
    """Return an aware time as the column holds it."""
    return timestamp.astimezone(timezone.utc).replace(tzinfo=None)
