"""The list of benchmarks: all scripts, and pages that name them."""

import re

import pytest
from helpers import ROOT

pytestmark = pytest.mark.any_backend

README = ROOT / "benchmarks" / "README.md"
ROWS = dict(
    re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", README.read_text("utf-8"), re.M)
)


def test_every_script_is_in_the_list():
    scripts = {
        path.stem
        for path in README.parent.glob("*.py")
        if "__main__" in path.read_text("utf-8")
    }
    assert len(scripts) > 5
    assert ROWS.keys() == scripts


@pytest.mark.parametrize("script", ROWS)
def test_the_pages_in_the_list_name_the_script(script):
    pages = re.findall(r"\]\(([^)#]+)", ROWS[script])
    assert pages or ROWS[script].startswith("nowhere")
    for page in pages:
        assert f"benchmarks/{script}.py" in (README.parent / page).read_text("utf-8")
