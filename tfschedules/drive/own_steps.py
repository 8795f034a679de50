"""Steps that JAX takes for no other.

JAX keeps traces by the function, and finds that of an equal one. Keras compiles
`model.train_step`, and bound methods of one object are equal: as long as an older train
function is alive, `jax.jit(model.train_step)` has the trace of that one. So a step that
is made while something is on loan is a function of its own, which equals no other.

A train step of the user's may call functions that are compiled by themselves, with
`jax.jit`, `jax.lax.scan` or `jax.checkpoint`. JAX would keep their traces, too. It
finds a trace only in the context that it was made in: each trace of the step has one
of its own.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from tfschedules.drive.attributes import InPlace
from tfschedules.drive.own_functions import is_traced


class Handed(NamedTuple):
    """A batch, and what a step that is already traced has to be told."""

    batch: Any
    shifts: list[Any]


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
    if name == "train_step" and (name in vars(model) or not is_stock(model)):
        step = _apart(step)

    def its_own(state: Any, data: Any) -> Any:
        return step(state, data)

    with InPlace(model, name, its_own if change is None else change(step)):
        yield


def is_stock(model: keras.Model) -> bool:
    """Whether the train step of a model's class is Keras's own."""
    return type(model).train_step is keras.Model.train_step


def _apart(step: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A step in which JAX finds no trace of others, and none of which others find.

    Raises:
        RuntimeError: If JAX has no contexts of users'.
    """
    enter = _context()
    whole = object()  # a step that is not traced is made anew when something changes

    def apart(state: Any, data: Any) -> Any:
        with enter(object() if is_traced(state) else whole):
            return step(state, data)

    return apart


@functools.cache
def _context() -> Any:
    import jax

    if not hasattr(jax, "make_user_context"):
        raise RuntimeError(
            "A train_step of your own may have functions in it that are compiled by "
            "themselves, and to keep their traces apart takes jax.make_user_context, "
            f"which JAX {jax.__version__} does not have. Use a newer JAX."
        )
    return jax.make_user_context(None)


def evict(model: keras.Model) -> None:
    """Have JAX forget the trace of a model's plain step: it is no longer right."""
    if keras.backend.backend() == "jax":
        import jax

        step = type(model).train_step
        jax.jit(step.__get__(model)).clear_cache()
        if hasattr(step, "clear_cache"):  # the user has compiled it, too
            step.clear_cache()
