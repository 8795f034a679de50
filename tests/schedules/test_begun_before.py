"""Parts of a Join that have begun before step 0, in 32 bits up to the last step.

The oracle is `registry.exact`: positions are Fractions there.
"""

from __future__ import annotations

import math
from fractions import Fraction

import keras
import numpy as np
import pytest
from helpers import BACKEND
from registry import compiled, exact

import tfschedules as tfs
from tfschedules.schedules import Join, PerCycle, Repeat, ScaleFunction, Stretch

LAST = 2**31 - 1  # of JAX's steps
SAW = tfs.Linear(1.0, 0.25, 6)
PARTS = {
    "a ramp": tfs.Linear(1.0, 0.25, 2**31 + 2**29),
    "a ramp of a giant": tfs.Cosine(1.0, 0.25, 3e9 + 0.5),
    "a ramp of an hour": tfs.SquareRoot(1.0, 0.25, 20.5),
    "inverse roots": tfs.InverseSqrt(1.0, 3),
    "cycles": Repeat(SAW, 6),
    "cycles of one step": Repeat(tfs.Linear(1.0, 0.25, 4), 1) * PerCycle(1 - 1e-9, 1),
    "giant cycles": Repeat(tfs.Linear(1.0, 0.25, 2**31 - 3), 2**31 - 3),
    "cycles of a fraction": Repeat(tfs.Linear(1.0, 0.25, 2.5), 2.5),
    "giant cycles of a fraction": Repeat(tfs.Linear(1.0, 0.25, 1e9 + 0.5), 1e9 + 0.5),
    "cycles that grow": Repeat(tfs.Linear(1.0, 0.25, 6), 6, 1.5),
    "powers": PerCycle(0.5, 2**29),
    "powers of a fraction": PerCycle(0.5, 2**28 + 0.5),
    "powers that grow": PerCycle(0.5, 7, 3),
    "a function": ScaleFunction(lambda cycle: 1 / (1 + cycle), 2**28),
    "cycles in cycles": Repeat(Join([SAW, Repeat(SAW, 4)], [6]), 18),
    "a later part": Join([tfs.Constant(7.0), Repeat(SAW, 6)], [2**30 + 10]),
    "an earlier part": Join([tfs.Constant(7.0), Repeat(SAW, 6)], [-11]),
    "noise": tfs.Noise(0.67, 3, seed=7),
    "noise in each step": tfs.Noise(0.5),
    "noise of a fraction": tfs.Noise(0.5, 2.5),
    "cycles that grow with all in them": Repeat(Join([SAW, Repeat(SAW, 4)], [6]), 9, 2),
    "stretched": Stretch(Repeat(SAW, 6) * PerCycle(0.5, 2**28), 2.5),
    "many": Join([tfs.Linear(i / 9, 1.0, 3) for i in range(10)], [*range(-9, 9, 2)]),
}
MOMENTS = [-0.25, -17.5, -(2**24) - 1, -(2**30) - 0.5, -(2**31), -3e9]


@pytest.mark.parametrize("name", PARTS)
def test_what_has_begun_before(name):
    part = PARTS[name]
    at = [0, 1, 2, 5, 17, 2**30, 2**30 + 1, *range(LAST - 24, LAST + 1)]
    for i, moment in enumerate(MOMENTS):
        joined = Join([tfs.Constant(9.0), part], [moment])
        expected = [exact(part, step - Fraction(moment)) for step in at]
        np.testing.assert_allclose(joined.values(at), expected, rtol=1e-8)
        steps = np.asarray(at)
        found = [keras.ops.convert_to_numpy(joined(steps))]
        if BACKEND != "torch" and i == 3:
            found.append(compiled(joined)(steps))
        for each in found:
            np.testing.assert_allclose(each, expected, rtol=3e-6)


@pytest.mark.parametrize("moment", [-1e19, -1e30, -1.7e308])
def test_what_began_before_all_integers(moment):
    joined = Join([tfs.Constant(9.0), Repeat(SAW, 6), SAW], [moment, 2**40])
    at = [0, 1, 5, 6, 10**9]
    expected = [exact(joined.schedules[1], step - Fraction(moment)) for step in at]
    assert joined.values(at) == pytest.approx(expected)
    assert keras.ops.convert_to_numpy(joined(np.asarray(at))) == pytest.approx(expected)
    assert joined.cycles(7).ended == math.floor((7 - Fraction(moment)) / 6)
    nested = Join([tfs.Constant(9.0), joined], [moment])
    assert float(nested.values([3])[0]) == SAW.end


def test_cycles_that_have_begun_before_end():
    for growth in (1, 1.5):
        joined = Join([tfs.Constant(9.0), Repeat(SAW, 6, growth)], [-10])
        inside = Join([joined, tfs.Constant(1.0)], [100])
        for schedule in (joined, inside, Join([SAW, joined], [-20])):
            began = 30 if schedule.boundaries == (-20,) else 10
            own = Repeat(SAW, 6, growth)
            for step in range(20):
                ended, next_end = own.cycles(step + began)
                assert schedule.cycles(step) == (ended, next_end - began)


def test_no_length_ends_before_step_0():
    joined = Join([tfs.Constant(9.0), SAW], [-20])
    assert joined.length == 0
    assert joined.values(9).tolist() == [SAW.end] * 9
    assert Join([tfs.Constant(9.0), SAW], [-2]).length == 4


def test_cycles_that_32_bits_cannot_tell_are_refused():
    # One ends and another begins while both are older than 2^31 steps.
    giant = Repeat(tfs.Linear(1.0, 0.25, 2**31 + 9), 2**31 + 9)
    joined = Join([tfs.Constant(9.0), giant], [-(2**30)])
    expected = [exact(giant, t + 2**30) for t in (0, 2**30 + 8, 2**30 + 9)]
    assert joined.values([0, 2**30 + 8, 2**30 + 9]) == pytest.approx(expected)
    if BACKEND == "tensorflow":
        assert float(joined(2**30 + 9)) == 1.0
        return
    with pytest.raises(ValueError, match=r"(?s)cannot be counted.*Give shorter cycles"):
        joined(3)
