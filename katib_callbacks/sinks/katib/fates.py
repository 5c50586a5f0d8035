"""The meaning of a failed call for its rows: refused for good, not written, or perhaps written.

Katib's DB manager answers UNKNOWN to everything that its handler rejects, so there the text has to tell. It was
collected from Katib v0.19.0 on MySQL, MariaDB and PostgreSQL. The embedded DB manager and gRPC itself use statuses.
"""

import enum
import re
from typing import NamedTuple


class Fate(enum.Enum):
    """The state of the rows of a call that failed."""

    REFUSED = "refused"
    """Not written, and never will be: sending the same again cannot help."""

    NOT_WRITTEN = "not written"
    """Not written, and may be sent again at once."""

    UNCLEAR = "unclear"
    """Perhaps written, perhaps later: to be read back before it is sent again."""


NO_CONNECTION = (
    r"failed to connect|errors? resolving|dns resolution failed|name resolution"  # gRPC's own words
    r"|no healthy upstream|reset reason: (remote )?connection failure"  # Envoy's, for a mesh in between
)
"""The text of an UNAVAILABLE of which no server has seen anything."""


class Rule(NamedTuple):
    """One row of the table: the first one whose status and text both match decides."""

    status: str
    text: str
    fate: Fate


_REFUSALS = (
    *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED"),
    *("FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"),
)
_DOUBTS = ("DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "INTERNAL", "DATA_LOSS")

# MySQL's errors arrive as "Error 1064 (42000): You have an error in your SQL syntax"; PostgreSQL's as "pq: ...".
# Refusals stand first: Prepare fails with them too. Texts are searched, ignoring case.
RULES = (
    Rule("UNKNOWN", r"error parsing", Fate.REFUSED),  # a timestamp
    Rule("UNKNOWN", r"error 1064\b|syntax error", Fate.REFUSED),
    Rule("UNKNOWN", r"error 1390\b|sql: expected", Fate.REFUSED),  # too many placeholders
    Rule("UNKNOWN", r"error 1406\b|value too long|data too long", Fate.REFUSED),
    Rule("UNKNOWN", r"error (1366|1292|1105)\b|out of range|invalid byte sequence", Fate.REFUSED),
    Rule(
        "UNKNOWN",
        r"prepare sql statement failed.*(dial tcp|error 1040\b|too many connections|too many clients|connection slots"
        r"|reset by peer)",
        Fate.NOT_WRITTEN,
    ),
    # The database is read-only (a failover), or its disk is full: the statement was carried out nowhere.
    Rule("UNKNOWN", r"error (1290|1836)\b|read[- ]only (option|mode|transaction)", Fate.NOT_WRITTEN),
    Rule("UNKNOWN", r"error (1021|1114)\b|no space left on device|disk (is )?full", Fate.NOT_WRITTEN),
    Rule("UNKNOWN", r"", Fate.UNCLEAR),
    Rule("UNAVAILABLE", NO_CONNECTION, Fate.NOT_WRITTEN),
    Rule("UNAVAILABLE", r"credential could not be judged", Fate.NOT_WRITTEN),  # db_manager/trials/servicer.py
    Rule("UNAVAILABLE", r"", Fate.UNCLEAR),
    Rule("RESOURCE_EXHAUSTED", r"larger than max", Fate.REFUSED),
    Rule("RESOURCE_EXHAUSTED", r"", Fate.NOT_WRITTEN),
    *(Rule(status, r"", Fate.REFUSED) for status in _REFUSALS),
    *(Rule(status, r"", Fate.UNCLEAR) for status in _DOUBTS),
)
"""Whatever matches no row is unclear."""


def may_be_replaced(status: str, text: str) -> bool:
    """Return whether a call may be let in with the token that its file has in a moment, after a rotation."""
    # A token for another audience is followed by one for the same (db_manager/trials/servicer.py).
    return status == "UNAUTHENTICATED" and "names no trial" not in text


def classify(status: str, text: str) -> Fate:
    """Return the fate of the rows, from the gRPC status code's name and its details."""
    for rule in RULES:
        if rule.status == status and re.search(rule.text, text, re.IGNORECASE | re.DOTALL):
            return rule.fate
    return Fate.UNCLEAR
