"""Tables for a person: text for the terminal, HTML for notebooks, CSV for others."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Sequence

Cells = Sequence[Sequence[str]]
# With these a formula begins; the last four are the first ones in full width.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Two of MathJax's names for what it leaves alone: Jupyter sets `$` as mathematics.
NO_MATH = 'class="tex2jax_ignore mathjax_ignore"'


def text_table(headings: Sequence[str], rows: Cells, numbers: Collection[str]) -> str:
    """A table in plain text.

    Args:
        headings: What stands above each column.
        rows: The cells of each row.
        numbers: Headings of columns that are set to the right.

    Example:
        >>> print(text_table(["name", "size"], [["a", "10"], ["b", "9"]], {"size"}))
        name  size
        ────  ────
        a       10
        b        9
    """
    # A name of the user's may have a line's end in it.
    lines = [[" ".join(cell.split()) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(text)


def html_table(headings: Sequence[str], rows: Cells, numbers: Collection[str]) -> str:
    """The same as HTML, with all text escaped and none of it mathematics."""

    def line(tag: str, cells: Sequence[str]) -> str:
        inside = "".join(
            f'<{tag} style="text-align:{"right" if heading in numbers else "left"}">'
            f"{html.escape(cell)}</{tag}>"
            for cell, heading in zip(cells, headings, strict=True)
        )
        return f"<tr>{inside}</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        f"<table {NO_MATH}><thead>{line('th', headings)}</thead>"
        f"<tbody>{body}</tbody></table>"
    )


def csv_table(headings: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """The same for a spreadsheet, as RFC 4180 has it; with lines that end as Unix's.

    A spreadsheet takes text that begins as a formula for one, and runs it. Such a text
    gets an apostrophe in front, as OWASP ("CSV Injection") advises. Numbers stay
    numbers, also negative ones; NaN is an empty cell.

    Args:
        headings: What stands above each column.
        rows: The cells of each row, numbers as they are.

    Example:
        >>> print(csv_table(["step", "=1+1"], [[0, -0.5], [1, float("nan")]]), end="")
        step,'=1+1
        0,-0.5
        1,
    """
    lines = (",".join(map(_csv_cell, row)) for row in (headings, *rows))
    return "".join(f"{line}\n" for line in lines)


def _csv_cell(cell: str | float) -> str:
    if not isinstance(cell, str):
        return "" if math.isnan(cell) else repr(cell)
    text = f"'{cell}" if cell.startswith(_FORMULAS) else cell
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(letter in text for letter in '",\r\n') else text
