"""Steps that JAX takes for no other.

JAX keeps traces by the function, and finds that of an equal one. Keras compiles
`model.train_step`, and bound methods of one object are equal: as long as an older train
function is alive, `jax.jit(model.train_step)` has the trace of that one. So a step that
is made while something is on loan is a function of its own, which equals no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from tfschedules.drive.attributes import InPlace


class Handed(NamedTuple):
    """A batch, and what a step that is already traced has to be told."""

    batch: Any
    shift: Any


@contextlib.contextmanager
def of_its_own(
    model: keras.Model, name: str, change: Callable[[Any], Any] | None = None
) -> Iterator[None]:
    """Let a step be a function of its own, while Keras takes it to compile it.

    Args:
        model: The model.
        name: The step's name, "train_step" or "test_step".
        change: What makes a function of the step; by default one that calls it.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    step = getattr(model, name)

    def its_own(state: Any, data: Any) -> Any:
        return step(state, data)

    with InPlace(model, name, its_own if change is None else change(step)):
        yield


def evict(model: keras.Model) -> None:
    """Have JAX forget the trace of a model's plain step: it is no longer right."""
    if keras.backend.backend() == "jax":
        import jax

        jax.jit(type(model).train_step.__get__(model)).clear_cache()
