"""Arithmetic of schedules: sums, products …, of values `clip`, of time `stretch`."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np

from tfschedules._support import checks
from tfschedules.schedules.base import (
    OPERATIONS,
    Constant,
    Schedule,
    as_schedule,
    endless,
    register,
    set_checked,
)
from tfschedules.schedules.spans import fraction_of
from tfschedules.schedules.steps import Cycles, Time, product


@dataclasses.dataclass(frozen=True)
class Pair(Schedule, abc.ABC):
    """Two schedules in one."""

    first: Schedule
    second: Schedule

    _sign: ClassVar[str]

    def __post_init__(self) -> None:
        as_schedule("first", self.first)
        as_schedule("second", self.second)

    def equation(self, time: Time) -> Any:
        first, second = self.first.equation(time), self.second.equation(time)
        if not self.grows(time):
            return self.operate(first, second)
        with np.errstate(over="ignore"):  # or 0 times infinity would be next
            return time.finite(self.operate(first, second))

    def grows(self, time: Time) -> bool:
        """Whether the value may come to be greater than the floats of `time`."""
        return self.greatest is not None and self.greatest > time.greatest / 2

    @staticmethod
    @abc.abstractmethod
    def operate(first: Any, second: Any) -> Any:
        """The value, from those of the two."""

    @staticmethod
    @abc.abstractmethod
    def bound(first: float, second: float) -> float:
        """A bound of the value's size, from those of the two."""

    @property
    def greatest(self) -> float | None:
        first, second = self.first.greatest, self.second.greatest
        if first is None or second is None:
            return endless(first, second)
        return self.bound(first, second)

    def cycles_at(self, time: Time) -> Cycles:
        cycles = self.first.cycles_at(time)
        return self.second.cycles_at(time) if cycles == (0, None) else cycles

    @property
    def length(self) -> float | None:
        if isinstance(self.first, Constant):  # a constant has no say
            return self.second.length
        if isinstance(self.second, Constant):
            return self.first.length
        first, second = self.first.length, self.second.length
        return None if first is None or second is None else max(first, second)

    def __repr__(self) -> str:
        second = self.second
        plain = second.value if isinstance(second, Constant) else second
        return f"({self.first!r} {self._sign} {plain!r})"


@register
@dataclasses.dataclass(frozen=True, repr=False)
class Sum(Pair):
    """The sum of two schedules, written `first + second`."""

    _sign = "+"

    @staticmethod
    def operate(first: Any, second: Any) -> Any:
        return first + second

    @staticmethod
    def bound(first: float, second: float) -> float:
        return first + second


@register
@dataclasses.dataclass(frozen=True, repr=False)
class Difference(Pair):
    """The difference of two schedules, written `first - second`."""

    _sign = "-"

    @staticmethod
    def operate(first: Any, second: Any) -> Any:
        return first - second

    @staticmethod
    def bound(first: float, second: float) -> float:
        return first + second

    def __repr__(self) -> str:
        if isinstance(self.first, Constant) and not isinstance(self.second, Constant):
            return f"({self.first.value!r} - {self.second!r})"
        return super().__repr__()


@register
@dataclasses.dataclass(frozen=True, repr=False)
class Product(Pair):
    """The product of two schedules, written `first * second`; by -1, `-first`."""

    _sign = "*"

    @staticmethod
    def operate(first: Any, second: Any) -> Any:
        return first * second

    @staticmethod
    def bound(first: float, second: float) -> float:
        return first * second if first and second else 0.0  # and not NaN

    def __repr__(self) -> str:
        if self.second == Constant(-1.0):
            return f"(-{self.first!r})"
        return super().__repr__()


@register
@dataclasses.dataclass(frozen=True, repr=False)
class Quotient(Pair):
    """A schedule divided by a number, written `first / second`."""

    _sign = "/"

    @staticmethod
    def operate(first: Any, second: Any) -> Any:
        return first / second

    @staticmethod
    def bound(first: float, second: float) -> float:
        return first / second

    def __post_init__(self) -> None:
        super().__post_init__()
        divisor = self.second.greatest if isinstance(self.second, Constant) else None
        if divisor is None:
            raise TypeError(
                "Argument `second` must be a Constant: schedules are divided by "
                f"numbers. Received: second={self.second!r}"
            )
        if divisor < checks.LEAST:
            raise ValueError(
                f"The divisor of a schedule must be >= {checks.LEAST:g} in size: in "
                f"float32 it is 0. Received: {self!r}"
            )


@register
@dataclasses.dataclass(frozen=True)
class Clip(Schedule):
    """A schedule held between two values, written `schedule.clip(lower, upper)`."""

    schedule: Schedule
    lower: float
    upper: float

    def __post_init__(self) -> None:
        as_schedule("schedule", self.schedule)
        lower = checks.real("lower", self.lower)
        upper = checks.real("upper", self.upper)
        checks.ordered("lower", lower, "upper", upper)
        set_checked(self, lower=lower, upper=upper)

    def equation(self, time: Time) -> Any:
        return self.of(self.schedule.equation(time), self.lower, self.upper, time)

    @staticmethod
    def of(schedule: Any, lower: Any, upper: Any, time: Time) -> Any:
        """The value, from that of `schedule`; of floats `keras.ops` makes floatx."""
        value = time.ops.maximum(time.as_float(schedule), time.as_float(lower))
        return time.ops.minimum(value, time.as_float(upper))

    @property
    def greatest(self) -> float | None:
        return max(abs(self.lower), abs(self.upper))

    def cycles_at(self, time: Time) -> Cycles:
        return self.schedule.cycles_at(time)

    @property
    def length(self) -> float | None:
        return self.schedule.length

    def __repr__(self) -> str:
        return f"{self.schedule!r}.clip({self.lower!r}, {self.upper!r})"


@register
@dataclasses.dataclass(frozen=True)
class Stretch(Schedule):
    """A schedule over a longer time, or a shorter one, written `schedule.stretch(x)`.

    f(t) = schedule(t/factor). Boundaries are real numbers, and not rounded.
    """

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        as_schedule("schedule", self.schedule)
        factor = checks.real("factor", self.factor, at_least=1e-6, at_most=1e6)
        set_checked(self, factor=factor)

    def equation(self, time: Time) -> Any:
        return self.schedule.equation(time.stretched(fraction_of(self.factor)))

    @property
    def greatest(self) -> float | None:
        return self.schedule.greatest

    def cycles_at(self, time: Time) -> Cycles:
        return self.schedule.cycles_at(time.stretched(fraction_of(self.factor)))

    @property
    def length(self) -> float | None:
        length = self.schedule.length
        return None if length is None else product(length, fraction_of(self.factor))

    def __repr__(self) -> str:
        return f"{self.schedule!r}.stretch({self.factor!r})"


OPERATIONS.update({each._sign: each for each in (Sum, Difference, Product, Quotient)})
OPERATIONS.update(clip=Clip, stretch=Stretch)
