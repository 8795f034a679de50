"""How many updates others have made during a turn, as a step is told it.

There is one number for each optimizer that something is borrowed of.

The number is data in each step, so that a step that is traced needs no other trace when
it changes. On TensorFlow it is a variable. On JAX it is handed over with the batch. A
step that is traced in another way has it as a constant.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfschedules.drive.own_functions import is_traced
from tfschedules.drive.own_steps import Handed
from tfschedules.drive.replicas import scope_of


class Shift:
    """A count that a step reads.

    Attributes:
        count: The count.
        is_constant: Whether a step has been traced with the count as a constant.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self.count = 0
        self.is_constant = False
        self._number = np.int32(0)  # the count, as it is handed to JAX
        self._in_trace: Any = None
        self._variable: Any = None

    def begin(self, model: keras.Model) -> None:
        """Make what a step of `model` reads."""
        if keras.backend.backend() == "tensorflow":
            with scope_of(model):
                self._variable = keras.Variable(
                    0,
                    dtype="int64",
                    trainable=False,
                    aggregation="only_first_replica",
                    name="updates_of_others",
                )

    def add(self, updates: int) -> None:
        """Count `updates` more."""
        self.count += updates
        self._number = np.int32(self.count)
        if self._variable is not None:
            self._variable.assign(self.count)

    def now(self) -> Any:
        """The count, for what computes in a step: a number, or a tensor in a trace."""
        if self._variable is not None:
            return self._variable
        if self._in_trace is not None:
            return self._in_trace
        self.is_constant = True
        return self.count

    def hand_over(self) -> Any:
        """The count, as it is handed to JAX with a batch."""
        return self._number

    @contextlib.contextmanager
    def taken(self, number: Any) -> Iterator[None]:
        """Read what was handed over, while a step is traced or made."""
        if not is_traced(number):  # what the user compiles in it has a constant
            self.is_constant = True
        try:
            self._in_trace = number
            yield
        finally:
            self._in_trace = None


def handing(step: Any, shifts: Sequence[Shift]) -> Any:
    """A step that hands the counts to the trace, where they are an argument of it."""
    if keras.backend.backend() != "jax":
        return step

    def handing(state: Any, batch: Any) -> Any:
        return step(state, Handed(batch, [each.hand_over() for each in shifts]))

    return handing


def taking(step: Any, shifts: Sequence[Shift]) -> Any:
    """The step that takes them, on JAX."""

    def train_step(state: Any, data: Any) -> Any:
        if not isinstance(data, Handed):
            return step(state, data)  # of a train function that is made otherwise
        with contextlib.ExitStack() as stack:
            for shift, number in zip(shifts, data.shifts, strict=True):
                stack.enter_context(shift.taken(number))
            return step(state, data.batch)

    return train_step
