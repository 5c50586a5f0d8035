"""What the subcommands share when they talk to a person or to a pipe."""

import os
import sys


def say(line: str) -> None:
    """Print a line at once, for whoever still listens: a server does not end because its reader has."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        abandon_stdout()


def abandon_stdout() -> None:
    """Lead stdout to nowhere after a broken pipe: the interpreter would complain of what is still in its buffer."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    finally:
        os.close(devnull)


def printable(text: str) -> str:
    """Escape control characters: a stored name must not move a terminal's cursor."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
