"""What a person sees of layer groups: a table, as text and for notebooks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tfschedules._support.tables import html_table, text_table

HEADINGS = (
    "group",
    "layers",
    "parameters",
    "multiplier",
    "rate now",
    "momentum",
    "decay",
    "frozen",
)
_NUMBERS = ("parameters", "multiplier", "rate now", "momentum", "decay")
_WIDEST = 40
_UNKNOWN = "?"
_NOTE = (
    f"{_UNKNOWN}: the optimizer is not built, and does not know these weights yet. "
    "Train a step, or call optimizer.build(model.trainable_variables)."
)

# Weights, and what the decay of each is multiplied by; of unknown weights only this.
Decays = Sequence[tuple[Any, float]] | float


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """One group, as it is now.

    Attributes:
        group: Its name.
        layers: Names of its layers, or a regular expression.
        parameters: How many numbers its weights hold; `None` if that is not known.
        multiplier: Its rate over the optimizer's: a number, or a schedule's name.
        rate: Its rate at the next update.
        momentum: Its momentum, or the optimizer's; `None` if that has none.
        decay: Its weight decay; `None` if there is none.
        undecayed: How many of `parameters` are not decayed.
        frozen: "yes", "no" or "partly"; "?" if that is not known.
    """

    group: str
    layers: Sequence[str]
    parameters: int | None
    multiplier: str
    rate: float
    momentum: float | None
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
            _UNKNOWN if self.parameters is None else f"{self.parameters:,}",
            self.multiplier,
            f"{self.rate:.4g}",
            "–" if self.momentum is None else f"{self.momentum:.4g}",
            decay,
            self.frozen,
        )


def group_row(
    group: str,
    layers: Sequence[str],
    multiplier: str,
    rate: float,
    momentum: float | None,
    decay: float | None,
    decays: Decays,
) -> GroupRow:
    """A row, from a group's weights.

    Args:
        group: See `GroupRow`.
        layers: See `GroupRow`.
        multiplier: See `GroupRow`.
        rate: See `GroupRow`.
        momentum: See `GroupRow`.
        decay: The optimizer's weight decay; `None` if it has none.
        decays: The weights.
    """
    if isinstance(decays, float):
        parameters, undecayed, times, frozen = None, 0, decays, _UNKNOWN
    else:
        sizes = [(math.prod(weight.shape), factor) for weight, factor in decays]
        parameters = sum(size for size, _ in sizes)
        times = next((factor for _, factor in sizes if factor), 0.0)
        undecayed = sum(size for size, factor in sizes if not factor) if times else 0
        answers = {not weight.trainable for weight, _ in decays} or {True}
        frozen = "partly" if len(answers) > 1 else "yes" if True in answers else "no"
    return GroupRow(
        group=group,
        layers=layers,
        parameters=parameters,
        multiplier=multiplier,
        rate=rate,
        momentum=momentum,
        decay=None if decay is None else float(decay) * times,
        undecayed=undecayed,
        frozen=frozen,
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
        table = text_table(HEADINGS, self._cells(), _NUMBERS)
        return f"{table}\n\n{_NOTE}" if self._lacks else table

    def __repr__(self) -> str:
        """How much the table holds."""
        known = sum(row.parameters or 0 for row in self.rows)
        parameters = "unknown" if self._lacks else f"{known:,}"
        return f"<GroupTable: {len(self.rows)} groups, {parameters} parameters>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        table = html_table(HEADINGS, self._cells(), _NUMBERS)
        return f"{table}<p>{_NOTE}</p>" if self._lacks else table

    @property
    def _lacks(self) -> bool:
        return any(row.parameters is None for row in self.rows)

    def _cells(self) -> list[tuple[str, ...]]:
        return [row.cells() for row in self.rows]
