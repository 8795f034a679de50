"""Hyperparameters as functions of the step, inside the compiled update.

A callback that assigns the rate from Python costs up to 0.3 ms a step, forces JAX's
state out of the step, and is wrong inside `steps_per_execution` blocks. The drive
wraps the update of the innermost optimizer instead: where `apply` is traced, the rate
variable is assigned and the other hyperparameters hold tensors; between steps there is
no Python at all. Variables, config and Python attributes stay as they were.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import keras
import numpy as np

from tfschedules.drive.loan import Loan, _set
from tfschedules.drive.state import innermost, updates, value_of
from tfschedules.drive.traced import Traced, traced
from tfschedules.schedules import Schedule

# Numbers that shape the program rather than the update, and the rate, a variable.
_STRUCTURAL = {
    "ema_overwrite_frequency",
    "gradient_accumulation_steps",
    "initial_accumulator_value",
    "loss_scale_factor",
    "learning_rate",
    "ns_steps",
}


def hyperparameters_of(optimizer: Any) -> list[str]:
    """The hyperparameters of `optimizer` that a schedule can drive."""
    optimizer = innermost(optimizer)
    numbers = [
        name
        for name in _arguments_of(type(optimizer))
        if _is_number(getattr(optimizer, name, None))
        and not (name == "momentum" and optimizer.momentum == 0)
        and not (name == "ema_momentum" and not optimizer.use_ema)
    ]
    return ["learning_rate", *numbers]


def name_of(optimizer: Any, attribute: str) -> str:
    """What an optimizer's attribute is called here, as `attribute_of` finds it."""
    if attribute == "beta_1" and not hasattr(optimizer, "momentum"):
        return "momentum"
    return attribute


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Traced)) and type(value) is not bool


def _arguments_of(kind: type) -> list[str]:
    """A class's arguments; `get_config` would read variables that JAX has taken."""
    constructors = [vars(base).get("__init__") for base in kind.__mro__]
    names = {
        name
        for constructor in constructors
        if constructor is not None
        for name in inspect.signature(constructor).parameters
    }
    return sorted(names - _STRUCTURAL)


def attribute_of(optimizer: Any, hyperparameter: str) -> str:
    """The optimizer's own name for `hyperparameter`.

    `momentum` is `beta_1` where an optimizer has no momentum, as in torch's one-cycle.

    Raises:
        ValueError: If the optimizer does not have it, or has it switched off.
    """
    optimizer = innermost(optimizer)
    kind = type(optimizer).__name__
    drivable = hyperparameters_of(optimizer)
    if hyperparameter == "learning_rate":
        if isinstance(optimizer._learning_rate, keras.Variable):
            return hyperparameter
        raise ValueError(
            "The learning rate must be a number for a callback to drive it. Received: "
            f"{kind} compiled with learning_rate={optimizer._learning_rate!r}. Compile "
            f"with a float, for instance {kind}(0.01); a schedule goes into a callback."
        )
    if hyperparameter in drivable:
        return hyperparameter
    now = getattr(optimizer, hyperparameter, None)
    known = hyperparameter in _arguments_of(type(optimizer))
    if known and (now is None or _is_number(now)):
        example = "0.9" if hyperparameter == "momentum" else "0.01"
        if hyperparameter == "ema_momentum":
            example = "0.99, use_ema=True"
        raise ValueError(
            f"{kind} was compiled with {hyperparameter}={now!r}, and so has none to "
            f"drive. Compile it with one, for instance "
            f"{kind}({hyperparameter}={example}). It has: {', '.join(drivable)}."
        )
    if hyperparameter == "momentum" and "beta_1" in drivable:
        return "beta_1"
    raise ValueError(
        f"{kind} has no hyperparameter {hyperparameter!r} that a schedule can drive. "
        f"It has: {', '.join(drivable)}."
    )


