"""Mutation testing of what rows depend on: each mutant is killed by a test, or tests/survivors.toml says why not.

``nox -s mutants -- settling recorder`` runs it. mutmut makes the mutants of a module, in a copy of the checkout, and
runs the tests that reach one in a process of its own, in which gRPC was not loaded before; what such a test starts runs
the mutated code, too. mypy looks first: what it refuses can never be committed, and counts as killed.
"""

import collections
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib  # of Python 3.11

ROOT = Path(__file__).parents[1]
SURVIVORS = ROOT / "tests" / "survivors.toml"
PACKAGE = "katib_callbacks"

PURE = ["unit/test_recorder.py", "unit/test_callback.py", "unit/test_progress.py"]
SETTLING = [
    *(f"delivery/test_{name}.py" for name in ("settling", "previous_attempt", "replay")),
    "delivery/test_reporter.py::test_closing_ends_a_report_under_way_at_once",
]
REPORTING = [*PURE, *(f"delivery/test_{name}.py" for name in ("reporter", "timestamps", "previous_attempt", "spool"))]
STORE = [
    *(f"db_manager/test_{name}.py" for name in ("group_commit", "contention", "observation_logs", "trial_namespaces")),
    *(f"db_manager/test_{name}.py" for name in ("retention", "faults")),
    "db_manager/test_lifecycle.py::test_a_relative_path_means_the_folder_at_the_start",
    "db_manager/test_lifecycle.py::test_stop_leaves_no_thread_and_no_file_open",
    "db_manager/test_stopping.py::test_a_trial_that_is_deleted_is_no_sibling_any_more",
    "db_manager/test_stopping.py::test_old_trials_that_never_reported_are_forgotten_where_old_rows_are_deleted",
]

TARGETS = {
    "settling": ("sinks/katib", SETTLING),
    "calls": ("sinks/katib", SETTLING),
    "fates": ("sinks/katib", ["delivery/test_classification.py"]),
    "recorder": (
        "recording",
        [
            *(*PURE, "delivery/test_termination.py", "db_manager/test_stopping.py"),
            "sinks/test_unruly_sinks.py::test_a_sink_that_cannot_be_closed_breaks_no_training",
        ],
    ),
    "rows": ("recording", PURE),
    "selection": ("recording", PURE),
    "reporter": ("reporting", REPORTING),
    "delivery": ("reporting", REPORTING),
    "run": ("reporting", REPORTING),
    **dict.fromkeys(("group_commit", "observation_log", "sqlite", "table"), ("db_manager/store", STORE)),
}
"""Where each module lies in the package, and the tests that cover it."""

PRELOADED = [
    *("pytest", "hypothesis", "sqlalchemy.dialects.sqlite", "google.protobuf.descriptor_pool", "cryptography.x509"),
    *(f"{PACKAGE}.{name}" for name in ("testing", "recording.recorder", "reporting.reporter", "sinks.katib.fates")),
]
"""Imported once for all mutants, which are forked then. Not gRPC, which behaves otherwise in a process that was."""

PYTEST = [
    *("-p", "mutants", "-p", "no:cacheprovider", "-m", "not long", "--timeout", "200"),
    *("-k", "not (eight_living or later_process or forked_child or two_replays or to_another_process)"),  # processes
    *("-W", "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"),
    # what is loaded with a module that mutmut has changed is no matter
    *("--deselect", "tests/delivery/test_reporter.py::test_making_a_reporter_loads_neither_grpc_nor_protobuf"),
]

MYPY = ["--output=json", "--no-warn-unused-ignores", "--disable-error-code=no-redef", "--disable-error-code=has-type"]
"""The two: each mutant of a method that defines attributes defines them once more, which is no fault of the mutant."""

NEVER_S = 1_000_000
"""How long mutmut lets a mutant run. In the end it would send SIGXCPU to the process of this number, though the
mutant's has ended long since and another one has the number. A test that hangs is ended by its own time limit."""

KILLED = {"killed", "timeout", "caught by type check", "segfault"}

NOT_RUN = 255
"""With this pytest ended by an exception of its own. mutmut calls it a timeout."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the shortest tests first: this module is a plug-in of pytest for mutmut, whose own list has no order."""
    stats = Path("mutmut-stats.json")
    seconds = json.loads(stats.read_text())["duration_by_test"] if stats.exists() else {}
    items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
    for plugin in config.pluginmanager.get_plugins():
        if hasattr(plugin, "GRACE_S"):
            plugin.GRACE_S = 20.0  # for the mutants that leak something


