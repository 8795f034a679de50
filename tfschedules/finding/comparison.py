"""Several range tests side by side: one picture, one table."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfschedules._support import checks
from tfschedules._support.arguments import Named
from tfschedules._support.tables import NO_MATH, html_table, text_table
from tfschedules.finding import pictures
from tfschedules.finding.result import RangeTestResult


@dataclasses.dataclass(frozen=True)
class RangeTestComparison(Named):
    """Range tests of one model that differ in one thing.

    Attributes:
        over: In what: "weight_decay", "momentum" or "group".
        results: A `RangeTestResult` for each value or group, in the order given.

    Example:
        >>> rates = np.geomspace(1e-4, 1, 50)
        >>> curve = 1 / (1 + rates / 0.01) + rates**2
        >>> results = {
        ...     decay: RangeTestResult.from_sweep(rates, curve + 10 * decay, steps=50)
        ...     for decay in (0.0, 0.01)
        ... }
        >>> RangeTestComparison("weight_decay", results).best
        0.0
    """

    over: str
    results: Mapping[Any, RangeTestResult]

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.choice("over", self.over, ["weight_decay", "momentum", "group"])
        results = self.results
        if not isinstance(results, Mapping) or not all(
            isinstance(result, RangeTestResult) for result in results.values()
        ):
            raise TypeError(
                "Argument `results` must be a dict of RangeTestResult by value. "
                f"Received: results={checks.shown(results)}"
            )

    @property
    def best(self) -> Any:
        """The value whose smoothed curve gets furthest, of those with a suggestion.

        Smith 2018 (arXiv:1803.09820, section 4) chooses weight decay so. `None` if no
        sweep gave a suggestion, and for groups, which are not to be chosen between.
        """
        found = {
            key: _furthest(result)[0]
            for key, result in self.results.items()
            if result.suggestion is not None
        }
        if self.over == "group" or not found:
            return None
        return min(found, key=lambda key: found[key])

    def __str__(self) -> str:
        """A table: the suggestion, and how far each sweep got."""
        return text_table(*self._table())

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture and the table."""
        curves = self._labelled()
        picture = pictures.png_html(
            lambda figure: pictures.plot_comparison(curves, figure)
        )
        reasons = "".join(
            f"<li>{html.escape(f'{self.over} {_label(key)}: {result.reason}')}</li>"
            for key, result in self.results.items()
        )
        table = html_table(*self._table())
        return f"<div {NO_MATH}>{picture}{table}<ul>{reasons}</ul></div>"

    def plot(self, ax: Any = None) -> Any:
        """Draw all smoothed curves over the rate; return the matplotlib `Axes`.

        Args:
            ax: The `Axes` to draw on; a new figure's if not given.
        """
        return pictures.plot_comparison(self._labelled(), ax=ax)

    def _labelled(self) -> dict[str, RangeTestResult]:
        return {f"{self.over} {_label(k)}": r for k, r in self.results.items()}

    def _table(self) -> tuple[list[str], list[list[str]], list[str]]:
        metric = next(iter(self.results.values())).metric if self.results else "loss"
        numbers = ["suggestion", f"best {metric}", "at rate"]
        headings = [self.over, *numbers, "stopped"]
        rows = []
        for key, result in self.results.items():
            _, value, rate = _furthest(result)
            suggestion = result.suggestion
            rows.append(
                [
                    _label(key),
                    "none" if suggestion is None else f"{suggestion:.3g}",
                    f"{value:.4g}",
                    f"{rate:.3g}",
                    result.stop_reason,
                ]
            )
        return headings, rows, numbers


def _furthest(result: RangeTestResult) -> tuple[float, float, float]:
    """How far the smoothed curve gets, less being better; the value, and its rate."""
    signed = (
        -result.smoothed_values if result.higher_is_better else (result.smoothed_values)
    )
    if np.isnan(signed).all():
        return np.inf, np.nan, np.nan
    at = int(np.nanargmin(signed))
    return (
        float(signed[at]),
        float(result.smoothed_values[at]),
        float(result.learning_rates[at]),
    )


def _label(key: Any) -> str:
    return key if isinstance(key, str) else f"{key:g}"
