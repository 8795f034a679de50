"""Lengths in epochs, to be turned into steps where the length of an epoch is known."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

from tfschedules._support import checks
from tfschedules._support.arguments import checked_names


@dataclasses.dataclass(frozen=True)
class Epochs:
    """A length in epochs; made by `tfschedules.epochs`."""

    count: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", checks.real("count", self.count, above=0))

    def __repr__(self) -> str:
        return f"epochs({self.count!r})"

    def in_steps(self, steps_per_epoch: float) -> int:
        """The whole steps in so many epochs, at least 1.

        A rest of 1e-9 is a rounding error and not a step too few: 0.29 epochs of 100
        steps are 29 steps.
        """
        steps = self.count * steps_per_epoch
        if math.isinf(steps):  # no float, and refused where it is not a length
            return int(Fraction(self.count) * Fraction(steps_per_epoch))
        return max(1, math.floor(steps + 1e-9))


@checked_names
def epochs(count: float) -> Epochs:
    """A length in epochs, wherever a schedule takes one in steps.

    Callbacks resolve it when `fit` begins: from the data, `steps_per_epoch` and
    gradient accumulation. Elsewhere, `schedule.resolve(steps_per_epoch)` does.

    Args:
        count: How many; a real number > 0.

    Raises:
        TypeError: If `count` is not a number.
        ValueError: If it is not finite and > 0.

    Example:
        >>> import tfschedules as tfs
        >>> warm = tfs.Linear(0.0, 0.1, steps=tfs.epochs(2.5))
        >>> warm.resolve(steps_per_epoch=100)
        Linear(start=0.0, end=0.1, steps=250)
    """
    return Epochs(count)


EPOCHS_HINT = "Or give tfs.epochs(…)."


def length(name: str, value: Any, at_least: float | None = None) -> float | Epochs:
    """Return a length, a real number of steps > 0 or epochs, or say what is wrong."""
    if isinstance(value, Epochs):
        return value
    steps = checks.real(name, value, above=0, at_least=at_least, hint=EPOCHS_HINT)
    if steps != int(steps):
        return steps
    return int(value)  # of a float64 an integer may not be left as it is


def whole_length(name: str, value: Any, at_least: int = 1) -> int | Epochs:
    """Return a length, a whole number of steps or epochs, or say what is wrong."""
    if isinstance(value, Epochs):
        return value
    return checks.whole(name, value, at_least=at_least, hint=EPOCHS_HINT)
