"""The whole way in one command: an experiment of twelve Lightning trainings, two at a time, and the best of them.

Each trial is a process, as a pod would be: it trains, its callback delivers the metrics to the experiment's DB manager,
and the algorithm learns from them. State, logs, folders and a picture of it all stay in a folder of their own. Each
command that is printed can be copied, and does again what it did here.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "examples" / "experiments" / "lightning-digits.yaml"
COMMAND = [sys.executable, "-m", "katib_callbacks.cli", "experiment"]  # whether the script is on the PATH or not


def show(*command: str) -> None:
    """Print a command as a shell takes it."""
    print(f"\n$ {shlex.join(command)}", flush=True)


def main() -> None:
    """Run the experiment; the exit status says whether every trial succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", help="keep state and logs there, in place of a new temporary folder")
    arguments = parser.parse_args()

    home = arguments.home or tempfile.mkdtemp(prefix="katib-callbacks-demo-")
    name = EXPERIMENT.stem
    run = [*COMMAND, "run", str(EXPERIMENT)]
    show(*run)  # by hand it goes into ./katib-local: in this home there is one of that name already
    subprocess.run([*run, "--home", home], cwd=ROOT, check=True)

    status = [*COMMAND, "status", name, "--home", home]
    show(*status)
    subprocess.run(status, check=True)

    picture = Path(home).resolve() / f"{name}.html"
    plot = [*COMMAND, "plot", name, "--home", home, "-o", str(picture)]
    show(*plot)
    if subprocess.run(plot, check=False).returncode == 0:
        print("\nIn a browser; it needs no network:", flush=True)
        show(sys.executable, "-m", "webbrowser", picture.as_uri())

    answer = subprocess.run([*status, "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(answer)["experiment"]
    succeeded = found["status"]["trialsSucceeded"]
    if succeeded != found["spec"]["maxTrialCount"]:
        sys.exit(f"demo: only {succeeded} trials succeeded")


if __name__ == "__main__":
    main()