def _copy(folder: Path) -> list[str]:
    """Copy what git knows of the checkout, as it is now; return its entries that are not the package."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return sorted({Path(name).parts[0] for name in listed} - {PACKAGE})


def _run(folder: Path, module: str) -> None:
    """Make the mutants of one module and run them all."""
    where, tests = TARGETS[module]
    source = f"{PACKAGE}/{where}/{module}.py"
    options = {
        "source_paths": [PACKAGE],
        "only_mutate": [source],
        "also_copy": _copy(folder),
        "pytest_add_cli_args": PYTEST,
        "pytest_add_cli_args_test_selection": [f"tests/{test}" for test in tests],
        "type_check_command": ["mypy", source, *MYPY],
        "process_isolation": ["forkserver"],
        "forkserver_warmup": ["import"],
        "preload_modules_file": ["preloaded.txt"],
        "timeout_multiplier": ["1.0"],
        "timeout_constant": [str(float(NEVER_S))],
    }
    (folder / "preloaded.txt").write_text("\n".join(PRELOADED))
    lines = [
        f"{name} = " + "\n    ".join(value if len(value) == 1 else ["", *value]) for name, value in options.items()
    ]
    (folder / "setup.cfg").write_text("\n".join(["[mutmut]", *lines, ""]))
    mutated = folder / "mutants"
    (mutated / "tests").mkdir(parents=True)  # a Python that begins without it never looks there again
    path = os.pathsep.join([str(mutated), str(mutated / "tests")])
    command = ["mutmut", "run", "--max-children", os.environ.get("MUTANTS_AT_ONCE", str(os.cpu_count() or 1))]
    # CI: Hypothesis has the same examples each time. `python -m mutmut` would find no tests.
    subprocess.run(command, cwd=folder, env={**os.environ, "CI": "true", "PYTHONPATH": path}, check=True)


def _results(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what became of each mutant, and where it changed what to what, unless it was killed."""
    os.chdir(folder)
    from mutmut.mutation.data import SourceFileMutationData  # noqa: PLC0415  mutmut reads options where it is imported
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # noqa: PLC0415
    from mutmut.stats import status_by_exit_code  # noqa: PLC0415
    from mutmut.utils.file_utils import walk_mutatable_files  # noqa: PLC0415

    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code] if code != NOT_RUN else "not run"
            diff = "" if status in KILLED else get_diff_for_mutant(name, path=path)
            was, now = (
                " ".join(line[1:].strip() for line in diff.splitlines()[3:] if line.startswith(sign)) for sign in "-+"
            )
            function = re.sub(r".*\.x(_|ǁ)|__mutmut_\d+$", "", name).replace("ǁ", ".")
            yield status, {"in": function, "was": was, "now": now}


def _is_wording(change: dict[str, str]) -> bool:
    """Return whether only a message's wording differs, by XX or by case: tests look for the part of it that tells."""
    was, now = change["was"], change["now"].replace("XX", "")
    return was.casefold() == now.casefold() and bool(re.search(r'"[^"]* [^"]*"', was))


def _judge(module: str, results: list[tuple[str, dict[str, str]]]) -> int:
    """Print what became of a module's mutants; return how many survivors are not explained, or are none any more."""
    left = [change for status, change in results if status not in KILLED]
    survivors = [change for change in left if not _is_wording(change)]
    listed = tomllib.loads(SURVIVORS.read_text(encoding="utf-8")).get(module, [])
    explained = [{key: entry[key] for key in ("in", "was", "now")} for entry in listed]
    new = [change for change in survivors if change not in explained]
    gone = [change for change in explained if change not in survivors]
    for what, changes in (("survives and is not explained", new), ("is explained and does not survive", gone)):
        for change in changes:
            print(f"{module}: {what}:\n  in  {change['in']}\n  was {change['was']}\n  now {change['now']}")
    counts = ", ".join(f"{count} {status}" for status, count in collections.Counter(s for s, _ in results).items())
    known, wording = len(survivors) - len(new), len(left) - len(survivors)
    print(f"{module}: {len(results)} mutants: {counts}; {known} explained, {wording} wording of messages", flush=True)
    return len(new) + len(gone)


def main(modules: list[str]) -> int:
    """Run the modules that are named, else all; return 1 where the list of survivors is not what survives."""
    wrong = 0
    for module in modules or TARGETS:
        folder = ROOT / ".nox" / "mutants-of" / module
        _run(folder, module)
        wrong += _judge(module, list(_results(folder)))
        os.chdir(ROOT)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