@dataclasses.dataclass(eq=False)
class Drive:
    """One schedule on one hyperparameter of one optimizer.

    Attributes:
        model: Whose fit it is.
        optimizer: The innermost optimizer.
        attribute: The optimizer's name for the hyperparameter.
        schedule: The value as a function of the updates since `start`.
        start: The optimizer's count of updates at the schedule's step 0. It is baked
            in when the update is traced, and may be set until then.
    """

    model: keras.Model
    optimizer: Any
    attribute: str
    schedule: Schedule
    start: int = 0

    @classmethod
    def attach(
        cls, model: keras.Model, loan: Loan, schedules: dict[str, Schedule]
    ) -> list[Drive]:
        """Drive hyperparameters of the compiled optimizer until `loan` is closed.

        Everything is checked before anything is changed.

        Raises:
            ValueError: If the optimizer lacks a hyperparameter, or something drives
                it already.
        """
        optimizer = innermost(model.optimizer)
        wheel = vars(optimizer).get("apply")
        if isinstance(wheel, _Wheel):  # left by an interrupted fit of another model
            for drive in wheel.drives[:]:
                if drive.model is not model:
                    drive.detach()
            wheel = vars(optimizer).get("apply")
        driven = wheel.drives if isinstance(wheel, _Wheel) else []
        drives: list[Drive] = []
        for name, schedule in schedules.items():
            attribute = attribute_of(optimizer, name)
            if attribute in [drive.attribute for drive in [*driven, *drives]]:
                raise ValueError(
                    f"The hyperparameter {attribute!r} of {type(optimizer).__name__} "
                    "is driven already: give one schedule for it, in one callback. (A "
                    "RangeTest drives the rate, too.)"
                )
            # An error in it comes now, and not in a step, where JAX has the weights.
            schedule(0)
            drives.append(cls(model, optimizer, attribute, schedule))
        if not isinstance(wheel, _Wheel):
            wheel = _Wheel(optimizer)
            _set(optimizer, "apply", wheel)
        for drive in drives:
            wheel.drives.append(drive)
            loan.undo_with(drive.detach)
        loan.retrace()
        return drives

    def detach(self) -> None:
        """Give the hyperparameter back; a second time does nothing."""
        wheel = vars(self.optimizer).get("apply")
        if isinstance(wheel, _Wheel) and self in wheel.drives:
            wheel.drives.remove(self)
            if not wheel.drives:
                wheel.take_off()

    def factor_from_outside(self) -> float | None:
        """What the rate is now over what the drive has left; `None` if it is that.

        To be asked before an epoch's first step, when the variables hold the state on
        every backend. The last update left its own value, or the next one's where a
        micro-batch has come since or `show` was called.
        """
        if self.attribute != "learning_rate":
            return None
        made = updates(self.model) - self.start
        # In float32, as in the step: a function of the user's may cancel there.
        left = [float(self.schedule(max(step, 0))) for step in (made - 1, made)]
        now = float(value_of(self.optimizer._learning_rate))
        if np.isclose(now, left, rtol=1e-4, atol=1e-12).any() or left[0] == 0:
            return None
        return float(now / left[0])

    def show(self) -> None:
        """Let readers of the live rate see what the next update will use."""
        if self.attribute == "learning_rate":
            made = updates(self.model)
            value = self.schedule.values([made - self.start])[0]
            self.optimizer.learning_rate = float(value)


def drive_of(optimizer: Any, attribute: str) -> Drive | None:
    """The drive on a hyperparameter of `optimizer` now, if there is one."""
    wheel = vars(innermost(optimizer)).get("apply")
    if isinstance(wheel, _Wheel):
        for drive in wheel.drives:
            if drive.attribute == attribute:
                return drive
    return None


class _Wheel:
    """In place of `optimizer.apply` while something drives the optimizer."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.previous = vars(optimizer).get("apply")
        self.apply = optimizer.apply
        self.drives: list[Drive] = []
        # Replicas run this in turns: what to put back is noted here, not at entry.
        self.python_values: dict[str, float] = {}

    def take_off(self) -> None:
        """Give the optimizer its own `apply` again."""
        if self.previous is None:
            object.__delattr__(self.optimizer, "apply")
        else:
            _set(self.optimizer, "apply", self.previous)

    def __call__(self, grads: Any, trainable_variables: Any = None) -> None:
        optimizer = self.optimizer
        made = keras.ops.convert_to_tensor(optimizer.iterations)
        python_values = self.python_values
        try:
            for drive in self.drives:
                value = drive.schedule(made - drive.start)
                if drive.attribute == "learning_rate":
                    rate = optimizer._learning_rate
                    rate.assign(keras.ops.cast(value, rate.dtype))
                    continue
                now = getattr(optimizer, drive.attribute)
                if not isinstance(now, Traced):
                    python_values[drive.attribute] = now
                like = python_values[drive.attribute]
                _set(optimizer, drive.attribute, traced(like, value))
            self.apply(grads, trainable_variables)
        finally:
            for attribute, value in python_values.items():
                _set(optimizer, attribute, value)
