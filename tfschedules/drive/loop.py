"""A loop of the user's own, in which the rate is set between two updates.

Its functions may be compiled before: they read the rate from the optimizer's variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules.drive.copies import Copies, held_by, put_back
from tfschedules.drive.drive import attribute_of
from tfschedules.drive.generators import Generators
from tfschedules.drive.hold import Hold
from tfschedules.drive.part_drive import check_rates
from tfschedules.drive.split import Split
from tfschedules.drive.state import value_of
from tfschedules.drive.store import InMemory
from tfschedules.drive.tidying import Uninterrupted, do_all
from tfschedules.drive.weights import trained_by
from tfschedules.schedules import Schedule


class Loop:
    """An optimizer in a loop, and the state that it is put back to.

    Attributes:
        every: How many batches make an update.
    """

    def __init__(
        self, optimizer: Any, variables: list[Any], what: str, schedule: Schedule
    ) -> None:
        """Take the optimizer, and copy its state and that of the variables.

        Args:
            optimizer: It is built on those of `variables` that are trainable, if it is
                not built.
            variables: What the steps change.
            what: What takes it.
            schedule: The rates that are going to be set.

        Raises:
            RuntimeError: If the optimizer is in use.
            ValueError: If its rate is a schedule, or no variable for such rates; if
                it trains what is not among `variables`.
        """
        self._restored = False
        hold = Hold(optimizer, what)
        self._to_put_back: list[Callable[[], None]] = [hold.let_go]
        try:
            attribute_of(optimizer, "learning_rate")
            check_rates(hold.optimizer, schedule)
            _build(optimizer, variables)
            self._optimizer, self._inner = optimizer, hold.optimizer
            self._rate = hold.optimizer._learning_rate
            self.every = hold.optimizer.gradient_accumulation_steps or 1
            split = Split.at(hold.optimizer)
            self._missed = dict(split.missed) if split is not None else None
            self._generators = Generators()
            self._copies = Copies(InMemory())
            self._copies.take([*variables, *optimizer.variables, *held_by(optimizer)])
        except BaseException:
            hold.let_go()
            raise
        self._to_put_back.append(self._restore)

    @property
    def batches(self) -> int:
        """How many batches the optimizer has seen."""
        return int(value_of(self._inner._iterations))

    @property
    def scale(self) -> float:
        """The loss scale, or 1: a step that is skipped makes it less."""
        scale = getattr(self._optimizer, "dynamic_scale", None)
        return 1.0 if scale is None else float(value_of(scale))

    def set_rate(self, rate: float) -> None:
        """Set the rate of the updates to come."""
        self._rate.assign(np.float32(rate))
        self._set = value_of(self._rate)

    @property
    def keeps_rate(self) -> bool:
        """Whether the rate is the one that was set."""
        same = self._inner._learning_rate is self._rate
        return same and bool(value_of(self._rate) == self._set)

    def end(self) -> None:
        """Put everything back; a second time does nothing.

        Raises:
            NotRestoredError: If something cannot be put back. All the rest is.
        """
        with Uninterrupted():
            if not self._to_put_back and not self._restored:
                self._to_put_back.append(self._restore)  # try again
            do_all(self._to_put_back)

    def _restore(self) -> None:
        put_back(
            f"The optimizer {self._optimizer.name!r}, or what it trains,",
            self._actions(),
            "When the cause is gone, call `restore()` of this error or of the Sweep.",
            self._restore,
        )
        self._restored = True

    def _actions(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield from self._copies.putting_back()
        yield "the random generators", self._generators.restore
        missed, split = self._missed, Split.at(self._inner)
        if split is not None and missed is not None:
            yield "batches missed", lambda: split.set_missed(missed)


def _build(optimizer: Any, variables: list[Any]) -> None:
    """Build the optimizer, or refuse one that trains other weights."""
    if not optimizer.built:
        weights = [each for each in variables if each.trainable]
        if not weights:
            raise ValueError(
                "Argument `variables` must hold trainable variables, on which the "
                f"optimizer is built. Received: {len(variables)}, all of them not "
                "trainable. Give model.variables."
            )
        optimizer.build(weights)
        return
    given = {id(each) for each in variables}
    given |= {id(each.value) for each in variables if isinstance(each, keras.Variable)}
    missing = [
        getattr(each, "path", each.name)
        for each in trained_by(optimizer)
        if id(each) not in given and id(getattr(each, "value", each)) not in given
    ]
    if missing:
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ValueError(
            "Argument `variables` must hold all that the steps change, as it is put "
            f"back. Received: {len(variables)}, without {names}, which the optimizer "
            "trains. Give model.variables; of several models the sum of these lists."
        )


def check_variables(variables: Any) -> list[Any]:
    """Return a list of variables, or say what is wrong with it.

    Raises:
        TypeError: If it is none.
        ValueError: If it is empty.
    """
    if isinstance(variables, keras.Layer):
        raise TypeError(
            "Argument `variables` must be a list of variables. Received: "
            f"{type(variables).__name__} {variables.name!r}. Give its `.variables`."
        )
    found = checks.listed("variables", variables, "a list of variables")
    for each in found:
        if not _is_variable(each):
            way_out = "Give model.variables."
            if hasattr(each, "requires_grad"):
                way_out = (
                    "Parameters of a PyTorch module are a part of the state of "
                    "tfs.sweep(step, (module, optimizer), batches)."
                )
            raise TypeError(
                "Argument `variables` must be a list of variables. Received: "
                f"{checks.shown(each)} (of type {type(each).__name__}) in it. {way_out}"
            )
    if not found:
        raise ValueError(
            "Argument `variables` must hold all that the steps change. Received: "
            "none. Give model.variables; a model has them when it is built."
        )
    return found


def _is_variable(value: Any) -> bool:
    if isinstance(value, keras.Variable):
        return True
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(value, tf.Variable)
