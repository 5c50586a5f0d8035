"""Make the documentation's site complete: pages for the files beside `docs/` that its pages link, and for the notebook.

A hook of MkDocs (mkdocs.yml names it). In a checkout such a link leads to the file, on the site to a page of the file.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
AS_THEY_ARE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "results.md",
    "examples/notebooks/search.ipynb": "notebook.md",
}
"""Files that are pages of their own, under these names; README.md's page is docs/index.md."""

PLOTS = Path("benchmarks/plots")
"""What RESULTS.md shows."""

LINK = re.compile(r"(?<=\]\()(?P<path>\.\./[^)#\s]+|(?:README|CHANGELOG|CONTRIBUTING)\.md)(?=[)#])")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "sh", ".json": "json"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made from files outside of `docs/`."""
    for name, page in AS_THEY_ARE.items():
        if name.endswith(".ipynb"):
            files.append(File.generated(config, page, content=notebook_page(name)))
        elif not (Path(config.docs_dir) / page).exists():
            text = re.sub(r"(?<=\]\()docs/", "", (ROOT / name).read_text(encoding="utf-8"))
            above = Path("..", name).parent.as_posix()
            text = re.sub(r"(?<=\]\()(?!https?:|#|plots/|[\w.-]+\.(?:md|png)[)#])", f"{above}/", text)
            files.append(File.generated(config, page, content=text))
    for plot in (ROOT / PLOTS).iterdir():
        files.append(File.generated(config, f"plots/{plot.name}", abs_src_path=str(plot)))
    linked = {
        _shown(match["path"])
        for file in list(files.documentation_pages())
        for match in LINK.finditer(file.content_string)
        if match["path"].startswith("../") and match["path"].removeprefix("../") not in AS_THEY_ARE
    }
    for path in sorted(linked):
        files.append(File.generated(config, f"files/{_page(path)}", content=_content(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Lead the links to files outside of `docs/` to their pages."""
    return markdown if page.file.src_uri.startswith("files/") else LINK.sub(_target, markdown)


def notebook_page(path: str) -> str:
    """Return a notebook as a page, with the outputs that it was saved with."""
    cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    title, *others = (part for cell in cells for part in _cell(cell))
    where = f"This is `{path}` of the repository, with what came out; a test runs it."
    return "\n\n".join([title, where, *others]).replace("](../../docs/", "](")


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    """Yield what a cell has written in it, and what came of it."""
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the cell above shows](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif "text/html" in data:
            yield f"<div>{''.join(data['text/html'])}</div>"
        else:
            yield f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```"


def _target(match: re.Match[str]) -> str:
    """Return the page of a link."""
    path = match["path"].removeprefix("../")
    return AS_THEY_ARE[path] if path in AS_THEY_ARE else f"files/{_page(_shown(match['path']))}"


def _shown(link: str) -> Path:
    """Return the file or folder that a link shows, by its path in the checkout."""
    path = Path(os.path.normpath(link.removeprefix("../")))
    if not (ROOT / path).exists():
        message = f"a page links {link}, which does not exist"
        raise PluginError(message)
    return path


def _page(path: Path) -> str:
    """Return the page's name. Dots would make another kind of file of it."""
    return f"{path.as_posix().replace('.', '-')}.md"


def _content(path: Path) -> str:
    """Return a page that shows a file, or every file of a folder."""
    shown = [path] if (ROOT / path).is_file() else [file.relative_to(ROOT) for file in sorted((ROOT / path).iterdir())]
    parts = [f"---\nsearch: {{ exclude: true }}\n---\n\n# {path}\n"]
    for file in shown:
        if (ROOT / file).is_file():
            title = "" if file == path else f"## {file.name}\n\n"
            text = (ROOT / file).read_text(encoding="utf-8").rstrip()
            parts.append(f"{title}`````{LANGUAGES.get(file.suffix, 'text')}\n{text}\n`````\n")
    return "\n".join(parts)
