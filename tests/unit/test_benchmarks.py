"""The benchmarks' one table: what is told is shown, and what lies in the repository is what the programs measure."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import figures
import results
from figures import Figure, Growth

BENCHMARKS = Path(results.__file__).parent

PROGRAM = """
import sys
sys.path.insert(0, {benchmarks!r})
from figures import Figure, run

def measure(size, colour):
    print("a library's own words")
    yield Figure(f"a {{colour}} call of {value}", [{value}], "ms", "raw call", [2.0], ratio_at_most=1.5)

run("Measure.", measure, colour="red")
"""


def test_a_figure_tells_the_middle_its_ratio_and_whether_both_limits_are_met():
    told = Figure("call", [1, 2, 3, 4, 100], "ms", "raw call", [1.0], at_most=5, ratio_at_most=2).told()
    assert told["ours"][0] == 3
    assert 1 < told["ours"][1] < 3 < told["ours"][2] < 100
    assert (told["ratio"], told["limit"], told["is_met"]) == (3, "5 ms and ratio 2", False)
    assert Figure("call", [1, 2, 9], "ms", at_most=4, is_mean=True).told()["is_met"] is True
    assert Figure("call", [1.0], "ms").told()["is_met"] is None


@pytest.mark.parametrize(("power", "is_met"), [(0.5, True), (1, True), (1.1, True), (1.5, False), (2, False)])
def test_a_growth_that_is_worse_than_its_aim_is_missed(power, is_met):
    fixed = 7
    points = {n: fixed + n**power for n in (1, 10, 1_000, 3_000, 10_000, 100_000)}
    told = Growth("read", "rows", "ms", {"ours": points}, 1).told()
    assert told["exponent"] == pytest.approx(power, abs=0.04)
    assert told["is_met"] is is_met


@pytest.fixture
def measured():
    """Return what two programs told, through JSON as `results.py` reads it."""
    peer = Figure("training", [3.0, 3.0], "s", "Another's callback", [2.0, 2.0], is_peer=True)
    floor = Figure("report", [3.0], "s", "raw call", [2.0], ratio_at_most=1.4)
    growth = Growth("read", "rows", "ms", {"ours": {1: 1.0, 10: 100.0}, "no-op server": {1: 1.0}}, 1)
    about = {
        "took_s": 1,
        "share": 1.0,
        "load": 0.1,
        "is_busy": False,
        "machine": "2 cores",
        "versions": {"Python": "3"},
    }
    return {
        "sinks": about | {"date": "2026-01-02 03:04", "told": json.loads(json.dumps([peer.told(), floor.told()]))},
        "page": about | {"date": "2026-01-03 03:04", "told": json.loads(json.dumps([growth.told()]))},
    }


def test_the_table_says_where_another_is_faster_what_is_missed_and_what_grows(measured):
    text = results.rendered(measured)
    assert "| training | 3 s | Another's callback | 2 s | 1.5 |  |  | [sinks](sinks.py) | 2026-01-02 |" in text
    assert "| report | 3 s | raw call | 2 s | 1.5 | ratio 1.4 | **no** | [sinks](sinks.py) | 2026-01-02 |" in text
    assert "| read, by rows | 1 ms at 1, 100 at 10 |  |  | grows as n^2.00 | n^1 | **no** | [page](page.py) |" in text
    assert "- Another's callback is faster than ours (2 s, ours 3 s): training." in text
    assert "raw call is faster" not in text
    assert "- report: ratio 1.4, but 1.5." in text
    assert "- read: n^1, but it grows as n^2.00." in text
    assert "(plots/read-by-rows.png)" in text
    assert "Provisional" not in text
    measured["page"]["is_busy"] = True
    assert "**Provisional**, on a busy machine or of small sizes: page." in results.rendered(measured)


def test_a_part_that_is_measured_again_leaves_the_other_rows(monkeypatch, tmp_path):
    for name, value in (("one", 1.0), ("two", 2.0)):
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(benchmarks=str(BENCHMARKS), value=value), "utf-8")
    runs = ("one --colour red", "one --colour blue", "two")
    files = {"MEASURED": "results.json", "TABLE": "RESULTS.md", "PLOTS": "plots"}
    for name, value in (
        {"HERE": tmp_path, "RUNS": runs} | {key: tmp_path / file for key, file in files.items()}
    ).items():
        monkeypatch.setattr(results, name, value)

    monkeypatch.setattr(sys, "argv", ["results.py"])
    results.main()
    before = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert re.findall(r"a \w+ call of \S+", before) == ["a red call of 1.0", "a blue call of 1.0", "a red call of 2.0"]

    program = tmp_path / "two.py"
    program.write_text(program.read_text("utf-8").replace("2.0", "9.0"), "utf-8")
    (tmp_path / "one.py").unlink()
    monkeypatch.setattr(sys, "argv", ["results.py", "two"])
    results.main()
    after = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert re.findall(r"a \w+ call of \S+", after)[:3] == [
        "a red call of 1.0",
        "a blue call of 1.0",
        "a red call of 9.0",
    ]

    monkeypatch.setattr(sys, "argv", ["results.py", "one", "--check"])
    with pytest.raises(SystemExit):  # it is not there any more
        results.main()
    assert "a red call of 1.0" in (tmp_path / "RESULTS.md").read_text("utf-8")


def test_a_program_fails_on_a_missed_limit_where_that_is_asked_for(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(benchmarks=str(BENCHMARKS), value=4.0), "utf-8")
    for flags, status in (((), 0), (("--check",), 1), (("--json",), 0)):
        done = subprocess.run(
            [sys.executable, program, *flags], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == status, done.stderr
    assert json.loads(done.stdout)["told"][0]["ratio"] == 2
    assert "a library's own words" in done.stderr


def test_the_results_in_the_repository_are_those_of_all_programs():
    programs = {
        path.stem
        for path in BENCHMARKS.glob("*.py")
        if re.search(r"^    run\w*\(__doc__, ", path.read_text("utf-8"), re.MULTILINE)
    }
    assert programs == set(map(results.program_of, results.RUNS))
    measured = json.loads(results.MEASURED.read_text("utf-8"))
    text = results.TABLE.read_text("utf-8")
    assert text == results.rendered(measured), "python benchmarks/results.py --render"
    assert {name for name in programs if f"| [{name}]({name}.py) |" in text} == programs
    shown = set(re.findall(r"\(plots/([^)]+)\)", text))
    assert shown == {path.name for path in results.PLOTS.iterdir()}
    assert len(shown) >= 12
    assert sum(path.stat().st_size for path in results.PLOTS.iterdir()) < 500_000


@pytest.mark.parametrize("program", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_program_imports_only_what_the_package_has(program):
    for node in ast.walk(ast.parse(program.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "katib_callbacks":
            source = BENCHMARKS.parent.joinpath(*node.module.split("."))
            module = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
            text = module.read_text("utf-8")
            for name in (alias.name for alias in node.names):
                is_module = (source / name).is_dir() or (source / f"{name}.py").exists()
                assert is_module or re.search(rf"\b{name}\b", text), f"{node.module} has no {name}"


def test_three_digits_are_shown():
    assert [figures._number(value) for value in (1234.5, 12.345, 0.012345, 0)] == ["1,234", "12.3", "0.0123", "0"]
