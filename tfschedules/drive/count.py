"""The updates of one optimizer during a turn, and those of others among them."""

from __future__ import annotations

from typing import Any

from tfschedules.drive.chosen import Chosen
from tfschedules.drive.shift import Shift
from tfschedules.drive.state import batches_in


class Count:
    """How many updates an optimizer makes in a turn, and others in between.

    Attributes:
        chosen: The optimizer.
        shift: How many updates others have made during the turn.
        begun_at: The optimizer's count of batches when it began.
        told_unused: Whether somebody has told that the optimizer makes no update.
    """

    def __init__(self, chosen: Chosen) -> None:
        """Begin at the optimizer's count of now."""
        self.chosen = chosen
        self.shift = Shift()
        self.shift.begin(chosen.model)
        self.begun_at = chosen.batches()
        self.told_unused = False
        self._made = chosen.updates()  # before others' steps

    def note(self) -> None:
        """Others are about to make steps."""
        self._made = self.chosen.updates()

    def batches_in(self, state: tuple[Any, ...] | None) -> int:
        """How many batches the optimizer has seen; `state` is JAX's, if there is."""
        return batches_in(self.chosen.model, self.chosen.inner, state)

    def pass_over(self, before: int, after: int) -> None:
        """Updates of others, from so many batches to so many, are none of the turn."""
        every = self.chosen.every
        self.shift.add(after // every - before // every)

    def now(self, *, others: bool) -> tuple[int, int]:
        """How many updates have been made: two counts of the optimizer's.

        Args:
            others: Whether the last steps were those of others.

        Returns:
            Its count right after the last update of the turn; and its count now,
            without the updates that others have made during the turn.
        """
        now = self.chosen.updates()
        return self._made if others else now, now - self.shift.count
