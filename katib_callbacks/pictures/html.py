"""Optuna's plots as plotly draws them: for notebooks, and for one HTML file that needs no network."""

import html
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from katib_callbacks.errors import ExperimentError
from katib_callbacks.pictures.kinds import (
    BEST_COLOR,
    COLORS,
    KINDS,
    MANY,
    MAX_NAMED_CURVES,
    OTHER_COLOR,
    by_state,
    drawable,
    evaluator,
    floor,
    without_objective,
)
from katib_callbacks.pictures.records import SUCCEEDED, ExperimentRecord, check_installed
from katib_callbacks.pictures.study import EXTRA, quiet, study_of

_SYMBOLS = {"EarlyStopped": "square-open", "Failed": "x", "MetricsUnavailable": "diamond-open"}
_CELL = 300
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:24px auto;padding:0 16px;color:#222}}
h1{{font-size:22px;margin:0}}section{{margin:28px 0;overflow-x:auto}}p{{margin:4px 0;overflow-wrap:anywhere}}
.none{{color:#777}}</style>
<script>{script}</script></head>
<body><h1>{title}</h1>{summary}{sections}</body></html>
"""


def figure(record: ExperimentRecord, kind: str, metric: str | None = None) -> Any:
    """Return a plotly figure of one kind; ``metric`` is that of the curves, by default the objective."""
    check_installed("a plot", EXTRA, "plotly")
    shown = drawable(record, kind, metric)
    with quiet() as optuna, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental functions, of points that are too few
        drawn = _DRAWN[kind](optuna.visualization, shown, metric or record.objective)
    drawn.update_layout(title={"text": KINDS[kind]}, template="plotly_white", font={"size": 12})
    return drawn


def page(record: ExperimentRecord, kinds: Sequence[str], metric: str | None = None) -> str:
    """Return one HTML page with a plot of each kind, or why there is none; a single kind that cannot be raises."""
    check_installed("a plot", EXTRA, "plotly")
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  optional

    sections = []
    for kind in kinds:
        try:
            drawn = figure(record, kind, metric)
        except ExperimentError as error:
            if len(kinds) == 1:
                raise
            sections.append(f'<section><p class="none">{KINDS[kind]}: {html.escape(str(error))}</p></section>')
            continue
        options = {"displaylogo": False, "responsive": True}
        sections.append(f"<section>{drawn.to_html(full_html=False, include_plotlyjs=False, config=options)}</section>")
    return _PAGE.format(
        title=html.escape(record.name), script=get_plotlyjs(), summary=_summary(record), sections="".join(sections)
    )


def _summary(record: ExperimentRecord) -> str:
    lines = [f"{record.state}: {record.message}"]
    best = record.best
    if best is not None:
        lines.append(f"best {record.objective} {best.objective!r} of {best.name}")
        lines.append(", ".join(f"{name} = {value}" for name, value in best.parameters.items()))
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _objective(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    drawn = plots.plot_optimization_history(study_of(record), target_name=record.objective)
    _, best, *_ = drawn.data
    valued = [trial for trial in record.trials if trial.objective is not None]
    first, size = valued[0].number, 9 if len(valued) <= MANY else 6
    line = {"color": BEST_COLOR, "width": 1.5, "shape": "hv"}
    best.update(name="best so far", x=list(best.x)[first:], y=list(best.y)[first:], line=line)
    drawn.data = (best,)  # its markers have one color; ours tell states
    for state, trials in {**by_state(valued), **without_objective(record)}.items():
        drawn.add_scatter(
            x=[trial.number for trial in trials],
            y=[floor(record) if trial.objective is None else trial.objective for trial in trials],
            mode="markers",
            name=state,
            hovertext=[f"{trial.name}: {trial.message}" for trial in trials],
            marker={**_marker(state), "size": size, **({} if state == SUCCEEDED else {"line": {"width": 1}})},
        )
    ticks = {"dtick": 1} if len(record.trials) <= MANY / 3 else {}
    drawn.update_layout(xaxis=ticks, yaxis_title=record.objective, legend=_LEGEND, showlegend=True, margin=_MARGIN)
    return drawn


def _curves(plots: Any, record: ExperimentRecord, metric: str) -> Any:
    from plotly.graph_objects import Figure  # noqa: PLC0415  optional

    drawn = plots.plot_intermediate_values(study_of(record, curves_of=metric)).to_dict()  # faster to change: no checks
    is_named, best = len(record.trials) <= MAX_NAMED_CURVES, record.best
    for trace, trial in zip(drawn["data"], record.trials, strict=True):
        is_best = best is not None and trial.name == best.name
        trace["name"] = f"{trial.name}, the best" if is_best else trial.name
        trace["showlegend"] = is_named or is_best
        trace["mode"] = "markers" if len(trial.curve(metric)) == 1 else "lines"
        trace["line"] = {"width": 3 if is_best else 1.5}
        if is_best or not is_named:
            color = BEST_COLOR if is_best else COLORS.get(trial.state, OTHER_COLOR)
            trace.update(
                opacity=1.0 if is_best else 0.7 if len(record.trials) <= MANY else 0.45, marker={"color": color}
            )
            trace["line"]["color"] = color
    drawn["data"].sort(key=lambda trace: "the best" in trace["name"])  # drawn last, and so on top
    for state, trials in by_state(record.trials).items():
        if state == SUCCEEDED:
            continue
        ends = [trial.curve(metric)[-1] for trial in trials]
        end = {
            "type": "scatter",
            "x": [step for step, _ in ends],
            "y": [value for _, value in ends],
            "mode": "markers",
            "name": state,
            "hovertext": [f"{trial.name}: {trial.message}" for trial in trials],
            "marker": {**_marker(state), "size": 8},
        }
        drawn["data"].append(end)
    changed = Figure(drawn, skip_invalid=True)
    if max(trial.curve(metric)[-1][0] for trial in record.trials) <= MANY / 3:
        changed.update_xaxes(dtick=1)
    changed.update_layout(xaxis_title="epoch", yaxis_title=metric, showlegend=True, legend=_LEGEND, margin=_MARGIN)
    return changed


def _parallel(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    drawn = plots.plot_parallel_coordinate(study_of(record), target_name=record.objective)
    drawn.update_traces(labelangle=-20, labelside="top", selector={"type": "parcoords"})
    drawn.update_layout(margin={"l": 90, "r": 130, "t": 80, "b": 110}, height=460)
    return drawn


def _slices(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    drawn = plots.plot_slice(study_of(record), target_name=record.objective)
    drawn.update_layout(width=max(700, 230 * len(record.parameters)))
    _tick(drawn)
    return drawn


def _importances(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    drawn = plots.plot_param_importances(study_of(record), evaluator=evaluator(), target_name=record.objective)
    drawn.update_layout(xaxis_title=f"share in what changes {record.objective}", yaxis_title="", showlegend=False)
    return drawn


def _contour(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    drawn = plots.plot_contour(study_of(record), target_name=record.objective)
    size = 480 if len(record.parameters) == 2 else _CELL * len(record.parameters)  # noqa: PLR2004  one pair, one cell
    drawn.update_layout(width=size + 200, height=size + 60)
    drawn.update_traces(line_width=0, selector={"type": "contour"})
    drawn.update_traces(marker_size=4, selector={"type": "scatter"})
    _tick(drawn)
    return drawn


def _tick(drawn: Any) -> None:
    """Let the labels of small axes keep apart."""
    drawn.update_xaxes(tickangle=45, nticks=5, exponentformat="e")
    drawn.update_yaxes(nticks=6, exponentformat="e")
    for axes in (drawn.select_xaxes, drawn.select_yaxes):
        for axis in axes(selector={"type": "log"}):
            axis.minor.ticks, axis.dtick = "outside", 1


def _marker(state: str) -> dict[str, Any]:
    return {"color": COLORS.get(state, OTHER_COLOR), "symbol": _SYMBOLS.get(state, "circle")}


_DRAWN: dict[str, Callable[[Any, ExperimentRecord, str], Any]] = {
    "objective": _objective,
    "curves": _curves,
    "parallel": _parallel,
    "slices": _slices,
    "importances": _importances,
    "contour": _contour,
}
_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "right", "x": 1.0}
_MARGIN = {"l": 70, "r": 30, "t": 90, "b": 50}
