"""The whole way in one command: a DB manager, a trial that trains, and what the DB manager then holds for it.

The DB manager and the trial are processes of their own, as in a cluster. The database lies in a temporary folder, and
so does whatever the training writes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRIAL_NAME = "demo-trial"
TRAINING = Path(__file__).with_name("lightning_digits.py").resolve()
COMMAND = [sys.executable, "-m", "katib_callbacks.cli"]  # katib-callbacks, whether it is on the PATH or not
STOP_S = 30.0


@contextmanager
def db_manager(database: Path) -> Iterator[str]:
    """Start the embedded DB manager on a free port, and stop it politely; yields its address."""
    command = [*COMMAND, "db-manager", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{database}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()  # "DB manager: listening on 127.0.0.1:41234, database ..."
            print(line, end="", flush=True)
            _, found, rest = line.partition("listening on ")
            if not found:
                sys.exit("demo: the DB manager did not start")
            yield rest.partition(",")[0]
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Run the demo; the exit status says whether the rows arrived."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        db_manager(Path(folder, "katib.db")) as address,
    ):
        trial = {**os.environ, "KATIB_TRIAL_NAME": TRIAL_NAME, "KATIB_DB_MANAGER_ADDRESS": address}
        print(f"$ KATIB_TRIAL_NAME={TRIAL_NAME} KATIB_DB_MANAGER_ADDRESS={address} python {TRAINING.name}", flush=True)
        subprocess.run([sys.executable, TRAINING], cwd=folder, env=trial, check=True)

        logs = [*COMMAND, "logs", TRIAL_NAME, "--address", address]
        print(f"$ katib-callbacks logs {TRIAL_NAME} --address {address}", flush=True)
        subprocess.run(logs, check=True)
        answer = subprocess.run([*logs, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        if not [json.loads(line) for line in answer.stdout.splitlines()]:
            sys.exit(f"demo: the DB manager holds no row of {TRIAL_NAME}")


if __name__ == "__main__":
    main()
