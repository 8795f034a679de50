"""The blocks of docs/loops.md that are JAX's."""

import pytest
from helpers import BACKEND
from pages import ROOT, run


@pytest.mark.skipif(BACKEND != "jax", reason="the blocks are JAX's")
def test_the_stateless_loop_of_the_page_runs_as_written():
    scope = run(ROOT / "docs" / "loops.md", "py")
    assert scope["steps"] == 24
