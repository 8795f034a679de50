"""How other finders read a rate off a sweep: written anew from their descriptions.

fastai 2.8, Lightning (2026) and torch-lr-finder 0.2.2 are given the raw losses of one
whole sweep, and do with them what they do in a fit of their own: their smoothing, their
rule for stopping, the ends that they cut off. The sweep itself is ours, fastai's
default, too (1e-7 to 10 in 100 steps). Where a curve is too short for a rule, which
there raises an error, the answer is None. A NaN would be suggested by some of them as
the place of the minimum; here the curve ends before it, in their favour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def averaged(losses: np.ndarray, beta: float, *, late: int = 0) -> np.ndarray:
    """An exponential moving average without the bias of its start.

    m_i = (beta m_{i-1} + (1 - beta) L_i), divided by 1 - beta^(i + 1 + late);
    Lightning counts a step too many: late = 1.
    """
    means, mean = np.empty(len(losses)), 0.0
    for i, loss in enumerate(losses):
        mean = beta * mean + (1.0 - beta) * loss
        means[i] = mean / (1.0 - beta ** (i + 1 + late))
    return means


def lagging(losses: np.ndarray, share: float = 0.05) -> np.ndarray:
    """torch-lr-finder's: a `share` of this loss, the rest of the mean before."""
    means = np.array(losses, dtype=float)
    for i in range(1, len(means)):
        means[i] = share * means[i] + (1.0 - share) * means[i - 1]
    return means


def until_diverged(losses: np.ndarray, factor: float) -> np.ndarray:
    """Up to the first that is above `factor` times the least before; none not finite.

    Of negative losses the first is above four times itself, and the sweep ends.
    """
    best = np.inf
    for i, loss in enumerate(losses):
        if not np.isfinite(loss):
            return losses[:i]
        best = min(best, loss)
        if loss > factor * best:
            return losses[: i + 1]
    return losses


def fastai(rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rates and smoothed losses that fastai's rules are given."""
    smoothed = until_diverged(averaged(losses, 0.98), 4.0)
    kept = slice(len(losses) // 10, max(len(smoothed) - 5, 0))
    return rates[kept], smoothed[kept]


def fastai_valley(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """The middle of the longest strictly decreasing subsequence.

    One of `length` losses that ends at `end` is taken to begin at end - length; the
    middle is a third and half a third of that on.
    """
    rates, losses = fastai(rates, losses)
    if not len(losses):
        return None
    lengths = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        lengths[i] += max(lengths[:i][losses[:i] > losses[i]], default=0)
    end = int(np.argmax(lengths))
    length = int(lengths[end]) if end else 0
    third = length / 3.0
    return float(rates[end - length + int(third) + int(third / 2.0)])


def fastai_slide(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """From the right, where the slopes 15 steps apart differ by less than .005."""
    window, threshold = 15, 0.005
    rates, losses = fastai(rates, losses)
    if len(losses) <= window:
        return None
    slopes = np.gradient(losses)
    left = len(losses) - 1 - window
    found = left
    while left >= 0 and abs(slopes[left + window] - slopes[left]) > threshold:
        found = left
        left -= 1
    return float(rates[found])


def fastai_minimum(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """A tenth of the rate of the least loss."""
    rates, losses = fastai(rates, losses)
    return float(rates[np.argmin(losses)] / 10.0) if len(losses) else None


def fastai_steep(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Where the loss falls most in ln(rate) from one step to the next."""
    rates, losses = fastai(rates, losses)
    if len(losses) < 2:
        return None
    return float(rates[np.argmin(np.diff(losses) / np.diff(np.log(rates)))])


def lightning(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Where the loss falls most in the rate, not its logarithm."""
    smoothed = until_diverged(averaged(losses, 0.98, late=1), 4.0)
    kept = slice(10, max(len(smoothed) - 1, 0))
    rates, smoothed = rates[kept], smoothed[kept]
    if len(smoothed) < 2:
        return None
    return float(rates[np.argmin(np.gradient(smoothed, rates))])


def torch_lr_finder(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Where the loss falls most from step to step."""
    smoothed = until_diverged(lagging(losses), 5.0)
    kept = slice(10, max(len(smoothed) - 5, 0))
    rates, smoothed = rates[kept], smoothed[kept]
    if len(smoothed) < 2:
        return None
    return float(rates[np.argmin(np.gradient(smoothed))])


Rule = Callable[[np.ndarray, np.ndarray], "float | None"]
PEERS: dict[str, Rule] = {
    "fastai valley": fastai_valley,
    "fastai slide": fastai_slide,
    "fastai minimum": fastai_minimum,
    "fastai steep": fastai_steep,
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
}
