"""Tables in HTML for notebooks, and an experiment that runs, in one output that changes."""

import html
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.pictures.live import (
    REFRESH_S,
    Snapshot,
    duration,
    news_lines,
    short_parameters,
    shown_live,
    summary,
)
from katib_callbacks.pictures.sparkline import sparkline

_SPARK_WIDTH = 60

_logger = logging.getLogger(__name__)


@contextmanager
def shown_while_waiting(look: Callable[[], Snapshot]) -> Iterator[Callable[[], None]]:
    """Show an experiment to who waits for it; yields what is to be called again and again meanwhile.

    In a notebook one output changes, on a terminal the live table; elsewhere an INFO line tells how each trial ended.
    """
    show = _display()
    if show is None and sys.stdout is not None and sys.stdout.isatty() and find_spec("rich") is not None:
        with shown_live(look):
            yield lambda: None
        return
    due_s = 0.0

    def update() -> None:
        nonlocal due_s
        now_s = time.monotonic()
        if now_s < due_s:
            return
        due_s = now_s + REFRESH_S
        with suppress(KatibCallbacksError):  # who waits is told why it cannot be read
            snapshot = look()
            if show is not None:
                show(snapshot_html(snapshot))
            for line in news_lines(snapshot) if show is None else ():
                _logger.info("%s", line)

    update()
    try:
        yield update
    finally:
        due_s = 0.0
        update()


def _display() -> Callable[[str], None] | None:
    """Return what shows HTML in the place of what it has shown; None outside a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display  # noqa: PLC0415  it is loaded

    handle = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(text))


def snapshot_html(snapshot: Snapshot) -> str:
    """Return a running experiment as HTML."""
    lines = [f"<b>{_text(snapshot.name)}</b> is {_text(snapshot.state)}: {_text(summary(snapshot))}"]
    best = snapshot.best
    if best is not None:
        spark = sparkline(snapshot.best_so_far, _SPARK_WIDTH)
        lines.append(f"best {_text(snapshot.objective)} <b>{best.objective:g}</b> {spark} {_text(best.name)}")
        lines.append(_text(short_parameters(best.parameters)))
    rows = [
        (
            one.name,
            "" if one.fraction is None else f"{one.fraction:.0%}",
            "" if not one.remaining_s else duration(one.remaining_s),
            one.epoch or one.step or "",
            " ".join(f"{name} {value:.4g}" for name, value in one.latest.items()),
            short_parameters(one.parameters),
        )
        for one in snapshot.running
    ]
    headings = ("Running trial", "Done", "Left", "Epoch", "Latest", "Parameters")
    return "<br>".join(lines) + (table_html(headings, rows) if rows else "")


def table_html(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def object_html(data: Mapping[str, Any]) -> str:
    """Return one of Katib's objects, as JSON has it, as HTML: an experiment, a trial, the best one; others as JSON."""
    status, spec = data.get("status") or {}, data.get("spec") or {}
    if "bestTrialName" in data:
        return table_html(("Best trial", data["bestTrialName"]), _results(data, data.get("parameterAssignments")))
    if data.get("kind") not in {"Experiment", "Trial"}:
        return f"<pre>{_text(json.dumps(data, indent=2, default=str))}</pre>"
    condition = (status.get("conditions") or [{}])[-1]
    rows = [("State", condition.get("type", "")), ("Message", condition.get("message", ""))]
    name = (data.get("metadata") or {}).get("name", "")
    if data["kind"] == "Trial":
        return table_html(("Trial", name), [*rows, *_results(status, spec.get("parameterAssignments"))])
    best = status.get("currentOptimalTrial") or {}
    rows.append(("Trials", f"{status.get('trials', 0)} of {spec.get('maxTrialCount', 'any number')}"))
    rows += [("Best trial", best["bestTrialName"]), *_results(best, best.get("parameterAssignments"))] if best else []
    return table_html(("Experiment", name), rows)


def _results(data: Mapping[str, Any], assignments: Iterable[Mapping[str, str]] | None) -> list[tuple[str, str]]:
    """Return rows of the parameters and of the observation."""
    metrics = (data.get("observation") or {}).get("metrics") or ()
    return [
        *((one["name"], one["value"]) for one in assignments or ()),
        *((one["name"], f"{one['latest']} (min {one['min']}, max {one['max']})") for one in metrics),
    ]


def _text(value: object) -> str:
    return html.escape(str(value))
