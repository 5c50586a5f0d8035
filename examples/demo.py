"""The whole way in one command: an experiment of twelve Lightning trainings, two at a time, and the best of them.

Each trial is a process, as a pod would be: it trains, its callback delivers the metrics to the experiment's DB manager,
and the algorithm learns from them. State, logs and folders lie in a temporary folder; a picture of it all stays.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "examples" / "experiments" / "lightning-digits.yaml"
COMMAND = [sys.executable, "-m", "katib_callbacks.cli", "experiment"]  # whether the script is on the PATH or not


def main() -> None:
    """Run the experiment; the exit status says whether every trial succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", help="keep state and logs there, in place of a temporary folder")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = arguments.home or folder
        name = EXPERIMENT.stem
        print(f"$ katib-callbacks experiment run {EXPERIMENT.relative_to(ROOT)}", flush=True)
        subprocess.run([*COMMAND, "run", str(EXPERIMENT), "--home", home], cwd=ROOT, check=True)
        print(f"\n$ katib-callbacks experiment status {name}", flush=True)
        subprocess.run([*COMMAND, "status", name, "--home", home], check=True)

        answer = [*COMMAND, "status", name, "--json", "--home", home]
        found = json.loads(subprocess.run(answer, check=True, stdout=subprocess.PIPE, text=True).stdout)
        status = found["experiment"]["status"]
        picture = Path(tempfile.mkdtemp(prefix="katib-callbacks-demo-")) / f"{name}.html"
        print(f"\n$ katib-callbacks experiment plot {name} -o {picture}", flush=True)
        if subprocess.run([*COMMAND, "plot", name, "--home", home, "-o", str(picture)], check=False).returncode == 0:
            print(f"open it in a browser, it needs no network: python -m webbrowser {picture.as_uri()}", flush=True)
        if status["trialsSucceeded"] != found["experiment"]["spec"]["maxTrialCount"]:
            sys.exit(f"demo: only {status['trialsSucceeded']} trials succeeded")


if __name__ == "__main__":
    main()
