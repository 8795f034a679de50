"""Where losses have descended, and whether by more than chance lets them.

With R the ranks of the losses at the steps of a sweep,

    z(a, b) = (mean R[0:a] - mean R[a:b]) / sqrt(1/a + 1/(b - a))

is large where the losses before step a are higher than those from a to b: before a
they are on their plateau, from b on they have come back to it, or explode. Ranks, and
means over many steps, so that one batch counts for little and one spike for no more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tfschedules.suggestions.curves import Curve

SHORTEST = 0.05  # of the sweep: a plateau, and a descent
SHUFFLES = 399  # of the losses, to learn how far chance lets them fall
MAY_EXCEED = 1  # of the shuffles: a level of 2 in 400
BEYOND_CHANCE = 5.5  # a z that need not be compared with shuffles
RARE_RUN = 0.009  # chance of a run of falls; five of five points have 1/120
BELOW_EXPLOSION = 250.0, 2.5  # the two decades of rates where a descent is to be
PLANNED = 1.645  # the z of those two decades: a level of 5 in 100


class Descent(NamedTuple):
    """The steps from `begin` up to, and without, `end`, with the largest z."""

    begin: int
    end: int
    z: float


def find(ranks: np.ndarray, most_places: int = 100) -> Descent:
    """The stretch with the largest z(a, b), among at most so many places for a and b.

    Example:
        >>> find(np.array([5.0, 5, 5, 1, 1, 1, 9, 9]))[:2]
        (3, 6)
    """
    n = len(ranks)
    shortest = min(max(2, round(SHORTEST * n)), n // 2)
    places = np.unique(
        np.linspace(shortest, n, min(n - shortest + 1, most_places)).astype(int)
    )
    sums = np.cumsum(ranks)[places - 1]
    a, length = places[:, None], places[None, :] - places[:, None]
    long_enough = length >= shortest
    length = np.where(long_enough, length, 1)
    fall = sums[:, None] / a - (sums[None, :] - sums[:, None]) / length
    z = np.where(long_enough, fall / np.sqrt(1.0 / a + 1.0 / length), -np.inf)
    i, j = np.unravel_index(int(np.argmax(z)), z.shape)
    return Descent(int(places[i]), int(places[j]), float(z[i, j]))


def stands_out(curve: Curve) -> bool:
    """Whether chance would rarely let the losses fall as far as they do.

    At most 1 of 399 shuffles of the ranks have a z as large: so plain noise of any
    distribution passes in some 1 % of cases. An unbroken run of falls does as well
    where it is as rare. Where the losses explode, a descent is expected at rates just
    below: for one stretch that is chosen beforehand z need not be as large as for the
    largest of all.
    """
    if _run_is_rare(curve.losses) or more_than_chance(curve.ranks):
        return True
    if not curve.exploded:
        return False
    m = len(curve.ranks)
    rates = curve.learning_rates[:m]
    far, near = (curve.learning_rates[m - 1] / factor for factor in BELOW_EXPLOSION)
    expected, before = (far <= rates) & (rates < near), rates < far
    if min(expected.sum(), before.sum()) < 5:
        return False
    fall = curve.ranks[before].mean() - curve.ranks[expected].mean()
    spread = curve.ranks.std() * math.sqrt(1 / expected.sum() + 1 / before.sum())
    return bool(fall > PLANNED * spread)


def more_than_chance(ranks: np.ndarray) -> bool:
    """Whether the ranks fall further than shuffling them explains."""
    deviation = float(ranks.std())
    if deviation == 0.0:
        return False
    standard = ranks / deviation
    observed, shuffled = find(standard, 50).z, np.random.default_rng(0)
    if observed > BEYOND_CHANCE:
        return True
    exceeding = 0
    for _ in range(SHUFFLES):
        exceeding += find(shuffled.permutation(standard), 50).z >= observed
        if exceeding > MAY_EXCEED:
            return False
    return True


def _run_is_rare(losses: np.ndarray) -> bool:
    """Whether so many falls in a row are rare: (n - k + 1) / k! bounds their chance.

    For short, clean curves, of which there are too few shuffles.
    """
    ends = np.flatnonzero(np.r_[True, np.diff(losses) >= 0, True])
    k = int(np.diff(ends).max())
    return (len(losses) - k + 1) / math.factorial(min(k, 20)) < RARE_RUN
