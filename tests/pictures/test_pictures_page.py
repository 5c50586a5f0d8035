"""What docs/pictures.md has one type, to the letter and in its order."""

from pages import SHELL, Sandbox, blocks

MADE = {"digits.html": b"<html", "digits.png": b"\x89PNG", "trials.csv": b"trial,", "rows.csv": b"trial,"}


def test_the_page_from_its_first_command_to_its_last(tmp_path):
    sandbox = Sandbox(tmp_path)
    typed = [block for block in blocks("pictures.md") if block.kind in {SHELL, "client"}]
    assert len(typed) > 5
    for block in typed:
        out = sandbox.run(block.code) if block.kind == SHELL else sandbox.run_python(block.code, block.kind)
        if "--plot" in block.code:
            assert "accuracy" in out
    for name, begins in MADE.items():
        assert begins in (tmp_path / name).read_bytes()[:200]
