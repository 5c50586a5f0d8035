"""``katib-callbacks ui``: experiments in a browser, as they run."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from katib_callbacks.cli.experiment import add_home
from katib_callbacks.cli.logs import DEFAULT_TIMEOUT_S, read_rows
from katib_callbacks.console import say
from katib_callbacks.errors import ConfigurationError
from katib_callbacks.metrics import name_problem
from katib_callbacks.net import web

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from katib_callbacks.page.db_manager_source import DBManagerSource
    from katib_callbacks.page.local_source import LocalSource


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "ui",
        help="show experiments in a browser",
        description="Serve a page that shows the experiments of this machine as they run, or what a DB manager holds "
        "for trials of a cluster. It only reads. Ctrl-C ends it.",
    )
    add_home(parser)
    parser.add_argument("--port", metavar="N", type=int, default=0, help="where to listen (default: a free port)")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default=web.LOOPBACK,
        help="for other machines too, where this is not loopback; without TLS (default: %(default)s)",
    )
    cluster = parser.add_argument_group(
        "trials of a cluster",
        "Katib's DB manager lists no trials, so name them: --trial $(kubectl get trials -n NAMESPACE -l "
        "katib.kubeflow.org/experiment=NAME -o jsonpath='{.items[*].metadata.name}'). TLS and token come from the "
        "variables of the reporter.",
    )
    cluster.add_argument("--db-manager", metavar="HOST:PORT", help="show what this DB manager holds, not a home")
    cluster.add_argument("--experiment", metavar="PREFIX", help="how the trials' names begin: the experiment's name")
    cluster.add_argument("--trial", metavar="NAME", nargs="+", action="extend", help="the trials")
    best = cluster.add_mutually_exclusive_group()
    best.add_argument("--maximize", metavar="METRIC", help="the trial with the most of it is the best")
    best.add_argument("--minimize", metavar="METRIC", help="the trial with the least of it is the best")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from katib_callbacks.page.app import page  # noqa: PLC0415  --help does without

    source = _source(arguments)
    try:
        app = page(source)
        with web.listening_socket(arguments.host, arguments.port) as listening:
            token = web.new_token()
            door = web.Door(app, token=token, listening=listening, host=arguments.host)
            server = web.server(door)
            say(f"open {web.url_of(listening, token)}")
            if not web.is_loopback(listening):
                say("other machines reach it too, without TLS: who can watch the network can read along")
            say("Ctrl-C ends it")
            server.run(sockets=[listening])
    except KeyboardInterrupt:  # how a server is meant to end
        pass
    finally:
        source.close()
    return 0


def _source(arguments: argparse.Namespace) -> "LocalSource | DBManagerSource":
    if arguments.db_manager is None:
        given = [name for name in ("experiment", "trial", "maximize", "minimize") if getattr(arguments, name)]
        if given:
            raise ConfigurationError(f"--{given[0]} goes with --db-manager")
        from katib_callbacks.cli.experiment.home import opened  # noqa: PLC0415  --help does without
        from katib_callbacks.page.local_source import LocalSource  # noqa: PLC0415  as above

        with opened(arguments.home):  # says that there is no home
            return LocalSource(arguments.home)
    if not arguments.trial:
        raise ConfigurationError("--db-manager needs --trial: a DB manager does not list trials; give their names")
    for trial in arguments.trial:
        if problem := name_problem(trial):
            raise ConfigurationError(f"the trial's name {trial!r} {problem}")
    prefix = arguments.experiment or ""
    trials = [trial for trial in arguments.trial if trial.startswith(prefix)]
    if not trials:
        raise ConfigurationError(f"--experiment: the name of no trial begins with {prefix!r}")
    from katib_callbacks.page.db_manager_source import DBManagerSource  # noqa: PLC0415  --help does without

    ends = {"maximize": arguments.maximize, "minimize": arguments.minimize}
    objective = next((end for end in ends.items() if end[1]), None)
    read = partial(read_rows, "--db-manager", arguments.db_manager, metric_name="", timeout_s=DEFAULT_TIMEOUT_S)
    return DBManagerSource(read, prefix or trials[0].rpartition("-")[0] or trials[0], trials, objective)
