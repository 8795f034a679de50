"""From the curve of a learning-rate range test to a learning rate. Plain NumPy.

Three steps: make the curve readable (`smooth`), ask whether it falls by more than
chance lets it (`suggest`), read a rate off it (`RULES`). Positions along the sweep
are counted in steps, so that noise is averaged alike in exponential and in linear
sweeps; slopes are taken in ln(rate).

Smith, "Cyclical Learning Rates for Training Neural Networks" (2015), section 3.3, has
the range test and the bounds of a cycle. Exponential moving averages are left out:
their lag moves the curve by half a decade of rates. How far training with each rule's
rate gets is measured in `benchmarks/suggestions.py`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FEWEST_POINTS = 5
SHARE_WON = 0.75  # of the descent, where the rule "descent" reads the rate
BELOW_MINIMUM = 1.0 / 3.0  # "slightly below the rate where the loss stops decreasing"
SHUFFLES = 399  # of the losses, to learn how far chance lets them fall
MAY_EXCEED = 4  # of the shuffles: a level of 5 in 400
RARE_RUN = 0.009  # chance of a run of falls; five of five points have 1/120

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], "float | None"]


class Bounds(NamedTuple):
    """The lowest and the highest rate of a cycle."""

    base_lr: float
    max_lr: float


@dataclass(frozen=True)
class Suggestion:
    """What a range test's curve says.

    Attributes:
        learning_rate: the rate of the rule asked for; None is a refusal.
        reason: one or two sentences: what was seen and, for a refusal, what to try.
        suggestions: the rate of every rule in `RULES`; all None in a refusal.
        bounds: of a cycle, after Smith 2015, section 3.3: the best rate is usually
            within a factor of two of the largest one that converges, so `max_lr` is
            half the rate at which the loss stops decreasing, and `base_lr` is a
            quarter of `max_lr`. None in a refusal.
    """

    learning_rate: float | None
    reason: str
    suggestions: dict[str, float | None]
    bounds: Bounds | None


def smooth(
    learning_rates: ArrayLike, losses: ArrayLike, *, width: float | None = None
) -> np.ndarray:
    """Smooth a curve without lag, bias at its ends, or regard for single spikes.

    Values further than three deviations (1.4826 median absolute ones) from the running
    median are drawn back to that distance. Then a straight
    line is fitted around each step i, with weights exp(-(j - i)^2 / 2 width^2), and
    read at i: a centred Gaussian mean that stays unbiased at both ends.

    Args:
        learning_rates: rates, shape (n,), positive and increasing.
        losses: batch losses, shape (n,). From the first non-finite value on nothing
            is used: training does not come back from it.
        width: of the weights, in steps; by default n/30, at least 1.

    Returns:
        Smoothed losses, shape (n,); NaN from the first non-finite loss on.

    Raises:
        TypeError: if an argument is not numeric.
        ValueError: if shapes differ, or rates are not positive and increasing.

    Example:
        >>> smooth([0.1, 0.2, 0.3, 0.4, 0.5], [5, 4, 3, 2, float("nan")]).round(6)
        array([ 5.,  4.,  3.,  2., nan])

    Reference: Fan and Gijbels, "Local Polynomial Modelling" (1996), section 3.2.
    """
    _, losses = _curve(learning_rates, losses)
    if width is None:
        width = _default_width(len(losses))
    elif not (np.isreal(width) and 0 < width < np.inf):
        raise ValueError(
            "Argument `width` must be a positive, finite number of steps, or None "
            f"for the default. Received: {width!r}"
        )
    finite = losses[: _first_non_finite(losses)]
    smoothed = np.full(len(losses), np.nan)
    smoothed[: len(finite)] = _local_line(_draw_back_spikes(finite), width)
    return smoothed


def descent(
    learning_rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray
) -> float | None:
    """The rate that wins three quarters of the descent, well before the minimum.

    With the smoothed curve L, its minimum at r_min, and the plateau P before it (the
    highest mean of the first values, a tenth of the sweep or more): the largest
    r <= r_min with L(r) = P - 3/4 (P - L(r_min)), interpolated in ln(r), or r_min / 3
    if that is lower. The last quarter lies where the ground is flat and noise decides,
    or where the loss explodes next; after a steep fall r_min / 3 keeps the distance.
    The steepest point, often far before, is too low a rate to train with.

    Example:
        >>> rates, losses = np.geomspace(1e-3, 1, 4), np.array([3.0, 1.4, 1.0, 5.0])
        >>> round(descent(rates, losses, losses), 4)
        0.0087
    """
    low = int(np.nanargmin(smoothed))
    plateau = _plateau(smoothed, low)
    level = plateau - SHARE_WON * (plateau - smoothed[low])
    above = np.flatnonzero(smoothed[: low + 1] > level)
    if not above.size or above[-1] == low:
        return None
    around = slice(above[-1], above[-1] + 2)
    logs = np.log(learning_rates[around])
    won = np.exp(np.interp(-level, -smoothed[around], logs))
    return float(min(won, learning_rates[low] * BELOW_MINIMUM))


def steepest(
    learning_rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray
) -> float | None:
    """The rate at which the smoothed loss falls fastest: argmin dL / d ln(r).

    Slopes are centred differences, from where the curve leaves its plateau for good
    to its minimum. A low, careful rate.
    """
    fall = _fall(smoothed)
    if fall.stop - fall.start < 2:
        return None
    slopes = np.gradient(smoothed[fall], np.log(learning_rates[fall]))
    return float(learning_rates[fall][int(np.argmin(slopes))])


def valley(
    learning_rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray
) -> float | None:
    """The middle of the longest decreasing subsequence, as fastai's rule of this name.

    The middle is that of its first and last steps. Looked for from where the curve
    leaves its plateau for good to its minimum: a plateau's wobble has such
    subsequences too.
    """
    fall = _fall(smoothed)
    chain = _longest_decreasing(smoothed[fall])
    if len(chain) < 2:
        return None
    return float(learning_rates[fall][(chain[0] + chain[-1]) // 2])


def minimum(
    learning_rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray
) -> float | None:
    """A third of the rate at which the smoothed loss stops decreasing.

    fastai takes a tenth; of the place of a lag-free minimum a third is enough.
    """
    low = int(np.nanargmin(smoothed))
    return float(learning_rates[low] * BELOW_MINIMUM) if low else None


RULES: dict[str, Rule] = {
    "descent": descent,
    "steepest": steepest,
    "valley": valley,
    "minimum": minimum,
}


def suggest(
    learning_rates: ArrayLike,
    losses: ArrayLike,
    *,
    rule: str = "descent",
    name: str = "loss",
    higher_is_better: bool = False,
) -> Suggestion:
    """Suggest a learning rate, or say why none can be read off the curve.

    The curve is cut at its first non-finite loss, and what rises above the noise of
    its beginning is lowered to it: how high a loss explodes says nothing about a good
    rate. Then the fall from the beginning to some later stretch,

        z = max over a < b of (mean R[0:a] - mean R[a:b]) / sqrt(1/a + 1/(b-a)),

    with R the ranks of the losses, is compared with that of the shuffled ranks: at
    most 4 of 399 shuffles may fall as far. An unbroken run of falls does as well where
    it is as rare. So plain noise of any distribution passes in less than 2 % of cases.
    This wants raw batch losses: averaged ones wander, and wandering looks like falling.

    Args:
        learning_rates: rates, shape (n,), positive and increasing.
        losses: raw batch losses, shape (n,), of any sign, NaN and infinities allowed.
        rule: a key of `RULES`.

    Returns:
        A `Suggestion`; its `learning_rate` is None for fewer than five finite losses,
        a flat curve, plain noise, and a loss that diverges at once or never descends.

    Raises:
        TypeError: if an argument is not numeric, or `rule` is not a string.
        ValueError: if shapes differ, rates are not positive and increasing, or the
            rule is unknown.

    Example:
        >>> rates = np.geomspace(1e-5, 10, 100)
        >>> losses = 2 / (1 + (rates / 1e-2) ** 2) + rates**2
        >>> suggestion = suggest(rates, losses)
        >>> round(suggestion.learning_rate, 3)
        0.018
        >>> suggest(rates, np.ones(100)).learning_rate is None
        True

    Reference: Smith 2015, section 3.3; issues 2 and 5 of this project.
    """
    if not isinstance(rule, str):
        raise TypeError(
            f"Argument `rule` must be a string, one of {sorted(RULES)}. "
            f"Received: {rule!r} of type {type(rule).__name__}"
        )
    if rule not in RULES:
        raise ValueError(
            f"Argument `rule` must be one of {sorted(RULES)}. Received: {rule!r}"
        )
    losses = np.asarray(losses, np.float64)
    rates, values = _curve(
        learning_rates, losses.mean(axis=0) if losses.ndim > 1 else losses
    )
    stop = _first_non_finite(values)
    refusal = _too_short(rates, values, stop)
    if refusal:
        return _refuse(refusal)

    finite = values[:stop]
    clipped = _draw_back_spikes(finite)
    first = clipped[: max(3, stop // 20)]
    ceiling = max(np.median(first) + 3.0 * _noise(finite), first.max())
    readable = np.minimum(finite, ceiling)
    before_explosion = np.flatnonzero(finite <= ceiling)[-1] + 1
    if not _falls(_ranks(readable[:before_explosion])):
        return _refuse(_why_no_descent(rates[:stop], finite))

    readable = np.minimum(clipped, ceiling)
    smoothed = _local_line(readable, _default_width(stop))
    found = {
        name: read(rates[:stop], readable, smoothed) for name, read in RULES.items()
    }
    if found[rule] is None:
        return _refuse(
            f'Rule "{rule}" finds no stretch of falling losses that ends in a minimum. '
            "Start the sweep at a lower rate."
        )
    return _accept(rule, found, rates, smoothed, stop)


def _accept(
    rule: str,
    found: dict[str, float | None],
    rates: np.ndarray,
    smoothed: np.ndarray,
    stop: int,
) -> Suggestion:
    """The suggestion, with bounds and what was seen."""
    low = int(np.argmin(smoothed))
    reason = (
        f'Rule "{rule}" suggests {found[rule]:.2g}: the loss fell from '
        f"{_plateau(smoothed, low):.3g} to {smoothed[low]:.3g}, at rate "
        f"{rates[low]:.2g}."
    )
    if low == len(rates) - 1:
        reason += (
            f" It was still falling at the end of the sweep, {rates[-1]:.2g}: higher "
            "rates may train faster; raise `max_lr` to see."
        )
    elif stop < len(rates):
        reason += f" It was not finite at rate {rates[stop]:.2g}."
    max_lr = float(rates[low] / 2.0)
    return Suggestion(found[rule], reason, found, Bounds(max_lr / 4.0, max_lr))


def _refuse(reason: str) -> Suggestion:
    """No rate, and why."""
    return Suggestion(None, reason, dict.fromkeys(RULES), None)


def _too_short(rates: np.ndarray, losses: np.ndarray, stop: int) -> str | None:
    """Why there are too few finite losses to read, or None if there are enough."""
    if stop >= FEWEST_POINTS:
        return None
    if stop == len(losses):
        return (
            f"Too few points: {stop}; at least {FEWEST_POINTS} are needed, and about "
            "100 are good. Run the sweep with more `steps`."
        )
    if not np.isfinite(losses).any():
        return (
            f"All losses are non-finite, from rate {rates[0]:.2g} on. Look for NaN in "
            "the data, the weights or the loss; if they are sound, lower `min_lr`."
        )
    return (
        f"The loss diverges at once: it is not finite at rate {rates[stop]:.2g}, step "
        f"{stop}. Lower `min_lr`, to {rates[0] / 1e3:.1g} or less."
    )


def _why_no_descent(rates: np.ndarray, losses: np.ndarray) -> str:
    """Tell flat, rising and noisy curves apart."""
    level, noise = float(np.median(losses)), _noise(losses)
    if np.ptp(losses) <= 1e-6 * np.abs(losses).max():  # the last digits of a float32
        return (
            f"The curve is flat: every loss is {level:.4g}, up to rate {rates[-1]:.2g}."
            " Check that the model has trainable variables and that the loss depends "
            "on them, or raise `max_lr`."
        )
    if _falls(_ranks(-losses)):
        first = losses[: max(3, len(losses) // 20)]
        start, usual = float(np.median(first)), first.max() + np.ptp(first)
        low = np.flatnonzero(_draw_back_spikes(losses) <= usual)
        where = min(low[-1] + 1, len(losses) - 1) if low.size else 0
        if where <= len(losses) // 5:
            return (
                f"The loss diverges at once: from {start:.3g} it rises from rate "
                f"{rates[where]:.2g} on. Lower `min_lr`, to {rates[0] / 1e3:.1g} or "
                "less."
            )
        return (
            f"The loss never descends: it stays at about {start:.3g} and rises from "
            f"rate {rates[where]:.2g} on. Take more `steps`, so that each rate has "
            "time to act, and check the labels and the loss."
        )
    return (
        f"The curve is noise: over all rates, {rates[0]:.2g} to {rates[-1]:.2g}, the "
        f"loss keeps around {level:.3g} with a deviation of {noise:.2g} from batch to "
        "batch, and no fall stands out. Take larger batches, more `steps` or more "
        "`repeats`, or raise `max_lr`."
    )


def _curve(
    learning_rates: ArrayLike, losses: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 arrays of one length, checked."""
    arrays = {}
    for name, value in {"learning_rates": learning_rates, "losses": losses}.items():
        try:
            arrays[name] = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"Argument `{name}` must be a one-dimensional sequence of numbers. "
                f"Received: {value!r}"
            ) from error
        if arrays[name].ndim != 1:
            raise ValueError(
                f"Argument `{name}` must be one-dimensional, one value a step. "
                f"Received: an array of shape {arrays[name].shape}"
            )
    rates, values = arrays["learning_rates"], arrays["losses"]
    if len(rates) != len(values):
        raise ValueError(
            "Argument `losses` must have one value for each of `learning_rates`. "
            f"Received: {len(values)} losses and {len(rates)} learning rates"
        )
    wrong = ~(np.isfinite(rates) & (rates > 0))
    wrong[1:] |= ~(np.diff(rates) > 0)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            "Argument `learning_rates` must be positive, finite and increasing; sort "
            "both arguments by rate and drop what repeats. Received: "
            f"{rates[max(i - 1, 0) : i + 1].tolist()} up to position {i}"
        )
    return rates, values


