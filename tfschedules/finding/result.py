"""What a range test saw, and what can be read off it; also as a file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfschedules._support import checks
from tfschedules._support.files import replace_text
from tfschedules._support.paths import local_path
from tfschedules._support.tables import csv_table
from tfschedules.finding import record_files
from tfschedules.finding.suggestions import Bounds, smooth, suggest


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RangeTestResult:
    """The curve of a range test, why it ended, and the rates it suggests.

    Attributes:
        learning_rates: The rate of each update, float64 `(n,)`, increasing.
        losses: Each update's own batch loss, raw, float64 `(n,)`; NaN and infinities
            as they came. The mean of the sweeps where there were several, as far as
            more than half of them got.
        smoothed_losses: The same without noise and without lag, `(n,)`.
        stop_reason: "finished", "diverged", "non-finite loss", "out of data" or
            "interrupted".
        suggestion: The rate of the rule asked for, or `None`.
        reason: Why that rate, or why none and what to try.
        suggestions: The rate of every rule by name, or `None`.
        bounds: `base_lr` and `max_lr` for a cycle (Smith 2015, section 3.3), or `None`.
        mode: "exponential" or "linear": how the rate was swept.
        steps: The length the sweep would have had.
        rule: The rule that `suggestion` follows.
        metric: What the suggestion was read off: "loss", or the name of a metric;
            "val_loss" and the like where that was of validation data.
        values: Its values `(n,)`, `losses` if it is the loss; NaN at steps where
            validation data were not looked at.
        smoothed_values: The same without noise, `(n,)`.
        higher_is_better: Whether it grows where training goes well.
        sweeps: `values` of each sweep, `(repeats, n)`; NaN where it had ended.
        group: The group of layers whose rate was swept, or `None` for all.

    Example:
        >>> rates = np.geomspace(1e-4, 1, 50)
        >>> curve = 1 / (1 + rates / 0.01) + rates**2
        >>> result = RangeTestResult.from_sweep(rates, curve, steps=50)
        >>> result.stop_reason, 0.01 < result.suggestion < 1
        ('finished', True)
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed_losses: np.ndarray
    stop_reason: str
    suggestion: float | None
    reason: str
    suggestions: dict[str, float | None]
    bounds: Bounds | None
    mode: str
    steps: int
    rule: str
    metric: str
    values: np.ndarray
    smoothed_values: np.ndarray
    higher_is_better: bool
    sweeps: np.ndarray
    group: str | None

    @classmethod
    def from_sweep(
        cls,
        learning_rates: Any,
        losses: Any,
        *,
        steps: int,
        stop_reason: str = "finished",
        mode: str = "exponential",
        rule: str = "descent",
        metric: str = "loss",
        values: Any = None,
        higher_is_better: bool = False,
        group: str | None = None,
    ) -> RangeTestResult:
        """Read the suggestions off a curve.

        Args:
            learning_rates: Increasing rates `(n,)`.
            losses: Raw batch losses `(n,)`, or `(repeats, n)` of several sweeps.
            steps: The length the sweep would have had.
            stop_reason: Why it ended.
            mode: How the rate was swept.
            rule: The rule of the suggestion: "descent", "steepest", "valley" or
                "minimum".
            metric: What is read, where that is not the loss.
            values: Its values, in the shape of `losses`; NaN where there is none.
            higher_is_better: Whether it grows where training goes well.
            group: The group of layers that was swept.

        Raises:
            TypeError: If `steps` is no number.
            ValueError: If the rates do not increase, or the rule is unknown.
        """
        steps = checks.whole("steps", steps, at_least=0)
        rates = np.asarray(learning_rates, np.float64)
        all_losses = np.atleast_2d(np.asarray(losses, np.float64))
        curve = _mean(all_losses)
        sweeps, seen = all_losses, np.arange(len(rates))
        if values is not None:
            sweeps = np.atleast_2d(np.asarray(values, np.float64))
            # A model whose loss is lost has an accuracy all the same.
            lost = np.logical_or.accumulate(~np.isfinite(all_losses), axis=1)
            sweeps = np.where(lost, np.nan, sweeps)
            seen = np.flatnonzero(~np.isnan(sweeps).all(axis=0))
        sign = -1.0 if higher_is_better else 1.0
        found = suggest(
            rates[seen],
            sign * sweeps[:, seen],
            rule=rule,
            name=metric,
            higher_is_better=bool(higher_is_better),
            diverged=stop_reason in ("diverged", "non-finite loss"),
        )
        read = _mean(sweeps)
        smoothed = np.full(len(rates), np.nan)
        smoothed[seen] = smooth(rates[seen], read[seen])
        return cls(
            learning_rates=rates,
            losses=curve,
            smoothed_losses=smooth(rates, curve),
            stop_reason=stop_reason,
            suggestion=found.learning_rate,
            reason=found.reason,
            suggestions=dict(found.suggestions),
            bounds=found.bounds,
            mode=mode,
            steps=steps,
            rule=rule,
            metric=metric,
            values=read,
            smoothed_values=smoothed,
            higher_is_better=bool(higher_is_better),
            sweeps=sweeps,
            group=group,
        )

    @classmethod
    def of_several(cls, results: Sequence[RangeTestResult]) -> RangeTestResult:
        """Read the suggestions off several sweeps, as far as more than half got.

        Args:
            results: One of each sweep, over the same rates.

        Raises:
            ValueError: If there is none.
        """
        if not results:
            raise ValueError("Argument `results` must hold a result. Received: none")
        if len(results) == 1:
            return results[0]
        # As `suggest` has it: as far as more than half of them got.
        longest = sorted(results, key=lambda result: -len(result.losses))
        last = longest[len(results) // 2]
        count = len(last.losses)
        losses = [_padded(result.losses, count) for result in results]
        values = [_padded(result.values, count) for result in results]
        return cls.from_sweep(
            last.learning_rates,
            losses,
            steps=last.steps,
            stop_reason=last.stop_reason,
            mode=last.mode,
            rule=last.rule,
            metric=last.metric,
            values=None if last.metric == "loss" else values,
            higher_is_better=last.higher_is_better,
            group=last.group,
        )

    def __repr__(self) -> str:
        """What it is, without its hundreds of numbers."""
        return (
            f"<RangeTestResult: suggestion={self.suggestion!r}, "
            f"{len(self.learning_rates)} of {self.steps} steps, {self.stop_reason}>"
        )

    def __str__(self) -> str:
        """Three lines one can act on."""
        done = len(self.learning_rates)
        span = (
            f", {self.learning_rates[0]:.2g} to {self.learning_rates[-1]:.2g}"
            if done
            else ""
        )
        rate = "none" if self.suggestion is None else f"{self.suggestion:.3g}"
        cycle = (
            "For a cycle: no bounds."
            if self.bounds is None
            else f"For a cycle: base_lr={self.bounds.base_lr:.3g}, "
            f"max_lr={self.bounds.max_lr:.3g}."
        )
        others = ", ".join(
            f"{name} {value:.3g}"
            for name, value in self.suggestions.items()
            if value is not None and name != self.rule
        )
        of = "" if self.metric == "loss" else f" of {self.metric}"
        of += "" if self.group is None else f" for the group {self.group!r}"
        several = f" in {len(self.sweeps)} sweeps" if len(self.sweeps) > 1 else ""
        return (
            f"Range test{of}: {done} of {self.steps} steps{several}{span}; "
            f"{self.stop_reason}.\n"
            f"Suggested learning rate: {rate}. {self.reason}\n"
            f"{cycle}" + (f" By other rules: {others}." if others else "")
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw loss against rate, with the suggestion; return the matplotlib `Axes`.

        Args:
            ax: The `Axes` to draw on; a new figure's if not given.
        """
        from tfschedules.finding import pictures

        return pictures.plot_range_test(self, ax)

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture and the three lines."""
        from tfschedules.finding import pictures

        return pictures.range_test_html(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as JSON; a file that is there is replaced as a whole.

        Args:
            path: The file's path; its folder must exist.

        Raises:
            OSError: If it cannot be written, as on a full disk; the old file is there.
            ValueError: If a field holds what no file may, as text with half a letter.
        """
        fields = dataclasses.fields(self)
        record = {field.name: getattr(self, field.name) for field in fields}
        try:
            text = record_files.to_json(record)
        except ValueError as error:
            raise ValueError(
                f"This result cannot be saved, as no file could be read: {error}."
            ) from error
        replace_text(path, text + "\n")

    def save_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the curve as a table, for a spreadsheet; as `save` does.

        The columns are `step`, `learning_rate`, `loss` and `smoothed_loss`; then the
        metric and `smoothed_<metric>`, if it is not the loss; then `sweep_1`, …, if
        there were several. What was not measured is empty.

        Args:
            path: The file's path; its folder must exist.

        Raises:
            OSError: If it cannot be written.
        """
        columns = [
            ("learning_rate", self.learning_rates),
            ("loss", self.losses),
            ("smoothed_loss", self.smoothed_losses),
        ]
        if self.metric != "loss":
            columns.append((self.metric, self.values))
            columns.append((f"smoothed_{self.metric}", self.smoothed_values))
        if len(self.sweeps) > 1:
            columns += [(f"sweep_{i}", row) for i, row in enumerate(self.sweeps, 1)]
        headings = ["step", *(heading for heading, _ in columns)]
        numbers = zip(*(values.tolist() for _, values in columns), strict=True)
        rows = ([step, *row] for step, row in enumerate(numbers))
        replace_text(path, csv_table(headings, rows))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeTestResult:
        """Read a result that `save` wrote.

        Args:
            path: The file.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is not such a file, or is damaged.
        """
        file = local_path("path", path, "file")
        text = file.read_text(encoding="utf-8", errors="replace")
        try:
            return cls(**record_files.from_json(text))
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(path)!r} is not a range test that this version of "
                f"tfschedules has saved: {error}. Save one with "
                "RangeTestResult.save(path)."
            ) from error


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count` values, and NaN where there are no more."""
    padded = np.full(count, np.nan)
    padded[: len(values)] = values[:count]
    return padded


def _mean(sweeps: np.ndarray) -> np.ndarray:
    """The mean of the sweeps that are finite; one alone is as it is."""
    if len(sweeps) == 1:
        return sweeps[0]
    finite = np.isfinite(sweeps)
    count = finite.sum(axis=0)
    with np.errstate(over="ignore"):  # the mean of what has no sum is infinite
        total = np.where(finite, sweeps, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
