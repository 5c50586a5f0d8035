"""Metric logs, as sent and as stored, and the conversions that both ends share.

The wire carries strings alone. A value goes out as the shortest decimal that reads back as the same number in its own
precision; a timestamp as RFC 3339 in UTC with six digits, because MySQL truncates and PostgreSQL rounds anything finer.
"""

from katib_callbacks.metrics.names import MAX_NAME_CHARACTERS, check_name, name_problem, text_problem
from katib_callbacks.metrics.rows import MAX_VALUE_BYTES, MetricLog, StoredMetricLog
from katib_callbacks.metrics.scalars import format_value, to_number
from katib_callbacks.metrics.timestamps import RESOLUTION, format_timestamp, parse_timestamp

__all__ = [
    "MAX_NAME_CHARACTERS",
    "MAX_VALUE_BYTES",
    "RESOLUTION",
    "MetricLog",
    "StoredMetricLog",
    "check_name",
    "format_timestamp",
    "format_value",
    "name_problem",
    "parse_timestamp",
    "text_problem",
    "to_number",
]
