"""Shapes: one equation each, over a length in steps."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

from tfschedules import checks
from tfschedules.schedules.base import Schedule, register, set_checked
from tfschedules.steps import Time


class Ramp(Schedule):
    """From `start` at step 0 to `end` at step `steps`, where it stays.

    A ramp is a function of the shares of its length that are done and left, and so
    the one kind of schedule that can be stretched.
    """

    start: float
    end: float
    steps: float

    def __post_init__(self) -> None:
        set_checked(
            self,
            start=checks.real("start", self.start),
            end=checks.real("end", self.end),
            steps=checks.real("steps", self.steps, above=0),
        )

    def equation(self, time: Time) -> Any:
        return self.blend(*time.over(self.steps), time.ops)

    @abc.abstractmethod
    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        """The value where the shares `done` and `left` = 1 - done have passed."""


@register
@dataclasses.dataclass(frozen=True)
class Linear(Ramp):
    """A straight line: f(t) = start·(1 - t/steps) + end·t/steps, then `end`.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0.

    Example:
        >>> Linear(0.0, 1.0, steps=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    start: float
    end: float
    steps: float

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        return self.start * left + self.end * done


@register
@dataclasses.dataclass(frozen=True)
class Cosine(Ramp):
    """Half a cosine wave.

    f(t) = end + (start - end)·(1 + cos(π·t/steps))/2, then `end`.

    It is computed as start·sin²(π/2·left) + end·sin²(π/2·done), which keeps all its
    digits near the end, where 1 + cos cancels. Loshchilov & Hutter 2016 (SGDR,
    arXiv:1608.03983), equation 5, anneals with it.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0.

    Example:
        >>> Cosine(1.0, 0.0, steps=2).values(4).round(6).tolist()
        [1.0, 0.5, 0.0, 0.0]
    """

    start: float
    end: float
    steps: float

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        falling = ops.square(ops.sin(math.pi / 2 * left))
        rising = ops.square(ops.sin(math.pi / 2 * done))
        return self.start * falling + self.end * rising


@register
@dataclasses.dataclass(frozen=True)
class Exponential(Ramp):
    """A geometric sweep: f(t) = start·(end/start)^(t/steps), then `end`.

    It is measured from the nearer end, and so is exact at both.

    Args:
        start: The value at step 0, > 0.
        end: The value at step `steps` and after, > 0.
        steps: The length in steps, a real number > 0.

    Example:
        >>> Exponential(1.0, 100.0, steps=2).values(4).round(6).tolist()
        [1.0, 10.0, 100.0, 100.0]
    """

    start: float
    end: float
    steps: float

    def __post_init__(self) -> None:
        hint = "A geometric sweep cannot reach 0; use Linear or Cosine for that."
        checks.real("start", self.start, above=0, hint=hint)
        checks.real("end", self.end, above=0, hint=hint)
        super().__post_init__()

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        ratio = math.log(self.end) - math.log(self.start)
        return ops.where(
            done < left,
            self.start * ops.exp(ratio * done),
            self.end * ops.exp(-ratio * left),
        )
