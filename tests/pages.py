"""The code blocks of README.md and docs/: each is run, or says above itself why it is not.

A block is run as its language says, without any mark: Python in the framework that it imports, shell commands in a
folder where the examples are small ones. A comment of one line above it says otherwise:

``<!-- run: KIND -->``
    Run it with the names of ``tests/examples/pages/KIND.py``.
``<!-- WORD -->``
    A test of its own reads it: a file below ``tests`` that has the page's name and this word.
``<!-- not run: REASON -->``
    It is not run. A path below ``tests`` in the reason says what is run in its place.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL, PYTHON, NOT_RUN = "shell", "python", "not run"
DATA = {"yaml", "json", "toml"}
"""Languages that are read, since there is nothing to run."""

OUTPUTS = {"", "text"}
FRAMEWORK = re.compile(r"^(?:from|import) (?:katib_callbacks\.)?(lightning|keras|transformers)\b", re.MULTILINE)
BLOCK = re.compile(
    r"(?:^(?P<indent> *)<!-- (?P<mark>.+?) -->\n)?^(?P<fence> *```+)(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```+$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        mark: What the comment above it says; empty without one.
    """

    page: str
    line: int
    language: str
    mark: str
    code: str

    @property
    def name(self) -> str:
        return f"{Path(self.page).stem.lower()}-{self.line}"

    @property
    def kind(self) -> str:
        """How it is run: ``shell``, a name in tests/examples/pages, a language of ``DATA``; else what its mark says."""
        if self.mark.startswith("run: "):
            return self.mark.removeprefix("run: ")
        if self.mark:
            return NOT_RUN if self.mark.startswith("not run: ") else self.mark
        if self.language == "python":
            found = FRAMEWORK.search(self.code)
            return found[1] if found else PYTHON
        return SHELL if self.language == "sh" else self.language


def blocks(*pages: str) -> list[Block]:
    """Return the code blocks of these pages, of all without any."""
    return [block for path in PAGES if not pages or path.name in pages for block in _blocks(path)]


def _blocks(path):
    text = path.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        indent = len(found["fence"]) - len(found["fence"].lstrip())
        code = "".join(line[indent:] or "\n" for line in found["code"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start("fence")) + 1
        yield Block(path.name, line, found["language"], found["mark"] or "", code)


# -- shell ---------------------------------------------------------------------------------------------------------

TRAIN = """import sys
if sys.argv[0].endswith("train"):
    print("accuracy=0.94")
else:
    from katib_callbacks import KatibReporter
    with KatibReporter() as reporter:
        if reporter.idle_reason is None:
            reporter.report({"accuracy": 0.75, "val_acc": 0.75, "loss": 0.25})
"""
"""In the place of a training, whatever it is called and given."""

SERVES = "--db sqlite:///katib.db &"
WAIT = """until grep -q 'listening on' listening; do sleep 0.1; done
address=$(sed -n 's/.*listening on \\([0-9.:]*\\).*/\\1/p' listening)
"""
"""After a DB manager in the background: a person takes as long to type the next line."""


class Sandbox:
    """A folder like a checkout whose trainings are tiny: there commands of the pages are run to the letter."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        of_this_python = {"python": "-W ignore", "katib-callbacks": "-W ignore -m katib_callbacks.cli"}
        for name, arguments in of_this_python.items():
            _write_program(programs / name, f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        _write_program(programs / "pip", "#!/bin/sh\n")  # what it would install is there; a test reads the extras
        _write_program(folder / "train", f"#!{sys.executable}\n{TRAIN}")
        (folder / "train.py").write_text(TRAIN)
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        for script in (folder / "examples").glob("*.py"):
            script.write_text(TRAIN)
        for manifest in (folder / "examples").glob("*/*.yaml"):
            text = manifest.read_text(encoding="utf-8")
            manifest.write_text(re.sub(r"(maxTrialCount|numTrials): \d+", r"\1: 3", text), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KATIB_", "KUBE"))}
        self.environ = {**kept, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables}

    def start(self, code: str) -> "subprocess.Popen[str]":
        """Start a block in bash, in a process group of its own."""
        served = code.replace(SERVES, f"{SERVES[:-1]}--listen 127.0.0.1:0 >listening &\n{WAIT}")
        if served != code:
            served = f"trap 'kill %1; wait' EXIT\n{served}"
            served = served.replace("127.0.0.1:6789", "$address").replace(" logs ", " logs --address $address ")
        return subprocess.Popen(
            [shutil.which("bash") or "bash", "-ec", self._here(served)],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _here(self, code: str) -> str:
        """Return a block of few trials, whose folders of the machine are this folder's."""
        for path in ("/results", "/var/spool"):
            code = code.replace(f"{path}/", f"{self.folder}{path}/")
        return re.sub(r"(max.trial.count[= ])12\b", r"\g<1>3", code)

    def run_python(self, code: str, kind: str = PYTHON) -> str:
        """Run a block as a script, with the names of that kind."""
        beside = ROOT / "tests" / "examples" / "pages" / f"{kind}.py"
        (self.folder / "script.py").write_text(beside.read_text() + self._here(code))
        return self.run("python script.py")

    def run(self, code: str) -> str:
        """Run a block; return what it has printed, and fail where one of its commands has failed."""
        process = self.start(code)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, (code, out, err)
        return out


def _write_program(path, text):
    path.write_text(text)
    path.chmod(0o755)


# -- Python --------------------------------------------------------------------------------------------------------


def run_in_framework(kind: str, chosen: list[Block], folder: Path) -> dict[str, object]:
    """Run blocks one after the other in one process, each as a trial of its own name; return what each has said."""
    given = [{"name": block.name, "code": block.code} for block in chosen]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "tests/examples/pages/run_blocks.py", kind],
        input=json.dumps(given),
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": "jax", "KATIB_CALLBACKS_ON_ERROR": "raise"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return json.loads(done.stdout.splitlines()[-1])
