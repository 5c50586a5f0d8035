"""Everything that is measured here, in one table: runs the programs and writes RESULTS.md, with plots of what grows.

::

    nox -s bench                        # all of them
    nox -s bench -- sinks overhead      # the rows of these; the others keep theirs, with their date

What was measured is kept in results.json; ``--render`` makes the table and the plots of it again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from figures import COLUMNS, TOLERANCE, cells

HERE = Path(__file__).parent
MEASURED = HERE / "results.json"
TABLE = HERE / "RESULTS.md"
PLOTS = HERE / "plots"

UPSTREAM = "startup"
"""The program that measures Katib's SDK, in the environment that has it."""

FRAMEWORKS = ("lightning", "keras/tensorflow", "keras/torch", "transformers")
STORES = "sqlite,mariadb,postgresql"

RUNS: Sequence[str] = (
    "startup",
    *(f"overhead --framework {framework}" for framework in FRAMEWORKS),
    *("trainjob", "sinks", "delivery_history", "delivery_burst"),
    *(f"db_manager_load --stores {store}" for store in STORES.split(",")),
    *("authentication", f"early_stopping --stores {STORES}", "local_trials", "live_view", "page", "api_server"),
)
"""Each program with its arguments, in the order of the table."""

TIMEOUT_S = 600
"""Of one run: Ray has been seen to wait for ever on a machine that was overloaded."""

BUSY = 1.5
"""A load of so many processes for each processor, before a program began, makes its figures provisional: what the
program before it has left is less."""


def main() -> None:
    """Measure what is asked for, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    programs = list(dict.fromkeys(map(program_of, RUNS)))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"programs: {', '.join(programs)} (default: all)")
    parser.add_argument("--upstream", default=sys.executable, help=f"the Python for {UPSTREAM}")
    parser.add_argument("--share", default="1", help="as each program has it, for a quick look")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(programs):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    measured = json.loads(MEASURED.read_text("utf-8")) if MEASURED.exists() else {}
    failed = []
    wanted = [] if arguments.render else arguments.names or programs
    for run in (run for run in RUNS if program_of(run) in wanted):
        python = arguments.upstream if run == UPSTREAM else sys.executable
        try:
            measured[run] = measure(run, python, arguments.share)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            failed.append(f"failed: {run}: {error}")
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(rendered(measured), encoding="utf-8")
    draw(measured)
    missed = [one["what"] for _, one in told(measured) if one["is_met"] is False]
    print(
        f"{TABLE} has {sum(1 for _ in told(measured))} rows", *(f"missed: {what}" for what in missed), *failed, sep="\n"
    )
    if failed or (arguments.check and missed):
        sys.exit(1)


def program_of(run: str) -> str:
    """Return the name of the program of a run."""
    return run.partition(" ")[0]


def measure(run: str, python: str, share: str) -> dict[str, Any]:
    """Run a program; returns what it tells, when, and on what."""
    from machine import commit_ms, described  # noqa: PLC0415  the table is made without the package

    print(f"-- {run}", flush=True)
    load, begun_s, began = os.getloadavg()[0], time.monotonic(), datetime.now(timezone.utc)
    name, *arguments = run.split()
    command = [python, str(HERE / f"{name}.py"), "--json", "--share", share, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_S)
    answer = json.loads(done.stdout)
    return {
        "date": f"{began:%Y-%m-%d %H:%M}",
        "took_s": round(time.monotonic() - begun_s),
        "share": float(share),
        "load": load,
        "is_busy": load > BUSY * (os.cpu_count() or 1),
        "machine": f"{described()}; a commit of 4 KiB takes {commit_ms():.1f} ms",
        **answer,
    }


def told(measured: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each figure and growth, with its run."""
    yield from ((run, one) for run in RUNS if run in measured for one in measured[run]["told"])


