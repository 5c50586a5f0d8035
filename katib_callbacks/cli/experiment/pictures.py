"""The commands that make files and plots of an experiment."""

import argparse
import shutil

from katib_callbacks.cli.experiment.home import opened
from katib_callbacks.console import say
from katib_callbacks.errors import ConfigurationError, ExperimentError
from katib_callbacks.local.state.records import experiment_record
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.pictures import frames
from katib_callbacks.pictures.sparkline import curves
from katib_callbacks.reporting.progress_file import ProgressReader


def export(arguments: argparse.Namespace) -> int:
    """Write an experiment's trials, or their rows, into a file."""
    with opened(arguments.home) as store:
        record = experiment_record(store, arguments.home, arguments.name, epochs=False)
    count = frames.export(record, arguments.output, rows=arguments.rows)
    say(f"{count:,} {'rows of metrics' if arguments.rows else 'trials'} are in {arguments.output}")
    return 0


def plot(arguments: argparse.Namespace) -> int:
    """Draw an experiment into a file."""
    from katib_callbacks.pictures import html, png  # noqa: PLC0415  export does without
    from katib_callbacks.pictures.kinds import KINDS, check_kind  # noqa: PLC0415  as above

    kinds = arguments.kind or list(KINDS)
    for kind in kinds:
        check_kind(kind)
    path = arguments.output
    if path.suffix not in {".html", ".png"}:
        raise ConfigurationError(f"{path.name!r} does not end in .html, .png")
    with opened(arguments.home) as store:
        record = experiment_record(store, arguments.home, arguments.name)
    if path.suffix == ".html":
        path.write_text(html.page(record, kinds, arguments.metric), encoding="utf-8")
    else:
        path.write_bytes(png.picture(record, kinds, arguments.metric))
    say(f"{path} shows experiment {record.name}")
    return 0


def plot_trial(arguments: argparse.Namespace, trial: str) -> int:
    """Draw the curves of a trial's metrics on the terminal."""
    with opened(arguments.home) as store:
        rows = [(row.name, row.value) for row in store.rows(trial)]
    shown = ProgressReader(TrialFiles(arguments.home.absolute(), arguments.name, trial).progress).read().rows
    epochs = [(name, repr(value)) for epoch in shown for name, value in epoch.items()]
    drawn = epochs if len(epochs) > len(rows) else rows
    if not drawn:
        raise ExperimentError(f"trial {trial!r} has reported nothing yet")
    for line in curves(drawn, shutil.get_terminal_size().columns):
        print(line)
    return 0
