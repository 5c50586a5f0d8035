"""``katib-callbacks api-server``, ``up`` and ``down``: Kubernetes' API on this machine."""

import argparse
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from katib_callbacks.cli.experiment import add_home
from katib_callbacks.console import say
from katib_callbacks.errors import ExperimentError
from katib_callbacks.pictures.records import check_installed

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from katib_callbacks.local.api_server.server import Running

_LOG = "api-server.log"
_POLL_S = 0.05


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands."""
    serve = subparsers.add_parser(
        "api-server",
        help="serve Kubernetes' API for local experiments",
        description="Serve the part of Kubernetes' API that kubectl and Katib's clients use, over the experiments of a "
        "home, on loopback.",
    )
    up = subparsers.add_parser(
        "up",
        help="start the API server in the background",
        description="Start the API server in the background, and make its context the current one of a kubeconfig.",
    )
    down = subparsers.add_parser(
        "down",
        help="end the API server that `up` started",
        description="End the API server of a home, and take its context out of the kubeconfig. Experiments go on.",
    )
    for parser, run in ((serve, _serve), (up, _up), (down, _down)):
        add_home(parser)
        parser.set_defaults(run=run)
    for parser, default in ((serve, "DIR/.api-server/kubeconfig"), (up, "$KUBECONFIG, else ~/.kube/config")):
        parser.add_argument("--port", metavar="N", type=int, help="where to listen (default: the last port, or any)")
        parser.add_argument(
            "--kubeconfig", metavar="FILE", type=Path, help=f"the file that gets a context (default: {default})"
        )


def _server() -> Any:
    """Return the module that serves; --help does without."""
    check_installed("the API server", "api-server", "starlette", "uvicorn", "yaml")
    return import_module("katib_callbacks.local.api_server.server")


def _serve(arguments: argparse.Namespace) -> int:
    _server().serve(arguments.home, port=arguments.port, kubeconfig=arguments.kubeconfig, on_ready=_tell)
    return 0


def _tell(ready: "Running") -> None:
    say(f"Kubernetes' API: {ready.url}")
    say(f"DB manager: {ready.db_manager}")
    say(f"export KUBECONFIG={ready.kubeconfig}")


def _up(arguments: argparse.Namespace) -> int:
    server, home, kubeconfig = _server(), arguments.home, arguments.kubeconfig or _users_kubeconfig()
    found = server.running(home)
    if found is not None:
        say("it runs already")
        _tell(found)
        return 0
    home.mkdir(parents=True, exist_ok=True)
    port = [] if arguments.port is None else ["--port", str(arguments.port)]
    with (home / _LOG).open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  this very command
            [
                *(sys.executable, "-m", "katib_callbacks.cli", "api-server"),
                *("--home", str(home), "--kubeconfig", str(kubeconfig), *port),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while (found := server.running(home)) is None or found.pid != process.pid:
        if process.poll() is not None:
            last = (home / _LOG).read_text(errors="replace").strip().rpartition("\n")[2]
            raise ExperimentError(f"the API server did not start: {last}")
        time.sleep(_POLL_S)
    _tell(found)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    server = _server()
    from katib_callbacks.local.api_server.credentials import remove_context  # noqa: PLC0415  as above
    from katib_callbacks.local.running import runner  # noqa: PLC0415  as above
    from katib_callbacks.local.state.store import ExperimentStore  # noqa: PLC0415  as above

    was_running, last = server.stop(arguments.home), server.last(arguments.home)
    if last is not None:  # also of one that was killed
        remove_context(Path(last.kubeconfig), last.url)
    if not was_running:
        say(f"no API server serves {arguments.home}")
        return 0
    say("it has ended")
    with ExperimentStore(runner.database(arguments.home)) as store:
        names = [row.name for row in store.experiments(has_train_jobs=True)]
    for name in names:
        if runner.is_run(arguments.home, name):
            command = f"katib-callbacks experiment stop {name} --home {arguments.home}"
            say(f"experiment {name} goes on; end it with: {command}")
    return 0


def _users_kubeconfig() -> Path:
    """Return the file that kubectl writes to."""
    named = next(filter(None, os.environ.get("KUBECONFIG", "").split(os.pathsep)), None)
    return Path(named) if named else Path.home() / ".kube" / "config"
