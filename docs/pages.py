"""The fenced blocks of the pages, and how a page's Python is run."""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import io
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "notebooks/*.md")
    for page in ROOT.glob(pattern)
)
FENCE = re.compile(
    r"(?:^[ ]*<!-- (?P<note>[^\n]*) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[^\n]*)\n"
    r"(?P<code>.*?)"
    r"^(?P=indent)```$",
    flags=re.DOTALL | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, line in the page, and the comment above."""

    language: str
    code: str
    line: int
    note: str | None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(
            match["language"],
            textwrap.dedent(match["code"]),
            text.count("\n", 0, match.start("code")),
            match["note"],
        )
        for match in FENCE.finditer(text)
    ]


def run(page: Path, language: str = "python") -> dict[str, Any]:
    """Run a page's blocks of Python in order, and compare what they print.

    A block of `text` is what the block before it printed; `...` stands for anything.
    A block with a note above it is another test's. The variables that the blocks leave
    are returned.
    """
    scope: dict[str, Any] = {"__name__": page.name}
    printed = None
    for block in blocks(page):
        if block.language == language and not block.note:
            # As many empty lines before it as in the page: a traceback has its line.
            code = compile(
                "\n" * block.line + block.code, str(page), "exec", dont_inherit=True
            )
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, scope)
            printed = out.getvalue()
        elif block.language in ("python", "py"):
            printed = None
        elif block.language == "text" and printed is not None:
            assert same(block.code, printed), (
                f"{page.name}, line {block.line}: printed was\n{printed}"
            )
            printed = None
    return scope


def same(expected: str, printed: str) -> bool:
    """Whether a text is what was printed, but for white space."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected, printed, flags)
