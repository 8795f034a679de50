"""Schedules in a loop of the user's own, which has no fit and no callbacks."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from tfschedules.callbacks.position import position_given
from tfschedules.callbacks.scheduler import schedule_for
from tfschedules.drive import (
    AtTheEnd,
    DrivenLoop,
    Uninterrupted,
    check_optimizer,
    hyperparameters_checked,
)
from tfschedules.schedules import Schedule


def driven(
    optimizer: Any,
    learning_rate: Schedule | Callable[[Any], Any] | None = None,
    *,
    start_step: int = 0,
    **hyperparameters: Schedule | Callable[[Any], Any],
) -> Driven:
    """Drive hyperparameters of an optimizer in a loop of your own.

    In the `with`, update k of the optimizer is made with the values of the schedules at
    step k + `start_step`. They are computed where the update is: in each kind of loop,
    compiled or not. At the end, also after an exception, the optimizer has the rate and
    all else that it had before, and so have functions that were compiled inside.

        with tfs.driven(optimizer, **tfs.one_cycle(0.1, total_steps=1000)):
            for batch in batches:
                train_step(batch)

    On TensorFlow a `tf.function` has to be called for the first time inside of the
    `with`. One that was compiled before would ignore it, and is an error after its
    first update. On JAX a function with `jax.jit` is compiled for each `with` by
    itself, whenever it was made: `optimizer.stateless_apply` is driven in it.

    In steps from state to state the count of updates is in the state, and the first
    update is the one that follows the optimizer's own count at the beginning: begin
    with the values of `optimizer.variables`. The rate in the state stays what it is.

    Args:
        optimizer: An optimizer of Keras, with a number as its rate if that is driven.
            Nothing else drives it at the same time, and no fit has it.
        learning_rate: A schedule for the rate: a `Schedule`, another Keras
            `LearningRateSchedule`, or a function of the step in `keras.ops`. Lengths
            are in steps: a loop has no epochs.
        start_step: The position of the first update, in steps.
        **hyperparameters: Schedules by name: `momentum`, `weight_decay`, `beta_2` … .
            `momentum` means `beta_1` where the optimizer has no momentum.

    Returns:
        What `with` takes, once.

    Raises:
        TypeError: If something given is no schedule, or no optimizer of Keras.
        ValueError: If nothing is given, or the optimizer lacks a hyperparameter, or a
            length is in epochs.
        RuntimeError: When the `with` begins, if the optimizer is in a fit, in another
            `driven` or in a `Sweep`; inside, if a function is called that was compiled
            before; at its end, if updates were made and none was driven.

    Example:
        >>> import keras, tfschedules as tfs
        >>> weight = keras.Variable([1.0])
        >>> optimizer = keras.optimizers.SGD(0.5)
        >>> with tfs.driven(optimizer, tfs.Linear(0.2, 0.0, 2)):
        ...     for _ in range(3):  # by 0.2, 0.1 and 0.0
        ...         optimizer.apply([keras.ops.ones(1)], [weight])
        >>> round(float(weight[0]), 6), float(optimizer.learning_rate)
        (0.7, 0.5)
    """
    check_optimizer(optimizer)
    given = dict(hyperparameters)
    if learning_rate is not None:
        given = {"learning_rate": learning_rate, **hyperparameters}
    if not given:
        raise ValueError(
            "tfs.driven needs a schedule to follow: argument `learning_rate`, or the "
            "name of another hyperparameter. Received: none. For instance "
            "learning_rate=tfs.Cosine(0.1, 0.0, steps=1000)."
        )
    schedules = {name: schedule_for(name, each) for name, each in given.items()}
    for name, schedule in schedules.items():
        if schedule.in_epochs:
            raise ValueError(
                f"Argument `{name}` must have its lengths in steps: a loop of your own "
                f"has no epochs. Received: {name}={schedule!r}. Give "
                f"schedule.resolve(steps_per_epoch)."
            )
    start_step = position_given("start_step", start_step)
    hyperparameters_checked(optimizer, schedules)
    return Driven(optimizer, schedules, start_step)


class Driven:
    """A `with` in which an optimizer is driven; made by `driven`."""

    def __init__(
        self, optimizer: Any, schedules: dict[str, Schedule], start_step: int
    ) -> None:
        """Nothing is changed before the `with` begins."""
        self._arguments = optimizer, schedules, start_step
        self._loop: DrivenLoop | None = None

    def __enter__(self) -> Driven:
        """Take the hyperparameters over."""
        if self._loop is not None:
            raise RuntimeError(
                "This tfs.driven(…) has been used, and its schedules have begun. Make "
                "another one for each `with`."
            )
        try:
            with Uninterrupted():  # else nobody would give back what has been taken
                self._loop = DrivenLoop(*self._arguments)
        except BaseException:
            if self._loop is not None:
                self._loop.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give them back."""
        loop = self._loop
        assert loop is not None
        with AtTheEnd(loop.end), AtTheEnd(loop.end):
            pass
        if kind is None:
            loop.conclude()

    def __del__(self) -> None:
        """The same, where Ctrl-C has come in between."""
        loop = vars(self).get("_loop")
        if loop is not None:
            loop.end()
