"""The embedded DB manager in a process of its own, which ends with its runner and is started again when it is killed.

It keeps the trials' calls out of the runner, and the runner's memory flat.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress

from katib_callbacks import settings
from katib_callbacks.errors import KatibCallbacksError
from katib_callbacks.local.running.own_process import own_command
from katib_callbacks.local.trials.files import TrialFiles
from katib_callbacks.metrics import StoredMetricLog

START_TIMEOUT_S = 60.0
"""How long the port of one that was killed may stay taken. Starting itself is not limited: the machine may be busy."""

STOP_TIMEOUT_S = 10.0
"""Then it is killed: SQLite keeps what it has answered, whenever it ends."""

MAX_SILENT_ENDS = 5
"""How often it may end without a word before it listens: it was killed, or it cannot run at all."""

_RETRY_INTERVAL_S = 0.1
_FREE_PORT = "127.0.0.1:0"


class DBManagerProcess:
    """The child, as its parent sees it: it listens on 127.0.0.1 and keeps its address when it is started again.

    The child holds the descriptor ``lock`` open: a lock on it is not free before the child, which may still write what
    it was sent, has ended.
    """

    def __init__(self, db_url: str, lock: int) -> None:
        self._db_url = db_url
        self._lock = lock
        self._address: str | None = None
        self._popen = self._start(_FREE_PORT)

    @property
    def address(self) -> str:
        """The child's address. Waits until it listens; if it ended instead, the KatibCallbacksError has its words."""
        if self._address is None:
            self._address = self._listening(_FREE_PORT)
        return self._address

    def admit(self, trial: str, files: TrialFiles) -> dict[str, str]:
        """Return the variables by which a trial that begins reports."""
        del files
        return {settings.TRIAL_NAME: trial, settings.DB_MANAGER_ADDRESS: self.address}

    def dismiss(self, trial: str) -> list[StoredMetricLog]:
        """Return no rows of a trial that has ended: they are in the observation log."""
        del trial
        return []

    def revive(self) -> None:
        """Start it again, at the same address, if it has ended."""
        if self._popen.poll() is None:
            return
        address = self.address
        give_up_at_s = time.monotonic() + START_TIMEOUT_S
        while self._popen.poll() is not None:
            self._close_pipes()
            self._popen = self._start(address)
            try:
                self._listening(address)
            except KatibCallbacksError:  # its port may still be taken
                if time.monotonic() > give_up_at_s:
                    raise
                time.sleep(_RETRY_INTERVAL_S)

    def stop(self) -> None:
        """End it, and wait for that. What it has answered is on disk."""
        with suppress(OSError):
            if self._popen.stdin is not None:
                self._popen.stdin.close()  # the child reads to the end of its input, and ends there
        try:
            self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # a call that hangs, on a disk that does
            self._popen.kill()
            self._popen.wait()
        self._close_pipes()

    def _start(self, address: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603  this very module
            own_command(__name__, self._db_url, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._lock,),
            start_new_session=True,  # a Ctrl-C on the terminal is for the runner, which stops the trials first
        )

    def _listening(self, address: str) -> str:
        """Wait until it listens and return where; start it again at ``address`` if it ends without a word."""
        for _ in range(MAX_SILENT_ENDS):
            assert self._popen.stdout is not None  # noqa: S101  a pipe was asked for
            word, _, rest = self._popen.stdout.readline().decode().strip().partition(" ")
            if word == "listening":
                return rest
            self._popen.wait()
            if word:
                raise KatibCallbacksError(f"the DB manager of the experiment did not start: {rest}")
            self._close_pipes()
            self._popen = self._start(address)
        raise KatibCallbacksError("the DB manager of the experiment does not start, and does not say why")

    def _close_pipes(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def main() -> None:
    """Serve until the input ends: the parent has stopped, or was killed."""
    try:
        from katib_callbacks.db_manager import DBManager  # noqa: PLC0415  only in the child; SQLAlchemy may be missing

        db_manager = DBManager(sys.argv[1], sys.argv[2], is_own_users_only=True).start()
    except KatibCallbacksError as error:
        os.write(sys.stdout.fileno(), f"error {error}\n".encode())
        sys.exit(1)
    os.write(sys.stdout.fileno(), f"listening {db_manager.address}\n".encode())
    while os.read(sys.stdin.fileno(), 4096):
        pass
    db_manager.stop(grace_s=0)
