"""The rate of one part of the weights as a function of the step, the others held."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from tfschedules.drive.drive import Drive
from tfschedules.drive.loan import Loan
from tfschedules.drive.split import Part, Split, parts_of
from tfschedules.drive.state import innermost, value_of
from tfschedules.schedules import Constant, Join, Schedule


class PartDrive:
    """One schedule on the rate of one part of an optimizer's weights.

    The optimizer's own rate stays what it is, and the part's factor follows the
    schedule over that rate. It stands in for a `Drive`.
    """

    def __init__(self, base: Drive, base_lr: float, schedule: Schedule) -> None:
        self._base, self._schedule = base, schedule
        self._factor = schedule * (1.0 / base_lr)
        self._parts: tuple[Part, ...] = ()
        self._swept = ""
        self._still = False

    @classmethod
    def attach(
        cls,
        model: keras.Model,
        loan: Loan,
        part: str,
        schedule: Schedule,
        *,
        others_still: bool,
    ) -> PartDrive:
        """Drive the rate of `part` until `loan` is closed.

        Args:
            model: A model with a built optimizer.
            loan: What ends it.
            part: The part's name.
            schedule: Its rate, as a function of the updates since `start`.
            others_still: Whether the other weights are not updated at all; else they
                go on with the rates that they have.

        Raises:
            ValueError: If there is no such part, the optimizer's rate is no number
                greater than 0, or something drives it.
        """
        optimizer = innermost(model.optimizer)
        parts = parts_of(optimizer)
        if part not in [each.name for each in parts]:
            names = ", ".join(repr(each.name) for each in parts)
            raise ValueError(
                f"Argument `group` must be the name of a group of the model's "
                f"LayerwiseOptimizer. Received: group={part!r}. "
                + (
                    f"There are: {names}."
                    if parts
                    else f"The model has {type(optimizer).__name__} without groups: "
                    "compile it with LayerwiseOptimizer(optimizer, groups)."
                )
            )
        rate = optimizer._learning_rate
        number = float(value_of(rate)) if isinstance(rate, keras.Variable) else 1.0
        if not number > 0:
            raise ValueError(
                "To sweep the rate of a group the optimizer's own must be > 0: the "
                f"group's is a multiple of it. Received: learning_rate={number!r}"
            )
        (base,) = Drive.attach(model, loan, {"learning_rate": Constant(number)})
        drive = cls(base, number, schedule)
        drive._parts, drive._swept, drive._still = parts, part, others_still
        split = Split.of(optimizer)

        def give_back() -> None:
            split.parts = parts

        loan.undo_with(give_back)
        drive.start = 0
        return drive

    @property
    def start(self) -> int:
        """The optimizer's count of updates at the schedule's step 0."""
        return self._base.start

    @start.setter
    def start(self, start: int) -> None:
        self._base.start = start
        factor = self._factor
        if start > 0:
            first = Constant(float(factor.values([0])[0]))
            factor = Join([first, factor], [start])
        Split.of(self._base.optimizer).parts = [
            dataclasses.replace(part, factor=factor)
            if part.name == self._swept
            else dataclasses.replace(part, factor=0.0)
            if self._still
            else part
            for part in self._parts
        ]

    def show(self) -> None:
        """Let readers of the live rate see the one that the others' refer to."""
        self._base.show()


def sweep(
    model: keras.Model,
    loan: Loan,
    schedule: Schedule,
    part: str | None,
    *,
    others_still: bool,
    constants: Mapping[str, float],
) -> Any:
    """Drive the optimizer's rate, or that of one part: a `Drive` or a `PartDrive`.

    Args:
        model: A model with a built optimizer.
        loan: What ends it.
        schedule: The rate, as a function of the updates since `start`.
        part: The part whose rate it is, or `None`.
        others_still: Whether other parts are not updated.
        constants: Values of other hyperparameters, by name.

    Raises:
        ValueError: If there is no such part or hyperparameter, or it is driven already.
    """
    held = {name: Constant(value) for name, value in constants.items()}
    if part is None:
        return Drive.attach(model, loan, {"learning_rate": schedule, **held})[0]
    Drive.attach(model, loan, held)
    return PartDrive.attach(model, loan, part, schedule, others_still=others_still)
