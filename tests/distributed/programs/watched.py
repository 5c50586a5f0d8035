"""Runs another script under the eyes of the witness: ``watched.py script arguments...``."""

import witness  # isort: skip  # first, to see everything

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
    witness.testify(int(os.environ["RANK"]), None)


if __name__ == "__main__":
    main()
