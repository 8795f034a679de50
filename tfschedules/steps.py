"""Where a schedule stands: integer steps first, floating point last.

A float32 holds integers up to 2^24 only, so a position in a cycle is found with
integers and turned into a float at the very end, when it is small or already a
fraction. The same code serves NumPy in float64 and `keras.ops` in float32, or where
that is asked for in float64: the two name their functions alike.
"""

from __future__ import annotations

import dataclasses
import decimal
import functools
import math
from typing import Any, NamedTuple

import numpy as np

_HORIZON = 2**53  # cycles that grow are tabulated up to here, in steps
_MOST_CYCLES = 100_000


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

    Attributes:
        whole: Integer array or tensor of any shape, >= 0, in steps.
        part: A fraction of a step, in [0, 1): a schedule may begin between two steps.
        ops: `numpy` or `keras.ops`.
        limit: The greatest integer that `whole` can hold.
        floats: The type of the floats that it is turned into.
    """

    whole: Any
    part: float
    ops: Any
    limit: int
    floats: str

    @property
    def step(self) -> Any:
        """The time as a floating-point number of steps."""
        return self.as_float(self.whole) + self.part

    def as_float(self, integers: Any) -> Any:
        """Turn integers, or a number, into floats: float64 in NumPy."""
        if self.ops is np:
            return np.asarray(integers, np.float64)
        if isinstance(integers, (int, float)):  # a cast would pass through float32
            return self.ops.convert_to_tensor(integers, dtype=self.floats)
        return self.ops.cast(integers, self.floats)

    def constants(self, values: np.ndarray) -> Any:
        """Turn a table of floats into this backend's floats."""
        return values.astype(self.floats)

    def reached(self, moment: float) -> Any:
        """Whether `moment` (a real number of steps) has come: a boolean mask."""
        return self.whole >= self._within(math.ceil(moment - self.part))

    def since(self, moment: float) -> Time:
        """The time since `moment`, for the steps that have reached it."""
        first = math.ceil(moment - self.part)
        shift = self._within(first)
        now = self.whole
        if shift < 0:
            now = self.ops.minimum(now, self._integer(self.limit + shift))
        whole = self.ops.maximum(now - shift, self._integer(0))
        return dataclasses.replace(self, whole=whole, part=first - moment + self.part)

    def _integer(self, value: int) -> Any:
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
        last = min(math.ceil(length - self.part), self.limit)
        now = self.ops.minimum(self.whole, self._integer(last))
        elapsed, to_go = self.as_float(now), self.as_float(last - now)
        if self.part == 0 and last == length:
            return elapsed / length, to_go / length
        done = (elapsed + self.part) / length
        left = (to_go + (length - self.part - last)) / length
        return self.ops.minimum(done, 1.0), self.ops.maximum(left, 0.0)

    def cycle(self, steps: int) -> Any:
        """Which cycle of `steps` this is, from 0."""
        return self.ops.floor_divide(self.whole, self._integer(min(steps, self.limit)))

    def in_cycle(self, steps: int) -> Time:
        """The time since the cycle of `steps` began."""
        whole = self.ops.mod(self.whole, self._integer(min(steps, self.limit)))
        return dataclasses.replace(self, whole=whole)

    def growing_cycle(self, steps: int, growth: float) -> tuple[Any, Any, Any]:
        """Which cycle this is (from 0), and the shares of it that are done and left.

        Cycle i lasts `steps` * `growth`^i steps.
        """
        table = cycle_table(steps, growth, self.part, self.limit)
        ops = self.ops
        if ops is np:
            index = np.searchsorted(table.first, self.whole, side="right") - 1
        else:  # a step among some dozens of cycles: counting them is as good
            begun = ops.greater_equal(ops.expand_dims(self.whole, -1), table.first)
            index = ops.sum(ops.cast(begun, self.whole.dtype), axis=-1) - 1

        def of_cycle(values: np.ndarray) -> Any:
            return ops.take(values, index, axis=0)

        length = of_cycle(self.constants(table.length))
        since = self.as_float(self.whole - of_cycle(table.first))
        until = self.as_float(of_cycle(table.last) - self.whole)
        done = (since + of_cycle(self.constants(table.offset))) / length
        left = (until + of_cycle(self.constants(table.rest))) / length
        return index, ops.minimum(done, 1.0), ops.maximum(left, 0.0)


@dataclasses.dataclass(frozen=True)
class CycleTable:
    """Growing cycles, one row a cycle; boundaries may lie between two steps.

    Attributes:
        first: The first whole step in the cycle.
        offset: How far into the cycle that step is, in [0, 1).
        last: The first whole step after the cycle.
        rest: The cycle's end less `last`, in (-1, 0].
        length: The cycle's length, a real number of steps.
    """

    first: np.ndarray
    offset: np.ndarray
    last: np.ndarray
    rest: np.ndarray
    length: np.ndarray


@functools.lru_cache(maxsize=64)
def cycle_table(steps: int, growth: float, part: float, limit: int) -> CycleTable:
    """Tabulate the cycles of `steps` * `growth`^i steps, as seen from time `part`.

    Sums of powers are made in decimals, never with logarithms of the step: a
    logarithm misses boundaries by rounding (Keras's `CosineDecayRestarts(10,
    t_mul=2)` gives 0 in place of the peak at step 81,910).

    Raises:
        ValueError: If there are too many cycles to tabulate.
    """
    moments: list[decimal.Decimal] = [decimal.Decimal(0)]
    with decimal.localcontext() as context:
        context.prec = 60
        length, factor = decimal.Decimal(steps), decimal.Decimal(repr(growth))
        while moments[-1] < min(_HORIZON, limit):
            moments.append(moments[-1] + length)
            length *= factor
            if len(moments) > _MOST_CYCLES:
                raise ValueError(
                    "Argument `growth` (or `cycle_mult`) must be 1, or far enough "
                    f"above 1 for cycles to grow. Received: {growth!r}, which makes "
                    f"more than {_MOST_CYCLES:,} cycles. Use 1 for equal cycles."
                )
    exact = np.array([float(moment) for moment in moments], np.float64)
    whole: np.ndarray = np.ceil(exact - part)
    dtype = np.int64 if limit > np.iinfo(np.int32).max else np.int32
    clipped = np.minimum(whole, float(min(_HORIZON, limit))).astype(dtype)
    return CycleTable(
        first=clipped[:-1],
        offset=(whole - exact + part)[:-1],
        last=clipped[1:],
        rest=(exact - part - clipped)[1:],
        length=np.diff(exact),
    )


def in_numpy(steps: np.ndarray) -> Time:
    """Begin at integer `steps` of any shape, in NumPy."""
    if steps.dtype == np.uint64:  # would turn negative
        steps = np.minimum(steps, np.uint64(np.iinfo(np.int64).max))
    whole = np.maximum(steps.astype(np.int64), 0)
    return Time(whole, 0.0, np, int(np.iinfo(np.int64).max), "float64")


def in_graph(step: Any, floats: str = "float32") -> Time:
    """Begin at an integer tensor or variable `step`, in `keras.ops`.

    Args:
        step: The step, of any shape.
        floats: "float64" gives what NumPy gives, where the backend has such floats;
            on devices for networks that is slow, or missing.
    """
    import keras

    dtype = keras.backend.standardize_dtype("int")  # int64, or int32 on JAX
    zero = keras.ops.convert_to_tensor(0, dtype=dtype)
    whole = keras.ops.maximum(keras.ops.cast(step, dtype), zero)
    return Time(whole, 0.0, keras.ops, int(np.iinfo(dtype).max), floats)
