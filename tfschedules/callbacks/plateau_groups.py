"""The least rates of groups of layers, where a plateau rule reduces the rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfschedules._support import checks
from tfschedules.drive import (
    Drive,
    Floor,
    Loan,
    Split,
    has_weights,
    innermost,
    parts_of,
)


def least_rates(given: Any) -> float | dict[str, float]:
    """Check `min_lr`.

    Raises:
        TypeError: If it is no number, and no dictionary of numbers.
        ValueError: If one is below 0 or too large, or there is none.
    """
    if not isinstance(given, Mapping):
        hint = 'By group it is a dict, as {"body": 1e-5}.'
        return checks.single("min_lr", given, at_least=0, hint=hint)
    if not given:
        raise ValueError(
            "Argument `min_lr` must be a number, or a dict that has a group. "
            "Received: min_lr={}"
        )
    what = "a number, or a dict of numbers by the names of groups"
    return {
        checks.text("min_lr", name, what): checks.single(
            f'min_lr["{name}"]', least, at_least=0
        )
        for name, least in given.items()
    }


def check_groups(loan: Loan, least: Mapping[str, float]) -> None:
    """See that the groups are there, and let go of them in the end.

    Raises:
        ValueError: If one is not there, or the optimizer has no weights yet.
    """
    model, optimizer = loan.model, loan.chosen.optimizer
    if not optimizer.built:  # before its first step it does not know its groups
        if not loan.chosen.is_compiled:
            raise ValueError(
                f"{loan.chosen} is not built, and `min_lr` of groups needs their "
                f"weights. Build it before fit: model.{loan.chosen.name}.build(weights)"
                f". Received: min_lr={dict(least)}"
            )
        if not has_weights(model):
            raise ValueError(
                f"The model {model.name!r} is not built, and `min_lr` of "
                "groups needs their weights. Give it a keras.Input, call it once, "
                f"or model.build(shape). Received: min_lr={dict(least)}"
            )
        optimizer.build(model.trainable_variables)
    names = [part.name for part in parts_of(innermost(optimizer))]
    if unknown := [name for name in least if name not in names]:
        raise ValueError(
            "Argument `min_lr` must be a number, or numbers by the names of the "
            "model's groups. "
            + (
                f"There are: {', '.join(map(repr, names))}."
                if names
                else f"It has {type(innermost(optimizer)).__name__} without "
                "groups: compile it with LayerwiseOptimizer(optimizer, groups)."
            )
            + f" Received: min_lr={dict(least)}, with {unknown[0]!r}"
        )
    split = Split.at(innermost(optimizer))
    assert split is not None  # it has groups
    loan.undo_with(lambda: split.hold_up({}))


def hold_up(drive: Drive, floors: Mapping[str, Floor]) -> None:
    """Let the groups that the drive's rate is for have these floors."""
    split = Split.at(drive.optimizer)
    assert split is not None  # `check_groups` has found groups
    split.hold_up(floors)


def multiples(drive: Drive) -> dict[str, np.ndarray]:
    """What each group multiplies the rate by, in the last update and in the next."""
    made = drive.step + drive.start
    steps = np.array([max(made - 1, 0), made])
    parts = parts_of(drive.optimizer)
    return {p.name: dataclasses.replace(p, floor=None).values(steps) for p in parts}
