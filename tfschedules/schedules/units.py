"""Lengths of the fit, to be turned into steps where its epochs are known."""

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

    def in_steps(self, steps_per_epoch: float, epochs: float | None = None) -> int:
        """The whole steps in so many epochs, at least 1."""
        return _whole(self.count, steps_per_epoch)


@dataclasses.dataclass(frozen=True)
class FitShare:
    """A length as a share of the fit; made by `tfschedules.fit_share`."""

    share: float

    def __post_init__(self) -> None:
        hint = "The whole fit is 1."
        share = checks.real("share", self.share, above=0, at_most=1, hint=hint)
        object.__setattr__(self, "share", share)

    def __repr__(self) -> str:
        return f"fit_share({self.share!r})"

    def in_steps(self, steps_per_epoch: float, epochs: float | None = None) -> int:
        """The whole steps in this share of so many epochs, at least 1.

        Raises:
            ValueError: If the epochs are not known.
        """
        if epochs is None:
            raise ValueError(
                f"{self!r} is a share of the fit, whose epochs are not known. Call "
                "schedule.resolve(steps_per_epoch, epochs=…), or give the callback a "
                "loop that tells: keras.callbacks.CallbackList(callbacks, model=model, "
                "epochs=…, steps=…)."
            )
        return _whole(self.share, epochs, steps_per_epoch)


FitLength = Epochs | FitShare


def _whole(*factors: float) -> int:
    """Their product in whole steps, at least 1.

    A rest of 1e-9 is a rounding error and not a step too few: 0.29 epochs of 100 steps
    are 29 steps.
    """
    steps = math.prod(factors)
    if math.isinf(steps):  # no float, and refused where it is not a length
        return int(math.prod(map(Fraction, factors)))
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


@checked_names
def fit_share(share: float) -> FitShare:
    """A length as a share of the fit, wherever a schedule takes one in steps.

    Callbacks resolve it when `fit` begins: with `epochs=20`, `fit_share(0.1)` is two
    epochs. Elsewhere, `schedule.resolve(steps_per_epoch, epochs=…)` does.

    Args:
        share: How much of it; > 0 and <= 1.

    Raises:
        TypeError: If `share` is not a number.
        ValueError: If it is out of range.

    Example:
        >>> import tfschedules as tfs
        >>> warm = tfs.Linear(0.0, 0.1, steps=tfs.fit_share(0.1))
        >>> warm.resolve(steps_per_epoch=100, epochs=20)
        Linear(start=0.0, end=0.1, steps=200)
    """
    return FitShare(share)


EPOCHS_HINT = "Or give tfs.epochs(…)."


def length(name: str, value: Any, at_least: float | None = None) -> float | FitLength:
    """Return a length, in steps, > 0, or of the fit, or say what is wrong."""
    if isinstance(value, FitLength):
        return value
    steps = checks.real(name, value, above=0, at_least=at_least, hint=EPOCHS_HINT)
    if steps != int(steps):
        return steps
    return int(value)  # of a float64 an integer may not be left as it is


def whole_length(name: str, value: Any, at_least: int = 1) -> int | FitLength:
    """Return a length, in whole steps, or of the fit, or say what is wrong."""
    if isinstance(value, FitLength):
        return value
    return checks.whole(name, value, at_least=at_least, hint=EPOCHS_HINT)
