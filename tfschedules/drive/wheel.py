"""What takes the place of an optimizer's `apply` while something of it is on loan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from tfschedules.drive.attributes import InPlace, set_behind
from tfschedules.drive.own_functions import hold, unconverted
from tfschedules.drive.traced import Traced, traced

if TYPE_CHECKING:
    from tfschedules.drive.drive import Drive
    from tfschedules.drive.guard import Guard
    from tfschedules.drive.loop_drive import LoopDrive


class Wheel:
    """Computes what is driven, wherever the update is traced, and then updates.

    Steps of the fit, or of the loop, that drives come here through its train function,
    which is dropped in the end with its trace. Other functions that are traced outlive
    it: one of TensorFlow's is told when the drive has ended, and one of JAX's, which
    cannot be told, is refused. So is one of either that a `Guard` does not allow.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.apply = optimizer.apply
        self.place = InPlace(optimizer, "apply", self)
        self.drives: list[Drive | LoopDrive] = []
        self.guards: list[Guard] = []
        # Replicas run this in turns: what to put back is noted here, not at entry.
        self.python_values: dict[str, float] = {}
        self._given: dict[str, Any] = {}  # what hyperparameters hold in an update
        self.rate: Any = None  # to be put back, if it is not the optimizer's to keep
        self._steer = unconverted(self._take_direction)
        self._straighten = unconverted(self._put_back)

    @staticmethod
    def at(optimizer: Any) -> Wheel | None:
        """The wheel of `optimizer`, the innermost, if there is one."""
        wheel = vars(optimizer).get("apply")
        return wheel if isinstance(wheel, Wheel) else None

    @staticmethod
    def drives_on(optimizer: Any) -> list[Any]:
        """What drives `optimizer`, the innermost, now."""
        wheel = Wheel.at(optimizer)
        return [] if wheel is None else wheel.drives[:]

    @staticmethod
    def take(optimizer: Any, drive: Drive | LoopDrive) -> None:
        """Let `drive` take a hyperparameter of `optimizer` over."""
        Wheel._join(optimizer, lambda wheel: wheel.drives.append(drive))

    @staticmethod
    def watch(optimizer: Any, guard: Guard) -> None:
        """Let `guard` see the updates of `optimizer`."""
        Wheel._join(optimizer, lambda wheel: wheel.guards.append(guard))

    @staticmethod
    def _join(optimizer: Any, join: Callable[[Wheel], None]) -> None:
        wheel = Wheel.at(optimizer)
        if wheel is not None:
            join(wheel)
            return
        wheel = Wheel(optimizer)
        join(wheel)
        wheel.place.take()

    @staticmethod
    def let_go(optimizer: Any, one: Drive | LoopDrive | Guard) -> None:
        """Give the hyperparameter back; a second time does nothing."""
        wheel = Wheel.at(optimizer)
        if wheel is None:
            return
        for those in (wheel.drives, wheel.guards):
            if one in those:
                those.remove(one)  # type: ignore[arg-type]
        if not (wheel.drives or wheel.guards):
            wheel._take_back()
            wheel.place.give_back()

    def __call__(self, grads: Any, trainable_variables: Any = None) -> None:
        try:
            self._steer(trainable_variables)
            self.apply(grads, trainable_variables)
        finally:
            self._straighten()

    def _take_direction(self, weights: Any) -> None:
        """Do what is to be done before the update."""
        made = keras.ops.convert_to_tensor(self.optimizer.iterations)
        for guard in self.guards[:]:
            if not guard.turns.resting:
                guard.check(made, weights)
        for drive in self.drives[:]:
            outlives = drive.admits(made)
            if outlives is not None:
                drive.entered = True
                self._drive(drive, made, outlives)

    def _drive(self, drive: Drive | LoopDrive, made: Any, foreign: bool) -> None:
        """Set one hyperparameter."""
        optimizer, python_values = self.optimizer, self.python_values
        value = drive.schedule(drive.position(made))
        if drive.attribute == "learning_rate":
            rate = optimizer._learning_rate
            value = keras.ops.cast(value, rate.dtype)
            if foreign:
                value = _while_alive(drive, value, rate)
            if drive.lends_rate:
                self.rate = rate.value
            rate.assign(value)
            return
        now = getattr(optimizer, drive.attribute)
        left = self._given.get(drive.attribute)  # by an update that was interrupted
        if not isinstance(now, Traced) and (left is None or now is not left):
            python_values[drive.attribute] = now
        like = python_values[drive.attribute]
        if foreign:
            value = _while_alive(drive, value, like)
        self._given[drive.attribute] = given = traced(like, value)
        set_behind(optimizer, drive.attribute, given)

    def _put_back(self) -> None:
        """Give hyperparameters their Python values back after the update."""
        if self.rate is not None:
            self.optimizer._learning_rate.assign(self.rate)
            self.rate = None
        for attribute, value in self.python_values.items():
            set_behind(self.optimizer, attribute, value)
        self._given.clear()

    def _take_back(self) -> None:
        """Do what an update has left to do that was interrupted."""
        for attribute, given in self._given.items():
            if getattr(self.optimizer, attribute) is given:
                set_behind(self.optimizer, attribute, self.python_values[attribute])


def _while_alive(drive: Drive | LoopDrive, value: Any, otherwise: Any) -> Any:
    """The value, as long as the drive is attached, in a trace that outlives it."""
    hold(drive.alive, *drive.data)
    ops = keras.ops
    value = ops.convert_to_tensor(value)
    return ops.where(drive.alive, value, ops.cast(otherwise, value.dtype))