def rendered(measured: Mapping[str, Any]) -> str:
    """Return RESULTS.md."""
    all_told = list(told(measured))
    faster = [
        f"- {one['beside']} is faster than ours ({cells(one)[3]}, ours {cells(one)[1]}): {one['what']}."
        for _, one in all_told
        if one.get("is_peer") and one["ratio"] > 1
    ]
    missed = [f"- {one['what']}: {cells(one)[5]}, but {shown(one)}." for _, one in all_told if one["is_met"] is False]
    busy = [run for run in RUNS if run in measured and (measured[run]["is_busy"] or measured[run]["share"] < 1)]
    words = f"**Provisional**, on a busy machine or of small sizes: {', '.join(dict.fromkeys(map(program_of, busy)))}."
    absent = f"**Not measured yet**: {', '.join(run for run in RUNS if run not in measured)}."
    notes = [*([words, ""] if busy else []), *([] if set(RUNS) <= set(measured) else [absent, ""])]
    grown = [one for _, one in all_told if "lines" in one]
    return "\n".join(
        [
            "# What things cost",
            "",
            "Written by `nox -s bench`, from `results.json`; `nox -s bench -- NAME ...` measures the rows of those",
            "programs again. A figure is a median, and in brackets the middle 80 % of its measurements. What stands in",
            "one row was measured in turns in one run, so its ratio says more than its times: below 1 ours takes less.",
            "What grows is fitted by a power of n, over the last factor of a hundred: 0 is a cost that stays, 1 one in",
            f"proportion; {TOLERANCE} above the aim is still met.",
            "",
            *notes,
            *markdown([*COLUMNS, "program", "measured"], rows(measured)),
            "",
            "## Where another is faster",
            "",
            *(faster or ["Nowhere in this table."]),
            "",
            "## Limits that are missed",
            "",
            *(missed or ["None."]),
            "",
            "## How costs grow",
            "",
            "Both axes are logarithmic; the dashed line is the aim.",
            "",
            *(f"![{one['what']}, by {one['by']}](plots/{file_of(one)})" for one in grown),
            "",
            "## Measured when, and on what",
            "",
            *markdown(["program", "began (UTC)", "took", "load before", "machine"], runs(measured)),
            "",
            *versions(measured),
            "",
        ]
    )


def shown(one: Mapping[str, Any]) -> str:
    """Return what a limit is compared with."""
    _, ours, _, _, ratio, limit, _ = cells(one)
    return f"it {ratio}" if "lines" in one else f"{ratio}" if limit.startswith("ratio") else ours


def rows(measured: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of the table."""
    for run, one in told(measured):
        name = program_of(run)
        yield [*cells(one), f"[{name}]({name}.py)", measured[run]["date"].partition(" ")[0]]


def runs(measured: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield a row for each program that was run."""
    for run in RUNS:
        if run in measured:
            about = measured[run]
            yield [f"`{run}`", about["date"], f"{about['took_s']} s", f"{about['load']:.1f}", about["machine"]]


def versions(measured: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each set of versions, with the programs that ran on it."""
    found: dict[str, list[str]] = {}
    for run in RUNS:
        if run in measured:
            line = ", ".join(f"{package} {version}" for package, version in measured[run]["versions"].items())
            found.setdefault(line, []).append(program_of(run))
    yield from (f"- {', '.join(dict.fromkeys(names))}: {line}" for line, names in found.items())


def markdown(header: Sequence[str], body: Iterator[list[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    yield from (f"| {' | '.join(row)} |" for row in body)


def file_of(growth: Mapping[str, Any]) -> str:
    """Return the name of a growth's plot."""
    return re.sub(r"\W+", "-", f"{growth['what']} by {growth['by']}".lower()).strip("-") + ".png"


def draw(measured: Mapping[str, Any]) -> None:
    """Draw each growth, and remove the plots of what is no longer measured."""
    PLOTS.mkdir(exist_ok=True)
    grown = {file_of(one): one for _, one in told(measured) if "lines" in one}
    for path in PLOTS.glob("*.png"):
        if path.name not in grown:
            path.unlink()
    for name, one in grown.items():
        import matplotlib as mpl  # noqa: PLC0415  the table is made without
        from matplotlib import pyplot as plt  # noqa: PLC0415  as above

        mpl.use("agg")
        figure, axes = plt.subplots(figsize=(4.6, 3.2), dpi=80, layout="constrained")
        for label, points in one["lines"].items():
            axes.plot([int(n) for n in points], list(points.values()), marker="o", label=label)
        points = {int(n): cost for n, cost in next(iter(one["lines"].values())).items()}
        tail = [n for n in points if n >= max(points) / 100]
        aim = [points[max(tail)] * (n / max(tail)) ** one["aim"] for n in tail]
        axes.plot(tail, aim, linestyle="--", color="grey", label=f"n^{one['aim']}")
        axes.set(xscale="log", yscale="log", xlabel=one["by"], ylabel=one["unit"])
        axes.set_title(f"{one['what']}: n^{one['exponent']:.2f}", fontsize=9)
        lowest, highest = axes.get_ylim()
        middle = (lowest * highest) ** 0.5
        axes.set_ylim(min(lowest, middle / 10), max(highest, middle * 10))  # a cost that stays looks it
        axes.legend(fontsize=8)
        figure.savefig(PLOTS / name, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
