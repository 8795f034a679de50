"""What a person sees of layer groups: a table, as text and for notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfschedules._support.tables import html_table, text_table

HEADINGS = (
    "group",
    "layers",
    "parameters",
    "multiplier",
    "rate now",
    "decay",
    "frozen",
)
_NUMBERS = ("parameters", "multiplier", "rate now", "decay")
_WIDEST = 40


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """One group, as it is now.

    Attributes:
        group: Its name.
        layers: Names of its layers, or a regular expression.
        parameters: How many numbers its weights hold.
        multiplier: Its rate over the optimizer's: a number, or a schedule's name.
        rate: Its rate at the next update.
        decay: Its weight decay; `None` if there is none.
        undecayed: How many of `parameters` are not decayed.
        frozen: "yes", "no" or "partly".
    """

    group: str
    layers: Sequence[str]
    parameters: int
    multiplier: str
    rate: float
    decay: float | None
    undecayed: int
    frozen: str

    def cells(self) -> tuple[str, ...]:
        """What stands in each column."""
        decay = "–"
        if self.decay is not None:
            decay = f"{self.decay:.4g}"
            if self.undecayed:
                decay += f" ({self.undecayed:,} exempt)"
        return (
            self.group,
            _shortened(self.layers),
            f"{self.parameters:,}",
            self.multiplier,
            f"{self.rate:.4g}",
            decay,
            self.frozen,
        )


def _shortened(names: Sequence[str]) -> str:
    """The names, or the first and the last of them."""
    text = ", ".join(names)
    if len(text) <= _WIDEST or len(names) == 1:
        return text
    return f"{names[0]} … {names[-1]} ({len(names)})"


@dataclasses.dataclass(frozen=True)
class GroupTable:
    """The groups of an optimizer: `print` it, or end a notebook's cell with it."""

    rows: tuple[GroupRow, ...]

    def __str__(self) -> str:
        """A table in plain text."""
        return text_table(HEADINGS, self._cells(), _NUMBERS)

    def __repr__(self) -> str:
        """How much the table holds."""
        parameters = sum(row.parameters for row in self.rows)
        return f"<GroupTable: {len(self.rows)} groups, {parameters:,} parameters>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return html_table(HEADINGS, self._cells(), _NUMBERS)

    def _cells(self) -> list[tuple[str, ...]]:
        return [row.cells() for row in self.rows]
