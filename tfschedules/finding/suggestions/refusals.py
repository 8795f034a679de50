"""Why no rate can be read off a curve, and what to try instead."""

from __future__ import annotations

import numpy as np

from tfschedules.finding.suggestions.curves import (
    draw_back_spikes,
    first_non_finite,
    noise,
    ranks,
)
from tfschedules.finding.suggestions.descents import more_than_chance
from tfschedules.finding.suggestions.words import Words

FEWEST_POINTS = 5


def too_short(
    rates: np.ndarray, sweeps: np.ndarray, readable: int, words: Words
) -> str | None:
    """Why the first `readable` steps are too few, or None if they are enough."""
    if readable >= FEWEST_POINTS:
        return None
    n = len(rates)
    if n < FEWEST_POINTS:
        return (
            f"Too few points: {n}; at least {FEWEST_POINTS} are needed, and about "
            "100 are good. Run the sweep with more `steps`."
        )
    if not np.isfinite(sweeps).any():
        return (
            f"All losses are non-finite, from rate {rates[0]:.2g} on. Look for NaN in "
            "the data, the weights or the loss; if they are sound, lower `min_lr`."
        )
    return (
        f"The {words.name} diverges at once: it is not finite at rate "
        f"{rates[readable]:.2g}, step {readable}. Lower `min_lr`, to "
        f"{rates[0] / 1e3:.1g} or less."
    )


def no_descent(rates: np.ndarray, sweeps: np.ndarray, words: Words) -> str:
    """Tell flat, rising and noisy curves apart; of `alive` sweeps, (repeats, n)."""
    losses = np.median(sweeps, axis=0)
    losses = losses[: first_non_finite(losses)]
    rates = rates[: len(losses)]
    level, deviation = float(np.median(losses)), noise(losses)
    if is_flat(losses):
        return (
            f"The curve is flat: every {words.name} is {words.value(level, 4)}, up to "
            f"rate {rates[-1]:.2g}. Check that the model has trainable variables and "
            f"that the {words.name} depends on them, or raise `max_lr`."
        )
    if more_than_chance(ranks(-losses)):
        first = losses[: max(3, len(losses) // 20)]
        start, usual = float(np.median(first)), first.max() + np.ptp(first)
        low = np.flatnonzero(draw_back_spikes(losses) <= usual)
        where = min(low[-1] + 1, len(losses) - 1) if low.size else 0
        if where <= len(losses) // 5:
            return (
                f"The {words.name} diverges at once: from {words.value(start)} it "
                f"{words.worsens} from rate {rates[where]:.2g} on. Lower `min_lr`, to "
                f"{rates[0] / 1e3:.1g} or less."
            )
        return (
            f"The {words.name} never {words.improves}: it stays at about "
            f"{words.value(start)} and {words.worsens} from rate {rates[where]:.2g} "
            "on. Take more `steps`, so that each rate has time to act, more `repeats` "
            "if it is noisy, and check the labels and the loss."
        )
    return (
        f"The curve is noise: over all rates, {rates[0]:.2g} to {rates[-1]:.2g}, the "
        f"{words.name} keeps around {words.value(level)} with a deviation of "
        f"{deviation:.2g} from batch to batch, and no {words.improvement} stands out. "
        "Take larger batches, more `steps` or more `repeats`, or raise `max_lr`."
    )


def is_flat(losses: np.ndarray) -> bool:
    """Whether losses differ in the last digits of a float32 only."""
    finite = losses[np.isfinite(losses)]
    return bool(np.ptp(finite) <= 1e-6 * np.abs(finite).max())
