"""Runs a training script in one place after another, each in a process forked when the imports are done.

A place is a line of stdin, a JSON object: ``environ`` to set, ``output`` for a file. Prints the exit statuses.
"""

import json
import os
import runpy
import sys


def main():
    script = sys.argv[1]
    runpy.run_path(script, run_name="imported")
    statuses = []
    for place in map(json.loads, sys.stdin.read().splitlines()):
        pid = os.fork()
        if pid == 0:
            os.environ.update(place["environ"])
            output = os.open(place["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            runpy.run_path(script, run_name="__main__")
            return
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    sys.stdout.write(json.dumps(statuses))


if __name__ == "__main__":
    main()
