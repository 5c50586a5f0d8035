"""How a module of this package is started in a process of its own."""

import sys
from pathlib import Path

_PACKAGES = Path(__file__).resolve().parents[3]

# The current folder is not searched, and ours last: a queue.py of the user's would take the standard library's place.
_START = """
import sys
sys.path[:] = [entry for entry in sys.path if entry] + [sys.argv.pop(1)]
from {module} import main
main()
"""


def own_command(module: str, *arguments: str) -> list[str]:
    """Return the command that calls a module's ``main`` with ``arguments`` in ``sys.argv[1:]``."""
    return [sys.executable, "-c", _START.format(module=module), str(_PACKAGES), *arguments]
