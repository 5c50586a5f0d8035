"""Optuna's plots as matplotlib draws them, in one PNG file."""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
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

_DPI = 100
_SIZE = (8.0, 4.5)
_MARKS = {"EarlyStopped": "s", "Failed": "X", "MetricsUnavailable": "D"}


def picture(record: ExperimentRecord, kinds: Sequence[str], metric: str | None = None) -> bytes:
    """Return a PNG with a plot of each kind that can be drawn, two side by side; a single one that cannot raises."""
    check_installed("a plot", EXTRA, "matplotlib")
    import matplotlib as mpl  # noqa: PLC0415  optional

    mpl.use("agg")  # no window is opened
    drawn = []
    for kind in kinds:
        with suppress(ExperimentError) if len(kinds) > 1 else nullcontext():
            drawn.append(_image(record, kind, metric or record.objective))
    if not drawn:
        raise ExperimentError(f"experiment {record.name!r} has nothing to be drawn yet")
    return _together(drawn)


def _image(record: ExperimentRecord, kind: str, metric: str) -> Any:
    """Return a plot's pixels."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  optional

    shown = drawable(record, kind, metric)
    with quiet() as optuna, warnings.catch_warnings(), plt.rc_context(), plt.style.context("default"):
        warnings.simplefilter("ignore")
        figure, _ = _each(_DRAWN[kind](optuna.visualization.matplotlib, shown, metric))
        try:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.25)
        finally:
            plt.close(figure)
        buffer.seek(0)
        return plt.imread(buffer)


def _together(images: Sequence[Any]) -> bytes:
    """Return one PNG of several images, two in a row, on white."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  optional
    import numpy as np  # noqa: PLC0415  comes with matplotlib

    rows = [images[start : start + 2] for start in range(0, len(images), 2)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    widths = [max(row[column].shape[1] for row in rows if len(row) > column) for column in range(len(rows[0]))]
    whole = np.ones((sum(heights), sum(widths), 4))
    for row, images_of_row in enumerate(rows):
        for column, image in enumerate(images_of_row):
            top, left = sum(heights[:row]), sum(widths[:column])
            whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    buffer = io.BytesIO()
    plt.imsave(buffer, whole, format="png")
    return buffer.getvalue()


def _objective(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    axes = plots.plot_optimization_history(study_of(record), target_name=record.objective)
    for drawn in [*axes.collections, *axes.lines]:
        drawn.remove()  # its marks have one color; ours tell states
    valued = [trial for trial in record.trials if trial.objective is not None]
    better = max if record.is_maximized else min
    best = [better(trial.objective or 0.0 for trial in valued[:count]) for count in range(1, len(valued) + 1)]
    ends = [*(trial.number for trial in valued), record.trials[-1].number]
    axes.step(ends, [*best, best[-1]], where="post", color=BEST_COLOR, linewidth=1.5, label="best so far")
    for state, trials in {**by_state(valued), **without_objective(record)}.items():
        heights = [floor(record) if trial.objective is None else trial.objective for trial in trials]
        _mark(axes, state, [trial.number for trial in trials], heights, 36 if len(valued) <= MANY else 14)
    if len(record.trials) <= MANY / 3:
        axes.set_xticks([trial.number for trial in record.trials])
    return _titled(axes, "objective", "trial", record.objective)


def _curves(plots: Any, record: ExperimentRecord, metric: str) -> Any:
    axes = plots.plot_intermediate_values(study_of(record, curves_of=metric))
    is_named, best = len(record.trials) <= MAX_NAMED_CURVES, record.best
    for line, trial in zip(axes.lines, record.trials, strict=True):
        is_best = best is not None and trial.name == best.name
        label = f"{trial.name}, the best" if is_best else trial.name
        line.set(linewidth=2.5 if is_best else 1.2, zorder=3 if is_best else 2)
        line.set(label=label if is_named or is_best else f"_{label}", marker="." if len(line.get_xdata()) == 1 else "")
        if is_best:
            line.set(color=BEST_COLOR, alpha=1.0)
        elif not is_named:
            line.set(color=COLORS.get(trial.state, OTHER_COLOR), alpha=0.7 if len(record.trials) <= MANY else 0.35)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for state, trials in by_state(record.trials).items():
        ends = [trial.curve(metric)[-1] for trial in trials]
        if state != SUCCEEDED:
            _mark(axes, state, [step for step, _ in ends], [value for _, value in ends], 30)
    return _titled(axes, "curves", "epoch", metric)


def _parallel(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    axes = plots.plot_parallel_coordinate(study_of(record), target_name=record.objective)
    axes.set_title("")
    axes.set_title(KINDS["parallel"], loc="left")
    axes.figure.suptitle("")
    axes.collections[0].set_linewidth(1.5 if len(record.trials) <= MANY else 0.5)
    axes.figure.set_size_inches(max(_SIZE[0], 1.5 * (len(record.parameters) + 2)), _SIZE[1] + 0.5)
    for label in axes.get_xticklabels():
        label.set(rotation=20, ha="right", rotation_mode="anchor")
    return axes


def _slices(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    axes = plots.plot_slice(study_of(record), target_name=record.objective)
    figure, each = _each(axes)
    figure.suptitle(KINDS["slices"])
    figure.set_size_inches(max(_SIZE[0], 2.4 * len(each)), _SIZE[1])
    _turn(each)
    return axes


def _importances(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    axes = plots.plot_param_importances(study_of(record), evaluator=evaluator(), target_name=record.objective)
    axes.figure.set_size_inches(_SIZE)
    if axes.get_legend() is not None:
        axes.get_legend().remove()
    axes.set_xlim(0, 1.12 * max(bar.get_width() for bar in axes.patches))
    axes.set(title="", xlabel=f"share in what changes {record.objective}", ylabel="")
    axes.set_title(KINDS["importances"], loc="left")
    return axes


def _contour(plots: Any, record: ExperimentRecord, _metric: str) -> Any:
    axes = plots.plot_contour(study_of(record), target_name=record.objective)
    figure, each = _each(axes)
    side = 2.7 * math.isqrt(len(each)) if len(each) > 1 else _SIZE[1]
    figure.set_size_inches(max(side + 1.5, 6.0), max(side, _SIZE[1]))
    figure.suptitle(KINDS["contour"])
    for one in each:
        one.set_title("")
        one.label_outer()
        for drawn in one.collections:
            if len(drawn.get_offsets()) > MANY:
                drawn.set_sizes([6])
    _turn(each)
    return axes


def _each(axes: Any) -> tuple[Any, list[Any]]:
    import numpy as np  # noqa: PLC0415  comes with matplotlib

    each: list[Any] = list(np.ravel(axes))
    return each[0].figure, each


def _turn(each: Sequence[Any]) -> None:
    """Let the labels of small axes keep apart."""
    for axes in each:
        axes.tick_params(axis="both", which="major", labelsize=8)
        axes.tick_params(axis="both", which="minor", labelbottom=False, labelleft=False)
        axes.tick_params(axis="x", labelrotation=45)
        axes.xaxis.label.set(size=8, rotation=15)
        axes.yaxis.label.set_size(8)


def _mark(axes: Any, state: str, x: Sequence[int], y: Sequence[float], size: int) -> None:
    color, mark = COLORS.get(state, OTHER_COLOR), _MARKS.get(state, "o")
    axes.scatter(x, y, s=size, marker=mark, color=color, label=state, zorder=4)


def _titled(axes: Any, kind: str, x: str, y: str) -> Any:
    axes.figure.set_size_inches(_SIZE)
    axes.set(title="", xlabel=x, ylabel=y)
    axes.set_title(KINDS[kind], loc="left")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return axes


_DRAWN: dict[str, Callable[[Any, ExperimentRecord, str], Any]] = {
    "objective": _objective,
    "curves": _curves,
    "parallel": _parallel,
    "slices": _slices,
    "importances": _importances,
    "contour": _contour,
}
