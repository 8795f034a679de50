"""Hyperparameters as functions of the step, in the updates of a loop of the user's own.

There is no model and no fit here: what is driven is an optimizer, from the beginning of
a `with` to its end. Functions that are traced in between outlive it. One of
TensorFlow's reads a variable that says whether it is over. JAX finds a trace only in
the context that it was made in: the `with` is one of its own, so what is called after
it is traced anew, and what was traced before is traced anew in it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import keras

from tfschedules.drive.calls import Calls
from tfschedules.drive.drive import attribute_of
from tfschedules.drive.hold import Hold
from tfschedules.drive.own_functions import is_traced
from tfschedules.drive.state import innermost, value_of
from tfschedules.drive.tidying import Uninterrupted, do_all
from tfschedules.drive.wheel import Wheel
from tfschedules.schedules import Schedule


class DrivenLoop:
    """An optimizer whose updates are driven until `end` is called.

    Attributes:
        alive: On TensorFlow a variable that traces read: whether it is not over.
    """

    def __init__(
        self, optimizer: Any, schedules: dict[str, Schedule], start_step: int
    ) -> None:
        """Take the optimizer, and drive it.

        Args:
            optimizer: Any, also one that wraps another.
            schedules: By the names of hyperparameters.
            start_step: The schedules' step in the first update.

        Raises:
            RuntimeError: If the optimizer is in use.
            ValueError: If it lacks a hyperparameter, or has it switched off.
        """
        hold = Hold(optimizer, "tfs.driven")
        self._to_undo: list[Callable[[], None]] = [hold.let_go]
        try:
            self._begin(hold.optimizer, schedules, start_step)
        except BaseException:
            do_all(self._to_undo)
            raise

    def _begin(
        self, optimizer: Any, schedules: dict[str, Schedule], start_step: int
    ) -> None:
        self.optimizer = optimizer
        every = optimizer.gradient_accumulation_steps or 1
        self._begun = self.batches
        self._driven = 0  # batches, by updates that are not compiled
        self._entered = False
        self.alive: Any = None
        self._counter: Any = None
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self.alive = tf.Variable(True, trainable=False)
            self._counter = tf.Variable(0, dtype="int64", trainable=False)
            self._to_undo.append(lambda: self.alive.assign(False))
        start = self._begun // every - start_step
        self.drives = [
            LoopDrive(self, attribute_of(optimizer, name), schedule, start)
            for name, schedule in schedules.items()
        ]
        if "learning_rate" in schedules:
            rate = optimizer._learning_rate
            self._to_undo.append(functools.partial(rate.assign, value_of(rate)))
        for drive in self.drives:
            self._to_undo.append(functools.partial(Wheel.let_go, optimizer, drive))
            Wheel.take(optimizer, drive)
        calls = Calls(self)
        self._to_undo.append(calls.end)
        calls.begin()
        self._context = _enter_context(self._to_undo)

    @property
    def batches(self) -> int:
        """How many batches the optimizer has seen."""
        return int(value_of(self.optimizer._iterations))

    @property
    def driven(self) -> int:
        """How many of them went by updates that are driven, on TensorFlow."""
        return self._driven + int(self._counter.numpy())

    def enter(self, made: Any) -> None:
        """An update, or the trace of one, is driven.

        Raises:
            RuntimeError: If JAX would find the trace of it after the end.
        """
        self._entered = True
        if not is_traced(made):
            self._driven += 1
        elif self._counter is not None:
            import tensorflow as tf

            self._counter.assign_add(tf.cast(self.alive, "int64"))
        elif not _is_in(self._context):
            raise RuntimeError(
                "An optimizer's update is compiled in a thread without the `with "
                "tfs.driven(…)` that drives it, or by a JAX that has no "
                "jax.make_user_context: JAX would keep the schedule when the `with` is "
                "over. Compile it in the thread of the `with`; use a newer JAX; or "
                "put the schedule into the optimizer, as in "
                "keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 1000))."
            )

    def refuse_ignorance(self) -> None:
        """Say that updates are made that are not driven.

        Raises:
            RuntimeError: Always.
        """
        names = ", ".join(drive.attribute for drive in self.drives)
        raise RuntimeError(
            f"tfs.driven does not drive the {names} of the updates that are made: they "
            "come from a function that was compiled before the `with` began, and that "
            "knows nothing of it. Make that function anew (tf.function(…)), and call "
            "it for the first time inside of the `with`; or put the schedule into the "
            "optimizer: keras.optimizers.SGD(tfs.Cosine(0.1, 0.0, 1000))."
        )

    def end(self) -> None:
        """Give everything back; a second time does nothing."""
        with Uninterrupted():
            do_all(self._to_undo)

    def conclude(self) -> None:
        """Look back, when all is given back: was anything driven?

        Raises:
            RuntimeError: If updates were made, and none was driven.
        """
        if self._entered:
            return
        if self.batches != self._begun:
            self.refuse_ignorance()
        warnings.warn(
            f"The optimizer {self.optimizer.name!r} has made no update in its `with "
            "tfs.driven(…)`, and nothing was driven. Does the loop update with another "
            "one, by a function that JAX had compiled to the end (lower().compile()) "
            "before, or has it no data?",
            stacklevel=4,
        )


class LoopDrive:
    """One schedule on one hyperparameter in a `DrivenLoop`.

    Attributes:
        attribute: The optimizer's name for the hyperparameter.
        schedule: The value as a function of the updates since `start`.
        given: The same: no plateau rule has a say in it.
        start: The optimizer's count of updates at the schedule's step 0.
        model: There is none.
        turns: There are none.
    """

    model = turns = None
    data: tuple[Any, ...] = ()  # variables that a trace has to hold

    def __init__(
        self, loop: DrivenLoop, attribute: str, schedule: Schedule, start: int
    ) -> None:
        schedule(0)  # an error in it comes now
        self._loop, self.optimizer = loop, loop.optimizer
        self.attribute, self.start = attribute, start
        self.schedule = self.given = schedule
        self.entered = False

    @property
    def alive(self) -> Any:
        """The loop's variable."""
        return self._loop.alive

    @property
    def lends_rate(self) -> bool:
        """Whether the rate is to be given back in the update: the state is the user's.

        In stateless steps the rate is a part of the state, and goes on with it.
        """
        from keras.src.backend import in_stateless_scope

        return bool(in_stateless_scope())

    def admits(self, made: Any) -> bool:
        """Whether the update is traced for a function that outlives the loop."""
        if self is self._loop.drives[0]:
            self._loop.enter(made)
        return self.alive is not None and is_traced(made)

    def position(self, made: Any) -> Any:
        """The schedule's step in an update, as a tensor."""
        return made - keras.ops.convert_to_tensor(self.start, dtype=made.dtype)

    def end_if_over(self) -> None:
        """A loop is over where its `with` is."""


