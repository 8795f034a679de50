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
_INT64 = int(np.iinfo(np.int64).max)
_ONE = Fraction(1)
_GREATEST = 10**300  # a length


class Cycles(NamedTuple):
    """Where a moment stands among a schedule's cycles.

    Attributes:
        ended: How many cycles have ended by then.
        next_end: The step at which the next one ends and another begins: the update
            before it is the cycle's last. `None` if there are no more.
    """

    ended: int
    next_end: int | None


@dataclasses.dataclass(frozen=True)
class Time:
    """The time since a schedule began: `whole` steps and a `part` of one.

    Python's numbers have no end, and a backend's have: what enters a computation with
    tensors goes through `number`, `as_float` or `integer`.

    Attributes:
        whole: Integer array or tensor of any shape, >= 0, in steps.
        part: A fraction of a step, in [0, 1): a schedule may begin between two steps.
        ops: `numpy` or `keras.ops`.
        limit: The greatest integer that `whole` can hold.
        floats: The type of the floats that it is turned into.
        stopped: Whether `whole` may have stopped at `limit` long ago.
        scale: How long a step of the schedule is in those of `whole`. Lengths and
            moments are the schedule's, and are multiplied by it.
    """

    whole: Any
    part: float
    ops: Any
    limit: int
    floats: str
    stopped: bool = False
    scale: Fraction = _ONE

    @property
    def has_tables(self) -> bool:
        """Whether `many` may look up what a `Join` has at this time."""
        return True

    @property
    def step(self) -> Any:
        """The time as a floating-point number of steps."""
        self._check_it_counts()
        step = self.as_float(self.whole) + self.part
        return step if self.scale == 1 else step / self.number(float(self.scale))

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
        return np.array(clipped, np.int64 if self.limit == _INT64 else np.int32)

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
            return math.ceil(moment)
        if abs(moment) < _EXACT:
            return math.ceil(moment - self.part)
        return math.ceil(Fraction(moment) - Fraction(self.part))

    def reached(self, moment: float) -> Any:
        """Whether `moment` (a real number of steps) has come: a boolean mask."""
        first = self.first_after(moment)
        if first > self.limit:
            return self.whole < 0  # never
        return self.whole >= self._within(first)

    def since(self, moment: float) -> Time:
        """The time since `moment`, for the steps that have reached it."""
        first = self.first_after(moment)
        shift = self._within(first)
        now = self.whole
        if shift < 0:
            now = self.ops.minimum(now, self.integer(self.limit + shift))
        return dataclasses.replace(
            self,
            whole=self.ops.maximum(now - shift, self.integer(0)),
            part=self.part_at(moment),
            stopped=self.stopped or first < -(self.limit // 2),
        )

    def part_at(self, moment: float) -> float:
        """How far the first step at or after `moment` is from it, in steps."""
        moment = self.scaled(moment)
        return float(self._first_after(moment) - moment + self.part)

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

    def _check_it_counts(self) -> None:
        """Refuse to find a position in what began before the integers' beginning.

        Raises:
            ValueError: If `whole` may have stopped.
        """
        if self.stopped:
            raise ValueError(
                "A part of a Join that begins this long before step 0 cannot be "
                f"counted in this backend's integers, which end at {self.limit:,}. "
                "Give it a later one of the `boundaries`."
            )

    def over(self, length: float) -> tuple[Any, Any]:
        """The shares of `length` steps that are done and left; 1 and 0 past the end.

        Both are counted in integers: `left` as 1 - done would lose its digits near
        the end, where a cosine or a line to a tiny rate has the most to lose.
        """
        length = self.scaled(length)
        if length > self.limit:
            self._check_it_counts()
        if length > _LONGEST and self.ops is not np:  # 1 over it may be 0
            done = self.as_float(self.whole) / _LONGEST * float(_LONGEST / length)
            return done, 1.0 - done
        end = self._first_after(length)
        if end <= 1:  # over before the second step: no share of it is counted
            begun = self.whole >= 1
            done = self.as_float(min(self.part / length, 1.0))
            left = self.as_float(max((length - self.part) / length, 0.0))
            where, one, none = self.ops.where, self.as_float(1.0), self.as_float(0.0)
            return where(begun, one, done), where(begun, none, left)
        last = min(end, self.limit)
        now = self.ops.minimum(self.whole, self.integer(last))
        elapsed, to_go = self.as_float(now), self.as_float(last - now)
        whole_length = self.number(length)
        if self.part == 0 and last == length:
            return elapsed / whole_length, to_go / whole_length
        done = (elapsed + self.part) / whole_length
        left = (to_go + self.number(self.rest(length, last))) / whole_length
        if self.ops is not np:  # one step more: of less than one float32 loses digits
            to_go = self.as_float(last - 1 - now)
            left = (to_go + self.number(self.rest(length, last - 1))) / whole_length
        return self.ops.minimum(done, 1.0), self.ops.maximum(left, 0.0)

    def rest(self, length: float, last: int) -> float:
        """What a `scaled` length that begins now has left at the step `last`."""
        return length - self.part - last if self.part else length - last

    def cycle(self, steps: float) -> Any:
        """Which cycle of `steps`, a real number, this is, from 0."""
        self._check_it_counts()
        steps = self.scaled(steps)
        if steps != int(steps):
            return self._real_cycle(steps)[0]
        if steps > self.limit:
            return self.whole * 0
        return self.ops.floor_divide(self.whole, self.integer(int(steps)))

    def in_cycle(self, steps: float) -> Time:
        """The time since the cycle of `steps`, a real number, began."""
        self._check_it_counts()
        steps = self.scaled(steps)
        if steps != int(steps):
            units, rest = self._real_cycle(steps)[1:]
            scale = self.scale * fraction_of(steps).denominator
            return dataclasses.replace(self, whole=units, part=rest, scale=scale)
        if steps > self.limit:
            return self
        whole = self.ops.mod(self.whole, self.integer(int(steps)))
        return dataclasses.replace(self, whole=whole)

    def _real_cycle(self, steps: float) -> tuple[Any, Any, float]:
        """Which cycle of a real number of `steps` this is, and the time since it began.

        A step has d units and a cycle n, for the fraction n/d that `steps` stands for,
        and so everything is counted in integers.

        Returns:
            The cycle from 0, the whole units since it began, and the part of a unit.
        """
        exact = fraction_of(steps)
        n, d = exact.numerator, exact.denominator
        shift = math.floor(d * self.part + 1e-9)  # in units; `part` is rounded
        rest = max(d * self.part - shift, 0.0)
        ops, now, index = self.ops, self.whole, self.whole * 0
        most = min(n - 1, self.limit)
        if n <= self.limit:  # d cycles are n steps
            index = d * ops.floor_divide(now, self.integer(n))
            now = ops.mod(now, self.integer(n))
        if d * most + shift <= self.limit:
            unit = d * now + shift
        else:  # so many steps are a cycle and some units more: take them out first
            steps_up = math.ceil(exact)
            more = d * steps_up - n
            if more * (most // steps_up) + d * steps_up + shift > self.limit:
                raise ValueError(
                    f"A cycle of {steps!r} steps cannot be counted in this backend's "
                    f"integers, which end at {self.limit:,}. Give a length with fewer "
                    f"decimals, or a whole number of steps, as {round(steps)}."
                )
            taken = ops.floor_divide(now, self.integer(steps_up))
            index = index + taken
            unit = more * taken + d * ops.mod(now, self.integer(steps_up)) + shift
        if n <= self.limit:
            index = index + ops.floor_divide(unit, self.integer(n))
            unit = ops.mod(unit, self.integer(n))
        return index, unit, rest

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
        rest = np.minimum(table.rest + more, lengths)
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


def in_numpy(steps: np.ndarray) -> Time:
    """Begin at integer `steps` of any shape, in NumPy."""
    if steps.dtype == np.uint64:  # would turn negative
        steps = np.minimum(steps, np.uint64(_INT64))
    whole = np.maximum(steps.astype(np.int64), 0)
    return Time(whole, 0.0, np, _INT64, "float64")


def in_graph(step: Any, floats: str = "float32") -> Time:
    """Begin at an integer tensor or variable `step`, in `keras.ops`.

    Args:
        step: The step, of any shape.
        floats: "float64" gives what NumPy gives, where the backend has such floats;
            on devices for networks that is slow, or missing.
    """
    import keras

    dtype = _counted_in()
    zero = keras.ops.convert_to_tensor(0, dtype=dtype)
    whole = keras.ops.maximum(keras.ops.cast(step, dtype), zero)
    return Time(whole, 0.0, keras.ops, int(np.iinfo(dtype).max), floats)


def beyond_backend(step: Any) -> np.ndarray | None:
    """Steps that Python or NumPy holds, if the backend's integers cannot; else None.

    Of an integer that is too great a cast would make another one, or an error.
    """
    if isinstance(step, (int, float, np.generic, np.ndarray)):
        array = np.asarray(step)
        is_whole = array.dtype == object or np.issubdtype(array.dtype, np.integer)
        if is_whole and array.size and np.max(array) > np.iinfo(_counted_in()).max:
            return np.asarray(np.minimum(array, _INT64), np.int64)
    return None


def _counted_in() -> str:
    """The integers of the backend: int64 on TensorFlow, int32 on JAX and torch."""
    import keras

    return str(keras.backend.standardize_dtype("int"))
