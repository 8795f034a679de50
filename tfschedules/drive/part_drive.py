"""The rate of one part of the weights as a function of the step, the others held."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from tfschedules.drive.drive import Drive
from tfschedules.drive.guard import Guard
from tfschedules.drive.loan import Loan
from tfschedules.drive.split import Split, parts_of
from tfschedules.drive.state import value_of
from tfschedules.schedules import Constant, Schedule


def _drive_part(
    model: keras.Model,
    loan: Loan,
    part: str,
    schedule: Schedule,
    *,
    others_still: bool,
) -> Drive:
    """Drive the rate of one part of the weights until `loan` is closed.

    The optimizer's own rate stays what it is, and the part's factor follows the
    schedule over that rate.

    Args:
        model: A model with a built optimizer.
        loan: What ends it.
        part: The part's name.
        schedule: Its rate, as a function of the updates since the drive's `start`.
        others_still: Whether the other weights are not updated at all; else they go on
            with the rates that they have.

    Returns:
        What drives the optimizer's own rate, and tells the schedule's step.

    Raises:
        ValueError: If there is no such part, the optimizer's rate is no number greater
            than 0, or something drives it.
    """
    optimizer = loan.chosen.inner
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
    Guard(loan, optimizer, "The rate of one group is swept")
    split = Split.of(optimizer)

    def give_back() -> None:
        split.parts = parts

    loan.undo_with(give_back)
    split.parts = [
        dataclasses.replace(each, factor=schedule * (1.0 / number), clock=base)
        if each.name == part
        else dataclasses.replace(each, factor=0.0)
        if others_still
        else each
        for each in parts
    ]
    return base


def sweep(
    model: keras.Model,
    loan: Loan,
    schedule: Schedule,
    part: str | None,
    *,
    others_still: bool,
    constants: Mapping[str, float],
) -> Drive:
    """Drive the optimizer's rate, or that of one part.

    Args:
        model: A model with a built optimizer.
        loan: What ends it.
        schedule: The rate, as a function of the updates since `start`.
        part: The part whose rate it is, or `None`.
        others_still: Whether other parts are not updated.
        constants: Values of other hyperparameters, by name.

    Raises:
        ValueError: If there is no such part or hyperparameter, it is driven already, or
            the optimizer's rate cannot be what the schedule says.
    """
    check_rates(loan.chosen.inner, schedule)
    held = {name: Constant(value) for name, value in constants.items()}
    if part is None:
        return Drive.attach(model, loan, {"learning_rate": schedule, **held})[0]
    Drive.attach(model, loan, held)
    return _drive_part(model, loan, part, schedule, others_still=others_still)


def check_rates(optimizer: Any, schedule: Schedule) -> None:
    """Refuse a sweep from or to a rate that the optimizer's variable cannot hold.

    Raises:
        ValueError: If an end of the sweep would be 0 or infinite.
    """
    rate = optimizer._learning_rate
    if not isinstance(rate, keras.Variable):
        return  # refused by what drives it
    for step in (0, math.ceil(schedule.length or 0)):
        wanted = float(schedule.values([step])[0])
        single = keras.ops.convert_to_tensor(wanted, dtype="float32")
        held = keras.ops.cast(keras.ops.cast(single, rate.dtype), "float32")
        held = float(keras.ops.convert_to_numpy(held))
        if not 0 < held < math.inf:
            raise ValueError(
                f"The range test goes to a learning rate of {wanted:g}, and the "
                f"optimizer's is a {keras.backend.standardize_dtype(rate.dtype)}, "
                f"which has {held:g} in its place. Give a `min_lr` and a `max_lr` that "
                "it can hold, or make the optimizer where keras.config.floatx() is "
                "'float32'."
            )
