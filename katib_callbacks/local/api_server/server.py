"""The server of a home: listens on loopback, over TLS, and comes back with what it had."""

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from katib_callbacks.db_manager import DBManager
from katib_callbacks.errors import ConfigurationError, ExperimentError, KatibCallbacksError
from katib_callbacks.local.api_server.app import Api
from katib_callbacks.local.api_server.credentials import Credentials, add_context, write_private
from katib_callbacks.local.api_server.history.journal import Journal
from katib_callbacks.local.api_server.protocol.errors import ApiError
from katib_callbacks.local.api_server.resources.table import TABLE, writers
from katib_callbacks.local.api_server.runs import Runs
from katib_callbacks.local.running.locks import held
from katib_callbacks.local.running.runner import database
from katib_callbacks.net.web import LOOPBACK, Door, listening_socket, server

STOP_TIMEOUT_S = 30.0
"""How long a server may take to end."""

_FOLDER = ".api-server"
_CARE_INTERVAL_S = 2.0
_POLL_S = 0.05

_logger = logging.getLogger(__name__)


class Running(NamedTuple):
    """A server that is ready."""

    url: str
    db_manager: str
    kubeconfig: str
    pid: int


def serve(home: Path, *, port: int | None, kubeconfig: Path | None, on_ready: Callable[[Running], None]) -> None:
    """Serve a home until SIGINT or SIGTERM. ExperimentError if another process does.

    Without a port the last one is taken again, if it is free: a kubeconfig goes on to be true.
    """
    home = home.absolute()
    folder = home / _FOLDER
    with _locked(home):
        credentials, before = Credentials.of(folder), last(home)
        kubeconfig = (kubeconfig or folder / "kubeconfig").absolute()
        with _listening(port, before) as listening:
            asyncio.run(_serve(home, listening, credentials, before, kubeconfig, on_ready))


def running(home: Path) -> Running | None:
    """Return the server of a home; None if there is none, or it is not ready."""
    found = last(home)
    return found if found is not None and _is_alive(found.pid) and _is_locked(home) else None


def last(home: Path) -> Running | None:
    """Return the server that a home has, or had when it was ready last."""
    try:
        return Running(**json.loads((home / _FOLDER / "state.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def stop(home: Path) -> bool:
    """End the server of a home and wait for that; returns whether there was one. Experiments go on."""
    found = running(home)
    if found is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    give_up_at_s = time.monotonic() + STOP_TIMEOUT_S
    while _is_locked(home):
        if time.monotonic() > give_up_at_s:
            raise ExperimentError(f"the API server, process {found.pid}, does not end; kill it")
        time.sleep(_POLL_S)
    return True


async def _serve(
    home: Path,
    listening: socket.socket,
    credentials: Credentials,
    before: Running | None,
    kubeconfig: Path,
    on_ready: Callable[[Running], None],
) -> None:
    runs = Runs(home)
    journal = Journal(database(home), TABLE)
    db_manager = _db_manager(home, before)
    try:
        http: Any = None
        api = Api(home, journal, TABLE, writers(home, Path.cwd(), runs.start), lambda: bool(http and http.should_exit))
        door = Door(api.application(), token=credentials.token, listening=listening, host=LOOPBACK, refusal=_refusal)
        http = server(door, certificate=credentials.certificate)
        url = f"https://{LOOPBACK}:{listening.getsockname()[1]}"
        add_context(kubeconfig, url, credentials)
        ready = Running(url, db_manager.address, str(kubeconfig), os.getpid())
        write_private(home / _FOLDER / "state.json", json.dumps(ready._asdict()).encode())
        on_ready(ready)
        tasks = [asyncio.create_task(journal.follow()), asyncio.create_task(_care(runs))]
        try:
            await http.serve(sockets=[listening])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        db_manager.stop(grace_s=0)
        journal.close()


async def _care(runs: Runs) -> None:
    """Look after the experiments, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(runs.look_after)
        except KatibCallbacksError as error:
            _logger.error("experiments cannot be looked after: %s", error)  # noqa: TRY400  the message says all
        await asyncio.sleep(_CARE_INTERVAL_S)


def _db_manager(home: Path, before: Running | None) -> DBManager:
    """Start the DB manager by which this user's clients read trials' metrics, at its last address if that is free."""
    open_at = partial(DBManager, f"sqlite:///{database(home)}", is_read_only=True, is_own_users_only=True)
    if before is not None:
        with suppress(KatibCallbacksError):
            return open_at(before.db_manager).start()
    return open_at(f"{LOOPBACK}:0").start()


@contextmanager
def _listening(port: int | None, before: Running | None) -> Iterator[socket.socket]:
    earlier = int(before.url.rpartition(":")[2]) if before is not None and port is None else None
    try:
        listening = listening_socket(LOOPBACK, port if earlier is None else earlier)  # type: ignore[arg-type]
    except ConfigurationError:
        if earlier is None:
            raise
        listening = listening_socket(LOOPBACK, 0)
    with listening:
        yield listening


def _refusal(status: int, text: str) -> tuple[str, str]:
    is_known = status != HTTPStatus.UNAUTHORIZED
    error = ApiError("Forbidden", text) if is_known else ApiError("Unauthorized", "Unauthorized")
    return json.dumps(error.status), "application/json"


@contextmanager
def _locked(home: Path, timeout_s: float = 1.0) -> Iterator[None]:
    """Hold a home's lock, which whoever asks for its server has for a moment."""
    refusal = f"another API server serves {home}; end it with: katib-callbacks down --home {home}"
    with held(home / _FOLDER / "lock", timeout_s=timeout_s, refusal=refusal, mode=0o600):
        yield


def _is_locked(home: Path) -> bool:
    try:
        with _locked(home, timeout_s=0):
            return False
    except ExperimentError:
        return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # there is none, or it is another user's, and so not our server
        return False
    return True