@functools.cache
def _user_context() -> Any:
    """A context of JAX's, part of the key of each trace in it; if JAX has them."""
    import jax

    if not hasattr(jax, "make_user_context"):
        return None
    return jax.make_user_context(None)


def _enter_context(to_undo: list[Callable[[], None]]) -> Any:
    """Enter a context of JAX's own, around those that are entered already."""
    if keras.backend.backend() != "jax" or (kind := _user_context()) is None:
        return None
    token = object()
    entered = kind((*(kind.value or ()), token))
    to_undo.append(lambda: entered.__exit__(None, None, None))
    entered.__enter__()
    return token


def _is_in(token: Any) -> bool:
    return token is not None and any(t is token for t in _user_context().value or ())


def hyperparameters_checked(optimizer: Any, schedules: dict[str, Schedule]) -> None:
    """Refuse hyperparameters that an optimizer does not have, or has twice here.

    Raises:
        ValueError: If there is one.
    """
    names: dict[str, str] = {}
    for name in schedules:
        attribute = attribute_of(optimizer, name)
        if attribute in names:
            raise ValueError(
                f"The hyperparameters {names[attribute]!r} and {name!r} are the same "
                f"one of {type(innermost(optimizer)).__name__}. Give one schedule for "
                "it."
            )
        names[attribute] = name
