"""Hyperparameters as functions of the step, inside the compiled update.

A callback that assigns the rate from Python costs up to 0.3 ms a step, forces JAX's
state out of the step, and is wrong inside `steps_per_execution` blocks. The drive
wraps the update of the innermost optimizer instead: where `apply` is traced, the rate
variable is assigned and the other hyperparameters hold tensors; between steps there is
no Python at all. Variables, config and Python attributes stay as they were.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfschedules._support.arguments import did_you_mean
from tfschedules._support.telling import tell
from tfschedules.drive import frames
from tfschedules.drive.hold import Hold
from tfschedules.drive.loan import Loan
from tfschedules.drive.own_functions import (
    is_traced,
    outside,
    refuse_own_step,
    variables_can_be_set,
)
from tfschedules.drive.state import innermost, value_of
from tfschedules.drive.traced import Traced
from tfschedules.drive.wheel import Wheel
from tfschedules.schedules import Schedule

if TYPE_CHECKING:
    from tfschedules.drive.chosen import Chosen
    from tfschedules.drive.turns import Turns

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
            f"with a float, for instance {kind}(0.01); a schedule goes into a callback "
            "(or into tfs.driven, in a loop of your own)."
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
        f"{kind} has no hyperparameter {hyperparameter!r} that a schedule can drive."
        f"{did_you_mean(hyperparameter, drivable)} It has: {', '.join(drivable)}."
    )


class Drive:
    """One schedule on one hyperparameter of one optimizer.

    Attributes:
        model: Whose fit it is.
        optimizer: The innermost optimizer.
        name: The hyperparameter, as the user calls it.
        attribute: The optimizer's name for it.
        begins: The schedule's step in the first update of the fit; it may be set.
    """

    def __init__(
        self,
        model: keras.Model,
        loan: Loan,
        optimizer: Any,
        name: str,
        attribute: str,
        schedule: Schedule,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.name, self.attribute, self.begins = name, attribute, 0
        self._loan, self._given, self._first = loan, schedule, 0
        self._reduce: Callable[[Schedule], Schedule] | None = None
        self._schedule = schedule
        self.entered = False  # whether an update, or its trace, has come here
        self.alive: Any = None  # a variable, for a trace that outlives the drive

    @classmethod
    def attach(
        cls, model: keras.Model, loan: Loan, schedules: dict[str, Schedule]
    ) -> list[Drive]:
        """Drive hyperparameters of the loan's optimizer until that is closed.

        Everything is checked before anything is changed.

        Raises:
            ValueError: If the optimizer lacks a hyperparameter, or something drives
                it already.
            RuntimeError: If the model's train step is a `tf.function`.
        """
        optimizer = loan.chosen.inner
        refuse_own_step(model, "Hyperparameters are driven")
        if (holder := Hold.on(optimizer)) is not None:
            raise RuntimeError(
                f"Callbacks cannot drive {type(optimizer).__name__} now: {holder} has "
                "it, in a loop of your own that is not over. Leave that loop, or its "
                "`with`, first."
            )
        driven = Wheel.drives_on(optimizer)
        for other in [drive for drive in driven if drive.model is not model]:
            other.end_if_over()  # left by an interrupted fit
        driven = Wheel.drives_on(optimizer)
        drives: list[Drive] = []
        for name, schedule in schedules.items():
            attribute = attribute_of(optimizer, name)
            if attribute in [drive.attribute for drive in [*driven, *drives]]:
                raise ValueError(
                    f"The hyperparameter {attribute!r} of {type(optimizer).__name__} "
                    "is driven already: give one schedule for it, in one callback. (A "
                    "RangeTest drives the rate, too. So may the fit of another model "
                    "with the same optimizer, and a loop that has not ended: call its "
                    "callback's on_train_end(), or compile the model.)"
                )
            # An error in it comes now, and not in a step, where JAX has the weights.
            schedule(0)
            drives.append(cls(model, loan, optimizer, name, attribute, schedule))
        for drive in drives:
            loan.undo_with(drive.detach)
            Wheel.take(optimizer, drive)
        loan.retrace()
        return drives

    def end_if_over(self) -> None:
        """Give everything back if its fit has died."""
        self._loan.turns.end_if_over()

    def detach(self) -> None:
        """Give the hyperparameter back; a second time does nothing."""
        if self.alive is not None:
            self.alive.assign(False)
        Wheel.let_go(self.optimizer, self)

    @property
    def schedule(self) -> Schedule:
        """The value as a function of the updates since `start`, reductions and all."""
        return self._schedule

    @property
    def given(self) -> Schedule:
        """The same without what a plateau rule takes off it; it may be set."""
        return self._given

    @given.setter
    def given(self, schedule: Schedule) -> None:
        self._change(schedule, self._reduce)

    @property
    def is_reduced(self) -> bool:
        """Whether a plateau rule has a say in the schedule."""
        return self._reduce is not None

    _left_at: int | None = None  # updates made when a plateau rule last reduced it
    _left: tuple[float, ...] = ()  # what the next update had before, each time

    def reduce_by(self, reduce: Callable[[Schedule], Schedule]) -> None:
        """Let a plateau rule make the schedule of the one that was given."""
        if self._reduce is not None and not self._schedule.in_epochs:
            made = self.made
            if self._left_at != made:
                self._left_at, self._left = made, ()
            self._left += (float(self.schedule(max(self.step, 0))),)
        self._change(self._given, reduce)

    def _change(
        self, given: Schedule, reduce: Callable[[Schedule], Schedule] | None
    ) -> None:
        schedule = given if reduce is None else reduce(given)
        if schedule is not self._schedule:
            self._refuse_to_change("another schedule")
            self._schedule = schedule
            self._loan.retrace()
        self._given, self._reduce = given, reduce

    @property
    def start(self) -> int:
        """The optimizer's count of updates at the schedule's step 0; it may be set.

        Updates of others, made during the fit, are none of the schedule's: each moves
        it on by one.
        """
        return self._first + self._loan.count.shift.count

    @start.setter
    def start(self, start: int) -> None:
        if self.start != start:
            self._refuse_to_change("another beginning")
        counted = keras.backend.standardize_dtype(self.optimizer.iterations.dtype)
        if abs(start) > np.iinfo(counted).max:
            raise ValueError(
                f"The schedule of {self.attribute} cannot stand so far from the "
                f"optimizer's count of updates, which is a {counted}. Received: step 0 "
                f"at update {start}. Give a smaller start_step."
            )
        self._first = start - self._loan.count.shift.count
        self._loan.retrace()

    def _refuse_to_change(self, what: str) -> None:
        """Refuse what a function of the user's cannot be told: it is compiled.

        Raises:
            RuntimeError: If there is one.
        """
        if self.alive is not None:
            raise RuntimeError(
                f"The {self.attribute} is to have {what}, and a tf.function of your "
                "own has compiled the one that it had. Call that function for the "
                "first time after callbacks.on_train_batch_begin. Lengths in epochs "
                "(where the steps in an epoch are not told) and rates that another "
                "callback reduces work in loops around train_on_batch only."
            )

    @property
    def turns(self) -> Turns:
        """Whose turn it is."""
        return self._loan.turns

    @property
    def chosen(self) -> Chosen:
        """Which of the model's optimizers it is."""
        return self._loan.chosen

    lends_rate = False  # the optimizer keeps the rate of its last update

    def admits(self, made: Any) -> bool | None:
        """Whether an update is driven.

        Args:
            made: The optimizer's count before it, as a tensor.

        Returns:
            `None` if it is not; else whether it is traced for a function that outlives
            the drive.

        Raises:
            RuntimeError: If a function that is traced would keep the schedule.
        """
        turns = self.turns
        if turns.resting:
            return None
        if turns.stepping:
            turns.graphs.refuse_own(f"The {self.attribute} is driven")
            return False
        if turns.is_over():  # who calls, if not the fit?
            # What cannot be given back within a trace is left for the next use of the
            # model: the update that is traced is a plain one.
            if variables_can_be_set(made):
                outside(turns.end_if_over)
            return None
        if not is_traced(made):
            return False
        if keras.backend.backend() == "jax":
            self._refuse()
            return None
        if self.alive is None:
            import tensorflow as tf

            with tf.init_scope():
                self.alive = tf.Variable(True, trainable=False)
        return True

    def _refuse(self) -> None:
        """Refuse a trace on JAX that is not the fit's, and would keep the schedule.

        In the fit of another model that has the same optimizer an error would cost its
        weights, which JAX has: there is a warning, and the update is not driven.

        Raises:
            RuntimeError: If it is in no fit.
        """
        message = (
            f"The {self.attribute} of {type(self.optimizer).__name__} is driven in a "
            f"fit or in a loop around train_on_batch of the model {self.model.name!r}, "
            "and this update is compiled by something else. JAX would keep the "
            "schedule in it, also when that fit is over. In a loop of your own put the "
            "schedule into the optimizer, as in "
            "keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 1000))"
        )
        if not frames.running_here():
            raise RuntimeError(f"{message}.")
        tell(f"{message}. This update is not driven.", stacklevel=4)

    @property
    def data(self) -> tuple[Any, ...]:
        """Variables that a trace has to hold."""
        return (self._loan.count.shift.now(),)

    def position(self, made: Any) -> Any:
        """The schedule's step in an update, as a tensor.

        Args:
            made: The optimizer's count before the update, as a tensor.
        """
        shift = self._loan.count.shift.now()
        first = keras.ops.convert_to_tensor(self._first, dtype=made.dtype)
        return made - keras.ops.cast(shift, made.dtype) - first

    @property
    def made(self) -> int:
        """How many updates the optimizer has made, without those of others."""
        return self._loan.made

    def has_begun(self, made: int) -> bool:
        """Whether it has driven an update, of so many as `made` says."""
        return made - self._first > self.begins

    def latest(self, made: int) -> float:
        """The value of the last update, of so many as `made` says.

        Before the first one it is the value that this will have.
        """
        step = max(made - self._first - 1, self.begins)
        return float(self.schedule.values([step])[0])

    @property
    def step(self) -> int:
        """The schedule's step in the next update, between two epochs."""
        return self.made - self._first

    def factor_from_outside(self) -> float | None:
        """What the rate is now over what the drive has left; `None` if it is that.

        To be asked before an epoch's first step, when the variables hold the state on
        every backend. The last update left its own value, or the next one's where a
        micro-batch has come since or `show` was called.
        """
        if self.attribute != "learning_rate":
            return None
        with self._loan.turns.lock:
            made = self.made - self._first
            now = float(value_of(self.optimizer._learning_rate))
        # In float32, as in the step: a function of the user's may cancel there.
        left = [float(self.schedule(max(step, 0))) for step in (made - 1, made)]
        if self._left_at == made + self._first:  # no update since a rule reduced it
            left += self._left
        if np.isclose(now, left, rtol=1e-4, atol=1e-12).any() or left[0] == 0:
            return None
        return float(now / left[0])

    def show(self) -> None:
        """Let readers of the live rate see what the next update will use."""
        if self.attribute == "learning_rate":
            value = self.schedule.values([self.step])[0]
            self.optimizer.learning_rate = float(value)


def drive_of(optimizer: Any, attribute: str) -> Drive | None:
    """The drive on a hyperparameter of `optimizer` now, if there is one."""
    for drive in Wheel.drives_on(innermost(optimizer)):
        if drive.attribute == attribute:
            return drive
    return None
