"""AfterImport with real modules of a few lines: when it acts, and that nobody else notices."""

# ruff: noqa: PLC0415  the place of an import is what is tested

import importlib
import importlib.util
import subprocess
import sys
import threading
import zipfile

import pytest

from katib_callbacks._autolog.import_hook import AfterImport


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that makes modules to import, which are forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def run(**sources):
        for name, source in sources.items():
            tmp_path.joinpath(f"{name}.py").write_text(source, encoding="utf-8")
            names.append(name)
        importlib.invalidate_caches()

    yield run
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def await_imports():
    """Return a function that awaits modules and collects, in order, what has been acted upon."""
    hooks = []

    def run(*names):
        seen = []
        hook = AfterImport(dict.fromkeys(names, seen.append))
        hooks.append(hook)
        hook.start()
        return hook, seen

    before = list(sys.meta_path)
    yield run
    for hook in hooks:
        hook.stop()
    assert sys.meta_path == before


def test_it_acts_when_the_module_is_complete(write, await_imports):
    write(first="value = 1\n")
    hook, seen = await_imports("first")
    assert seen == []

    import first

    assert seen == [first]
    assert seen[0].value == 1
    assert hook not in sys.meta_path


def test_it_acts_at_once_on_a_module_that_is_loaded(write, await_imports):
    write(first="")
    import first

    hook, seen = await_imports("first")

    assert seen == [first]
    assert hook not in sys.meta_path


def test_it_waits_for_all_and_then_leaves(write, await_imports):
    write(first="", second="")
    hook, seen = await_imports("first", "second")

    import second

    assert seen == [second]
    assert hook in sys.meta_path

    import first

    assert seen == [second, first]
    assert hook not in sys.meta_path


def test_it_imports_nothing(write, await_imports):
    write(first="")
    await_imports("first")

    assert "first" not in sys.modules


def test_stopped_it_acts_no_more(write, await_imports):
    write(first="")
    hook, seen = await_imports("first")

    hook.stop()
    import first

    assert seen == []
    assert "exec_module" not in vars(first.__loader__)


def test_a_module_that_does_not_exist_is_not_found_as_before(await_imports):
    await_imports("no_such_module")

    assert importlib.util.find_spec("no_such_module") is None
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_module'$"):
        importlib.import_module("no_such_module")


def test_a_blocked_module_stays_blocked(write, await_imports, monkeypatch):
    write(first="")
    monkeypatch.setitem(sys.modules, "first", None)
    _, seen = await_imports("first")

    with pytest.raises(ModuleNotFoundError, match=r"import of first halted; None in sys\.modules"):
        importlib.import_module("first")
    assert seen == []


def test_a_failed_import_is_tried_again(write, await_imports):
    write(first="raise OSError('first time')\n")
    _, seen = await_imports("first")
    with pytest.raises(OSError, match=r"^first time$"):
        importlib.import_module("first")
    assert seen == []
    assert "first" not in sys.modules

    write(first="value = 2  # another length: the cached bytecode is told by time and size\n")

    import first

    assert seen == [first]


def test_the_module_its_spec_and_its_loader_are_as_without_it(write, await_imports):
    write(first="value = 1\n", other="")
    await_imports("first", "other")
    import first

    spec, loader = first.__spec__, first.__loader__
    assert type(loader) is importlib.machinery.SourceFileLoader
    assert spec.loader is loader
    assert vars(loader) == {"name": "first", "path": first.__file__}
    assert loader.get_source("first") == "value = 1\n"


def test_finding_a_spec_is_not_importing(write, await_imports):
    write(first="")
    _, seen = await_imports("first")

    spec = importlib.util.find_spec("first")

    assert spec.origin.endswith("first.py")
    assert "first" not in sys.modules
    assert seen == []
    import first

    assert seen == [first]


