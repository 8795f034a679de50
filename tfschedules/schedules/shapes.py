"""Shapes: one equation each, over a length in steps or epochs."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from tfschedules._support import checks
from tfschedules.schedules import units
from tfschedules.schedules.base import Schedule, register, set_checked
from tfschedules.schedules.steps import Time
from tfschedules.schedules.units import FitLength

_STEEP = 100.0  # a power
GREATEST_POWER = 100.0
_TINY = 1e-25  # over the greatest step it is no float32


class Ramp(Schedule):
    """From `start` at step 0 to `end` at step `steps`, where it stays.

    A ramp is a function of the shares of its length that are done and left, and so
    the one kind of schedule that can be stretched.

    Attributes:
        numbers: What `blend` reads of a ramp, by name. A class that says so is
            evaluated once where a `Join` has many of its ramps, with a table of each.
    """

    start: float
    end: float
    steps: float | FitLength

    numbers: ClassVar[tuple[str, ...]] = ()

    @property
    def has_table(self) -> bool:
        """Whether it may be evaluated together with others of its class."""
        return "numbers" in vars(type(self))

    def __post_init__(self) -> None:
        set_checked(
            self,
            start=checks.single("start", self.start),
            end=checks.single("end", self.end),
            steps=units.length("steps", self.steps),
        )

    def equation(self, time: Time) -> Any:
        return self.blend(*time.over(self.steps), time.ops)  # type: ignore[arg-type]

    @property
    def length(self) -> float | None:
        return None if isinstance(self.steps, FitLength) else self.steps

    @property
    def greatest(self) -> float | None:
        # A ramp of another's own may go beyond its ends.
        return max(abs(self.start), abs(self.end)) if self.numbers else None

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
        steps: The length in steps, a real number > 0; or `tfs.epochs(…)`.

    Example:
        >>> Linear(0.0, 1.0, steps=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    start: float
    end: float
    steps: float | FitLength

    numbers = ("start", "end")

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        return self.start * left + self.end * done


@register
@dataclasses.dataclass(frozen=True, repr=False)
class Cosine(Ramp):
    """Half a cosine wave.

    f(t) = end + (start - end)·((1 + cos(π·(t/steps)^k_decay))/2)^exponent, then `end`.

    It is computed as start·sin²(π/2·left) + end·sin²(π/2·done), which keeps all its
    digits near the end, where 1 + cos cancels. Loshchilov & Hutter 2016 (SGDR,
    arXiv:1608.03983), equation 5, anneals with it; Zhang & Li 2020 (arXiv:2004.05909)
    add the k.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0; or `tfs.epochs(…)`.
        exponent: The power of the wave, in [0.01, 100], as in optax. Above 1 it falls
            sooner and lands more softly.
        k_decay: The power of the time, in [0.01, 100], as in timm. Above 1 it stays
            high for longer.

    Example:
        >>> Cosine(1.0, 0.0, steps=2).values(4).round(6).tolist()
        [1.0, 0.5, 0.0, 0.0]
        >>> Cosine(1.0, 0.0, steps=2, exponent=2).values(4).round(6).tolist()
        [1.0, 0.25, 0.0, 0.0]
    """

    start: float
    end: float
    steps: float | FitLength
    exponent: float = 1.0
    k_decay: float = 1.0

    numbers = ("start", "end")

    def __post_init__(self) -> None:
        super().__post_init__()
        set_checked(
            self,
            exponent=_exponent("exponent", self.exponent),
            k_decay=_exponent("k_decay", self.k_decay),
        )

    @property
    def has_table(self) -> bool:
        return self.exponent == self.k_decay == 1

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        if not self.has_table and self.k_decay != 1:
            done, left = _powers(left, done, self.k_decay, ops)
        falling = ops.square(ops.sin(math.pi / 2 * left))
        rising = ops.square(ops.sin(math.pi / 2 * done))
        if not self.has_table and self.exponent != 1:
            falling, rising = _powers(rising, falling, self.exponent, ops)
        return self.start * falling + self.end * rising

    def __repr__(self) -> str:
        return _shown(self, exponent=1.0, k_decay=1.0)


@register
@dataclasses.dataclass(frozen=True)
class Exponential(Ramp):
    """A geometric sweep: f(t) = start·(end/start)^(t/steps), then `end`.

    It is measured from the nearer end, and so is exact at both.

    Args:
        start: The value at step 0, > 0.
        end: The value at step `steps` and after, > 0.
        steps: The length in steps, a real number > 0; or `tfs.epochs(…)`.

    Example:
        >>> Exponential(1.0, 100.0, steps=2).values(4).round(6).tolist()
        [1.0, 10.0, 100.0, 100.0]
    """

    start: float
    end: float
    steps: float | FitLength

    numbers = ("start", "end", "ratio")

    def __post_init__(self) -> None:
        hint = "A geometric sweep cannot reach 0; use Linear or Cosine for that."
        checks.single("start", self.start, above=0, hint=hint)
        checks.single("end", self.end, above=0, hint=hint)
        super().__post_init__()

    @property
    def ratio(self) -> float:
        """log(end/start)."""
        return math.log(self.end) - math.log(self.start)

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        return ops.where(
            done < left,
            self.start * ops.exp(self.ratio * done),
            self.end * ops.exp(-self.ratio * left),
        )


@register
@dataclasses.dataclass(frozen=True, repr=False)
class Polynomial(Ramp):
    """A power of what is left.

    f(t) = end + (start - end)·(1 - (t/steps)^k_decay)^power, then `end`.

    With `power` > 1 it falls fast first and lands softly; with 2, on half a parabola.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0; or `tfs.epochs(…)`.
        power: The exponent, > 0; 1 is a line.
        k_decay: The power of the time, in [0.01, 100], as in timm. Above 1 it stays
            high for longer.

    Example:
        >>> Polynomial(1.0, 0.0, steps=2, power=2).values(4).tolist()
        [1.0, 0.25, 0.0, 0.0]
    """

    start: float
    end: float
    steps: float | FitLength
    power: float
    k_decay: float = 1.0

    numbers = ("start", "end", "power")

    def __post_init__(self) -> None:
        super().__post_init__()
        set_checked(
            self,
            power=checks.single("power", self.power, above=0),
            k_decay=_exponent("k_decay", self.k_decay),
        )

    @property
    def has_table(self) -> bool:
        return self.power <= _STEEP and self.k_decay == 1

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        steep = not self.has_table  # `left` has lost digits that this power asks for
        if steep and self.k_decay != 1:
            done, left = _powers(left, done, self.k_decay, ops)
        falling, rising = _powers(done, left, self.power, ops, steep)
        return self.start * falling + self.end * rising

    def __repr__(self) -> str:
        return _shown(self, k_decay=1.0)


def _exponent(name: str, value: Any) -> float:
    """Return a power that float32 has digits enough for, or say what is wrong."""
    return checks.real(name, value, at_least=0.01, at_most=GREATEST_POWER)


def _shown(ramp: Any, **defaults: float) -> str:
    """How to make a ramp, without what is as by default."""
    fields = {
        field.name: getattr(ramp, field.name) for field in dataclasses.fields(ramp)
    }
    said = (f"{n}={x!r}" for n, x in fields.items() if x != defaults.get(n))
    return f"{type(ramp).__name__}({', '.join(said)})"


def _powers(
    done: Any, left: Any, power: Any, ops: Any, steep: bool = True
) -> tuple[Any, Any]:
    """left^power and 1 - left^power, where left = 1 - done, with all their digits."""
    if isinstance(power, float) and ops is not np:  # it would become floatx
        power = ops.convert_to_tensor(power, dtype=done.dtype)
    falling = ops.power(left, power)
    soon = power * ops.log1p(-ops.minimum(done, 0.5))  # where `done` is small
    if steep:
        falling = ops.where(done < 0.5, ops.exp(soon), falling)
    return falling, ops.where(done < 0.5, -ops.expm1(soon), 1 - falling)


@register
@dataclasses.dataclass(frozen=True)
class SquareRoot(Ramp):
    """The root of what is done: f(t) = start + (end - start)·√(t/steps).

    The decay 1 - √t, found best for a cooldown by Hägele et al. 2024
    (arXiv:2405.18392), section 4.1.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0; or `tfs.epochs(…)`.

    Example:
        >>> SquareRoot(1.0, 0.0, steps=4).values(6).round(4).tolist()
        [1.0, 0.5, 0.2929, 0.134, 0.0, 0.0]
    """

    start: float
    end: float
    steps: float | FitLength

    numbers = ("start", "end")

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        root = ops.sqrt(done)
        # 1 - √t = (1 - t)/(1 + √t), with all its digits near the end.
        return self.start * (left / (1 + root)) + self.end * root


@register
@dataclasses.dataclass(frozen=True)
class InverseSqrt(Schedule):
    """Up in a line, down with the root of the step.

    f(t) = peak·min(t/warmup_steps, √(warmup_steps/t)). Vaswani et al. 2017
    (arXiv:1706.03762), section 5.3, equation 3, with `peak` in place of the width.

    Args:
        peak: The value at step `warmup_steps`, > 0.
        warmup_steps: The length of the way up in steps, > 0; or `tfs.epochs(…)`.

    Example:
        >>> InverseSqrt(1.0, warmup_steps=4).values([0, 2, 4, 16]).tolist()
        [0.0, 0.5, 1.0, 0.5]
    """

    peak: float
    warmup_steps: float | FitLength

    def __post_init__(self) -> None:
        set_checked(
            self,
            peak=checks.single("peak", self.peak, above=0),
            warmup_steps=units.length("warmup_steps", self.warmup_steps),
        )

    def equation(self, time: Time) -> Any:
        warmup: Any = self.warmup_steps
        rise, _ = time.over(warmup)
        since = time.ops.maximum(time.step, time.as_float(warmup))
        if warmup < _TINY:  # what is left of its root may not be of itself
            fall = math.sqrt(warmup) / time.ops.sqrt(since)
        else:
            fall = time.ops.sqrt(time.number(warmup) / since)
        return self.peak * time.ops.where(time.reached(warmup), fall, rise)

    @property
    def greatest(self) -> float | None:
        return self.peak
