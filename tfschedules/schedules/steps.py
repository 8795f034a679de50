"""Where a schedule stands: integer steps first, floating point last.

A float32 holds integers up to 2^24 only, so a position in a cycle is found with
integers and turned into a float at the very end, when it is small or already a
fraction. The same code serves NumPy in float64 and `keras.ops` in float32, or where
that is asked for in float64: the two name their functions alike.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tfschedules.schedules.spans import Spans, fraction_of

_EXACT = 2**53  # up to here every integer is a float64
_LONGEST = 2.0**100  # steps: a float32 could not hold a longer length, or 1 over it
INT64 = int(np.iinfo(np.int64).max)
_ONE = Fraction(1)
_GREATEST = 10**300  # steps; some more could not be a float


class Cycles(NamedTuple):
    """Where a moment stands among a schedule's cycles.

    Attributes:
        ended: How many cycles have ended by then.
        next_end: The step at which the next one ends and another begins: the update
            before it is the cycle's last. `None` if there are no more.
    """

    ended: int
    next_end: int | None


class Count(NamedTuple):
    """How many cycles have passed: few + many·times + before.

    Attributes:
        few: Integers of the backend.
        before: An integer of Python's, which has no end.
        many: Integers of the backend; 0 if there are not more cycles than steps.
        times: What multiplies them, an integer of Python's: the product may lead
            beyond the backend's.
    """

    few: Any
    before: int
    many: Any = 0
    times: int = 0

    def __int__(self) -> int:
        return int(self.few) + self.before + int(self.many) * self.times


@dataclasses.dataclass(frozen=True)
class Time:
    """The time since a schedule began: `before` and `whole` steps, and a `part` of one.

    Python's numbers have no end, and a backend's have: what enters a computation with
    tensors goes through `number`, `as_float` or `integer`.

    Attributes:
        whole: Integer array or tensor of any shape, >= 0, in steps.
        part: A fraction of a step, in [0, 1): a schedule may begin between two steps.
        ops: `numpy` or `keras.ops`.
        limit: The greatest integer that `whole` can hold.
        floats: The type of the floats that it is turned into.
        before: Steps that had passed where `whole` is 0, of a schedule that began
            before step 0. They are a number of Python's: added to `whole`, they could
            lead beyond `limit`.
        scale: How long a step of the schedule is in those of `whole`. Lengths and
            moments are the schedule's, and are multiplied by it.
    """

    whole: Any
    part: float
    ops: Any
    limit: int
    floats: str
    before: int = 0
    scale: Fraction = _ONE

    @property
    def has_tables(self) -> bool:
        """Whether `many` may look up what a `Join` has at this time."""
        return True

    @property
    def step(self) -> Any:
        """The time as a floating-point number of steps."""
        passed = self._passed_steps
        return passed if self.scale == 1 else passed / self.number(float(self.scale))

    @property
    def _passed_steps(self) -> Any:
        """The time in the steps of `whole`, as a float."""
        return self.as_float(self.whole) + self.number(self.offset)

    @property
    def offset(self) -> float:
        """The time where `whole` is 0, in the steps of `whole`."""
        return float(min(self.before, _GREATEST)) + self.part

    @property
    def greatest(self) -> float:
        """The greatest of the floats."""
        return float(np.finfo(self.floats).max)

    def number(self, value: float) -> float:
        """A Python number that stands beside tensors: as near as their floats come."""
        return min(max(float(value), -self.greatest), self.greatest)

    def as_float(self, value: Any) -> Any:
        """Turn integers, or a number, into floats: float64 in NumPy."""
        if self.ops is np:
            return np.asarray(value, np.float64)
        if isinstance(value, (int, float)):  # a cast would pass through floatx
            return self.ops.convert_to_tensor(self.number(value), dtype=self.floats)
        return self.ops.cast(value, self.floats)

    def finite(self, value: Any) -> Any:
        """Floats with the greatest of them in place of what has grown beyond."""
        greatest = self.greatest
        low, high = self.as_float(-greatest), self.as_float(greatest)
        return self.ops.minimum(self.ops.maximum(value, low), high)

    def constants(self, values: Any) -> Any:
        """Turn a table of numbers into this backend's floats."""
        return np.clip(values, -self.greatest, self.greatest).astype(self.floats)

    def whole_constants(self, values: Any) -> np.ndarray:
        """Turn a table of integers into what `whole` is compared with."""
        clipped = [self._within(value) for value in values]
        return np.array(clipped, np.int64 if self.limit == INT64 else np.int32)

    def scaled(self, length: float) -> float:
        """A length or a moment of the schedule, in the steps of `whole`."""
        return length if self.scale == 1 else product(length, self.scale)

    def stretched(self, factor: Fraction) -> Time:
        """This time for a schedule each of whose steps is `factor` steps long."""
        return dataclasses.replace(self, scale=self.scale * factor)

    def first_after(self, moment: float) -> int:
        """The first whole step of this time at or after `moment`; it may be < 0."""
        return self._first_after(self.scaled(moment))

    def _first_after(self, moment: float) -> int:
        if self.part == 0:
            return math.ceil(moment) - self.before
        if abs(moment) < _EXACT:
            return math.ceil(moment - self.part) - self.before
        return math.ceil(Fraction(moment) - Fraction(self.part)) - self.before

    def reached(self, moment: float) -> Any:
        """Whether `moment` (a real number of steps) has come: a boolean mask."""
        first = self.first_after(moment)
        if first > self.limit:
            return self.whole < 0  # never
        return self.whole >= self._within(first)

    def since(self, moment: float) -> Time:
        """The time since `moment`, for the steps that have reached it."""
        first, part = self.first_after(moment), self.part_at(moment)
        if first <= 0:
            return dataclasses.replace(self, before=-first, part=part)
        now = self.ops.maximum(self.whole - self._within(first), self.integer(0))
        return dataclasses.replace(self, whole=now, before=0, part=part)

    def part_at(self, moment: float) -> float:
        """How far the first step at or after `moment` is from it, in steps."""
        moment = self.scaled(moment)
        return float(self._first_after(moment) + self.before - moment + self.part)

    def integer(self, value: int) -> Any:
        """A constant of the integers' own type.

        Of an int32 and a Python int Keras makes a float where `floatx` has 16 bits.
        """
        if self.ops is np:
            return value
        return self.ops.convert_to_tensor(value, dtype=self.whole.dtype)

    def _within(self, steps: int) -> int:
        """An integer that the backend's integers can hold."""
        return min(max(steps, -self.limit), self.limit)

    def over(self, length: float) -> tuple[Any, Any]:
        """The shares of `length` steps that are done and left; 1 and 0 past the end.

        Both are counted in integers: `left` as 1 - done would lose its digits near
        the end, where a cosine or a line to a tiny rate has the most to lose.
        """
        length = self.scaled(length)
        end = self._first_after(length)
        if end <= 1:  # over before the second step: no share of it is counted
            begun = self.whole >= 1
            done = self.as_float(min(self.offset / length, 1.0))
            left = self.as_float(max(self.rest(length, 0) / length, 0.0))
            where, one, none = self.ops.where, self.as_float(1.0), self.as_float(0.0)
            return where(begun, one, done), where(begun, none, left)
        if length > _LONGEST and self.ops is not np:  # 1 over it may be 0
            done = self._passed_steps / _LONGEST * float(_LONGEST / length)
            return self.ops.minimum(done, 1.0), self.ops.maximum(1.0 - done, 0.0)
        last = min(end, self.limit)
        now = self.ops.minimum(self.whole, self.integer(last))
        elapsed, to_go = self.as_float(now), self.as_float(last - now)
        whole_length = self.number(length)
        if self.offset == 0 and last == length:
            return elapsed / whole_length, to_go / whole_length
        done = (elapsed + self.offset) / whole_length
        left = (to_go + self.number(self.rest(length, last))) / whole_length
        if self.ops is not np:  # one step more: of less than one float32 loses digits
            to_go = self.as_float(last - 1 - now)
            left = (to_go + self.number(self.rest(length, last - 1))) / whole_length
        return self.ops.minimum(done, 1.0), self.ops.maximum(left, 0.0)

    def rest(self, length: float, last: int) -> float:
        """What of a `scaled` length is left at the step `last`."""
        gone = self.before + last
        if self.part == 0 or length >= _EXACT:  # integers: their difference is exact
            return length - gone - self.part
        return length - self.part - gone  # as rounded as in `first_after`: 0 at the end

    def cycle(self, steps: float) -> Any:
        """Which cycle of `steps`, a real number, this is, from 0; as a float."""
        count = self.cycle_index(steps)
        now = self.as_float(count.few)
        if count.times:
            now = now + self.as_float(count.many) * self.number(count.times)
        return now + self.number(count.before) if count.before else now

    def cycle_index(self, steps: float) -> Count:
        """The same as integers."""
        steps = self.scaled(steps)
        if steps != int(steps):
            return self._real_cycle(steps)[0]
        return Count(*self._passed(int(steps)))

    def in_cycle(self, steps: float) -> Time:
        """The time since the cycle of `steps`, a real number, began."""
        steps = self.scaled(steps)
        if steps == int(steps):
            return self._in_whole_cycle(int(steps))
        units, rest = self._real_cycle(steps)[1:]
        scale = self.scale * fraction_of(steps).denominator
        return dataclasses.replace(self, whole=units, part=rest, before=0, scale=scale)

    def _in_whole_cycle(self, steps: int) -> Time:
        """The time since a cycle of so many steps of `whole` began."""
        before = self.before % steps
        if steps <= self.limit:
            return dataclasses.replace(self, whole=self._left(steps), before=0)
        if before and steps - before <= self.limit:
            raise ValueError(
                f"A cycle of {steps} steps that began before step 0 cannot be counted "
                f"in this backend's integers, which end at {self.limit:,}. Give "
                "shorter cycles, or later `boundaries`."
            )
        return dataclasses.replace(self, before=before)

    def _passed(self, by: int) -> tuple[Any, int]:
        """How often so many whole steps have passed: a tensor's part, and Python's."""
        ops, now, index = self.ops, self.whole, self.whole * 0
        times, before = divmod(self.before, by)
        if by <= self.limit:
            index = ops.floor_divide(self.whole, self.integer(by))
            now = ops.mod(self.whole, self.integer(by)) if before else now
        if before and by - before <= self.limit:  # both rests may be one more
            more = now >= self.integer(by - before)
            index = index + ops.where(more, self.integer(1), self.integer(0))
        return index, times

    def _left(self, by: int) -> Any:
        """The whole steps since so many have passed; `by` is <= `limit`."""
        ops, before = self.ops, self.before % by
        now = ops.mod(self.whole, self.integer(by))
        if not before:
            return now
        to_go = self.integer(by - before)
        more = ops.where(now >= to_go, self.integer(0), self.integer(by))
        return now - to_go + more

    def _real_cycle(self, steps: float) -> tuple[Count, Any, float]:
        """Which cycle of a real number of `steps` this is, and the time since it began.

        A step has d units and a cycle n, for the fraction n/d that `steps` stands for,
        and so everything is counted in integers.

        Returns:
            The cycle as in `cycle_index`, the whole units since it began, and the part
            of a unit.
        """
        exact = fraction_of(steps)
        n, d = exact.numerator, exact.denominator
        shift = math.floor(d * self.part + 1e-9)  # in units; `part` is rounded
        rest = max(d * self.part - shift, 0.0)
        ops = self.ops
        if n <= self.limit:
            many, times = self._passed(n)  # n steps are d cycles
            time, most = self._in_whole_cycle(n), n - 1
        else:
            many, (times, before) = self.whole * 0, divmod(self.before, n)
            time, most = dataclasses.replace(self, before=before), self.limit + before
        if d * most + shift <= self.limit:
            few, unit = self.whole * 0, d * time.whole + shift
        else:  # so many steps are a cycle and some units more: take them out first
            steps_up = math.ceil(exact)
            more = d * steps_up - n
            if more * (most // steps_up) + d * steps_up + shift > self.limit:
                raise ValueError(
                    f"A cycle of {steps!r} steps cannot be counted in this backend's "
                    f"integers, which end at {self.limit:,}. Give a length with fewer "
                    f"decimals, or a whole number of steps, as {round(steps)}."
                )
            taken, earlier = time._passed(steps_up)
            few = taken = taken + earlier
            unit = more * taken + d * time._left(steps_up) + shift
        if n <= self.limit:
            few = few + ops.floor_divide(unit, self.integer(n))
            unit = ops.mod(unit, self.integer(n))
        if d < n:  # fewer cycles than steps
            return Count(few + d * many, d * times), unit, rest
        return Count(few, d * times, many, d), unit, rest

    def row_at(self, first: np.ndarray) -> Any:
        """Which of the spans that begin at the steps `first`, increasing, it is."""
        ops = self.ops
        if ops is np:
            return np.searchsorted(first, self.whole, side="right") - 1
        # A step among some dozens or hundreds: counting them is as good as searching.
        table = ops.convert_to_tensor(first, dtype=self.whole.dtype)
        begun = ops.greater_equal(ops.expand_dims(self.whole, -1), table)
        return ops.sum(ops.cast(begun, self.whole.dtype), axis=-1) - 1

    def looked_up(self, column: np.ndarray, row: Any) -> Any:
        """A column's value in each `row`; of an array `keras.ops` may make floatx."""
        if self.ops is np:
            return np.take(column, row, axis=0)
        table = self.ops.convert_to_tensor(column, dtype=str(column.dtype))
        return self.ops.take(table, row, axis=0)

    def over_row(self, table: Spans, index: Any, now: Any) -> tuple[Any, Any]:
        """The shares of the span in row `index` that are done and left at `now`."""
        ops = self.ops

        def of_row(values: np.ndarray) -> Any:
            return self.looked_up(values, index)

        lengths, more = table.length, 0
        if ops is not np:
            lengths = np.minimum(lengths, _LONGEST)
            more = 1  # of less than a step float32 loses digits
        length = of_row(self.constants(lengths))
        since = self.as_float(now - of_row(table.first))
        until = self.as_float(of_row(table.last) - more - now)
        rest = np.minimum(table.rest, lengths) + more
        done = (since + of_row(self.constants(table.offset))) / length
        left = (until + of_row(self.constants(rest))) / length
        if (lengths < table.length).any():
            done = done * of_row(self.constants(lengths / table.length))
        return ops.minimum(done, 1.0), ops.maximum(left, 0.0)


def product(length: float, factor: Fraction) -> float:
    """A length times a factor: an integer where it is whole."""
    exact = fraction_of(length) * factor
    if abs(exact) > _GREATEST:
        return math.copysign(_GREATEST, length)
    return int(exact) if exact.denominator == 1 else float(exact)
