"""What the notebooks say beside their code; CI executes them (`.ci/run notebooks`)."""

import json
import re

import pytest
from helpers import ROOT

NOTEBOOKS = ROOT / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LINK = re.compile(r"\]\(([^)#]+)")


def texts(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_what_it_is_and_its_links_lead_somewhere(path):
    first, *_ = said = texts(path)
    assert first.startswith("# ")
    assert re.search(r"seconds|minutes?", first)
    assert "pip install" in first
    links = LINK.findall("\n".join(said))
    assert links
    for target in links:
        assert "://" in target or (NOTEBOOKS / target).exists(), target


def test_the_table_of_the_notebooks_has_each():
    table = (NOTEBOOKS / "README.md").read_text("utf-8")
    assert {path.name for path in PATHS} <= {*LINK.findall(table)}
