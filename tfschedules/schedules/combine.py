"""Schedules made of schedules: one after another, again and again, cycle by cycle."""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules._support.arguments import checked_names
from tfschedules.schedules import cycles, many, moments, units
from tfschedules.schedules.base import (
    Constant,
    Schedule,
    as_schedule,
    endless,
    register,
    set_checked,
)
from tfschedules.schedules.shapes import GREATEST_POWER
from tfschedules.schedules.spans import fraction_of
from tfschedules.schedules.steps import Cycles, Time
from tfschedules.schedules.units import Epochs, FitLength, FitShare

_FEW = 8  # parts of a Join that are evaluated one by one
_KerasSchedule = keras.optimizers.schedules.LearningRateSchedule


@register
@dataclasses.dataclass(frozen=True)
class Join(Schedule):
    """Schedules one after another, each from its own step 0.

    `f(t) = schedules[i](t - boundaries[i-1])` where
    `boundaries[i-1] <= t < boundaries[i]`.

    Args:
        schedules: At least one schedule.
        boundaries: Where the second, third … schedule begins: increasing, in steps or
            `tfs.epochs(…)`, one fewer than `schedules`. Real numbers are kept as they
            are: a part that begins at 2.5 is half a step old at step 3. A boundary at
            or before step 0 hides the parts before it.

    Raises:
        ValueError: If the counts do not fit or the boundaries do not increase.

    Example:
        >>> warm = Join([Linear(0.0, 1.0, 2), Constant(1.0)], boundaries=[2])
        >>> warm.values(4).tolist()
        [0.0, 0.5, 1.0, 1.0]
    """

    schedules: tuple[Schedule, ...]
    boundaries: tuple[float | FitLength, ...]

    def __post_init__(self) -> None:
        schedules = checks.listed("schedules", self.schedules)
        parts = tuple(as_schedule("schedules", part) for part in schedules)
        boundaries = checks.listed("boundaries", self.boundaries)
        edges = tuple(_edge(edge) for edge in boundaries)
        if not parts or len(edges) != len(parts) - 1:
            raise ValueError(
                "Argument `boundaries` must have one entry fewer than `schedules`: "
                f"one for each change. Received: {len(parts)} schedules and "
                f"{len(edges)} boundaries, {list(edges)}."
            )
        # Steps, epochs and shares cannot be compared: `resolve` comes by here again.
        for sooner, later in itertools.pairwise(edges):
            if _kind(sooner) is not _kind(later):
                continue
            if _number(later) <= _number(sooner):
                raise ValueError(
                    "Argument `boundaries` must increase; they are counted from the "
                    f"beginning and are no lengths. Received: boundaries={list(edges)}"
                )
        set_checked(self, schedules=parts, boundaries=edges)

    @property
    def length(self) -> float | None:
        if self.in_epochs or not self.boundaries:
            return self.schedules[0].length if not self.boundaries else None
        last = self.schedules[-1].length
        if last is None:
            return None
        end = Fraction(_number(self.boundaries[-1])) + Fraction(last)
        end = max(end, Fraction(0))  # or over before it begins
        return int(end) if end.denominator == 1 else float(end)

    def equation(self, time: Time) -> Any:
        spans = self._seen(time)
        if len(spans) > _FEW and time.has_tables:
            return many.value_of(spans, time)
        value: Any = None
        for part, edge in spans:
            if value is None:
                value = part.equation(time if edge is None else time.since(edge))
                continue
            # A class of another's own may return a number, which would become floatx.
            later = time.as_float(part.equation(time.since(edge)))
            value = time.ops.where(time.reached(edge), later, time.as_float(value))
        return value

    def _seen(self, time: Time) -> tuple[tuple[Schedule, Any], ...]:
        """The parts and where they begin, without what is hidden before step 0."""
        edges: list[Any] = [None, *self.boundaries]
        first = max(
            (i for i, edge in enumerate(edges) if i and time.first_after(edge) <= 0),
            default=0,
        )
        return tuple(zip(self.schedules, edges, strict=True))[first:]

    @property
    def greatest(self) -> float | None:
        bounds = [part.greatest for part in self.schedules]
        known = [bound for bound in bounds if bound is not None]
        return max(known) if len(known) == len(bounds) else endless(*known)

    def cycles_at(self, time: Time) -> Cycles:
        now, ended, next_end = int(time.whole), 0, None
        edges: Any = self.boundaries
        begins = [-time.before, *(time.first_after(edge) for edge in edges)]
        for i, part in enumerate(self.schedules):
            begin, end = begins[i], [*begins, math.inf][i + 1]
            if end <= 0:
                continue  # hidden before step 0
            at = dataclasses.replace(time, whole=np.asarray(min(now, end), np.int64))
            inside = part.cycles_at(at.since(edges[i - 1]) if i else at)
            ended += inside.ended
            if next_end is None and inside.next_end is not None:
                coming = begin + inside.next_end
                next_end = coming if now < coming <= end else None
        if next_end is not None:
            next_end += time.before
        return Cycles(ended, next_end)


