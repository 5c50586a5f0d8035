"""Trials that report row after row, and say which were accepted and which delivered, until they are killed.

Arguments: DB manager, trial, spool directory. For each line on stdin, the number of a first row and a file, a process
is forked that appends to that file, and its id goes to stdout; a line with that id alone waits for its end. A row is
accepted when its file in the spool is complete: then the spool's directory is opened to be synced, as audit hooks see.
"""

import os
import sys

import grpc  # noqa: F401  before the forks, so that these are quick

from katib_callbacks import KatibReporter
from katib_callbacks.sinks import db_manager  # noqa: F401  as grpc
from katib_callbacks.wire import client  # noqa: F401  as grpc


def main() -> None:
    address, trial_name, spool = sys.argv[1:]
    for line in sys.stdin:
        words = line.split()
        if len(words) == 1:
            _, status = os.waitpid(int(words[0]), 0)
            print(status, flush=True)  # noqa: T201  a script
            continue
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(words[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            report(address, trial_name, spool, int(words[0]))
        print(pid, flush=True)  # noqa: T201  a script


def report(address: str, trial_name: str, spool: str, number: int) -> None:
    """Report row after row, for ever."""

    def say(word: str) -> None:
        os.write(1, f"{word} {number}\n".encode())

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]) == spool:
            say("accepted")

    sys.addaudithook(hook)
    with KatibReporter(address, trial_name=trial_name, spool_dir=spool, timeout_s=30) as reporter:
        while True:
            reporter.report({"number": number})
            say("delivered")
            number += 1


if __name__ == "__main__":
    main()
