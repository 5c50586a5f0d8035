"""A trial that reports row after row, and says which were accepted and which delivered, until it is killed.

Arguments: DB manager, trial, spool directory. It says that it is ready, and waits for a line with the number of its
first row and the file that it is to write to. A row is accepted when its file in the spool is complete: then the
spool's directory is opened to be synced, as audit hooks see.
"""

import os
import sys

import grpc  # noqa: F401  before it is ready, so that it is killed while it delivers

from katib_callbacks import KatibReporter
from katib_callbacks.sinks.katib import sink  # noqa: F401  as grpc
from katib_callbacks.wire import client  # noqa: F401  as grpc


def main() -> None:
    address, trial_name, spool = sys.argv[1:]
    print("ready", flush=True)  # noqa: T201  a script
    number, path = sys.stdin.readline().split(maxsplit=1)
    os.dup2(os.open(path.rstrip("\n"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    report(address, trial_name, spool, int(number))


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
