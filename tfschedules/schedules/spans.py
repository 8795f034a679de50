"""Spans of time as tables, and lengths as the fractions that they stand for."""

from __future__ import annotations

import dataclasses
import decimal
import functools
import math
from fractions import Fraction

import numpy as np

_HORIZON = 2**53  # cycles that grow are tabulated up to here, in steps
_MOST_CYCLES = 100_000
_ENDLESS = decimal.Decimal("1e300")


@dataclasses.dataclass(frozen=True)
class Spans:
    """Spans of time, one row each; boundaries may lie between two steps.

    Attributes:
        first: The first whole step in the span.
        offset: How far into the span that step is, in [0, 1); or step 0, of a span
            that has begun before.
        last: The first whole step after the span.
        rest: The span's end less `last`, in (-1, 0].
        length: The span's length, a real number of steps.
    """

    first: np.ndarray
    offset: np.ndarray
    last: np.ndarray
    rest: np.ndarray
    length: np.ndarray


@functools.lru_cache(maxsize=64)
def cycle_table(steps: float, growth: float, begin: float, limit: int) -> Spans:
    """Tabulate the cycles of `steps` * `growth`^i steps, as seen from time `begin`.

    Sums of powers are made in decimals, never with logarithms of the step: a
    logarithm misses boundaries by rounding (Keras's `CosineDecayRestarts(10,
    t_mul=2)` gives 0 in place of the peak at step 81,910).

    Raises:
        ValueError: If there are too many cycles to tabulate.
    """
    moments: list[decimal.Decimal] = [decimal.Decimal(0)]
    with decimal.localcontext() as context:
        context.prec = 60
        exact = fraction_of(steps)
        length = decimal.Decimal(exact.numerator) / exact.denominator
        factor = decimal.Decimal(repr(growth))
        while moments[-1] <= min(_HORIZON, limit + begin):
            moments.append(moments[-1] + length)
            length *= factor
            if len(moments) > _MOST_CYCLES:
                raise ValueError(
                    "Argument `growth` (or `cycle_mult`) must be 1, or far enough "
                    f"above 1 for cycles to grow. Received: {growth!r}, which makes "
                    f"more than {_MOST_CYCLES:,} cycles. Use 1 for equal cycles."
                )
    # The last may be too long for a float.
    ends = np.array([float(min(moment, _ENDLESS)) for moment in moments], np.float64)
    whole: np.ndarray = np.maximum(np.ceil(ends - begin), 0.0)
    dtype = np.int64 if limit > np.iinfo(np.int32).max else np.int32
    clipped = np.minimum(whole, float(min(_HORIZON, limit))).astype(dtype)
    return Spans(
        first=clipped[:-1],
        offset=(whole - ends + begin)[:-1],
        last=clipped[1:],
        rest=(ends - begin - clipped)[1:],
        length=np.diff(ends),
    )


@functools.lru_cache(maxsize=256)
def fraction_of(number: float) -> Fraction:
    """The simplest fraction that is rounded to `number`: of 33.3 it is 333/10.

    It is what was meant: 100/3 is a third of a hundred and not the float nearest to
    it, after three of which a step is missing.
    """
    exact = Fraction(number)
    if exact.denominator == 1:
        return exact
    half = Fraction(math.ulp(number)) / 2
    found = _simplest_in(exact - half, exact + half)
    return found if float(found) == number else exact


def _simplest_in(low: Fraction, high: Fraction) -> Fraction:
    """The fraction with the least denominator in an interval of positive numbers."""
    whole = math.floor(low)
    if whole == low or whole + 1 <= high:
        return Fraction(math.ceil(low))
    return whole + 1 / _simplest_in(1 / (high - whole), 1 / (low - whole))
