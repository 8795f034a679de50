"""An optimizer in a loop of the user's own, that nobody else takes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfschedules._support import checks
from tfschedules.drive import frames
from tfschedules.drive.attributes import InPlace
from tfschedules.drive.own_functions import is_in_function, variables_can_be_set
from tfschedules.drive.state import innermost
from tfschedules.drive.wheel import Wheel

_NAME = "_tfschedules_hold"


class Hold:
    """What is noted on an optimizer as long as a loop of the user's has it."""

    def __init__(self, optimizer: Any, what: str) -> None:
        """Take an optimizer.

        Args:
            optimizer: Any, also one that wraps another.
            what: What takes it, as `tfs.Sweep`.

        Raises:
            RuntimeError: If it is taken, driven by callbacks or in a fit, or if the
                loop is being compiled.
        """
        inner = innermost(optimizer)
        kind = type(inner).__name__
        if is_in_function() or not variables_can_be_set(keras.ops.zeros(())):
            raise RuntimeError(
                f"{what} is for a loop of Python's, and this loop is being compiled. "
                "Compile the step (tf.function, jax.jit) and not the loop around it."
            )
        if (other := Hold.on(inner)) is not None:
            raise RuntimeError(
                f"{what} cannot take the optimizer {kind}: {other} has it, which is "
                "not over. One of them at a time: leave its loop or its `with` first."
            )
        if (model := frames.model_in_step(inner)) is not None:
            raise RuntimeError(
                f"{what} is for loops of your own, and the model {model.name!r}, which "
                f"has the optimizer {kind}, is in a fit, or in train_on_batch. In a "
                "fit give the callbacks HyperparameterScheduler or RangeTest; call "
                "find_learning_rate before it, or after."
            )
        for drive in Wheel.drives_on(inner):
            drive.end_if_over()  # left by an interrupted fit
        if drives := Wheel.drives_on(inner):
            names = ", ".join(drive.attribute for drive in drives)
            raise RuntimeError(
                f"{what} cannot take the optimizer {kind}: callbacks of a fit, or of a "
                f"loop that has not ended, drive its {names}. Call their "
                "on_train_end() first."
            )
        self.optimizer, self._what = inner, what
        self._place = InPlace(inner, _NAME, self)
        self._place.take()

    @staticmethod
    def on(optimizer: Any) -> str | None:
        """What has an optimizer, the innermost, now."""
        hold = vars(optimizer).get(_NAME)
        return hold._what if isinstance(hold, Hold) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the optimizer is in no loop."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()

    def let_go(self) -> None:
        """Give it back; a second time does nothing."""
        self._place.give_back()


def _nothing() -> None:
    """What `pickle` makes of a hold."""


def check_optimizer(optimizer: Any) -> Any:
    """Return what is an optimizer of Keras, or say what to do with another.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    way_out = ""
    if isinstance(optimizer, keras.Model):
        way_out = " Give model.optimizer."
    elif hasattr(optimizer, "param_groups"):
        way_out = (
            " One of PyTorch's own is a part of the state of tfs.sweep(step, (module, "
            "optimizer), batches)."
        )
    elif hasattr(optimizer, "update") and hasattr(optimizer, "init"):
        way_out = " One of optax is for tfs.sweep(step, state, batches)."
    kind = type(optimizer).__name__
    raise TypeError(
        "Argument `optimizer` must be an optimizer of Keras. Received: "
        f"optimizer={checks.shown(optimizer)} (of type {kind}).{way_out}"
    )
