"""ARCHITECTURE.md says what is true: which rooms there are, and which imports which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from helpers import ROOT

pytestmark = pytest.mark.any_backend

PACKAGE = ROOT / "tfschedules"
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def rooms() -> list[str]:
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of this package that are imported, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "tfschedules":
            yield from (f"tfschedules.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        yield from imported(node)


def imports(room: str) -> set[str]:
    """The other rooms whose names a room imports."""
    found = {
        module.split(".")[1]
        for path in (PACKAGE / room).rglob("*.py")
        for module in imported(ast.parse(path.read_text("utf-8")))
        if module.startswith("tfschedules.")
    }
    return found & {*rooms()} - {room}


def table() -> dict[str, set[str]]:
    rows = re.findall(r"^\| \[`(\w+)`\]\(tfschedules/\w+\) \|.*\| (.*) \|$", PAGE, re.M)
    return {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in rows}


def test_the_table_has_every_room() -> None:
    assert sorted(table()) == rooms()


@pytest.mark.parametrize("room", rooms())
def test_the_table_says_what_a_room_imports(room: str) -> None:
    assert table()[room] == imports(room)


@pytest.mark.parametrize("room", rooms())
def test_a_room_says_what_it_may_import(room: str) -> None:
    if room in ("schedules", "callbacks", "finding", "layers", "tensorboard", "drive"):
        text = ast.get_docstring(
            ast.parse((PACKAGE / room / "__init__.py").read_text())
        )
        assert text is not None
        allowed = set(re.findall(r"`(\w+)`", text.partition("May import")[2]))
        assert imports(room) <= allowed


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`((?:\w+/)+\w+\.(?:pyi?|js))`", PAGE):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