def _edge(value: Any) -> float | FitLength:
    if isinstance(value, FitLength):
        return value
    edge = checks.real("boundaries", value, hint=units.EPOCHS_HINT)
    exact = checks.as_real(value)  # a float holds integers up to 2^53
    whole = int(exact) if isinstance(exact, numbers.Integral) else int(edge)
    return whole if edge == int(edge) else edge


def _kind(edge: float | FitLength) -> type:
    return type(edge) if isinstance(edge, FitLength) else float


def _number(edge: float | FitLength) -> float:
    if isinstance(edge, Epochs):
        return edge.count
    return edge.share if isinstance(edge, FitShare) else edge


@checked_names
def Piecewise(boundaries: Sequence[Any], values: Sequence[float]) -> Schedule:
    """Constant pieces: f(t) is `values[i]` from `boundaries[i-1]` to `boundaries[i]`.

    A boundary belongs to the value that begins there. (In Keras's
    `PiecewiseConstantDecay` it belongs to the one before.)

    Args:
        boundaries: Where the value changes: increasing, in steps or `tfs.epochs(…)`.
        values: One more than `boundaries`.

    Returns:
        A `Join` of `Constant`s.

    Raises:
        TypeError: If something is not a number.
        ValueError: If the counts do not fit or the boundaries do not increase.

    Example:
        >>> Piecewise([2, 3], [1.0, 0.1, 0.01]).values(5).tolist()
        [1.0, 1.0, 0.1, 0.01, 0.01]
    """
    boundaries = checks.listed("boundaries", boundaries)
    values = checks.listed("values", values)
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            "Argument `values` must have one entry more than `boundaries`. Received: "
            f"{len(values)} values and {len(boundaries)} boundaries."
        )
    parts = [Constant(checks.real("values", value)) for value in values]
    return Join(tuple(parts), tuple(boundaries))


@register
@dataclasses.dataclass(frozen=True)
class Repeat(Schedule):
    """A schedule begun anew every `steps` steps: f(t) = schedule(t mod steps).

    With `growth` each cycle is `growth` times as long as the one before, and the
    schedule is stretched with it, whatever it is made of. Cycles are found with
    integers: they are right to the step at any age.

    Args:
        schedule: What to repeat.
        steps: The length of the first cycle, in steps, >= 1; or `tfs.epochs(…)`. If it
            is no whole number, boundaries are real numbers and not rounded. 33.3 is
            333/10 then, and 100/3 a third of a hundred.
        growth: Cycle i lasts steps·growth^i; >= 1. A fraction is fine: boundaries are
            real numbers then, and not rounded.

    Raises:
        ValueError: If there are more than 100,000 cycles that grow, with those of
            other `Repeat`s inside them.

    Example:
        >>> Repeat(Linear(1.0, 0.0, 2), steps=2).values(5).tolist()
        [1.0, 0.5, 1.0, 0.5, 1.0]

        A warm-up in each cycle, which grows with it:

        >>> warm = Join([Linear(0.0, 1.0, 1), Linear(1.0, 0.0, 1)], [1])
        >>> Repeat(warm, steps=2, growth=2.0).values(7).tolist()
        [0.0, 1.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """

    schedule: Schedule
    steps: float | FitLength
    growth: float = 1.0

    def __post_init__(self) -> None:
        as_schedule("schedule", self.schedule)
        _check_cycles(self)
        if self.growth != 1 and not self.in_epochs:  # too many cycles inside it?
            self.equation(moments.in_numpy(np.zeros(1, np.int64)))

    def equation(self, time: Time) -> Any:
        steps: Any = self.steps
        return self.schedule.equation(cycles.in_cycle(time, steps, self.growth))

    @property
    def greatest(self) -> float | None:
        return self.schedule.greatest

    def cycles_at(self, time: Time) -> Cycles:
        steps: Any = self.steps
        now = int(time.whole)
        if self.growth == 1:
            length = fraction_of(time.scaled(steps))
            index = int(time.cycle_index(steps))
            end = (index + 1) * length - fraction_of(time.part)
            return Cycles(index, math.ceil(end))
        ends = cycles.ends_of(time, steps, self.growth)
        index = int(np.searchsorted(ends, now, side="right"))
        if index >= len(ends) - 1:  # ends where it is tabulated no more
            return Cycles(len(ends) - 1, None)
        return Cycles(index, time.before + int(ends[index]))


