"""Prints what a run of CI has to say at its end, from what noxfile.py left in a folder."""

import json
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Print how long each session took, and which tests passed only when they were run again."""
    for report in sorted(folder.glob("report-*.json"), key=lambda path: path.stat().st_mtime):
        for session in json.loads(report.read_text(encoding="utf-8"))["sessions"]:
            print(f"{session.get('duration', 0):6.0f} s  {session['signatures'][0]}: {session['result']}")
    again = folder / "again.txt"
    if again.exists():
        print("passed only when run again, alone:", again.read_text(encoding="utf-8"), sep="\n", end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
