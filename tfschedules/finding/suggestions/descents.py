"""Where losses have descended, and whether by more than chance lets them.

With R the ranks of the losses at the steps of a sweep,

    z(a, b) = (mean R[0:a] - mean R[a:b]) / sqrt(1/a + 1/(b - a))

is large where the losses before step a are higher than those from a to b: before a
they are on their plateau, from b on they have come back to it, or explode. Ranks, and
means over many steps, so that one batch counts for little and one spike for no more.

`weigh` makes a rate of z, `stands_out` and `may_hide` say whether there may be one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tfschedules.finding.suggestions.curves import Curve, noise

SHORTEST = 0.05  # of the sweep: a plateau, and a descent
SHUFFLES = 399  # of the losses, to learn how far chance lets them fall
MAY_EXCEED = 1  # of the shuffles: a level of 2 in 400
BEYOND_CHANCE = 5.5  # a z that need not be compared with shuffles
RARE_RUN = 0.009  # chance of a run of falls; five of five points have 1/120
MIDDLE_BELOW_EXPLOSION = 30.0  # times: where the middle of a descent is expected,
SPREAD = 1.0  # with this deviation in ln(rate)
LOST = 0.25  # of the fall: where losses that do not explode have turned
BELOW_EXPLOSION = 250.0, 2.5  # the two decades of rates where a descent is to be
PLANNED = 1.645  # the z of those two decades: a level of 5 in 100
RISEN = -2.33  # their z where losses have risen: a level of 1 in 100
NOISY = 0.1  # of the losses: a deviation in which a descent may hide


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
    places, z = statistics(ranks, most_places)
    i, j = np.unravel_index(int(np.argmax(z)), z.shape)
    return Descent(int(places[i]), int(places[j]), float(z[i, j]))


def statistics(ranks: np.ndarray, most_places: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (k,) for a and b, and z(a, b), (..., k, k), of ranks (..., n).

    z is -inf where a plateau or a descent would be too short.
    """
    n = ranks.shape[-1]
    shortest = min(max(2, round(SHORTEST * n)), n // 2)
    places = np.unique(
        np.linspace(shortest, n, min(n - shortest + 1, most_places)).astype(int)
    )
    sums = np.cumsum(ranks, axis=-1)[..., places - 1]
    a, length = places[:, None], places[None, :] - places[:, None]
    barred = np.where(length >= shortest, 0.0, -np.inf)
    length = np.maximum(length, 1)
    # With s = 1/a + 1/(b - a): z = (sum R[0:a] s - sum R[0:b] / (b - a)) / sqrt(s).
    root = np.sqrt(1.0 / a + 1.0 / length)
    z = sums[..., :, None] * root
    z -= sums[..., None, :] * (1.0 / (length * root))
    return places, z + barred


def weigh(curve: Curve) -> tuple[Descent, float]:
    """The most likely descent, and the mean of the middles of all: ln sqrt(r_a r_b).

    A descent from a to b weighs

        w(a, b) = exp(z^2 / 2) exp(-ln(30 sqrt(r_a r_b) / r_e)^2 / 2),

    z in deviations of the ranks, and r_e the last rate before the losses explode, or
    have lost a quarter of their fall again; where they do neither, the second factor is
    1. So noise makes many descents alike, and their mean lies near r_e / 30; where one
    stands out, it has all of the weight.
    """
    n = _turn(curve)
    ranks = curve.ranks[:n]
    places, z = statistics(curve.drawn_ranks[:n], 100)
    log_rates = np.log(curve.learning_rates[: len(ranks)])
    begins = log_rates[np.minimum(places, len(log_rates) - 1)]
    middles = (begins[:, None] + log_rates[places - 1][None, :]) / 2.0
    deviation = float(ranks.std()) or 1.0
    log_weights = np.where(np.isfinite(z), (np.maximum(z, 0) / deviation) ** 2, z) / 2.0
    if n:
        expected = log_rates[-1] - math.log(MIDDLE_BELOW_EXPLOSION)
        log_weights = log_weights - ((middles - expected) / SPREAD) ** 2 / 2.0
    i, j = np.unravel_index(int(np.argmax(log_weights)), z.shape)
    weights = np.exp(log_weights - log_weights[i, j])
    found = Descent(int(places[i]), int(places[j]), float(z[i, j]))
    return found, float((weights * middles).sum() / weights.sum())


def _turn(curve: Curve) -> int | None:
    """How many steps there are before the losses explode, or lose their fall again."""
    if curve.exploded:
        return len(curve.ranks)
    first = max(3, len(curve.ranks) // 10)  # of a plateau that a fall can follow
    lowest = first + int(np.argmin(curve.smoothed[first:]))
    least = curve.smoothed[lowest]
    lost = curve.smoothed[lowest:] > least + LOST * (curve.plateau - least)
    return min(lowest + int(np.argmax(lost)), len(curve.ranks)) if lost.any() else None


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
    return _below_explosion(curve) > PLANNED


def may_hide(curve: Curve) -> bool:
    """Whether noise could hide a descent below an explosion.

    Where batches' losses deviate by more than a tenth of themselves, a sweep cannot
    show a fall by a tenth; then that none is seen does not mean that there is none. The
    losses must not have risen before they explode, at a level of 1 %.
    """
    losses = curve.losses[: len(curve.ranks)]
    noisy = noise(losses) > NOISY * abs(float(np.median(losses)))
    return curve.clearly and noisy and _below_explosion(curve) > RISEN


def _below_explosion(curve: Curve) -> float:
    """The z of the two decades below an explosion; -inf without one or the other."""
    if not curve.exploded:
        return -math.inf
    m = len(curve.ranks)
    rates = curve.learning_rates[:m]
    far, near = (curve.learning_rates[m - 1] / factor for factor in BELOW_EXPLOSION)
    expected, before = (far <= rates) & (rates < near), rates < far
    if min(expected.sum(), before.sum()) < 5:
        return -math.inf
    fall = curve.ranks[before].mean() - curve.ranks[expected].mean()
    spread = curve.ranks.std() * math.sqrt(1 / expected.sum() + 1 / before.sum())
    return float(fall / spread) if spread else 0.0


def more_than_chance(ranks: np.ndarray) -> bool:
    """Whether the ranks fall further than shuffling them explains."""
    deviation = float(ranks.std())
    if deviation == 0.0:
        return False
    standard = ranks / deviation
    observed, shuffled = find(standard, 50).z, np.random.default_rng(0)
    if observed > BEYOND_CHANCE:
        return True
    exceeding, some = 0, np.tile(standard, (SHUFFLES // 7, 1))
    for _ in range(7):
        _, z = statistics(shuffled.permuted(some, axis=1), 50)
        exceeding += int((z.max(axis=(1, 2)) >= observed).sum())
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
