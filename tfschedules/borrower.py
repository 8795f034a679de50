"""What every callback has that borrows something of the model for a fit."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import keras

from tfschedules.arguments import Recalled
from tfschedules.drive import Loan


class Borrower(Recalled, keras.callbacks.Callback):
    """A callback with something of one model on loan, from `on_train_begin` on.

    A copy of it, or what `pickle` makes of it, is in no fit and has no model.
    """

    # What belongs to a fit, and the value that it has outside of one.
    _of_a_fit: ClassVar[dict[str, Any]] = {
        "_loan": None,
        "_model": None,
        "params": None,
    }

    _loan: Loan | None = None

    def set_model(self, model: keras.Model) -> None:
        """Be given the model of the fit that begins.

        Raises:
            RuntimeError: If the callback is in a fit of another model, in another
                thread or around this one.
        """
        loan = self._loan
        if loan is not None and loan.model is not model and loan.in_progress:
            raise RuntimeError(
                f"This {type(self).__name__} is in use: a fit of the model "
                f"{loan.model.name!r} has it, and one callback can be in one fit only. "
                f"Make another one for the fit of {model.name!r}."
            )
        super().set_model(model)

    def _borrow(self) -> Loan:
        """Begin a loan, and end the one of an earlier fit."""
        loan = Loan(self.model, borrower=self)
        self._give_back()
        self._loan = loan
        return loan

    def _check_on_loan(self) -> bool:
        """Whether there is a loan.

        Raises:
            RuntimeError: If somebody else has ended it, and the fit or loop goes on.
        """
        if self._loan is not None and self._loan.closed is not None:
            raise RuntimeError(
                f"{type(self).__name__} has given the model "
                f"{self._loan.model.name!r} back: {self._loan.closed}. To go on, begin "
                "the callbacks anew (callbacks.on_train_begin)."
            )
        return self._loan is not None

    def _give_back(self) -> None:
        if self._loan is not None:
            self._loan.close()
        self._loan = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but what belongs to a fit."""
        own = {n: copy.copy(v) for n, v in self._of_a_fit.items() if n in vars(self)}
        return {**vars(self), **own}
