"""Figures and growths, as each program of this folder tells them: in a table, or with ``--json`` for ``results.py``."""

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

COLUMNS = ("what", "ours", "beside", "theirs", "ratio", "limit", "met")

TOLERANCE = 0.15
"""What an exponent may be above its aim: over a factor of a hundred, twice what the aim allows."""

PACKAGES = (
    *("katib-callbacks", "grpcio", "protobuf", "sqlalchemy", "optuna", "torch", "lightning", "keras", "tensorflow"),
    *("transformers", "ray", "mlflow", "optuna-integration", "kubeflow-katib", "kubernetes"),
)

Size = Callable[[int], int]
"""Returns the part of a number of rounds, trials or rows that ``--share`` asks for."""


@dataclass(frozen=True)
class Figure:
    """What something costs, beside what it is compared with in the same run; less is better.

    Args:
        ours: Measurements; their median and the middle 80 % are told, or their mean with ``is_mean``.
        beside: What ``theirs`` are measurements of.
        at_most: A limit of ours; ``ratio_at_most`` one of ours by theirs.
        is_peer: Whether theirs is another library's: where it is faster, RESULTS.md says so.
    """

    what: str
    ours: Sequence[float]
    unit: str
    beside: str = ""
    theirs: Sequence[float] = ()
    at_most: float | None = None
    ratio_at_most: float | None = None
    is_peer: bool = False
    is_mean: bool = False

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        ours, theirs = self._summary(self.ours), self._summary(self.theirs) if self.theirs else None
        ratio = ours[0] / theirs[0] if theirs else None
        met = [ours[0] <= self.at_most] if self.at_most is not None else []
        if self.ratio_at_most is not None and ratio is not None:
            met.append(ratio <= self.ratio_at_most)
        limits = [
            f"{_number(self.at_most)} {self.unit}" if self.at_most is not None else "",
            f"ratio {_number(self.ratio_at_most)}" if self.ratio_at_most is not None else "",
        ]
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": ours,
            "beside": self.beside,
            "theirs": theirs,
            "ratio": ratio,
            "limit": " and ".join(filter(None, limits)),
            "is_met": all(met) if met else None,
            "is_peer": self.is_peer,
        }

    def _summary(self, values: Sequence[float]) -> list[float]:
        center = statistics.fmean(values) if self.is_mean else statistics.median(values)
        if len(values) == 1:
            return [center] * 3
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        return [center, tenths[0], tenths[-1]]


@dataclass(frozen=True)
class Growth:
    """How a cost grows.

    Args:
        by: What grows: ``rows``.
        lines: The cost at each count; the first line is ours, others are beside it.
        aim: The greatest exponent that is right: 0 for a cost that stays, 1 for one that is in proportion.
    """

    what: str
    by: str
    unit: str
    lines: Mapping[str, Mapping[int, float]]
    aim: int

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        exponent = exponent_of(next(iter(self.lines.values())))
        is_met = exponent <= self.aim + TOLERANCE
        return vars(self) | {"exponent": exponent, "is_met": is_met}


def exponent_of(points: Mapping[int, float]) -> float:
    """Fit a power of n to the costs at the last hundredth of n and above: a fixed cost hides the growth below.

    A cost of 0 is below what the clock can tell, and tells nothing.
    """
    tail = [(math.log(n), math.log(cost)) for n, cost in points.items() if n >= max(points) / 100 and cost > 0]
    slope, _ = statistics.linear_regression(*zip(*tail, strict=True))
    return slope


def cells(one: Mapping[str, Any]) -> list[str]:
    """Return what the columns of a table show of a figure or a growth that was told."""
    met = {None: "", True: "yes", False: "**no**"}[one["is_met"]]
    if "lines" in one:
        points = {int(n): cost for n, cost in next(iter(one["lines"].values())).items()}
        first, last = min(points), max(points)
        ours = f"{_number(points[first])} {one['unit']} at {first:,}, {_number(points[last])} at {last:,}"
        grows = f"grows as n^{one['exponent']:.2f}"
        return [f"{one['what']}, by {one['by']}", ours, "", "", grows, f"n^{one['aim']}", met]
    ratio = "" if one["ratio"] is None else f"{one['ratio']:.3g}"
    theirs = _spread(one["theirs"], one["unit"]) if one["theirs"] else ""
    return [one["what"], _spread(one["ours"], one["unit"]), one["beside"], theirs, ratio, one["limit"], met]


def _spread(summary: Sequence[float], unit: str) -> str:
    center, low, high = summary
    spread = "" if low == high else f" ({_number(low)} to {_number(high)})"
    return f"{_number(center)} {unit}".rstrip() + spread


def _number(value: float) -> str:
    """Show three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def run(doc: str | None, measure: Callable[..., Iterable[Figure | Growth]], **options: str) -> None:
    """Be a program: measure, and tell.

    Args:
        doc: The program's own.
        measure: Yields what it finds; is given a ``Size``, and the options by their names.
        options: Options of the command line, and their defaults.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in options.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--share", type=float, default=1.0, help="of the rounds, trials and rows, for a quick look")
    parser.add_argument("--json", action="store_true", help="print JSON; all else that is printed goes to stderr")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    arguments = parser.parse_args()
    stdout = os.dup(1)
    if arguments.json:
        os.dup2(2, 1)

    def size(count: int) -> int:
        return max(2, round(count * arguments.share))

    told = [one.told() for one in measure(size, **{name: getattr(arguments, name) for name in options})]
    with os.fdopen(stdout, "w") as output:
        if arguments.json:
            json.dump({"versions": versions(), "told": told}, output)
        else:
            output.writelines(f"{line}\n" for line in _aligned([list(COLUMNS), *map(cells, told)]))
    if arguments.check and not all(one["is_met"] is not False for one in told):
        sys.exit(1)


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that this environment has."""
    installed = {one.name.lower().replace("_", "-"): one.version for one in metadata.distributions() if one.name}
    return {"Python": sys.version.split()[0]} | {name: installed[name] for name in PACKAGES if name in installed}


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
