"""Raw losses made readable: checked, cut, without spikes, smoothed, ranked.

Positions along the sweep are counted in steps, so that noise is averaged alike in
exponential and in linear sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tfschedules._support import checks

LARGEST = 1e250  # of the losses that are read; float32 ends at 3e38
TIE = 0.1  # of the descent: what differs by less is equal, where there is no noise


@dataclass(frozen=True)
class Curve:
    """What the losses of one or several sweeps say, as far as they can be read.

    Attributes:
        learning_rates: rates, `(n,)`, up to where more than half of the sweeps are
            not finite any more.
        losses: raw, the median of the sweeps, `(n,)`.
        smoothed: losses without noise and spikes, `(n,)`; how high they explode is
            left out.
        ranks: of the raw losses among those of their sweep, from 0 to 1, averaged over
            sweeps, `(m,)`; only up to where the losses explode, m <= n.
        drawn_ranks: the same of losses without spikes. Not for a test: noise that has
            been clipped to its neighbours is no noise any more.
        exploded: whether they do: the last is the highest, or by their median the last
            three are high, or the next is not finite.
        clearly: whether the last three are, by their median, above all of the first
            half, or the next is not finite: in noise that is rarer.
        plateau: the smoothed loss of the beginning.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    ranks: np.ndarray
    drawn_ranks: np.ndarray
    exploded: bool
    clearly: bool
    plateau: float


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
    _, losses = checked(learning_rates, losses, most_dimensions=1)
    if width is None:
        width = _default_width(len(losses))
    elif not (np.isreal(width) and 0 < width < np.inf):
        raise ValueError(
            "Argument `width` must be a positive, finite number of steps, or None "
            f"for the default. Received: {width!r}"
        )
    finite = losses[: first_non_finite(losses)]
    smoothed = np.full(len(losses), np.nan)
    smoothed[: len(finite)] = _local_line(draw_back_spikes(finite), width)
    return smoothed


