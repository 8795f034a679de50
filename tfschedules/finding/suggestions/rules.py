"""Rules that read a rate off a curve that descends, and the bounds of a cycle."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfschedules.finding.suggestions.curves import Curve
from tfschedules.finding.suggestions.descents import Descent, weigh

BELOW_MINIMUM = 1.0 / 3.0  # "slightly below the rate where the loss stops decreasing"
ABOVE_MIDDLE = 2.0  # from the suggestion to the highest rate of a cycle, at most
CYCLE = 4.0  # from the lowest rate of a cycle to the highest

Rule = Callable[[Curve, Descent], "float | None"]


class Bounds(NamedTuple):
    """The lowest and the highest rate of a cycle."""

    base_lr: float
    max_lr: float


def descent(curve: Curve, found: Descent) -> float:
    """The middle of the rates at which the loss has descended: sqrt(r_a r_b).

    r_a is the rate where the loss leaves its plateau, r_b the last one before it is
    back there, or explodes. In ln(rate) their geometric mean is the middle between a
    rate too low to learn with and one too high. The steepest point, often near r_a, is
    too low; the minimum, often near r_b, is too high, and noise moves both. Which a and
    b it was is not certain: the middle is the mean over all, as `descents.weigh` weighs
    them, by z and by how far below an explosion they lie.

    Example:
        >>> from tfschedules.finding.suggestions import suggest
        >>> rates = np.geomspace(1e-4, 1, 41)
        >>> losses = np.where((rates > 0.9e-3) & (rates < 1.1e-1), 1.0, 3.0)
        >>> round(suggest(rates, losses, rule="descent").learning_rate, 2)  # .001 to .1
        0.01
    """
    return math.exp(weigh(curve)[1])


def steepest(curve: Curve, found: Descent) -> float | None:
    """The rate at which the smoothed loss falls fastest: argmin dL / d ln(r).

    Slopes are centred differences, from where the curve leaves its plateau for good
    to its minimum. A low, careful rate.
    """
    fall = _fall(curve, found)
    if fall.stop - fall.start < 2:
        return None
    rates = curve.learning_rates[fall]
    slopes = np.gradient(curve.smoothed[fall], np.log(rates))
    return float(rates[int(np.argmin(slopes))])


def valley(curve: Curve, found: Descent) -> float | None:
    """The middle of the longest decreasing subsequence, as fastai's rule of this name.

    The middle is that of its first and last steps. Looked for from where the curve
    leaves its plateau for good to its minimum: a plateau's wobble has such
    subsequences too.
    """
    fall = _fall(curve, found)
    chain = _longest_decreasing(curve.smoothed[fall])
    if len(chain) < 2:
        return None
    return float(curve.learning_rates[fall][(chain[0] + chain[-1]) // 2])


def minimum(curve: Curve, found: Descent) -> float:
    """A third of the rate at which the smoothed loss stops decreasing.

    fastai takes a tenth; of the place of a lag-free minimum a third is enough.
    """
    return float(curve.learning_rates[_lowest(curve, found)] * BELOW_MINIMUM)


RULES: dict[str, Rule] = {
    "descent": descent,
    "steepest": steepest,
    "valley": valley,
    "minimum": minimum,
}


def bounds(curve: Curve, found: Descent) -> Bounds:
    """The bounds of a cycle around the rate of `descent`.

    `max_lr` is twice that rate, or the rate above it at which the smoothed loss is
    lowest, if that is less; `base_lr` is a quarter of `max_lr`, or the sweep's first
    rate, if that is more. Always base_lr < rate < max_lr, all of them of the sweep.
    Smith 2015, section 3.3: the best rate is usually within a factor of two of the
    largest one that converges, where the curve slows, gets ragged or falls, and
    base_lr is a third or a quarter of max_lr.
    """
    rates, middle = curve.learning_rates, descent(curve, found)
    above = np.flatnonzero(rates > middle)
    above = above[: max(1, int(np.sum(above < found.end)))]
    lowest = rates[above[int(np.argmin(curve.smoothed[above]))]]
    highest = float(min(lowest, ABOVE_MIDDLE * middle))
    return Bounds(max(highest / CYCLE, float(rates[0])), highest)


def _lowest(curve: Curve, found: Descent) -> int:
    """Where the smoothed loss is lowest, in its descent."""
    begin, end = found.begin, found.end
    return begin + int(np.argmin(curve.smoothed[begin:end]))


def _fall(curve: Curve, found: Descent) -> slice:
    """From the last step on the plateau to the minimum."""
    lowest = _lowest(curve, found)
    high = np.flatnonzero(curve.smoothed[: lowest + 1] >= curve.plateau)
    return slice(int(high[-1]) if high.size else 0, lowest + 1)


def _longest_decreasing(values: np.ndarray) -> list[int]:
    """Positions of a longest strictly decreasing subsequence, by patience sorting."""
    tops: list[float] = []  # negated last value of the best chain of each length
    ends: list[int] = []
    before = [-1] * len(values)
    for i, value in enumerate(values):
        length = bisect.bisect_left(tops, -value)
        before[i] = ends[length - 1] if length else -1
        tops[length : length + 1] = [-value]
        ends[length : length + 1] = [i]
    chain = [ends[-1]]
    while before[chain[-1]] >= 0:
        chain.append(before[chain[-1]])
    return chain[::-1]