def _first_non_finite(losses: np.ndarray) -> int:
    """The position of the first NaN or infinity, or the length."""
    bad = ~np.isfinite(losses)
    return int(np.argmax(bad)) if bad.any() else len(losses)


def _default_width(n: int) -> float:
    """Steps: 3.3 of a hundred, about a quarter of a decade in the default sweep."""
    return max(1.0, n / 30.0)


def _draw_back_spikes(losses: np.ndarray) -> np.ndarray:
    """Clip to the running median, plus or minus three robust deviations from it."""
    half = int(np.clip(len(losses) // 20, 2, 25))

    def running_median(values: np.ndarray) -> np.ndarray:
        steps = range(len(values))
        near = (values[max(0, i - half) : i + half + 1] for i in steps)
        return np.array([np.median(window) for window in near])

    middle = running_median(losses)
    reach = 3.0 * 1.4826 * running_median(np.abs(losses - middle))
    return np.clip(losses, middle - reach, middle + reach)


def _local_line(losses: np.ndarray, width: float) -> np.ndarray:
    """Local linear regression on the step with Gaussian weights."""
    if len(losses) < 2:
        return losses.copy()
    reach = min(int(np.ceil(5.0 * width)), len(losses) - 1)
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (offset / width) ** 2)

    def sums(values: np.ndarray, power: int) -> np.ndarray:
        return np.correlate(np.pad(values, reach), weight * offset**power, "valid")

    ones, centred = np.ones(len(losses)), losses - losses[0]
    s0, s1, s2 = (sums(ones, power) for power in range(3))
    t0, t1 = sums(centred, 0), sums(centred, 1)
    return losses[0] + (s2 * t0 - s1 * t1) / (s0 * s2 - s1 * s1)


def _noise(losses: np.ndarray) -> float:
    """The deviation from batch to batch, from first differences, robustly."""
    steps = np.diff(losses)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2.0))


