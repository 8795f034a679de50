"""Somebody puts the optimizer's count elsewhere in the middle of a fit: a rollback.

A callback that loads weights with an optimizer's state does so, as does one that
assigns variables. Keras sets every variable by its `assign`. So the count's own
`assign` is stood in for. In a compiled step nothing is called, and nothing is read:
that costs nothing. What sets the count without Keras, as `tf.train.Checkpoint` does, is
not seen here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfschedules.drive.attributes import InPlace
from tfschedules.drive.loan import Loan


def around_put_back(
    model: keras.Model,
    loan: Loan,
    before: Callable[[], None],
    after: Callable[[], None],
) -> None:
    """Call something where the count is put elsewhere, until `loan` is closed.

    Args:
        model: The model that is trained.
        loan: What ends it.
        before: Called while the count is still that of the steps that were made; other
            variables may have changed.
        after: Called when the count is the new one; others may still change.
    """
    counted = _Count.of(model, loan)
    actions = before, after
    loan.undo_with(lambda: counted.remove(actions))
    counted.add(actions)


class _Count:
    """In place of the `assign` of an optimizer's count of batches."""

    def __init__(self, model: keras.Model, loan: Loan, counter: Any) -> None:
        self._model, self._turns = model, loan.turns
        self._chosen = loan.chosen
        self._assign = counter.assign
        self._actions: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._place = InPlace(counter, "assign", self)

    @classmethod
    def of(cls, model: keras.Model, loan: Loan) -> _Count:
        """What is in place of the method, or a new one."""
        counter = loan.chosen.inner._iterations
        there = vars(counter).get("assign")
        return there if isinstance(there, cls) else cls(model, loan, counter)

    def add(self, actions: tuple[Callable[[], None], Callable[[], None]]) -> None:
        self._actions.append(actions)
        self._place.take()

    def remove(self, actions: tuple[Callable[[], None], Callable[[], None]]) -> None:
        """A second time: nothing."""
        if actions in self._actions:
            self._actions.remove(actions)
        if not self._actions:
            self._place.give_back()

    def __call__(self, value: Any) -> Any:
        if not self._is_put_back(value):
            return self._assign(value)
        actions = self._actions[:]
        for before, _ in actions:
            before()
        try:
            return self._assign(value)
        finally:
            for _, after in actions:
                after()

    def _is_put_back(self, value: Any) -> bool:
        if self._turns.stepping or self._turns.resting:
            return False
        if keras.backend.backend() == "jax" and not self._model._jax_state_synced:
            return False  # JAX's own state is put into the variables
        with contextlib.suppress(Exception):  # it is traced, and no number
            number = int(np.asarray(value if np.isscalar(value) else _plain(value)))
            made = self._chosen.batches()
            return number not in (made, made + 1)  # a step in a loop of the user's own
        return False


def _plain(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value
