"""A fit, or a loop of the user's own, as far as it can be told from others."""

from __future__ import annotations

import weakref
from types import FrameType
from typing import Any

from tfschedules.drive import frames


class Turn:
    """A fit, or a loop of the user's own, in which something is on loan."""

    def __init__(
        self, fit: int | None, callback_list: Any, around: int | None, thread: int
    ) -> None:
        self.fit, self.around, self.thread = fit, around, thread
        self.callback_list = None
        if callback_list is not None:
            self.callback_list = weakref.ref(callback_list)
        self.stepped = False

    def adopt(self, caller: FrameType) -> None:
        """Become the turn of the fit around a loop, if that makes the first step.

        A callback of the fit has handed a list of its own on, later than at the begin.
        """
        if self.fit is None and not self.stepped and id(caller) == self.around:
            self.fit = self.around

    def is_over(self, fits: set[int]) -> bool:
        """Whether it has died: `fits` are those that are running."""
        if self.fit is not None:
            return self.fit not in fits
        gone = self.callback_list is not None and self.callback_list() is None
        return gone or not (self.around is None or self.around in fits)

    def is_others(self, frame: FrameType | None) -> bool:
        """Whether what a loop's own thread does now is not the loop, but a callback."""
        callback_list = self.callback_list and self.callback_list()
        return callback_list is not None and frames.is_in_callback(callback_list, frame)

    def is_also(self, fit: int | None, callback_list: Any) -> bool:
        """Whether a callback that begins is one of this turn."""
        if fit is not None or self.fit is not None:
            return fit == self.fit
        if self.callback_list is None or callback_list is None:
            return self.callback_list is callback_list and not self.stepped
        return self.callback_list() is callback_list
