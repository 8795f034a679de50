"""What a fit is given, as one row of names and values.

Columns that users often have of their own keep the type that they give them: the
HParams tab fails where a number is to be filtered and a row has a text there. So a
schedule stands under `schedule`, and never under `learning_rate` or `momentum`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfschedules.callbacks import HyperparameterScheduler
from tfschedules.drive import (
    Chosen,
    Loan,
    block_of,
    drive_of,
    hyperparameters_of,
    name_of,
    parts_of,
    read,
)
from tfschedules.schedules import Epochs, FitShare, ScaleFunction, Schedule

Setting = bool | int | float | str
_LONGEST = 300  # characters of a formula
_SAMPLED = 10_000  # steps at which a schedule's highest value is looked for
_LAST = 2**63 - 1  # the last step that is counted


def settings_of(chosen: Chosen) -> dict[str, Setting]:
    """The optimizer, its schedules and its constants, in the middle of a fit.

    `schedule` is the callback's name, with its arguments, or the schedule's, with its
    fields; of one that is made of others, `formula` is the code. `max_lr` is its
    highest rate and `total_steps` its length, where it has one. A rate that nothing
    drives is under `learning_rate`, as it is now.

    Args:
        chosen: An optimizer of a model whose fit has begun its first epoch.
    """
    model, optimizer = chosen.model, chosen.inner
    settings: dict[str, Setting] = {
        "optimizer": type(optimizer).__name__,
        "steps_per_execution": block_of(model),
        **_of_rate(chosen),
    }
    for attribute in hyperparameters_of(optimizer)[1:]:
        drive = drive_of(optimizer, attribute)
        name = name_of(optimizer, attribute)
        if drive is not None:
            if not _is_ready_made(_owner(model, drive)):
                settings[f"{name}_schedule"] = _formula(drive.given)
        elif name in ("momentum", "weight_decay"):
            settings[name] = float(getattr(optimizer, attribute))
    if optimizer.gradient_accumulation_steps:
        accumulation = optimizer.gradient_accumulation_steps
        settings["gradient_accumulation_steps"] = accumulation
    for part in parts_of(optimizer):
        if isinstance(part.factor, Schedule):
            settings[f"multiplier_schedule/{part.name}"] = _formula(part.factor)
        else:
            settings[f"multiplier/{part.name}"] = float(part.factor)
        for value in part.own.values():
            settings[f"momentum/{part.name}"] = value
    return settings


def _of_rate(chosen: Chosen) -> dict[str, Setting]:
    model = chosen.model
    drive = drive_of(chosen.inner, "learning_rate")
    if drive is None:
        compiled = chosen.rate
        if isinstance(compiled, Schedule):
            return _of_schedule(compiled)
        if isinstance(compiled, keras.Variable):
            rate = str(np.float32(read(model, compiled)))  # 0.1, not 0.10000000149
            return {"schedule": "none", "learning_rate": float(rate)}
        config: dict[str, Setting] = {}
        if isinstance(compiled, keras.optimizers.schedules.LearningRateSchedule):
            with contextlib.suppress(NotImplementedError):
                config = _plain(compiled.get_config())
            config.pop("name", None)
        return {**config, "schedule": _name_of(compiled)}
    owner = _owner(model, drive)
    if not _is_ready_made(owner):
        return _of_schedule(drive.given)
    assert owner is not None
    settings: dict[str, Setting] = {}
    if drive.given.length is not None:  # a cycle of n steps ends with step n-1
        settings["total_steps"] = int(drive.given.length) + 1
    arguments = {n: v for n, v in owner.arguments.items() if n != "optimizer"}
    settings |= _plain(arguments)
    return {**settings, "schedule": type(owner).__name__}


def _of_schedule(schedule: Schedule) -> dict[str, Setting]:
    fields = {
        field.name: getattr(schedule, field.name)
        for field in dataclasses.fields(schedule)  # type: ignore[arg-type]
    }
    plain = _plain(fields)
    settings: dict[str, Setting] = {"schedule": type(schedule).__name__}
    if isinstance(schedule, ScaleFunction):
        settings["schedule"] = _name_of(schedule.function)
    elif len(plain) < len(fields):
        settings["formula"] = _formula(schedule)
    else:
        settings |= plain
    if schedule.length is not None:
        settings["max_lr"] = float(schedule.values(_sample(schedule.length)).max())
        settings["total_steps"] = int(schedule.length)
    return settings


def _sample(length: float) -> list[int]:
    """Steps evenly spread up to the first at which so many steps have passed.

    They are counted with Python's integers: of floats the last may be another one, and
    there are lengths beyond 64 bits.
    """
    last = min(math.ceil(length), _LAST)
    if last < _SAMPLED:
        return list(range(last + 1))
    return [i * last // (_SAMPLED - 1) for i in range(_SAMPLED)]


def _plain(values: Mapping[str, Any]) -> dict[str, Setting]:
    """Those that one column can hold; lengths of the fit under names of their own."""
    plain: dict[str, Setting] = {}
    for name, value in values.items():
        if isinstance(value, Epochs):
            plain[f"{name}_in_epochs"] = value.count
        elif isinstance(value, FitShare):
            plain[f"{name}_as_fit_share"] = value.share
        elif isinstance(value, np.generic):
            plain[name] = value.item()
        elif isinstance(value, (bool, int, float, str)):
            plain[name] = value
    return plain


def _formula(schedule: Schedule) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(schedule))  # another in each process
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _owner(model: Any, drive: Any) -> HyperparameterScheduler | None:
    """The callback that drives."""
    for borrower in Loan.borrowers(model):
        if isinstance(borrower, HyperparameterScheduler) and drive in borrower.drives:
            return borrower
    return None


def _is_ready_made(owner: HyperparameterScheduler | None) -> bool:
    return owner is not None and type(owner) is not HyperparameterScheduler
