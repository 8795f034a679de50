"""Whether the updates that are made know what is borrowed.

In a loop of the user's own nobody can tell beforehand: a function may have been
compiled before the loop began, and another one may not call what was replaced. So the
first updates are looked at. When one was made, and what is borrowed was not asked, the
loop is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from tfschedules.drive.loan import Loan


class Proof:
    """Refuses a loop whose updates do not know what is borrowed."""

    def __init__(self, loan: Loan, knows: Callable[[], bool], why: str) -> None:
        """Begin at the optimizer's count of now.

        Args:
            loan: What is borrowed.
            knows: Whether an update, or its trace, has asked for it.
            why: What to tell the user: what is wrong, and the way out.
        """
        self._loan, self._knows, self._why = loan, knows, why
        self._refused = self._begun = False
        self._made, self._left, self._epoch_begins = loan.made, 0, True

    def new_epoch(self) -> None:
        """Count anew before the next batch."""
        self._epoch_begins = True

    def _begin(self) -> None:
        """Count from here: a resumed state is loaded by now."""
        self._epoch_begins, self._begun = False, True
        if not self._knows():
            self._made = self._loan.made
            # A batch is looked at when the next one begins.
            self._left = 2 * self._loan.chosen.every

    def look(self) -> None:
        """Look before a batch, as long as it is not known."""
        if self._epoch_begins:
            self._begin()
        elif self._left:
            self._left -= 1
            self.check()

    def check(self) -> None:
        """Look now.

        Raises:
            RuntimeError: If updates have been made that do not know.
        """
        loan = self._loan
        if loan.closed is not None:
            return
        if not self._begun and loan.in_progress:  # a fit without a step, but resumed
            return
        if self._knows():
            self._left = 0
        elif loan.made > self._made:
            self._refused = True
            raise RuntimeError(self._why)

    def conclude(self) -> None:
        """Look at the end, if nothing was refused: it may stand in a `finally`."""
        if not self._refused:
            self.check()
