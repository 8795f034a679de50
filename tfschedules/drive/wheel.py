"""What takes the place of an optimizer's `apply` while something drives it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import keras

from tfschedules.drive import frames
from tfschedules.drive.attributes import InPlace, set_behind
from tfschedules.drive.traced import Traced, traced

if TYPE_CHECKING:
    from tfschedules.drive.drive import Drive


class Wheel:
    """Computes what is driven, wherever the update is traced, and then updates.

    Steps of the fit, or of the loop, that drives come here through its train function,
    which is dropped in the end with its trace. Other functions that are traced outlive
    it: one of TensorFlow's is told when the drive has ended, and one of JAX's, which
    cannot be told, is refused.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.apply = optimizer.apply
        self.place = InPlace(optimizer, "apply", self)
        self.drives: list[Drive] = []
        # Replicas run this in turns: what to put back is noted here, not at entry.
        self.python_values: dict[str, float] = {}

    @staticmethod
    def at(optimizer: Any) -> Wheel | None:
        """The wheel of `optimizer`, the innermost, if there is one."""
        wheel = vars(optimizer).get("apply")
        return wheel if isinstance(wheel, Wheel) else None

    @staticmethod
    def drives_on(optimizer: Any) -> list[Drive]:
        """What drives `optimizer`, the innermost, now."""
        wheel = Wheel.at(optimizer)
        return [] if wheel is None else wheel.drives[:]

    @staticmethod
    def take(optimizer: Any, drive: Drive) -> None:
        """Let `drive` take a hyperparameter of `optimizer` over."""
        wheel = Wheel.at(optimizer)
        if wheel is None:
            wheel = Wheel(optimizer)
            wheel.drives.append(drive)
            wheel.place.take()
        else:
            wheel.drives.append(drive)

    @staticmethod
    def let_go(optimizer: Any, drive: Drive) -> None:
        """Give the hyperparameter back; a second time does nothing."""
        wheel = Wheel.at(optimizer)
        if wheel is None:
            return
        if drive in wheel.drives:
            wheel.drives.remove(drive)
        if not wheel.drives:
            wheel.place.give_back()

    def __call__(self, grads: Any, trainable_variables: Any = None) -> None:
        optimizer = self.optimizer
        made = keras.ops.convert_to_tensor(optimizer.iterations)
        python_values = self.python_values
        for drive in self.drives[:]:
            if not (drive.stepping or drive.resting):  # who calls, if not the fit?
                drive.end_if_over()
        try:
            for drive in self.drives:
                if drive.resting:
                    continue
                foreign = not drive.stepping and _is_traced(made)
                if foreign and keras.backend.backend() == "jax":
                    if _refused(drive):
                        continue
                drive.entered = True
                value = drive.schedule(drive.position(made))
                if drive.attribute == "learning_rate":
                    rate = optimizer._learning_rate
                    value = keras.ops.cast(value, rate.dtype)
                    if foreign:
                        value = _while_alive(drive, value, rate)
                    rate.assign(value)
                    continue
                now = getattr(optimizer, drive.attribute)
                if not isinstance(now, Traced):
                    python_values[drive.attribute] = now
                like = python_values[drive.attribute]
                if foreign:
                    value = _while_alive(drive, value, like)
                set_behind(optimizer, drive.attribute, traced(like, value))
            self.apply(grads, trainable_variables)
        finally:
            for attribute, value in python_values.items():
                set_behind(optimizer, attribute, value)


def _is_traced(count: Any) -> bool:
    """Whether what is computed now becomes part of a compiled function."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.inside_function())
    if backend == "jax":
        import jax

        return isinstance(count, jax.core.Tracer)
    return False


def _while_alive(drive: Drive, value: Any, otherwise: Any) -> Any:
    """The value, as long as the drive is attached, in a trace that outlives it."""
    if drive.alive is None:
        import tensorflow as tf

        with tf.init_scope():
            drive.alive = tf.Variable(True, trainable=False)
    ops = keras.ops
    value = ops.convert_to_tensor(value)
    return ops.where(drive.alive, value, ops.cast(otherwise, value.dtype))


def _refused(drive: Drive) -> bool:
    """Refuse a trace on JAX that is not the fit's, and would keep the schedule.

    In the fit of another model that has the same optimizer an error would cost its
    weights, which JAX has: there is a warning, and the update is not driven.
    """
    message = (
        f"The {drive.attribute} of {type(drive.optimizer).__name__} is driven in a fit "
        f"or in a loop around train_on_batch of the model {drive.model.name!r}, and "
        "this update is compiled by something else. JAX would keep the schedule in it, "
        "also when that fit is over. In a loop of your own put the schedule into the "
        "optimizer, as in keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 1000))"
    )
    if frames.running_here():
        warnings.warn(f"{message}. This update is not driven.", stacklevel=3)
        return True
    raise RuntimeError(f"{message}.")
