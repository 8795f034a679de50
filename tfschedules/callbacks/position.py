"""Where a fit stands, new or going on inside what was begun, and how long it is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules._support.telling import tell
from tfschedules.drive import Borrower, is_restored
from tfschedules.schedules import Schedule


def updates_in_epoch(callback: Borrower) -> float | None:
    """The updates in an epoch of this fit; None for data of unknown length.

    They are those of an optimizer that makes one with each batch, or accumulates. A
    train step of the user's own may make others: `OwnPace` looks.
    """
    batches = (callback.params or {}).get("steps")  # a loop of the user's may give none
    if batches is None:
        return None
    return batches / callback.chosen.every


def epochs_of(callback: Borrower) -> int | None:
    """The epochs of this fit; None in a loop that does not say."""
    return (callback.params or {}).get("epochs")


def updates_in(callback: Borrower, epochs: int | None) -> int | None:
    """The updates in so many epochs of this fit; None where one is not known."""
    per_epoch = updates_in_epoch(callback)
    if per_epoch is None or epochs is None:
        return None
    return math.floor(epochs * per_epoch + 1e-9)


def position_given(name: str, value: Any) -> int:
    """Return a position in steps that the user gives, or say what is wrong.

    It is subtracted from the optimizer's count in the backend's integers, and half of
    these are left to count on; above 2^53 a step is lost in a float64.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not whole, or out of range.
    """
    dtype = keras.backend.standardize_dtype("int")  # int64, or int32 on JAX
    most = min(2**53, int(np.iinfo(dtype).max) // 2)
    return checks.whole(name, value, at_least=0, at_most=most)


def resumed_position(
    callback: Borrower, epoch: int, made: int, per_epoch: float | None
) -> int:
    """The position at the start of `epoch`, the first of this fit.

    0 in a new fit. A fit that begins later, or one that `BackupAndRestore` has put
    back, follows the optimizer's count where that lies in this epoch: an epoch that was
    interrupted is begun anew, but its updates have been made. Where it does not (the
    optimizer has a longer history than this run), the epoch tells. So it does where the
    backup is made at epochs' ends alone: no epoch of it is half made. Of another
    optimizer than the compiled one nobody knows the updates in an epoch: its count
    tells.

    Raises:
        ValueError: If that has nothing to tell.
    """
    restored, chosen = is_restored(callback.model), callback.chosen
    if epoch == 0 and not restored:
        return 0
    if not chosen.is_compiled:
        if made == 0 and (epoch > 0 or not chosen.optimizer.built):
            raise ValueError(
                f"This fit goes on with epoch {epoch}, and {chosen} has made no update "
                "yet: where its schedule stands is not known. If its state was saved "
                f"and not loaded: {BUILD_IT} Else give start_step=."
            )
        return made
    if per_epoch is None:
        return made
    if callback.restored_epochs:
        return math.floor(epoch * per_epoch)
    begin, end = math.floor(epoch * per_epoch), math.ceil((epoch + 1) * per_epoch)
    # Backed up in the middle of an epoch, a run may be epochs behind its count.
    return made if begin <= made < end or (restored and made >= end) else begin


BUILD_IT = (
    "Keras loads the state of an optimizer that is built, and passes over another. "
    "Build it before, in compile() of the model, with the weights that it updates: "
    "optimizer.build(weights)."
)


def tell_if_not_restorable(callback: Borrower, callbacks: Sequence[Any]) -> None:
    """Tell if a backup of this fit will not bring back the optimizer's state."""
    chosen = callback.chosen
    backs_up = any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks)
    if backs_up and not chosen.is_compiled and not chosen.optimizer.built:
        tell(
            f"{chosen} is not built as this fit begins, and BackupAndRestore would not "
            f"restore it in a fit that goes on. {BUILD_IT}",
            stacklevel=4,
        )


def resolved_in(
    name: str, schedule: Schedule, per_epoch: float | None, epochs: float | None
) -> Schedule:
    """A schedule in steps; one that may wait is good for the first epoch only."""
    if not schedule.in_epochs:
        return schedule
    if per_epoch is not None:
        return schedule.resolve(per_epoch, epochs)
    # Whether the first epoch depends on the length: try two.
    with contextlib.suppress(ValueError):  # a boundary in steps comes too late or early
        short, long = (schedule.resolve(steps, epochs) for steps in (1_000, 10**9))
        if np.array_equal(short.values(1_000), long.values(1_000)):
            return long
    raise ValueError(
        f"The schedule of {name} has lengths in epochs or shares of the fit, and how "
        "many steps an epoch of this data has is not known before the first is over. "
        "Give steps_per_epoch= to fit, or lengths in steps (total_steps=…). Received: "
        f"{schedule!r}"
    )
