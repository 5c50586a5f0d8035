"""``katib-callbacks yaml``: an Experiment for Katib, made of a training's command line."""

import argparse
import sys
from typing import TYPE_CHECKING

from katib_callbacks.errors import ConfigurationError
from katib_callbacks.settings import EARLY_STOPPING, PREVIOUS_ATTEMPT
from katib_callbacks.settings.early_stopping import parse_policy

if TYPE_CHECKING:
    from argparse import _SubParsersAction

PLACEHOLDER_IMAGE = "registry.example.com/trial:1.0.0"

_DESCRIPTION = """Print a Katib Experiment in push mode, made of a training's command line:

  katib-callbacks yaml --name digits --objective maximize:accuracy --parameter lr=log:1e-4:1e-1 \\
      --parameter hidden=8:64:8 --parameter optimizer=sgd,adam --max-trial-count 12 --image IMAGE \\
      -- python train.py --lr {lr} --hidden {hidden} --optimizer {optimizer}

kubectl apply -f - takes it, and katib-callbacks experiment run -f - runs it on this machine."""


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "yaml",
        help="print an experiment for a training's command line",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="the experiment's name")
    parser.add_argument("--namespace", help="its namespace (default: kubectl's)")
    parser.add_argument("--objective", required=True, metavar="TYPE:METRIC", help="maximize:METRIC or minimize:METRIC")
    parser.add_argument("--goal", type=float, help="the objective at which the search is over")
    parser.add_argument(
        "--additional-metric", metavar="METRIC", action="append", default=[], help="another metric that Katib shows"
    )
    parser.add_argument(
        "--parameter",
        metavar="NAME=SPACE",
        action="append",
        required=True,
        help="MIN:MAX, MIN:MAX:STEP, log:MIN:MAX or VALUE,VALUE,...; whole numbers stay whole",
    )
    parser.add_argument("--algorithm", default="random", help="Katib's name of it (default: %(default)s)")
    parser.add_argument("--setting", metavar="NAME=VALUE", action="append", default=[], help="one of the algorithm's")
    parser.add_argument("--early-stopping", metavar="POLICY", help="such as medianstop,start_step=4, or asha")
    parser.add_argument(
        "--max-trial-count", "--max-trials", metavar="N", type=int, default=12, help="(default: %(default)s)"
    )
    parser.add_argument("--parallel-trial-count", metavar="N", type=int, help="(default: 3, as Katib's)")
    parser.add_argument("--max-failed-trial-count", metavar="N", type=int, help="(default: no limit)")
    parser.add_argument("--image", default=PLACEHOLDER_IMAGE, help="the trial's image, with katib-callbacks in it")
    parser.add_argument(
        "--kind", choices=("Job", "PyTorchJob", "TrainJob"), default="Job", help="(default: %(default)s)"
    )
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="pods of a PyTorchJob or TrainJob")
    parser.add_argument("--runtime", default="torch-distributed", help="a TrainJob's (default: %(default)s)")
    parser.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of the training")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="the training, after --; {NAME} is a parameter")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Print the experiment if Katib and this machine would take it; what is worth knowing goes to stderr."""
    from katib_callbacks.local.api.manifest import DEFAULT_PARALLEL_TRIAL_COUNT, read  # noqa: PLC0415  --help does without
    from katib_callbacks.local.plan import resolve  # noqa: PLC0415  as above
    from katib_callbacks.local.tune import command, manifest  # noqa: PLC0415

    parameters = [command.parameter(text) for text in arguments.parameter]
    objective = command.objective(arguments.objective, arguments.additional_metric, arguments.goal)
    # A pod that failed after its report is made again, and would leave the better of two values.
    environ = {PREVIOUS_ATTEMPT: "clear"}
    if arguments.early_stopping is not None:
        ends = {"objective": objective["objectiveMetricName"], "type": objective["type"]}
        policy = ",".join([arguments.early_stopping, *(f'{name}="{value}"' for name, value in ends.items())])
        environ[EARLY_STOPPING] = parse_policy("--early-stopping", policy).text
    environ.update(command.settings_of(arguments.env, "--env"))
    budget = {
        "parallelTrialCount": arguments.parallel_trial_count
        or min(DEFAULT_PARALLEL_TRIAL_COUNT, arguments.max_trial_count),
        "maxTrialCount": arguments.max_trial_count,
        "maxFailedTrialCount": arguments.max_failed_trial_count,
    }
    words = command.with_parameters(arguments.command, [one["name"] for one in parameters])
    settings = [{"name": name, "value": value} for name, value in command.settings_of(arguments.setting, "--setting")]
    experiment = manifest.experiment(
        {"name": arguments.name, **({"namespace": arguments.namespace} if arguments.namespace else {})},
        parameters,
        command.template(arguments.kind, arguments.workers, words, arguments.image, environ, arguments.runtime),
        objective,
        {"algorithmName": arguments.algorithm, **({"algorithmSettings": settings} if settings else {})},
        collector="Push",
        budget={name: count for name, count in budget.items() if count is not None},
    )
    try:
        plan = resolve(read(experiment).serialize())
    except ConfigurationError as error:
        raise ConfigurationError(f"Katib would not take this experiment: {error}") from error
    print(command.as_yaml(experiment), end="")
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.image == PLACEHOLDER_IMAGE:
        print(
            f"no --image was given: put the trial's image in the place of {PLACEHOLDER_IMAGE} for a cluster",
            file=sys.stderr,
        )
    return 0
