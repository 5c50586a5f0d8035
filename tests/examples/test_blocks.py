"""Every code block of README.md and docs/ is run, or says why not; what is not run is read at least."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import DATA, NOT_RUN, OUTPUTS, PAGES, PYTHON, ROOT, SHELL, blocks

from katib_callbacks.cli import _parser
from katib_callbacks.local.api.manifest import read
from katib_callbacks.local.running import runner

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

BASH = shutil.which("bash")
KINDS = {path.stem for path in (Path(__file__).parent / "pages").glob("*.py")} - {"run_blocks"}
BY_CI = re.compile(r"\bnox -s (\w+)$", re.MULTILINE)


def by_id(found):
    return pytest.mark.parametrize("block", found, ids=lambda block: block.name)


def test_there_are_blocks_on_most_pages():
    assert len({block.page for block in blocks()}) > len(PAGES) / 2


@by_id(blocks())
def test_a_block_is_run_or_says_why_not(block):
    if block.kind in {SHELL, PYTHON} | KINDS | DATA | OUTPUTS:
        return
    if block.kind == NOT_RUN:
        reason = block.mark.removeprefix("not run: ")
        assert len(reason) > 8
        named = re.findall(r"\btests/[\w/.]+\b", reason)
        assert [path for path in named if not (ROOT / path).exists()] == []
        return
    assert block.language in {"sh", "python", "toml", "sql"}, block
    readers = [path for path in (ROOT / "tests").rglob("test_*.py") if _reads(path, block)]
    assert readers, f"no test reads {block.page} for {block.mark!r}"


def _reads(path, block):
    text = path.read_text(encoding="utf-8")
    words = {block.mark, block.mark.rpartition(": ")[2]}
    return block.page in text and any(f'"{word}"' in text for word in words)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_block_hides_in_an_indent(path):
    """A block that is only indented has no language and no mark."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\n\n(    +(?![\s-]|<!-- ).*)", text) == []


@by_id([block for block in blocks() if block.language == "python"])
def test_python_is_python(block):
    compile(block.code, block.name, "exec")


@by_id([block for block in blocks() if block.language == "sh"])
@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_shell_is_shell(block):
    checked = subprocess.run([BASH, "-n"], input=block.code, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def commands(code):
    """Yield the words of each command of ours in a block."""
    for line in re.sub(r"\$\([^)]*\)", "x", code.replace("\\\n", " ")).splitlines():
        if "katib-callbacks" not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                if words[:1] == ["katib-callbacks"]:
                    yield words[1:]
                words = []
            elif words or not re.fullmatch(r"\w+=.*|export", word):
                words.append(word)


OURS = [(block, words) for block in blocks() if block.language == "sh" for words in commands(block.code)]


@pytest.mark.parametrize(("block", "words"), OURS, ids=[f"{block.name} {' '.join(words)}" for block, words in OURS])
def test_our_commands_take_what_the_pages_give_them(block, words):
    if "--help" in words:
        with pytest.raises(SystemExit) as ended:
            _parser().parse_args(words)
        assert ended.value.code == 0
    else:
        assert callable(_parser().parse_args(words).run)


def test_what_nox_is_asked_for_is_run_by_ci():
    asked = {name for block in blocks() if block.language == "sh" for name in BY_CI.findall(block.code)}
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert {"tests", "demo"} <= asked
    assert {name for name in asked if not re.search(rf"nox -s ([a-z_]+ )*{name}\b", script)} == set()


def test_the_extras_that_pages_install_are_there():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([\w-]+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE))
    named = {
        name
        for path in PAGES
        for group in re.findall(r"(?:katib-callbacks|\")\.?\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
        for name in group.split(",")
    }
    assert {"lightning", "local", "plot"} <= named
    assert named - extras == set()


def with_fragment(text):
    """Return an experiment of the examples with a page's fragment where it belongs, as a person puts it there."""
    experiment = yaml.safe_load((ROOT / "examples" / "experiments" / "random-push.yaml").read_text(encoding="utf-8"))
    template = experiment["spec"]["trialTemplate"]
    template["trialSpec"]["metadata"] = {"labels": {"katib.kubeflow.org/experiment": "random"}}
    pod = template["trialSpec"]["spec"]["template"]["spec"]
    fragment = yaml.safe_load(text)
    for key, value in fragment.items():
        if key == "trialParameters":
            template[key] = [*template[key], *value]
        elif key == "env":
            pod["containers"][0][key] = value
        elif key == "volumes":
            pod[key] = value
        else:
            experiment["spec"][key] = value
    declared = [one["name"] for one in template["trialParameters"]]
    used = set(re.findall(r"\$\{trialParameters\.(\w+)\}", text))
    for name in used.difference(declared):  # a parameter that the page's reader has; in the place of the example's
        (example,) = (one for one in template["trialParameters"] if one["reference"] == name)
        example["name"] = name
        command = pod["containers"][0]["command"]
        pod["containers"][0]["command"] = [word for word in command if "trialParameters." not in word]
        template["trialParameters"] = [example]
    return experiment


@by_id([block for block in blocks() if block.kind == "yaml"])
def test_yaml_is_an_experiment_or_fits_into_one(block, tmp_path):
    data = yaml.safe_load(block.code)
    for variable in data.get("env", []):
        assert variable.keys() in ({"name", "value"}, {"name", "valueFrom"})
        assert isinstance(variable.get("value", ""), str)
    experiment = read(data if "kind" in data else with_fragment(block.code))
    assert runner.create(tmp_path / "home", experiment, folder=tmp_path)


@by_id([block for block in blocks() if block.language in {"json", "toml"}])
def test_json_and_toml_can_be_read(block):
    if block.language == "json":
        assert json.loads(block.code)
    elif tomllib is not None:
        assert tomllib.loads(block.code)
