"""The rules of the house: what may import what, what an import costs, and which names are public."""

import ast
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import katib_callbacks

ROOT = Path(__file__).parents[2]
PACKAGE = Path(katib_callbacks.__file__).parent  # where a wheel is installed, not in ROOT
UNITS = {module.name for module in pkgutil.iter_modules([str(PACKAGE)])}

# From below to above, as CONTRIBUTING.md draws it. A unit (a module or a subpackage) may import those of lower layers;
# those on one layer know nothing of each other.
LAYERS = (
    {"_version", "errors", "files", "console"},
    {"metrics", "process_state"},
    {"settings"},
    {"wire", "net"},
    {"sinks", "db_manager"},
    {"reporting"},
    {"recording", "pictures"},
    {"local"},
    {"page"},
    {"lightning", "keras", "transformers", "cli", "testing"},
    {"_autolog"},
)
LAYER_OF = {unit: number for number, layer in enumerate(LAYERS) for unit in layer}

MODULES_IN_A_FOLDER = 15  # about a dozen, its __init__ among them

DB_MANAGER_MAY_IMPORT = {"net", "wire", "metrics", "settings", "errors"}
MAY_IMPORT_DB_MANAGER = {"cli", "local", "testing"}

# Whatever is not named here imports the standard library alone.
THIRD_PARTY = {
    "wire": {"google", "grpc"},
    "net": {"grpc", "starlette", "uvicorn"},
    "sinks": {"grpc", "prometheus_client"},
    "db_manager": {"cryptography", "grpc", "jwt", "sqlalchemy", "prometheus_client"},
    "page": {"starlette"},
    "local": {"cmaes", "cryptography", "grpc", "optuna", "re2", "starlette", "typing_extensions", "yaml"},
    "pictures": {"IPython", "matplotlib", "numpy", "optuna", "pandas", "plotly", "rich"},
    "cli": {"grpc", "rich"},
    "testing": {"grpc", "pytest"},
    "lightning": set(),  # by name: lightning or pytorch_lightning, whichever is loaded or installed
    "keras": {"keras"},
    "transformers": {"transformers"},
    "recording": {"typing_extensions"},  # for type checkers alone
    "_autolog": {"typing_extensions"},  # as above
}


def imported_modules(path, known=(), *, is_for_types_too=True):
    """Yield every module that a file imports: at its top, in functions, for types, and by ``import_module``.

    ``from a import b`` is ``a.b`` where that is a known module; otherwise both are named.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not is_for_types_too:
        tree = WithoutTypeChecking().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names
            if not set(names) <= set(known):
                yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


class WithoutTypeChecking(ast.NodeTransformer):
    """Leave out what only type checkers read."""

    def visit_If(self, node):
        return None if ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"} else self.generic_visit(node)


def imports_of(unit):
    """Return the units and the foreign packages that ``unit`` imports."""
    folder = PACKAGE / unit
    files = folder.rglob("*.py") if folder.is_dir() else [PACKAGE / f"{unit}.py"]
    names = {tuple(name.split(".")) for file in files for name in imported_modules(file)}
    own = {name[1] for name in names if name[0] == "katib_callbacks" and len(name) > 1 and name[1] in UNITS}
    return own - {unit}, {name[0] for name in names} - {"katib_callbacks"} - sys.stdlib_module_names


def test_every_unit_has_its_layer():
    assert set(LAYER_OF) == UNITS


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_imports_go_downward_only(unit):
    own, _ = imports_of(unit)

    assert {other for other in own if LAYER_OF[other] >= LAYER_OF[unit]} == set()


def test_the_db_manager_stands_beside_the_client():
    assert imports_of("db_manager")[0] <= DB_MANAGER_MAY_IMPORT
    assert {unit for unit in UNITS if "db_manager" in imports_of(unit)[0]} <= MAY_IMPORT_DB_MANAGER


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_foreign_packages_are_imported_where_they_belong(unit):
    _, foreign = imports_of(unit)

    assert foreign <= THIRD_PARTY.get(unit, set())


def module_graph():
    """Return, for each module of the package, the modules that it imports, now or later, not for types alone."""
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    return {
        module: files.keys() & set(imported_modules(path, files, is_for_types_too=False))
        for module, path in files.items()
    }


def name_of(path):
    parts = ["katib_callbacks", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(graph):
    """Return the groups of modules of which each leads to every other one, sorted."""
    reached = {module: reachable(graph, module) for module in graph}
    groups = {frozenset(other for other in reached[m] if m in reached[other]) for m in graph if m in reached[m]}
    return sorted(sorted(name.removeprefix("katib_callbacks.") for name in group) for group in groups)


def reachable(graph, module):
    found, waiting = set(), [module]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


CIRCLES_TO_CUT = [["sinks.katib.fresh_process", "sinks.katib.sink"]]


def test_no_modules_import_one_another_in_a_circle():
    assert [circle for circle in circles(module_graph()) if circle not in CIRCLES_TO_CUT] == []


def test_the_test_of_circles_sees_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"], ["d"]]
    assert "katib_callbacks.metrics.names" in module_graph()["katib_callbacks.metrics"]


def test_the_test_of_imports_sees_imports():
    assert imports_of("wire") == ({"metrics"}, {"google", "grpc"})
    assert "reporting" in imports_of("recording")[0]


def foreign_modules_after(code):
    """Run ``code`` in a fresh interpreter; return the modules it loaded that neither Python nor this project brings."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    return loaded - sys.stdlib_module_names - {"katib_callbacks"}


