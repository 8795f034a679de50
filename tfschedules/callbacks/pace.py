"""How many updates an optimizer makes with a batch, where nobody tells.

With the compiled optimizer it is one, or one in several that are accumulated. A train
step of the user's own may update another optimizer five times with each batch, or with
each fifth batch alone. What has been made is counted then, and what follows from a
wrong guess is refused.
"""

from __future__ import annotations

from tfschedules._support.telling import tell
from tfschedules.callbacks.position import updates_in_epoch
from tfschedules.drive import Borrower, block_of


class OwnPace:
    """Looks at the updates of the first epoch, of another optimizer than the compiled.

    Attributes:
        per_epoch: The updates in an epoch, once the first one is over.
    """

    def __init__(self, callback: Borrower, made: int, *, in_epochs: bool) -> None:
        """Begin before the first step.

        Args:
            callback: Whose optimizer it is.
            made: The optimizer's count.
            in_epochs: Whether lengths in epochs were taken for so many batches.
        """
        self._callback, self._made, self._in_epochs = callback, made, in_epochs
        self._looks = 0
        self.per_epoch: float | None = None

    @property
    def looks_on(self) -> bool:
        """Whether it is to be told of the next batch."""
        return self._in_epochs and self._looks < 2

    def look(self, made: int) -> None:
        """Look before a batch; before the second one the first has been made.

        Raises:
            ValueError: If lengths in epochs were wrong from the first step on.
        """
        self._looks += 1
        if self._looks == 2:
            chosen = self._callback.chosen
            batches = block_of(self._callback.model)
            if known := (self._callback.params or {}).get("steps"):
                batches = min(batches, known)
            done = made - self._made
            if done * chosen.every > batches:
                each = f"{done / batches:g}"
                what = "training step" if batches == 1 else "step of the block"
                raise ValueError(
                    f"{chosen} makes {each} updates with each {what}, and lengths in "
                    "epochs, or that of the fit, were taken for one. Give lengths in "
                    f"updates of this optimizer: {each} times as many as there are "
                    "batches."
                )

    def end_epoch(self, made: int) -> None:
        """The first epoch is over; tell if lengths in epochs were wrong."""
        if self.per_epoch is not None or made == self._made:
            return
        self.per_epoch = per_epoch = made - self._made
        taken = updates_in_epoch(self._callback)
        if self._in_epochs and taken is not None and abs(taken - per_epoch) >= 1:
            tell(
                f"{self._callback.chosen} has made {per_epoch} updates in this epoch, "
                f"and lengths in epochs, or that of the fit, were taken for {taken:g}: "
                "the schedule is not the one that was meant. Give lengths in updates "
                "of this optimizer.",
                stacklevel=4,
            )
