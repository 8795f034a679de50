"""Tables for a person: plain text for the terminal, HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

Cells = Sequence[Sequence[str]]


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
    lines = [headings, *rows]
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
    """The same as HTML, with all text escaped."""

    def line(tag: str, cells: Sequence[str]) -> str:
        inside = "".join(
            f'<{tag} style="text-align:{"right" if heading in numbers else "left"}">'
            f"{html.escape(cell)}</{tag}>"
            for cell, heading in zip(cells, headings, strict=True)
        )
        return f"<tr>{inside}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', headings)}</thead><tbody>{body}</tbody></table>"
