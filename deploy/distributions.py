"""Build the wheel and the source distribution into ``dist``, and check what is in them (nox's session `package`).

``REPOSITORY_URL`` is where the repository can be seen: PyPI shows README.md, whose links have to be absolute there.
Without the variable they stay relative, and the packages are not for PyPI.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#)([^)\s]+)\)")
_VERSION = re.compile(r'__version__ = "(.+)"')

_URLS = """[project.urls]
Homepage = "{url}"
Documentation = "{url}/tree/v{version}/docs"
Changelog = "{url}/blob/v{version}/CHANGELOG.md"
Issues = "{url}/issues"

[project.optional-dependencies]
"""


def with_absolute_links(text: str, url: str, version: str) -> str:
    """Return Markdown of the repository's root in which links and pictures name a release's files by their URLs."""

    def absolute(match: re.Match[str]) -> str:
        is_picture, label, path = match.groups()
        kind = "raw" if is_picture else "tree" if (ROOT / path.partition("#")[0]).is_dir() else "blob"
        if label.startswith("!["):  # a picture that is a link
            label = _LINK.sub(absolute, label)
        return f"{is_picture}[{label}]({url}/{kind}/v{version}/{path})"

    return _LINK.sub(absolute, text)


def relative_links(text: str) -> list[str]:
    """Return where Markdown's links lead that only work in the repository."""
    return [match[3] for match in _LINK.finditer(text)]


def main() -> None:
    """Build, check, and leave both files in ``dist``."""
    url = os.environ.get("REPOSITORY_URL", "").rstrip("/")
    found = _VERSION.search((ROOT / "katib_callbacks" / "_version.py").read_text(encoding="utf-8"))
    assert found is not None
    version = found[1]
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "source"
        ignored = shutil.ignore_patterns(
            ".git", ".nox", ".venv*", "__pycache__", "katib-local", "dist", "build", "site"
        )
        shutil.copytree(ROOT, tree, ignore=ignored)
        if url:
            _rewrite(tree / "README.md", lambda text: with_absolute_links(text, url, version))
            urls = _URLS.format(url=url, version=version)
            _rewrite(tree / "pyproject.toml", lambda text: text.replace("[project.optional-dependencies]\n", urls, 1))
        run("build", "--no-isolation", "--outdir", str(DIST), str(tree))
    files = sorted(map(str, DIST.iterdir()))
    run("twine", "check", "--strict", *files)
    sdist, wheel = Path(files[1]), Path(files[0])
    with zipfile.ZipFile(wheel) as package:
        inside = set(package.namelist())
        (metadata,) = (name for name in inside if name.endswith(".dist-info/METADATA"))
        description = package.read(metadata).decode()
    _check_wheel(inside)
    with tarfile.open(sdist) as source:
        _check_sdist(name.partition("/")[2] for name in source.getnames())
    left = relative_links(description)
    if url and left:
        sys.exit(f"{wheel.name}: links of the description are not absolute: {', '.join(left)}")
    print(
        f"{wheel.name} and {sdist.name} are good"
        + ("" if url else ", but not for PyPI: set REPOSITORY_URL for its links")
    )


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def run(module: str, *arguments: str) -> None:
    """Run a module of this Python; its failure ends this program."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
    if done.returncode:
        sys.exit(f"{module} failed")


def _check_wheel(inside: set[str]) -> None:
    foreign = [name for name in inside if not name.startswith("katib_callbacks")]
    missing = {"katib_callbacks/py.typed", "katib_callbacks/_version.py"} - inside
    if foreign or missing:
        sys.exit(f"the wheel must have the package alone; too much: {sorted(foreign)}; missing: {sorted(missing)}")


def _check_sdist(inside: Iterable[str]) -> None:
    roots = {name.partition("/")[0] for name in inside} - {""}
    wanted = {"katib_callbacks", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    foreign = roots & {"tests", "benchmarks", ".ci", ".github", ".nox", "dist"}
    if foreign or wanted - roots:
        sys.exit(f"the source distribution has {sorted(foreign)} too much and lacks {sorted(wanted - roots)}")


if __name__ == "__main__":
    main()
