"""An experiment as rows: one a trial, or one a row of metrics; for data frames and files."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import format_timestamp
from katib_callbacks.metrics.scalars import as_number
from katib_callbacks.pictures.records import ExperimentRecord, TrialRecord, check_installed

EXTRA = "data"

_REDUCTIONS = ("min", "max", "latest")
_NUMBERS = {"int": int, "double": float, "discrete": float}
_TIMES = ("created", "started", "completed")


def trial_rows(record: ExperimentRecord) -> list[dict[str, Any]]:
    """Return a row for each trial: what it is, its parameters, the objective and the metrics; None for what lacks."""
    kinds = {parameter.name: parameter.kind for parameter in record.parameters}
    return [
        {
            "trial": trial.name,
            "number": trial.number,
            "state": trial.state,
            "reason": trial.reason,
            "message": trial.message,
            "objective": trial.objective,
            **{f"parameter.{name}": _value(trial.parameters.get(name), kind) for name, kind in kinds.items()},
            **{
                f"metric.{name}.{reduction}": as_number(trial.metrics.get(name, {}).get(reduction, ""))
                for name in record.metrics
                for reduction in _REDUCTIONS
            },
            "created": _time(trial.created_s),
            "started": _time(trial.started_s),
            "completed": _time(trial.completed_s),
            "duration_s": _duration_s(trial),
        }
        for trial in record.trials
    ]


def metric_rows(record: ExperimentRecord) -> list[dict[str, Any]]:
    """Return a row for each that the DB manager holds of the trials, in their order and by time; values as texts."""
    return [
        {"trial": trial.name, "time": row.timestamp, "metric": row.name, "value": row.value}
        for trial in record.trials
        for row in trial.rows
    ]


def data_frame(record: ExperimentRecord, *, rows: bool) -> Any:
    """Return a pandas DataFrame of the trials, or of the rows of metrics."""
    check_installed("a data frame", EXTRA, "pandas")
    import pandas as pd  # noqa: PLC0415  optional

    if rows:
        frame = pd.DataFrame(metric_rows(record), columns=["trial", "time", "metric", "value"])
        frame["value"] = pd.to_numeric(frame["value"], errors="coerce")
        frame["time"] = frame["time"].astype("datetime64[us, UTC]")  # Go's zero time is before pandas' nanoseconds
        return frame
    columns = [*_columns(record)]
    frame = pd.DataFrame(trial_rows(record), columns=columns)
    for name in _TIMES:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    for name in columns:
        if name == "objective" or name.startswith("metric."):
            frame[name] = frame[name].astype(float)
    return frame


def export(record: ExperimentRecord, path: Path, *, rows: bool) -> int:
    """Write a file of the format that the path's ending names, and return how many rows it has."""
    write = _WRITERS.get(path.suffix)
    if write is None:
        raise ConfigurationError(f"{path.name!r} does not end in {', '.join(_WRITERS)}")
    table = metric_rows(record) if rows else trial_rows(record)
    write(path, record, table, rows)
    return len(table)


def _write_csv(path: Path, record: ExperimentRecord, table: Sequence[Mapping[str, Any]], rows: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("trial", "time", "metric", "value") if rows else _columns(record))
        writer.writerows([_text(value) for value in row.values()] for row in table)


def _write_json(path: Path, _record: ExperimentRecord, table: Sequence[Mapping[str, Any]], rows: bool) -> None:
    del rows
    plain = [{name: _plain(value) for name, value in row.items()} for row in table]
    path.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_parquet(path: Path, record: ExperimentRecord, _table: object, rows: bool) -> None:
    check_installed("a parquet file", EXTRA, "pandas", "pyarrow")
    data_frame(record, rows=rows).to_parquet(path, index=False)


_WRITERS: dict[str, Callable[[Path, ExperimentRecord, Any, bool], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}


def _columns(record: ExperimentRecord) -> Sequence[str]:
    """Return the columns of :func:`trial_rows`, also where there is no trial."""
    none = TrialRecord("", 0, "", "", "", {}, None, {}, 0.0, None, None)
    one = ExperimentRecord(**{**record.__dict__, "trials": [none]})
    return list(trial_rows(one)[0])


def _value(text: str | None, kind: str) -> Any:
    """Return a parameter's value as what it is; a text that does not fit stays one."""
    if text is None or kind not in _NUMBERS:
        return text
    try:
        return _NUMBERS[kind](text)
    except ValueError:
        return text


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


def _duration_s(trial: TrialRecord) -> float | None:
    if trial.started_s is None or trial.completed_s is None:
        return None
    return round(trial.completed_s - trial.started_s, 3)


def _text(value: Any) -> Any:
    return format_timestamp(value) if isinstance(value, datetime) else value


def _plain(value: Any) -> Any:
    """Return what JSON has: it knows no NaN and no infinity."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return _text(value) if is_finite else str(value)
