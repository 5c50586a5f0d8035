"""An experiment that runs, as it is shown again and again: on a terminal by rich, elsewhere as a line a trial."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from katib_callbacks.console import printable
from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.metrics.scalars import as_number
from katib_callbacks.pictures.records import SUCCEEDED, TrialRecord, shortened
from katib_callbacks.pictures.sparkline import sparkline

REFRESH_S = 1.0
_PAUSES, _LONGEST_PAUSE_S = 250, 5.0
"""How much longer a pause is than drawing took, so that it costs little; on a busy machine that takes long."""

MAX_ROWS = 15
"""Trials in the table: those that run, and the latest of the others."""

_BAR_WIDTH = 30
_SPARK_WIDTH = 40
_WIDE = 120
"""Columns of a terminal that has room for more than the objective."""

_STYLES = {"Succeeded": "green", "EarlyStopped": "yellow", "Failed": "red", "MetricsUnavailable": "red", "Running": ""}


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs, and what its callback shows; None for what is not known."""

    name: str
    parameters: Mapping[str, str]
    started_s: float
    fraction: float | None = None
    remaining_s: float | None = None
    epoch: int | None = None
    step: int | None = None
    latest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """An experiment at one moment.

    Args:
        counts: How many trials are in each final state.
        best_so_far: The best objective after each trial that had one.
        latest: Trials that have ended, the last one last; not all of them.
        news: Those of them that had not when it was looked at before.
        eta_s: Seconds until the budget is used up, as far as can be told.
    """

    name: str
    state: str
    message: str
    objective: str
    metrics: Sequence[str]
    budget: int | None
    counts: Mapping[str, int]
    best: TrialRecord | None
    best_so_far: Sequence[float]
    running: Sequence[RunningTrial]
    latest: Sequence[TrialRecord]
    news: Sequence[TrialRecord]
    eta_s: float | None
    is_over: bool

    @property
    def done(self) -> int:
        """How many trials have ended."""
        return sum(self.counts.values())


def eta_s(durations_s: Sequence[float], running: Sequence[RunningTrial], left: int, parallel: int) -> float | None:
    """Return how long an experiment will take yet; None as long as nothing tells how long a trial takes.

    ``durations_s`` are those of trials that have ended, ``left`` is how many have not begun.
    """
    now_s = time.time()
    mean_s = sum(durations_s) / len(durations_s) if durations_s else None
    rests = []
    for trial in running:
        rest_s = trial.remaining_s
        if rest_s is None and mean_s is not None:
            rest_s = max(0.0, mean_s - (now_s - trial.started_s))
        if rest_s is None:
            return None
        rests.append(rest_s)
    if left and mean_s is None:
        mean_s = sum(now_s - trial.started_s + rest for trial, rest in zip(running, rests, strict=True)) / len(running)
    return max([(sum(rests) + left * (mean_s or 0.0)) / max(parallel, 1), *rests])


def ended_line(snapshot: Snapshot, name: str, state: str, objective: float | None, message: str, done: int) -> str:
    """Return the line that says how a trial has ended, the ``done``-th of the experiment."""
    total = "" if snapshot.budget is None else f"/{snapshot.budget}"
    value = "" if objective is None else f", {printable(snapshot.objective)} {objective:g}"
    return f"[{done}{total}] {name} {state}{value}: {printable(message)}"


def news_lines(snapshot: Snapshot) -> list[str]:
    """Return a line for each trial that has ended since the last look."""
    first = snapshot.done - len(snapshot.news) + 1
    return [
        ended_line(snapshot, trial.name, trial.state, trial.objective, trial.message, number)
        for number, trial in enumerate(snapshot.news, first)
    ]


def summary(snapshot: Snapshot) -> str:
    """Return how many trials have ended how, and how long the others will take."""
    total = "" if snapshot.budget is None else f" of {snapshot.budget}"
    counts = ", ".join(f"{count} {state}" for state, count in snapshot.counts.items()) or "none finished yet"
    running = f", {len(snapshot.running)} running" if snapshot.running else ""
    eta = "" if snapshot.eta_s is None or snapshot.is_over else f", ETA {duration(snapshot.eta_s)}"
    return f"{snapshot.done}{total} trials: {counts}{running}{eta}"


