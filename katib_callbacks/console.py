"""Output of the subcommands, to a person or to a pipe."""

import os
import sys
from collections.abc import Sequence


def say(line: str) -> None:
    """Print a line at once. A server goes on where nobody reads its output any more, or the disk is full."""
    try:
        print(line, flush=True)
    except OSError:
        abandon_stdout()


def abandon_stdout() -> None:
    """Point a broken stdout at /dev/null: at exit the interpreter would complain about the rest of its buffer."""
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


def print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows, the headings first, in columns that are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
