"""The time in a cycle, also where cycles grow and what is in them is stretched."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from tfschedules.schedules import spans
from tfschedules.schedules.spans import Rows, Spans, fraction_of
from tfschedules.schedules.steps import Count, Time


def in_cycle(time: Time, steps: float, growth: float = 1.0) -> Time:
    """The time since the cycle began, in which a growing one is as long as the first.

    Args:
        time: The moment.
        steps: The length of the first cycle, a real number of steps.
        growth: How much longer each is than the one before.
    """
    if growth == 1:
        return time.in_cycle(steps)
    return _in_cycle(time, steps, growth)


def _in_cycle(time: Time, steps: float, growth: float) -> Time:
    rows, index = _found(time, steps, growth)
    plain = {each.name: getattr(time, each.name) for each in dataclasses.fields(Time)}
    return StretchedTime(**plain, rows=rows, index=index)


def cycle(time: Time, steps: float, growth: float = 1.0) -> Any:
    """Which of such cycles it is, from 0; as a float."""
    if growth == 1:
        return time.cycle(steps)
    return time.as_float(_cycle(time, steps, growth))


def _cycle(time: Time, steps: float, growth: float) -> Any:
    rows, index = _found(time, steps, growth)
    return time.looked_up(time.whole_constants(rows.turns), index)


def ends_of(time: Time, steps: float, growth: float) -> np.ndarray:
    """The first whole step after each of such cycles that are tabulated."""
    rows = _rows(time, steps, growth)
    length = fraction_of(steps)
    return spans.spans_in(rows, Fraction(0), length, time.offset, time.limit).last


@dataclasses.dataclass(frozen=True)
class StretchedTime(Time):
    """The time in cycles of which each has a scale of its own.

    Where cycles grow, boundaries lie at sums of powers. Those of every cycle are
    tabulated, and the row of this one is looked up: the step is compared with integers
    and is divided last.

    Attributes:
        rows: The cycles.
        index: Which one it is.
        begun: When the schedule begins, in the cycle's own steps.
    """

    rows: Rows = dataclasses.field(kw_only=True)
    index: Any = dataclasses.field(kw_only=True)
    begun: Fraction = Fraction(0)

    @property
    def has_tables(self) -> bool:
        return False

    @property
    def step(self) -> Any:
        table = self._spans(1)
        first = self._of_row(table.first)
        since = self.as_float(self.ops.maximum(self.whole, first) - first)
        offset = self._of_row(self.constants(table.offset))
        return (since + offset) / self._of_row(self.constants(table.length))

    def scaled(self, length: float) -> float:
        return length

    def stretched(self, factor: Fraction) -> Time:
        rows = spans.stretched(self.rows, factor)
        return dataclasses.replace(self, rows=rows, begun=self.begun / factor)

    def reached(self, moment: float) -> Any:
        at = self.begun + fraction_of(moment)
        before = spans.last_before(self.rows, at, self.offset, self.limit)
        return self.whole > self._of_row(before)

    def since(self, moment: float) -> Time:
        return dataclasses.replace(self, begun=self.begun + fraction_of(moment))

    def first_after(self, moment: float) -> int:
        return math.ceil(moment)  # in some cycle it may be any step

    def cycle_index(self, steps: float) -> Count:
        return Count(_cycle(self, steps, 1.0), 0)

    def in_cycle(self, steps: float) -> Time:
        return _in_cycle(self, steps, 1.0)

    def over(self, length: float) -> tuple[Any, Any]:
        ops, table = self.ops, self._spans(length)
        first, last = self._of_row(table.first), self._of_row(table.last)
        now = ops.minimum(ops.maximum(self.whole, first), last)
        # A last step that is not the end is where the integers end.
        short = (table.last.astype(np.int64) - table.first <= 1) & (table.rest <= 0)
        lengths = np.where(short, 1.0, table.length)
        whole = dataclasses.replace(table, length=lengths)
        done, left = self.over_row(whole, self.index, now)
        if not short.any():
            return done, left
        # Over before the second step: no share of it is counted.
        with np.errstate(over="ignore"):
            soon = np.clip(table.offset / table.length, 0.0, 1.0)
            late = np.clip((table.length - table.offset) / table.length, 0.0, 1.0)
        over, where = now > first, self.ops.where
        done_soon = where(over, self.as_float(1.0), self._of_row(self.constants(soon)))
        left_late = where(over, self.as_float(0.0), self._of_row(self.constants(late)))
        is_short = self._of_row(short)
        return where(is_short, done_soon, done), where(is_short, left_late, left)

    def _spans(self, length: float) -> Spans:
        exact = fraction_of(length)
        return spans.spans_in(self.rows, self.begun, exact, self.offset, self.limit)

    def _of_row(self, column: np.ndarray) -> Any:
        return self.looked_up(column, self.index)


def _rows(time: Time, steps: float, growth: float) -> Rows:
    exact, limit = fraction_of(steps), time.limit + time.before
    if isinstance(time, StretchedTime):
        return spans.cycles_in(time.rows, time.begun, exact, growth, limit)
    whole = spans.whole_of(time.scale)
    return spans.cycles_in(whole, Fraction(0), exact, growth, limit)


def _found(time: Time, steps: float, growth: float) -> tuple[Rows, Any]:
    rows = _rows(time, steps, growth)
    index = time.row_at(spans.first_seen(rows, time.offset, time.limit))
    return rows, time.ops.maximum(index, time.integer(0))
