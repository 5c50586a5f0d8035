"""Output of the subcommands, to a person or to a pipe."""

import os
import sys


def say(line: str) -> None:
    """Print a line at once, for whoever still listens: a server does not end for want of a reader, or of disk space."""
    try:
        print(line, flush=True)
    except OSError:
        abandon_stdout()


def abandon_stdout() -> None:
    """Lead stdout to nowhere after it failed: the interpreter would complain of what is still in its buffer."""
    if sys.stdout is None:
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    finally:
        os.close(devnull)


def printable(text: str) -> str:
    """Escape control characters: a stored name must not move a terminal's cursor."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
