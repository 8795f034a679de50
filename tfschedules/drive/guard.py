"""A look at every update of an optimizer, for what is not driven but borrowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from tfschedules.drive import frames
from tfschedules.drive.own_functions import is_traced, outside, variables_can_be_set
from tfschedules.drive.wheel import Wheel

if TYPE_CHECKING:
    from tfschedules.drive.loan import Loan
    from tfschedules.drive.turns import Turns


class Guard:
    """Refuses updates that know, or would keep, what is borrowed for a while.

    Attributes:
        entered: Whether an update, or its trace, has come here.
    """

    def __init__(
        self,
        loan: Loan,
        optimizer: Any,
        what: str,
        changes: Callable[[], bool] = lambda: True,
        left: Callable[[], bool] = lambda: False,
    ) -> None:
        """Watch the updates of an optimizer until `loan` is closed.

        Args:
            loan: What ends it.
            optimizer: The innermost optimizer.
            what: What is borrowed, the beginning of a sentence.
            changes: Whether a trace of now would not be right later.
            left: Whether gradients that are taken now would not be right when all is
                given back.
        """
        self._loan, self._what = loan, what
        self._changes, self._left = changes, left
        self.entered = False
        loan.undo_with(lambda: Wheel.let_go(optimizer, self))
        Wheel.watch(optimizer, self)

    @property
    def turns(self) -> Turns:
        """Whose turn it is."""
        return self._loan.turns

    def check(self, value: Any, weights: Any) -> None:
        """Look at an update before it is made.

        Args:
            value: A value of this update.
            weights: Those that are updated, or `None`.

        Raises:
            RuntimeError: If a dead fit has left weights frozen, or if the update is
                traced for a function that outlives what is borrowed.
        """
        turns = self.turns
        if turns.stepping:
            turns.graphs.refuse_own(self._what)
        elif turns.is_over():
            self._end(value)
            return
        elif is_traced(value) and self._changes() and self._concerns(weights):
            jax = keras.backend.backend() == "jax"
            if not (jax and frames.running_here()):  # another fit would lose its state
                raise RuntimeError(
                    f"{self._what} in a fit or in a loop around train_on_batch of the "
                    f"model {self._loan.model.name!r}, and this update is compiled by "
                    "something else, which would keep what is so now. Call "
                    "model.train_on_batch or model.fit, or leave the step uncompiled "
                    "(without tf.function or jax.jit)."
                )
        self.entered = True

    def _concerns(self, weights: Any) -> bool:
        own = {id(weight) for weight in self._loan.model.weights}
        return weights is None or any(id(weight) in own for weight in weights)

    def _end(self, value: Any) -> None:
        """Give back what a fit has left that died.

        The gradients of this update have been taken before. Within a trace of JAX's
        nothing can be given back.
        """
        left = self._left()
        given_back = variables_can_be_set(value)
        if given_back:
            outside(self.turns.end_if_over)
        if left:
            name = self._loan.model.name
            way = "All is as it was again: make the step once more"
            if not given_back:
                way = (
                    "Call model.make_train_function(), which gives all back, and take "
                    "model.trainable_variables anew"
                )
            raise RuntimeError(
                f"{self._what} in a fit, or in a loop, of the model {name!r} that has "
                "died, and the gradients of this update were taken as if it were not "
                f"over. Nothing has been updated. {way}."
            )