def duration(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_parameters(parameters: Mapping[str, str]) -> str:
    """Return parameters on one line, their numbers with four digits."""
    return printable(" ".join(f"{name}={_short(text)}" for name, text in parameters.items()))


def _short(text: str) -> str:
    value = as_number(text)
    return text if value is None or len(text) < 8 else f"{value:.4g}"  # noqa: PLR2004  shorter than that it would not be


@contextmanager
def shown_live(look: Callable[[], Snapshot]) -> Iterator[Callable[[], Snapshot]]:
    """Draw on the terminal what ``look`` returns, about once a second in a thread, and in the end; yields the latest.

    Where it cannot be read any more, the last that could be stays.
    """
    from rich.console import Console  # noqa: PLC0415  optional
    from rich.live import Live  # noqa: PLC0415  as above

    console = Console()
    latest = look()

    def draw() -> Any:
        nonlocal latest
        with suppress(KatibCallbacksError):
            latest = look()
        return drawn(latest, console.width, console.height)

    done = threading.Event()
    view = Live(console=console, get_renderable=draw, auto_refresh=False)

    def refresh() -> None:
        pause_s = REFRESH_S
        while not done.wait(pause_s):
            start_s = time.monotonic()
            with suppress(OSError):  # the terminal was closed
                view.refresh()
            pause_s = min(max(REFRESH_S, _PAUSES * (time.monotonic() - start_s)), _LONGEST_PAUSE_S)

    thread = threading.Thread(target=refresh, name="katib-callbacks-live-view", daemon=True)
    with view:
        thread.start()
        try:
            yield lambda: latest
        finally:
            done.set()
            thread.join()


def drawn(snapshot: Snapshot, width: int, height: int) -> Any:
    """Return what rich draws."""
    from rich.console import Group  # noqa: PLC0415  optional
    from rich.progress_bar import ProgressBar  # noqa: PLC0415  as above
    from rich.table import Table  # noqa: PLC0415  as above
    from rich.text import Text  # noqa: PLC0415  as above

    parts: list[Any] = [_table(snapshot, width, max(1, min(MAX_ROWS, height - 9)))]
    best = snapshot.best
    if best is not None:
        spark = sparkline(snapshot.best_so_far, min(_SPARK_WIDTH, width // 3))
        parts.append(Text(f"best {printable(snapshot.objective)} {best.objective:g}  {spark}  {best.name}", "bold"))
        parts.append(Text(f"  {short_parameters(best.parameters)}", overflow="ellipsis", no_wrap=True))
    bar_width = _BAR_WIDTH if width >= _WIDE else width - 1
    bar = ProgressBar(total=snapshot.budget, completed=snapshot.done, pulse=snapshot.budget is None, width=bar_width)
    line = Table.grid(padding=(0, 1))
    cells = (bar, Text(summary(snapshot)))
    for row in [cells] if width >= _WIDE else [(cell,) for cell in cells]:
        line.add_row(*row)
    return Group(*parts, line)


def _table(snapshot: Snapshot, width: int, most: int) -> Any:
    from rich.table import Table  # noqa: PLC0415  optional
    from rich.text import Text  # noqa: PLC0415  as above

    metrics = list(snapshot.metrics[: 4 if width >= _WIDE else 1])
    table = Table(title=f"{snapshot.name} is {snapshot.state}", expand=True)
    table.add_column("Trial", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Epoch", no_wrap=True, justify="right")
    for metric in metrics:
        table.add_column(Text(shortened(printable(metric), 16)), no_wrap=True, justify="right")
    table.add_column("Parameters", no_wrap=True, ratio=1)
    running = snapshot.running[-most:]
    ended = snapshot.latest[-(most - len(running)) :] if len(running) < most else ()
    for trial in ended:
        style = "bold" if snapshot.best is not None and trial.name == snapshot.best.name else ""
        values = [
            _number(trial.objective if metric == snapshot.objective else _latest(trial, metric)) for metric in metrics
        ]
        row = (
            _name(trial.name, snapshot.name, width),
            Text(trial.state, _STYLES.get(trial.state, "")),
            str(len(trial.epochs) or ""),
            *values,
            Text(_told(trial)),
        )
        table.add_row(*row, style=style)
    for one in running:
        values = [_number(one.latest.get(metric)) for metric in metrics]
        epoch = one.epoch if one.epoch is not None else one.step
        name = _name(one.name, snapshot.name, width)
        row = (name, _progress(one), str(epoch or ""), *values, Text(short_parameters(one.parameters)))
        table.add_row(*row, style="cyan")
    return table


def _name(trial: str, experiment: str, width: int) -> Any:
    """Return a trial's name, without the experiment's where there is little room."""
    from rich.text import Text  # noqa: PLC0415  optional

    return Text(trial if width >= _WIDE else f"…{trial.removeprefix(experiment)}" if trial != experiment else trial)


def _told(trial: TrialRecord) -> str:
    """Return a trial's parameters, and why it has not succeeded, if it has not."""
    reason = trial.message.partition("Job message: ")[2] or trial.message
    return f"{short_parameters(trial.parameters)}{'' if trial.state == SUCCEEDED else f'  ({printable(reason)})'}"


def _progress(trial: RunningTrial) -> str:
    if trial.fraction is None:
        return duration(time.time() - trial.started_s)
    left = "" if not trial.remaining_s else f", {duration(trial.remaining_s)} left"
    return f"{trial.fraction:.0%}{left}"


def _latest(trial: TrialRecord, metric: str) -> float | None:
    return as_number(trial.metrics.get(metric, {}).get("latest", ""))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
