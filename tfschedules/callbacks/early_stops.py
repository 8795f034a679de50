"""Whether `EarlyStopping` may end a fit while its schedule is at a high rate.

A schedule that takes the rate down by the end of a fit is made for the whole of it. At
a high rate the weights move about in the noise of the batches, and settle only as the
rate comes down. What is stopped early has not settled.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfschedules.schedules import Schedule

# A rate above this share of the peak is a high one.
_HIGH = 0.1
# A schedule that ends below this share of its peak is made to be followed to its end.
_LOW = 0.01
_LOOKED_AT = 10_000  # steps, for the peak


def first_stop(callback: Any, epoch: int) -> int:
    """The first epoch, counted from 0, in which an `EarlyStopping` can end a fit.

    The first value that it sees is the best so far; after that it waits.

    Args:
        callback: The `EarlyStopping`.
        epoch: The first epoch of the fit.
    """
    waited = 0 if callback.baseline is None else 1
    return int(
        max(epoch, callback.start_from_epoch) + max(callback.patience - waited, 1)
    )


def warn_of_early_stops(
    name: str,
    schedule: Schedule,
    callbacks: Iterable[Any],
    *,
    epoch: int,
    epochs: int,
    position: int,
    per_epoch: float,
) -> None:
    """Warn if a fit may be stopped at a high rate, and what it has learned is kept.

    Args:
        name: The callback that drives the rate.
        schedule: The rate, in steps.
        callbacks: The callbacks of the fit.
        epoch: The first epoch of the fit.
        epochs: The epoch after the last one.
        position: The schedule's step when the fit begins.
        per_epoch: Updates in an epoch.
    """
    stops = [
        (first_stop(callback, epoch), type(callback).__name__)
        for callback in callbacks
        if isinstance(callback, keras.callbacks.EarlyStopping)
        and not callback.restore_best_weights
    ]
    if not stops:
        return
    first, kind = min(stops)
    if first >= epochs - 1:  # in the last epoch the fit ends anyway
        return
    done = np.arange(1, epochs - epoch + 1) * per_epoch + 1e-9
    last = np.maximum(position + np.floor(done).astype(np.int64) - 1, 0)  # updates
    rates = schedule.values(last)
    steps = np.linspace(0, last[-1], min(int(last[-1]) + 1, _LOOKED_AT))
    peak = max(rates.max(), schedule.values(steps.astype(np.int64)).max())
    highest = rates[first - epoch : -1].max()
    if not (rates[-1] < _LOW * peak and highest > _HIGH * peak):
        return
    when = f"after epoch {first + 1}"
    if first + 2 < epochs:
        when += " or a later one"
    warnings.warn(
        f"{kind} may end this fit {when}, before the last, {epochs}, and leave the "
        f"model at a learning rate of up to {highest:.3g}: the peak of {name} is "
        f"{peak:.3g}, and it comes down to {rates[-1]:.3g} at the end of the fit only. "
        "Weights do not settle at a high rate. There are two ways out. "
        f"{kind}(restore_best_weights=True) keeps those of the best epoch. A plateau "
        "rule (keras.callbacks.ReduceLROnPlateau) in place of the schedule lowers the "
        "rate before training is stopped.",
        stacklevel=2,
    )