def test_a_module_that_is_loaded_aside_is_not_the_one(write, await_imports):
    write(first="")
    _, seen = await_imports("first")
    spec = importlib.util.find_spec("first")
    aside = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(aside)
    assert seen == []

    import first

    assert seen == [first]


def test_a_reload_works_and_does_not_act_again(write, await_imports):
    write(first="count = globals().get('count', 0) + 1\n", other="")
    _, seen = await_imports("first", "other")
    import first

    assert importlib.reload(first) is first

    assert first.count == 2
    assert seen == [first]


def test_a_submodule_is_awaited_without_its_package(tmp_path, write, await_imports):
    write()
    package = tmp_path / "first"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    package.joinpath("part.py").touch()
    _, seen = await_imports("first.part")
    try:
        import first

        assert seen == []
        import first.part

        assert seen == [first.part]
    finally:
        sys.modules.pop("first.part", None)
        sys.modules.pop("first", None)


def test_a_folder_without_init_is_a_namespace_as_before(tmp_path, write, await_imports):
    write()
    tmp_path.joinpath("first").mkdir()
    _, seen = await_imports("first")
    try:
        import first

        assert list(first.__path__) == [str(tmp_path / "first")]
        assert seen in ([], [first]), "older Pythons know no loader of a namespace"
    finally:
        sys.modules.pop("first", None)


def test_two_modules_of_one_archive_share_a_loader(tmp_path, await_imports, monkeypatch):
    archive = tmp_path / "modules.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("first", "second", "third"):
            file.writestr(f"{name}.py", "")
    monkeypatch.syspath_prepend(archive)
    _, seen = await_imports("first", "second")
    try:
        import first
        import second
        import third

        assert first.__loader__ is second.__loader__ is third.__loader__
        assert seen == [first, second]
        assert "exec_module" not in vars(first.__loader__)
    finally:
        for name in ("first", "second", "third"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("is_ours_first", [True, False])
def test_it_stands_beside_another_of_its_kind(write, await_imports, is_ours_first):
    write(first="")
    _, before = await_imports("first")
    _, after = await_imports("first")

    import first

    assert before == after == [first]


@pytest.mark.logs_error("Internal error after the import of first")
def test_an_action_that_raises_does_not_break_the_import(write):
    def fail(_):
        raise OSError

    write(first="value = 1\n")
    hook = AfterImport({"first": fail})
    hook.start()

    import first

    assert first.value == 1
    assert hook not in sys.meta_path


def test_a_module_in_the_middle_of_its_import_is_waited_for(write, await_imports):
    write(first="import gate\ngate.entered.set()\ngate.may_go.wait(60)\nvalue = 1\n", gate="")
    import gate

    gate.entered, gate.may_go = threading.Event(), threading.Event()
    importing = threading.Thread(target=importlib.import_module, args=("first",))
    importing.start()
    try:
        assert gate.entered.wait(60)
        release = threading.Timer(0.2, gate.may_go.set)
        release.start()
        _, seen = await_imports("first")  # returns no sooner than the import
        release.join()
    finally:
        gate.may_go.set()
        importing.join(60)

    assert [module.value for module in seen] == [1]


THREADS = """
import importlib.machinery, sys, threading
from katib_callbacks._autolog.import_hook import AfterImport

class Slow:  # knows nothing, and takes its time; the import system has it at index 1
    def find_spec(self, name, path=None, target=None):
        if name == "module":
            entered.set()
            may_go.wait(60)

class Finds:  # the only finder that knows the module
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "module" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        pass

entered, may_go = threading.Event(), threading.Event()
sys.meta_path[:0] = [Slow(), Finds()]
hook = AfterImport({"awaited": print})
hook.start()
importing = threading.Thread(target=__import__, args=("module",))
importing.start()
entered.wait(60)
hook.stop()
assert hook not in sys.meta_path
may_go.set()
importing.join(60)
print("module" in sys.modules)
"""


def test_another_thread_misses_no_finder_while_it_leaves():
    result = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=240, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True"], result.stderr
