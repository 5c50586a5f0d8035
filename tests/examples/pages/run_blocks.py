"""Runs blocks of the pages, a JSON list on stdin, each as a trial of its own with the names of a file beside this one.

A block may make a trainer and go no further, since a page need not repeat the call that trains: ``finish`` of that
file makes it. Prints the names of the blocks that came to their end.
"""

import json
import os
import sys
from pathlib import Path


def main():
    (kind,) = sys.argv[1:]
    sys.path.pop(0)  # where a file has the name of a framework
    beside = Path(__file__).with_name(f"{kind}.py")
    done = []
    for block in json.loads(sys.stdin.read()):
        os.environ["KATIB_TRIAL_NAME"] = block["name"]
        names = {"__name__": "__main__"}
        exec(compile(beside.read_text(), beside, "exec"), names)  # noqa: S102 - our own
        exec(compile(block["code"], block["name"], "exec"), names)  # noqa: S102 - what the page has one write
        names["finish"]()
        done.append(block["name"])
    sys.stdout.write(f"\n{json.dumps(done)}\n")


if __name__ == "__main__":
    main()