@pytest.mark.parametrize(
    "code",
    [
        "import katib_callbacks",
        "import katib_callbacks as k; [getattr(k, name) for name in k.__all__]",
        "import katib_callbacks as k; k.KatibReporter('localhost:6789', trial_name='t').close()",
        "import katib_callbacks as k; k.autolog(metrics='loss'); k.autolog(disable=True)",
        "import katib_callbacks.recording.recorder, katib_callbacks.reporting.ranks, katib_callbacks.settings",
    ],
    ids=["import", "public names", "a reporter that sends nothing", "autolog", "the recorder"],
)
def test_nothing_foreign_is_loaded_before_something_is_sent(code):
    assert foreign_modules_after(code) == set()


def test_a_report_loads_grpc_but_not_protobuf():
    code = """
import katib_callbacks
reporter = katib_callbacks.KatibReporter("127.0.0.1:1", trial_name="t", timeout_s=0.1)
try:
    reporter.report({"loss": 0.5})
except katib_callbacks.UnavailableError:
    pass
"""
    loaded = foreign_modules_after(code)

    assert "grpc" in loaded
    assert "google" not in loaded


def test_a_local_trial_loads_no_pictures(tmp_path):
    code = f"""
import os, sys
os.environ.update(KATIB_TRIAL_NAME="t", KATIB_CALLBACKS_LOCAL_PROGRESS={str(tmp_path / "t.jsonl")!r})
from katib_callbacks.recording.recorder import MetricRecorder
recorder = MetricRecorder("loss")
recorder.start(None)
recorder.begin_progress(lambda: 0.0)
recorder.record({{"loss": 0.5}}, row=1)
assert not [name for name in sys.modules if name.startswith(("katib_callbacks.pictures", "katib_callbacks.local"))]
"""

    assert foreign_modules_after(code) == set()
    assert '"loss":0.5' in (tmp_path / "t.jsonl").read_text()


def test_the_test_of_loaded_modules_sees_them():
    assert {"google", "grpc"} <= foreign_modules_after("import katib_callbacks.wire.messages, grpc")


def test_importing_the_package_loads_nothing_else():
    # Not even typing, which alone would cost what the whole import may.
    script = "import sys; before = set(sys.modules); import katib_callbacks; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)

    assert result.stdout.split() == ["katib_callbacks", "katib_callbacks._version"]


