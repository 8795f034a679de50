"""Where cycles end: what snapshots are kept by."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import tfschedules as tfs

pytestmark = pytest.mark.any_backend


def ends_of(schedule: tfs.Schedule, before: int) -> list[int]:
    """All ends up to `before`, found by going from one to the next."""
    ends, step = [], 0
    while (end := schedule.cycles(step).next_end) is not None and end <= before:
        ends.append(end)
        step = end
    return ends


def growing(first: int, growth: Fraction, after: Fraction, before: int) -> list[int]:
    """The first whole step of each cycle but the first, in Python's fractions."""
    end, length, ends = after, Fraction(first), []
    while (end := end + length) <= before:
        ends.append(math.ceil(end))
        length *= growth
    return ends


RESTARTS = tfs.warm_restarts(1.0, first_cycle=4)
LINE = tfs.Linear(1.0, 0.0, 5)

CYCLES: dict[str, tuple[tfs.Schedule, list[int]]] = {
    "restarts": (RESTARTS, list(range(4, 101, 4))),
    "cycles of one step": (tfs.Repeat(LINE, 1), list(range(1, 101))),
    "triangular": (tfs.cyclical(0.1, 1.0, 5), list(range(10, 101, 10))),
    "triangular2": (
        tfs.cyclical(0.1, 1.0, 5, mode="triangular2"),
        list(range(10, 101, 10)),
    ),
    "exp_range": (
        tfs.cyclical(0.1, 1.0, 5, mode="exp_range", gamma=0.9),
        list(range(10, 101, 10)),
    ),
    "doubled": (tfs.warm_restarts(1.0, 3, cycle_mult=2), [3, 9, 21, 45, 93]),
    "growth 1.5": (
        tfs.warm_restarts(1.0, 4, cycle_mult=1.5, peak_decay=0.5),
        [4, 10, 19, 33, 53, 84],
    ),
    "growth 1.5 after 2.5 steps": (
        tfs.warmup(tfs.warm_restarts(1.0, 4, cycle_mult=1.5), 2.5),
        [7, 13, 22, 35, 56, 86],
    ),
    "arithmetic": ((0.5 * RESTARTS + 0.1).clip(0.2, 0.4), list(range(4, 101, 4))),
    "the first of two": (RESTARTS + tfs.Repeat(LINE, 5), list(range(4, 101, 4))),
    "the second of two": (LINE * RESTARTS, list(range(4, 101, 4))),
    "after a warm-up": (tfs.warmup(RESTARTS, 10), list(range(14, 101, 4))),
    "cut off at an end": (tfs.Join([RESTARTS, LINE], [8]), [4, 8]),
    "cut off within a cycle": (tfs.Join([RESTARTS, LINE], [11]), [4, 8]),
    "two cyclic parts": (
        tfs.Join([RESTARTS, LINE, tfs.Repeat(LINE, 7)], [10, 15]),
        [4, 8, *range(22, 101, 7)],
    ),
    "hidden parts": (
        tfs.Join([RESTARTS, LINE, RESTARTS], [-9, 0]),
        [*range(4, 101, 4)],
    ),
    "cycles within cycles": (
        tfs.Repeat(tfs.Join([RESTARTS, LINE], [8]), 20),
        [20, 40, 60, 80, 100],
    ),
    "a line": (LINE, []),
    "one cycle": (tfs.one_cycle(1.0, 20)["learning_rate"], []),
    "a decaying factor": (tfs.PerCycle(0.5, 4), []),
}


@pytest.mark.parametrize("name", CYCLES)
def test_cycles_end_at(name: str) -> None:
    schedule, ends = CYCLES[name]
    assert ends_of(schedule, 100) == ends
    for step in range(101):
        ended, next_end = schedule.cycles(step)
        assert ended == sum(end <= step for end in ends), step
        following = [end for end in ends if end > step]
        assert (next_end if (next_end or 101) <= 100 else None) == (
            following[0] if following else None
        ), step


@pytest.mark.parametrize("first", [1, 2, 7, 10])
@pytest.mark.parametrize("growth", [1.1, 1.5, 2, 3])
@pytest.mark.parametrize("after", [0, 3, 0.25])
def test_growing_cycles_end_where_fractions_say(
    first: int, growth: float, after: float
) -> None:
    schedule = tfs.warm_restarts(1.0, first, cycle_mult=growth)
    if after:
        schedule = tfs.warmup(schedule, after)
    expected = growing(first, Fraction(str(growth)), Fraction(str(after)), 10**9)
    assert ends_of(schedule, 10**9) == [end for end in expected if end <= 10**9]


def test_the_rate_falls_up_to_an_end_and_restarts_there() -> None:
    for schedule in (RESTARTS, CYCLES["growth 1.5"][0], CYCLES["after a warm-up"][0]):
        ends = np.array(ends_of(schedule, 100))
        values = schedule.values(102)
        assert (values[ends] > values[ends - 1]).all()
        rises = np.flatnonzero(np.diff(values) > 0) + 1
        assert set(rises[rises > 12]) <= set(ends)


def test_cycles_of_old_age_and_refusals() -> None:
    assert RESTARTS.cycles(4 * 10**9 + 3) == (10**9, 4 * 10**9 + 4)
    with pytest.raises(ValueError, match="`step` must be >= 0"):
        RESTARTS.cycles(-1)
    with pytest.raises(ValueError, match="lengths in epochs"):
        tfs.warm_restarts(1.0, tfs.epochs(1)).cycles(0)
