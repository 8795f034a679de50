"""When a sweep has diverged: plain NumPy, of batch losses that are noisy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfschedules.finding.suggestions.curves import noise

NOISE = 4.0  # deviations from batch to batch, above which a rise is one


@np.errstate(over="ignore")  # what is infinite is greater, too
def diverged(losses: Sequence[float], stop_factor: float) -> bool:
    """Whether the loss has left its least value behind for good.

    Medians of three, so that one odd batch does not stop a sweep; and a rise that the
    noise from batch to batch explains does not, either. A multiple of the least loss
    means nothing where losses can be negative; there the fall from the first loss to
    the least is the measure.

    Args:
        losses: The batch losses so far, finite.
        stop_factor: The multiple, > 1.

    Example:
        >>> diverged([2.0, 1.0, 1.0, 1.0, 9.0], 4.0)  # one odd batch
        False
        >>> diverged([2.0, 1.0, 1.0, 1.0, 9.0, 9.0], 4.0)
        True
    """
    if len(losses) < 4:
        return False
    recent = np.lib.stride_tricks.sliding_window_view(np.array(losses), 3)
    medians = np.median(recent, axis=1)
    least, first, now = medians.min(), medians[0], medians[-1]
    if now - least <= NOISE * noise(np.array(losses)):
        return False
    if min(losses) > 0:
        return bool(now > stop_factor * least)
    return bool(now - least > stop_factor * max(first - least, abs(least)))