def checked(
    learning_rates: ArrayLike, losses: ArrayLike, most_dimensions: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Rates (n,) and losses (n,) or (repeats, n), as float64."""
    arrays = {}
    for name, value in {"learning_rates": learning_rates, "losses": losses}.items():
        arrays[name] = _numbers(name, value)
        shape = arrays[name].shape
        if len(shape) == 1:
            continue
        if name == "learning_rates" or most_dimensions == 1:
            raise ValueError(
                f"Argument `{name}` must be one-dimensional, one value a step. "
                f"Received: an array of shape {shape}"
            )
        if len(shape) != 2 or not shape[0]:
            raise ValueError(
                "Argument `losses` must have shape (steps,), or (repeats, steps) with "
                f"a row for each sweep. Received: an array of shape {shape}"
            )
    rates, values = arrays["learning_rates"], arrays["losses"]
    if len(rates) != values.shape[-1]:
        raise ValueError(
            "Argument `losses` must have one value for each of `learning_rates`. "
            f"Received: {values.shape[-1]} losses and {len(rates)} learning rates"
        )
    wrong = ~(np.isfinite(rates) & (rates > 0))
    wrong[1:] |= ~(rates[1:] > rates[:-1])
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            "Argument `learning_rates` must be positive, finite and increasing; sort "
            "both arguments by rate and drop what repeats. Received: "
            f"{rates[max(i - 1, 0) : i + 1].tolist()} up to position {i}"
        )
    return rates, values


def _numbers(name: str, value: ArrayLike) -> np.ndarray:
    """What is given as float64, or why it is no array of numbers."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # fractions, tensors, lists of several lengths
            array = array.astype(np.float64)
        fits = array.dtype.kind in "fiu" and not np.ma.is_masked(value)
    except Exception:  # whatever is raised where it makes itself an array
        fits = False
    if not fits:
        raise TypeError(
            f"Argument `{name}` must be a sequence of numbers, one a step, without a "
            f"mask. Received: {name}={checks.shown(value)} "
            f"(of type {type(value).__name__})"
        )
    return array.astype(np.float64)


def first_non_finite(losses: np.ndarray) -> int:
    """The position of the first NaN or infinity, or the length.

    What is `LARGEST` or more is as good as infinite: its sums would be.
    """
    bad = ~(np.abs(losses) < LARGEST)
    return int(np.argmax(bad)) if bad.any() else len(losses)


def alive(sweeps: np.ndarray) -> np.ndarray:
    """Sweeps (repeats, n) while more than half are finite; a dead one is infinite."""
    ends = np.array([first_non_finite(sweep) for sweep in sweeps])
    steps = np.arange(sweeps.shape[1])
    n = int((2 * (steps < ends[:, None]).sum(axis=0) > len(sweeps)).sum())
    return np.where(steps[:n] < ends[:, None], sweeps[:, :n], np.inf)


def read(learning_rates: np.ndarray, sweeps: np.ndarray) -> Curve:
    """Make a curve of `alive` sweeps, shape (repeats, n).

    What rises above the noise of the beginning is lowered to it: how high a loss
    explodes says nothing about a good rate.
    """
    n = sweeps.shape[1]
    middle = np.median(sweeps, axis=0)
    beginning = middle[: max(3, n // 20)]
    high = np.median(beginning) + 3.0 * noise(middle)
    ceiling = max(high, beginning.max())
    m = int(np.flatnonzero(middle <= ceiling)[-1]) + 1
    drawn = np.array([draw_back_spikes(sweep) for sweep in sweeps])
    smoothed = np.minimum(drawn, ceiling).mean(axis=0)
    smoothed = _local_line(smoothed, _default_width(n))
    lowest = int(np.argmin(smoothed))
    plateau = _plateau(smoothed, lowest)
    tie = TIE * (plateau - smoothed[lowest])

    def mean_ranks(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # infinite is the highest rank, too
            even = np.round((values - plateau) / tie) if tie > 0 else values
        return np.nanmean([_shares(sweep) for sweep in even[:, :m]], axis=0)

    last = float(np.median(middle[-3:]))
    died = n < len(learning_rates)
    at_once = middle[-1] == middle.max() > high
    return Curve(
        learning_rates=learning_rates[:n],
        losses=middle,
        smoothed=smoothed,
        ranks=mean_ranks(sweeps),
        drawn_ranks=mean_ranks(drawn),
        exploded=bool(died or last > high or at_once),
        clearly=bool(died or (m < n and last > middle[: n // 2].max())),
        plateau=plateau,
    )


def ranks(losses: np.ndarray) -> np.ndarray:
    """0 for the lowest loss; equal losses have the mean of their ranks."""
    _, which, counts = np.unique(losses, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2.0)[which]


def _shares(losses: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1 of the finite ones; NaN for the others."""
    finite = np.isfinite(losses)
    shares = np.full(len(losses), np.nan)
    shares[finite] = (ranks(losses[finite]) + 0.5) / finite.sum()
    return shares


def noise(losses: np.ndarray) -> float:
    """The deviation from batch to batch, from first differences, robustly."""
    if len(losses) < 2:
        return 0.0
    steps = np.diff(losses)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2.0))


def draw_back_spikes(losses: np.ndarray) -> np.ndarray:
    """Clip to the running median, plus or minus three robust deviations from it."""
    half = int(np.clip(len(losses) // 20, 2, 25))

    def running_median(values: np.ndarray) -> np.ndarray:
        n, width = len(values), 2 * half + 1
        inner = range(half, n - half)  # the others have shorter windows
        medians = np.empty(n)
        if inner:
            windows = np.lib.stride_tricks.sliding_window_view(values, width)
            medians[half : n - half] = np.median(windows, axis=1)
        for i in sorted(set(range(n)) - set(inner)):
            medians[i] = np.median(values[max(0, i - half) : i + half + 1])
        return medians

    n = first_non_finite(losses)
    finite = losses[:n]
    middle = running_median(finite)
    reach = 3.0 * 1.4826 * running_median(np.abs(finite - middle))
    return np.r_[np.clip(finite, middle - reach, middle + reach), losses[n:]]


def _default_width(n: int) -> float:
    """Steps: 3.3 of a hundred, about a quarter of a decade in the default sweep."""
    return max(1.0, n / 30.0)


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


def _plateau(smoothed: np.ndarray, lowest: int) -> float:
    """The highest mean of the beginning, of a tenth of the sweep or more.

    Not the highest value: that one is the noise's, and makes any descent start early.
    """
    means = np.cumsum(smoothed[: lowest + 1]) / np.arange(1, lowest + 2)
    return float(means[min(max(len(smoothed) // 10, 1) - 1, lowest) :].max())
