"""Cycles shorter than a step: there are more of them than the backend's integers.

The oracle is `registry.exact`, which counts with Python's.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import BACKEND
from registry import compiled, exact

import tfschedules as tfs
from tfschedules.schedules import InverseCycle, Join, PerCycle, Repeat, Schedule

LAST = 2**62 if BACKEND == "tensorflow" else 2**31 - 1
SHORT: dict[str, Schedule] = {
    "inverse cycles": InverseCycle(0.5, 1).stretch(0.3),
    "of a millionth": InverseCycle(0.5, 1).stretch(1e-6),
    "powers": PerCycle(1 - 2e-10, 1).stretch(0.3),
    "noise": tfs.Noise(0.5).stretch(0.3),
    "noise of a millionth": tfs.Noise(0.5, seed=3).stretch(1e-6),
    "noise, normal": tfs.Noise(0.5, 2, 7, "normal").stretch(0.1234),
    "noise that began before": Join(
        [tfs.Constant(9.0), tfs.Noise(0.5)], [-3e9]
    ).stretch(0.7),
    "cycles": Repeat(tfs.Linear(1.0, 0.25, 3), 3).stretch(0.07),
}


@pytest.mark.parametrize("name", SHORT)
def test_short_cycles(name: str) -> None:
    schedule = SHORT[name]
    at = [0, 1, 2, 3, 10**6, 2**29, 2**30, 2**31 - 2, 2**31 - 1, LAST - 1, LAST]
    expected = [float(exact(schedule, step)) for step in at]
    np.testing.assert_allclose(schedule.values(at), expected, rtol=1e-8)
    steps = np.asarray(at, np.int64)
    found = [keras.ops.convert_to_numpy(schedule(steps))]
    if BACKEND != "torch":
        found.append(compiled(schedule)(steps))
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=3e-6)


def test_cycles_are_counted_past_64_bits() -> None:
    short = Repeat(tfs.Linear(1.0, 0.25, 1), 1).stretch(1e-6)
    assert short.cycles(2**62) == (2**62 * 10**6, 2**62 + 1)


@pytest.mark.parametrize("steps", [5e-324, 1e-320, 1e-30, 1e-9, 0.5])
def test_a_ramp_in_growing_cycles_ends_after_the_step_it_begins_at(
    steps: float,
) -> None:
    """Also one that is shorter than the digits of the time at which it begins."""
    schedule = Repeat(tfs.Linear(1.0, 0.5, steps), 1, 1.1)
    at = np.arange(12)
    expected = [float(exact(schedule, int(step))) for step in at]
    assert expected[:2] == [1.0, 1.0]
    np.testing.assert_allclose(schedule.values(at), expected, rtol=1e-12)
    found = keras.ops.convert_to_numpy(schedule(at))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [0.5, 1, 2, 5])
def test_a_cycle_that_begins_just_before_the_integers_end(steps: float) -> None:
    """Of JAX: what is clipped there is not over."""
    schedule = Repeat(tfs.Linear(1.0, 0.5, steps), 2.0, 2)
    at = np.array([2**31 - 4, 2**31 - 3, 2**31 - 2, 2**31 - 1])
    expected = [float(exact(schedule, int(step))) for step in at]
    found = keras.ops.convert_to_numpy(schedule(at))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
