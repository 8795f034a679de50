"""The blocks of docs/loops.md that are JAX's or PyTorch's."""

import pytest
from helpers import BACKEND
from pages import ROOT, blocks, run


@pytest.mark.skipif(BACKEND != "jax", reason="the blocks are JAX's")
def test_the_stateless_loop_of_the_page_runs_as_written():
    scope = run(ROOT / "docs" / "loops.md", "py")
    assert scope["steps"] == 24


@pytest.mark.skipif(BACKEND != "torch", reason="the blocks are PyTorch's")
def test_the_torch_loops_of_the_page_run_as_written():
    page = ROOT / "docs" / "loops.md"
    here = "test_the_torch_loops_of_the_page_run_as_written"
    own = [b for b in blocks(page) if b.note is not None and b.note.endswith(here)]
    assert len(own) == 2
    scope = {"__name__": "loops.md"}
    for block in own:
        exec(compile(block.code, f"loops.md:{block.line}", "exec"), scope)
