"""Every block of Python in the guides runs, in order, page by page."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings(
    # The page on schedules shows a ReduceLROnPlateau beside one, and says so.
    "ignore:Another callback has set the learning rate:UserWarning"
)
@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_a_guide_runs_as_written(page, tmp_path, monkeypatch):
    text = (DOCS / page).read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": page}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        # As many empty lines before it as in the page: a traceback has its line.
        exec(compile("\n" * line + block[1], str(DOCS / page), "exec"), scope)


def test_the_guides_are_there():
    for page in ("schedules.md", "resume.md", "range_test.md"):
        assert len(BLOCK.findall((DOCS / page).read_text("utf-8"))) >= 4


def test_the_gallery_has_every_schedule_and_draws_its_lines(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import gallery

    import tfschedules as tfs

    public = {*tfs._HOMES["schedules"], *tfs._HOMES["recipes"]} - {"Schedule"}
    assert gallery.missing(public) == []
    assert gallery.missing(public | {"Parabola"}) == ["Parabola"]
    for name, lines in gallery.TABLE.items():
        for line in lines:
            assert f"tfs.{name}(" in line
    picture = gallery._picture("tfs.Constant(0.1)", "dark")
    assert b"<svg" in picture
    assert gallery._CURVE["dark"].encode() in picture
    assert picture == gallery._picture("tfs.Constant(0.1)", "dark")


def test_every_test_in_the_table_of_environments_is_there():
    table = (DOCS / "where.md").read_text("utf-8")
    links = re.findall(r"\[`(test_\w+)`\]\((\S+)\)", table)
    assert len(links) > 20
    for name, target in links:
        assert f"def {name}(" in (DOCS / target).read_text("utf-8")