def _plateau(smoothed: np.ndarray, low: int) -> float:
    """The highest mean of the beginning, of a tenth of the sweep or more.

    Not the highest value: that one is the noise's, and makes any descent start early.
    """
    means = np.cumsum(smoothed[: low + 1]) / np.arange(1, low + 2)
    return float(means[min(max(len(smoothed) // 10, 1) - 1, low) :].max())


def _fall(smoothed: np.ndarray) -> slice:
    """From the last step on the plateau to the minimum."""
    low = int(np.nanargmin(smoothed))
    high = np.flatnonzero(smoothed[: low + 1] >= _plateau(smoothed, low))
    return slice(int(high[-1]) if high.size else 0, low + 1)


def _ranks(losses: np.ndarray) -> np.ndarray:
    """0 for the lowest loss; equal losses share a rank. Spikes lose their weight."""
    return np.unique(losses, return_inverse=True)[1].astype(np.float64)


def _falls(ranks: np.ndarray) -> bool:
    """Whether the ranks fall further than shuffling them explains."""
    if _run_is_rare(ranks):
        return True
    observed, shuffled = _largest_fall(ranks), np.random.default_rng(0)
    exceeding = 0
    for _ in range(SHUFFLES):
        exceeding += _largest_fall(shuffled.permutation(ranks)) >= observed
        if exceeding > MAY_EXCEED:
            return False
    return True


def _run_is_rare(ranks: np.ndarray) -> bool:
    """Whether so many falls in a row are rare: (n - k + 1) / k! bounds their chance.

    For short, clean curves, of which there are too few shuffles.
    """
    ends = np.flatnonzero(np.r_[True, np.diff(ranks) >= 0, True])
    k = int(np.diff(ends).max())
    return (len(ranks) - k + 1) / math.factorial(min(k, 20)) < RARE_RUN


def _largest_fall(ranks: np.ndarray) -> float:
    """The z of `suggest`, over at most 50 places for a and b."""
    n = len(ranks)
    places = np.unique(np.linspace(2, n, min(n - 1, 50)).astype(int))
    sums = np.cumsum(ranks)[places - 1]
    a, length = places[:, None], places[None, :] - places[:, None]
    b_after_a = length >= 2
    length = np.where(b_after_a, length, 1)
    fall = sums[:, None] / a - (sums[None, :] - sums[:, None]) / length
    z = fall / np.sqrt(1.0 / a + 1.0 / length)
    return float(np.max(z, where=b_after_a, initial=-np.inf))


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
