"""What a range test saw, and what can be read off it; also as a file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfschedules.suggestions import Bounds, smooth, suggest

_FORMAT = "tfschedules.range_test"
_VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class RangeTestResult:
    """The curve of a range test, why it ended, and the rates it suggests.

    Attributes:
        learning_rates: The rate of each update, float64 `(n,)`, increasing.
        losses: Each update's own batch loss, raw, float64 `(n,)`; NaN and infinities
            as they came. The mean of the sweeps where there were several.
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
        sweeps: The losses of each sweep, `(repeats, n)`, as far as all of them got.

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
    sweeps: np.ndarray

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

        Raises:
            ValueError: If the rates do not increase, or the rule is unknown.
        """
        rates = np.asarray(learning_rates, np.float64)
        sweeps = np.atleast_2d(np.asarray(losses, np.float64))
        curve = sweeps.mean(axis=0)
        found = suggest(rates, curve, rule=rule)
        return cls(
            learning_rates=rates,
            losses=curve,
            smoothed_losses=smooth(rates, curve) if len(rates) else curve,
            stop_reason=stop_reason,
            suggestion=found.learning_rate,
            reason=found.reason,
            suggestions=dict(found.suggestions),
            bounds=found.bounds,
            mode=mode,
            steps=steps,
            rule=rule,
            sweeps=sweeps,
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
        return (
            f"Range test: {done} of {self.steps} steps{span}; {self.stop_reason}.\n"
            f"Suggested learning rate: {rate}. {self.reason}\n"
            f"{cycle}" + (f" By other rules: {others}." if others else "")
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw loss against rate, with the suggestion; return the matplotlib `Axes`.

        Args:
            ax: The `Axes` to draw on; a new figure's if not given.
        """
        from tfschedules import plots

        return plots.plot_range_test(self, ax)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as JSON; a file that is there is replaced as a whole.

        Args:
            path: The file's path; its folder must exist.
        """
        path = Path(path)
        fields = {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **fields}, indent=1)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeTestResult:
        """Read a result that `save` wrote.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is not such a file, or is damaged.
        """
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        try:
            stored = json.loads(text)
            if stored.pop("format") != _FORMAT or stored.pop("version") > _VERSION:
                raise ValueError("of another format or a later version")
            arrays = ("learning_rates", "losses", "smoothed_losses", "sweeps")
            stored |= {name: _array(stored[name]) for name in arrays}
            if len({stored[name].shape[-1] for name in arrays}) != 1:
                raise ValueError("its arrays differ in length")
            if stored["bounds"] is not None:
                stored["bounds"] = Bounds(*stored["bounds"])
            return cls(**stored)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{str(path)!r} is not a range test that this version of tfschedules "
                f"has saved: {error}. Save one with RangeTestResult.save(path)."
            ) from error


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinities: they are written as strings."""
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return [_plain(row) for row in value]
    if isinstance(value, np.ndarray):
        return [x if math.isfinite(x) else str(x) for x in value.tolist()]
    return list(value) if isinstance(value, Bounds) else value


def _array(values: Any) -> np.ndarray:
    if values and isinstance(values[0], list):
        return np.stack([_array(row) for row in values])
    return np.array([float(value) for value in values], np.float64)