def test_every_public_name_resolves_and_is_shown():
    assert katib_callbacks.__all__ == sorted(katib_callbacks.__all__)
    for name in katib_callbacks.__all__:
        assert getattr(katib_callbacks, name) is not None
        assert name in dir(katib_callbacks)


def test_public_names_come_from_where_type_checkers_find_them():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    declared = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in katib_callbacks.__all__
    }

    assert set(declared) == set(katib_callbacks.__all__)
    for name, module in declared.items():
        assert getattr(katib_callbacks, name) is getattr(importlib.import_module(module), name)


def test_no_public_name_equals_a_submodules_name():
    assert UNITS.isdisjoint(katib_callbacks.__all__)


def documented_names():
    """Return the names that docs/api.md gives each module."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = {}
    for modules, names in re.findall(r"^\| (`katib_callbacks.*?) \| (.*) \|$", page, re.MULTILINE):
        for module in re.findall("`(.*?)`", modules):
            documented[module] = set(re.findall("`(.*?)`", names))
    return documented


def declared_names(path):
    """Return what a file puts into ``__all__``, None if it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


NOT_FOR_USERS = {"katib_callbacks._autolog", "katib_callbacks.db_manager.authentication"}


def test_public_names_are_those_that_the_docs_name():
    declared = {name_of(path): declared_names(path) for path in PACKAGE.rglob("*.py")}
    documented = documented_names()
    errors = documented["katib_callbacks.errors"]
    documented["katib_callbacks"] = documented["katib_callbacks"] - {"katib_callbacks.errors"} | errors

    assert {m: names for m, names in declared.items() if names and m not in NOT_FOR_USERS} == documented


def drawn_modules():
    """Return the modules in CONTRIBUTING's picture of the house, as paths below the package."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (picture,) = re.findall(r"^    katib_callbacks/\n(.*?)^    tests/", page, re.MULTILINE | re.DOTALL)
    folders, drawn = [], []
    for line in picture.splitlines():
        depth, first = (len(line) - len(line.lstrip()) - 6) // 2, line.split()[0] if line.strip() else ""
        if first.endswith("/"):
            folders = [*folders[:depth], first]
        elif depth == 0:
            folders = []
        drawn += ["".join(folders) + name for name in re.findall(r"\b\w+\.py\b", line)]
    return drawn


def test_the_picture_of_the_house_shows_every_module_where_it_is():
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    drawn = drawn_modules()

    assert len(drawn) == len(set(drawn))
    assert {module for module in modules - set(drawn) if not module.endswith("/__init__.py")} == set(), "not drawn"
    assert set(drawn) - modules == set(), "drawn and not there"


def test_a_folder_can_be_looked_through_at_a_glance():
    folders = [folder for folder in [PACKAGE, *PACKAGE.rglob("*")] if folder.is_dir() and folder.name != "__pycache__"]

    assert {str(f): n for f in folders if (n := len([*f.glob("*.py")])) > MODULES_IN_A_FOLDER} == {}


def test_underscores_stand_at_the_top_level_only():
    hidden = {name for name in map(name_of, PACKAGE.rglob("*.py")) if "._" in name.removesuffix(".__main__")}

    assert {name for name in hidden if not name.startswith("katib_callbacks._")} == set()


def docstrings(path):
    """Yield the first lines of a file's docstrings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield (ast.get_docstring(node) or "").split("\n")[0]


def test_docstrings_begin_with_a_verb_or_a_noun():
    lines = [(name_of(path), line) for path in PACKAGE.rglob("*.py") for line in docstrings(path)]

    assert [line for line in lines if re.match(r"(Say|What|Who|Whose|Which)\b", line[1])] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'katib_callbacks' has no attribute 'KatibReportCallback'"):
        _ = katib_callbacks.KatibReportCallback


def test_the_version_is_the_packages():
    assert katib_callbacks.__version__ == importlib.metadata.version("katib-callbacks")


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
