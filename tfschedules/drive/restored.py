"""Whether `BackupAndRestore` has put a fit back.

It tells so by `model._initial_epoch`, which Keras does not take back: a later fit finds
it there, and cannot see whose it is. So a fit marks what it finds when it is given its
callbacks, before any of them begins.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import keras

from tfschedules.drive import frames


class _Earlier(int):
    """The number that an earlier fit has left; to Keras the same as ever."""


def mark_earlier(model: keras.Model) -> None:
    """Mark what earlier fits have left; to be called in a callback's `set_model`."""
    found = getattr(model, "_initial_epoch", None)
    begun = any(
        frames.is_code(each, "on_train_begin") for each in _this_fit(model)
    )  # a callback of the fit makes a list of its own: another may have restored
    if found is not None and not begun:
        model._initial_epoch = _Earlier(found)


def _this_fit(model: keras.Model) -> list[FrameType]:
    """The frames between the caller and the fit of the model that it is in."""
    inside: list[FrameType] = []
    for each in frames.upwards(sys._getframe(2)):
        if frames.is_of(each, "fit", model):
            return inside
        inside.append(each)
    return []


def backs_up_whole_epochs(callbacks: Sequence[Any]) -> bool:
    """Whether a fit with these callbacks is backed up at epochs' ends alone."""
    kind = keras.callbacks.BackupAndRestore
    backups = [each for each in callbacks if isinstance(each, kind)]
    return bool(backups) and all(each.save_freq == "epoch" for each in backups)


def is_restored(model: keras.Model) -> bool:
    """Whether the fit that is running, or begins, was put back."""
    found = model._initial_epoch
    return found is not None and not isinstance(found, _Earlier)
