"""Spans of time as tables, and lengths as the fractions that they stand for."""

from __future__ import annotations

import dataclasses
import decimal
import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_HORIZON = 2**53  # cycles that grow are tabulated up to here, in steps
_MOST_CYCLES = 100_000
_ENDLESS = decimal.Decimal("1e300")
_FARTHEST = 2**62  # a float that an int64 holds
_DIGITS = 60


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


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Cycles, of which each may have a scale of its own, in the order of time.

    Sums of powers are made in decimals, never with logarithms of the step: a
    logarithm misses boundaries by rounding (Keras's `CosineDecayRestarts(10,
    t_mul=2)` gives 0 in place of the peak at step 81,910).

    Attributes:
        begins: When each begins.
        shown: From when on it is seen: another may have hidden its beginning.
        ends: When it ends at the latest.
        scales: How long a step of its own is.
        turns: How many have come before it since the same beginning.
    """

    begins: tuple[decimal.Decimal, ...]
    shown: tuple[decimal.Decimal, ...]
    ends: tuple[decimal.Decimal, ...]
    scales: tuple[decimal.Decimal, ...]
    turns: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def whole_of(scale: Fraction) -> Rows:
    """One row: a time without an end, whose steps are `scale` long."""
    zero = decimal.Decimal(0)
    return Rows((zero,), (zero,), (_ENDLESS,), (_decimal(scale),), (0,))


@functools.lru_cache(maxsize=256)
def cycles_in(
    rows: Rows, begun: Fraction, steps: Fraction, growth: float, limit: int
) -> Rows:
    """The cycles of `steps` * `growth`^i own steps in each of some rows.

    Args:
        rows: What they are in.
        begun: When the first begins, in the own steps of a row.
        steps: The length of the first.
        growth: How much longer each is than the one before.
        limit: Up to which step they are tabulated, from the beginning of time.

    Raises:
        ValueError: If there are too many cycles to tabulate.
    """
    found: list[tuple[decimal.Decimal, ...]] = []
    turns: list[int] = []  # in the same order
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        first, horizon = _decimal(begun), decimal.Decimal(min(_HORIZON, limit))
        own, factor = _decimal(steps), decimal.Decimal(repr(growth))
        for at, shown, last, scale in zip(
            rows.begins, rows.shown, rows.ends, rows.scales, strict=True
        ):
            begin, turn, looked_at = at + first * scale, 0, 0
            if factor == 1 and begin < shown:  # those before are hidden
                turn = int((shown - begin) / (own * scale))
                begin += turn * own * scale
            while looked_at == 0 or (begin < last and begin <= horizon):
                end = begin + own * scale
                if end > shown or looked_at == 0:
                    found.append((begin, max(begin, shown), min(end, last), scale))
                    turns.append(turn)
                begin, scale = end, scale * factor
                turn, looked_at = turn + 1, looked_at + 1
                if len(found) > _MOST_CYCLES or looked_at > _MOST_CYCLES:
                    raise ValueError(_too_many(rows, steps, growth))
    begins, shown_from, ends, scales = zip(*found, strict=True)
    return Rows(begins, shown_from, ends, scales, tuple(turns))


@functools.lru_cache(maxsize=64)
def stretched(rows: Rows, factor: Fraction) -> Rows:
    """The same rows, with steps of their own that are `factor` times as long."""
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        by = _decimal(factor)
        scales = tuple(scale * by for scale in rows.scales)
    return dataclasses.replace(rows, scales=scales)


def _too_many(rows: Rows, steps: Fraction, growth: float) -> str:
    if len(rows.begins) > 1:
        return (
            "A Repeat with a `growth` is tabulated, with all cycles inside it, and it "
            f"has more than {_MOST_CYCLES:,} of them. Give longer cycles inside it. "
            f"Received: cycles of {float(steps):g} steps inside it"
        )
    return (
        "Argument `growth` (or `cycle_mult`) must be 1, or far enough "
        f"above 1 for cycles to grow. Received: {growth!r}, which makes "
        f"more than {_MOST_CYCLES:,} cycles. Use 1 for equal cycles."
    )


@functools.lru_cache(maxsize=256)
def first_seen(rows: Rows, offset: float, limit: int) -> np.ndarray:
    """The first step of each row, where step 0 is at time `offset`."""
    return _whole(_floats(rows.shown), offset, limit)


@functools.lru_cache(maxsize=256)
def last_before(rows: Rows, begun: Fraction, offset: float, limit: int) -> np.ndarray:
    """The last whole step before `begun` own steps of each row; -1 if none is."""
    return _whole(_moments(rows, begun), offset, limit, -1)


@functools.lru_cache(maxsize=256)
def spans_in(
    rows: Rows, begun: Fraction, length: Fraction, offset: float, limit: int
) -> Spans:
    """The span of `length` own steps from `begun` on in each row."""
    begins, ends = _moments(rows, begun), _moments(rows, begun + length)
    # What is shorter than the digits of its beginning ends after it, not with it.
    later = np.floor(begins - offset) + 1
    last = np.maximum(_whole(ends, offset, limit), _whole(later, 0.0, limit))
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        lengths = _floats([_decimal(length) * scale for scale in rows.scales])
    return Spans(
        first=_whole(begins, offset, limit),
        offset=np.maximum(np.ceil(begins - offset), 0.0) - begins + offset,
        last=last,
        rest=ends - offset - last,
        length=lengths,
    )


def _moments(rows: Rows, begun: Fraction) -> np.ndarray:
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        own = _decimal(begun)
        both = zip(rows.begins, rows.scales, strict=True)
        return _floats([begin + own * scale for begin, scale in both])


def _whole(moments: np.ndarray, offset: float, limit: int, more: int = 0) -> np.ndarray:
    dtype = np.int64 if limit > np.iinfo(np.int32).max else np.int32
    most = float(min(limit, _FARTHEST))
    return np.clip(np.ceil(moments - offset) + more, more, most).astype(dtype)


def _floats(moments: Sequence[decimal.Decimal]) -> np.ndarray:
    # The last may be too long for a float.
    held = [float(max(min(each, _ENDLESS), -_ENDLESS)) for each in moments]
    return np.array(held, np.float64)


def _decimal(exact: Fraction) -> decimal.Decimal:
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        return decimal.Decimal(exact.numerator) / exact.denominator


@functools.lru_cache(maxsize=256)
def fraction_of(number: float) -> Fraction:
    """The simplest fraction that is rounded to `number`: of 33.3 it is 333/10.

    It is what was meant: 100/3 is a third of a hundred and not the float nearest to
    it, after three of which a step is missing.
    """
    exact = Fraction(number)
    if exact.denominator == 1:
        return exact
    if number < 0:
        return -fraction_of(-number)
    half = Fraction(math.ulp(number)) / 2
    found = _simplest_in(exact - half, exact + half)
    return found if float(found) == number else exact


def _simplest_in(low: Fraction, high: Fraction) -> Fraction:
    """The fraction with the least denominator in an interval of positive numbers."""
    whole = math.floor(low)
    if whole == low or whole + 1 <= high:
        return Fraction(math.ceil(low))
    return whole + 1 / _simplest_in(1 / (high - whole), 1 / (low - whole))