@register
@dataclasses.dataclass(frozen=True)
class PerCycle(Schedule):
    """A factor for each cycle: f(t) = factor^i in cycle i, counted from 0.

    What grows beyond the greatest float stays there.

    Args:
        factor: What each cycle multiplies by, > 0.
        steps: The length of the first cycle, in steps, >= 1. With 1, f(t) = factor^t.
        growth: Cycle i lasts steps·growth^i; >= 1.

    Example:
        >>> PerCycle(0.5, steps=2).values(5).tolist()
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    factor: float
    steps: float | FitLength
    growth: float = 1.0

    def __post_init__(self) -> None:
        set_checked(self, factor=checks.real("factor", self.factor, above=0))
        _check_cycles(self)

    def equation(self, time: Time) -> Any:
        steps: Any = self.steps
        index = cycles.cycle(time, steps, self.growth)
        # 2^(i·log2 factor): exact for powers of two, and log2 is taken in float64.
        with np.errstate(over="ignore"):
            value = time.ops.power(2.0, math.log2(self.factor) * index)
        return value if self.factor <= 1 else time.finite(value)

    @property
    def greatest(self) -> float | None:
        return 1.0 if self.factor <= 1 else math.inf


@register
@dataclasses.dataclass(frozen=True)
class InverseCycle(Schedule):
    """One over the number of the cycle: f(t) = 1/(i + 1)^power in cycle i, from 0.

    Args:
        power: The exponent, > 0 and <= 100.
        steps: The length of the first cycle, in steps, >= 1.
        growth: Cycle i lasts steps·growth^i; >= 1.

    Example:
        >>> InverseCycle(1.0, steps=2).values(6).round(4).tolist()
        [1.0, 1.0, 0.5, 0.5, 0.3333, 0.3333]
    """

    power: float
    steps: float | FitLength
    growth: float = 1.0

    def __post_init__(self) -> None:
        power = checks.real("power", self.power, above=0, at_most=GREATEST_POWER)
        set_checked(self, power=power)
        _check_cycles(self)

    def equation(self, time: Time) -> Any:
        steps: Any = self.steps
        number = 1.0 + cycles.cycle(time, steps, self.growth)
        return time.ops.power(number, time.as_float(-self.power))

    @property
    def greatest(self) -> float | None:
        return 1.0


def _check_cycles(schedule: Any) -> None:
    growth = checks.real("growth", schedule.growth, at_least=1)
    steps = units.length("steps", schedule.steps, at_least=1)
    if growth != 1 and not isinstance(steps, FitLength):
        cycles.ends_of(moments.in_numpy(np.zeros(1, np.int64)), steps, growth)
    set_checked(schedule, steps=steps, growth=growth)


@register
@dataclasses.dataclass(frozen=True)
class ScaleFunction(Schedule):
    """A user's function of the cycle or of the step: f(t) = function(x).

    Args:
        function: Takes a float array or tensor x and returns one of its shape. To be
            saved, it must be registered with
            `keras.saving.register_keras_serializable`.
        steps: The length of a cycle: x is the number of the cycle, 1 in the first. With
            `None`, x is the step itself, 0 in the first.

    Example:
        >>> ScaleFunction(lambda cycle: 1 / cycle, steps=2).values(4).tolist()
        [1.0, 1.0, 0.5, 0.5]
    """

    function: Callable[[Any], Any]
    steps: int | FitLength | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                "Argument `function` must be a function of one number. "
                f"Received: function={checks.shown(self.function)}"
            )
        if self.steps is not None:
            set_checked(self, steps=units.whole_length("steps", self.steps))

    def equation(self, time: Time) -> Any:
        steps: Any = self.steps
        x = time.step if steps is None else 1 + cycles.cycle(time, steps)
        if time.ops is np and isinstance(self.function, _KerasSchedule):
            each = [float(self.function(int(step))) for step in np.ravel(x)]
            return np.reshape(each, np.shape(x))  # they take one step at a time
        return time.as_float(self.function(x))


def schedule_given(name: str, given: Any) -> Schedule:
    """The schedule that the argument `name` gives: itself, or made of a function.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(given, Schedule):
        return given
    if callable(given) and not isinstance(given, type):
        return ScaleFunction(given)
    return as_schedule(name, given)
