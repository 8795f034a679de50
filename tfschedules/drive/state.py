"""Reading variables while a fit runs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfschedules.schedules import Schedule


def innermost(optimizer: Any) -> Any:
    """The optimizer that makes the updates, inside those that wrap it.

    They are `LossScaleOptimizer` and `LayerwiseOptimizer`.
    """
    while (inner := vars(optimizer).get("inner_optimizer")) is not None:
        optimizer = inner
    return optimizer


def rates_compiled(schedule: Any, steps: np.ndarray) -> np.ndarray:
    """The rates of a schedule that an optimizer was compiled with, at its updates."""
    if isinstance(schedule, Schedule):
        return schedule.values(steps)
    return np.array([float(schedule(keras.ops.convert_to_tensor(s))) for s in steps])


def read(model: keras.Model, variable: Any) -> np.ndarray:
    """The value of a variable now, also between two steps of a JAX fit.

    JAX keeps the state outside the variables while it trains. Asking the model to write
    it back costs more than the step; this reads the one array instead. To be called
    from the main thread, before the next step takes the state.
    """
    # There is none in a fit that has failed in its first step, and in the next one
    # until its first step: then the variables are what there is.
    if (state := outside_state(model)) is not None:
        array = in_state(model, state, variable)
        if array is not None:
            return np.asarray(array)
    return value_of(variable)


def in_state(model: keras.Model, state: tuple[Any, ...], variable: Any) -> Any:
    """What JAX's state has of a variable; `None` if it is no part of it."""
    for kind in _LOOKED_UP:
        variables = variables_of(model, kind)
        for candidate, array in zip(variables, state[kind], strict=True):
            if candidate is variable:
                return array
    return None


def variables_of(model: keras.Model, kind: int) -> list[Any]:
    """The variables of a kind, by its place in JAX's state.

    Those of another optimizer than the compiled one are among those of the model.
    """
    if KINDS[kind] == "optimizer_variables":
        return [] if model.optimizer is None else model.optimizer.variables
    return list(getattr(model, KINDS[kind]))


def value_of(variable: keras.Variable) -> np.ndarray:
    """A copy of a variable's value."""
    value = variable.value
    if keras.backend.backend() == "tensorflow":
        return np.array(value.numpy())  # also of a mirrored one, where int() raises
    return np.array(keras.ops.convert_to_numpy(value))


def outside_state(model: keras.Model) -> tuple[Any, ...] | None:
    """JAX's state, where it has it outside of the variables."""
    outside = keras.backend.backend() == "jax" and not model._jax_state_synced
    if outside and getattr(model, "_jax_state", None) is not None:
        return tuple(model._jax_state[kind] for kind in KINDS)
    return None


# Of what JAX's state is made, in Keras's order.
KINDS = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)
_LOOKED_UP = (2, 3, 1, 0)  # what is read most often first


def note_state(model: keras.Model, state: tuple[Any, ...]) -> None:
    """Let a model know the state that JAX has outside of its variables."""
    model._jax_state = dict(zip(KINDS, state, strict=True))
    model._jax_state_synced = False


def keep_after_error(model: keras.Model, arguments: Sequence[Any]) -> None:
    """Leave the model whole after a step of JAX's that has raised before it began.

    Keras has taken the state out of the variables by then, and an error in the trace of
    a first step would lose it. One in a step that has begun does lose it.

    Args:
        model: The model.
        arguments: Those of the train function: on JAX the state is the first of two.
    """
    if len(arguments) > 1:
        arrays = [array for kind in arguments[0] for array in kind]
        if any(array.is_deleted() for array in arrays):
            drop_state(model)  # what the user sets now must not be overwritten with it
        else:
            note_state(model, arguments[0])
            model.jax_state_sync()


def show_state(model: keras.Model, arguments: Sequence[Any]) -> None:
    """Let the variables hold JAX's state: Keras asks them how it is laid out."""
    if len(arguments) > 1:
        note_state(model, arguments[0])
        model.jax_state_sync()
        model._jax_state_synced = False  # the state goes on outside of them


def settle_state(model: keras.Model) -> None:
    """Put the state that JAX has outside of the variables into them.

    Keras does so where a fit ends, but may be interrupted in it. It goes by the order
    of the variables: this has to be done before a metric goes.
    """
    if keras.backend.backend() == "jax":
        with contextlib.suppress(RuntimeError):  # an interrupted step has it for good
            model.jax_state_sync()


def drop_state(model: keras.Model) -> None:
    """Forget the state outside of the variables: these are going to be set."""
    if keras.backend.backend() == "jax":
        model._jax_state, model._jax_state_synced = None, True


def batches_in(
    model: keras.Model, optimizer: Any, state: tuple[Any, ...] | None
) -> int:
    """How many batches an optimizer has seen.

    Args:
        model: The model that is trained.
        optimizer: The innermost.
        state: The state outside of the variables, where JAX has it there.
    """
    counter = optimizer._iterations
    if state is None:
        return int(value_of(counter))
    return int(in_state(model, state, counter))


def has_weights(model: keras.Model) -> bool:
    """Whether a model has the weights that it trains.

    One that is made of other models and has no `call`, as a GAN, is never built itself.
    """
    if not model.weights:
        return False
    inside = model._flatten_layers(include_self=False)
    return model.built or (
        type(model).call is keras.Model.call and all(layer.built for layer in inside)
    )


def is_compiled(model: keras.Model) -> bool:
    """Whether a training step is traced: then the trace has all that it can do."""
    eager = model.run_eagerly or keras.backend.backend() == "torch"
    return not (eager or (keras.backend.backend() == "jax" and not model.jit_compile))


def check_compiled(model: Any, optimizer: Any = None) -> None:
    """Refuse what is no model, or cannot be trained yet.

    Args:
        model: The model.
        optimizer: What names another optimizer than the compiled one, if something
            does.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is not compiled with an optimizer.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Argument `model` must be a keras.Model. Received: {type(model).__name__}"
        )
    if not model.compiled or (model.optimizer is None and optimizer is None):
        raise ValueError(
            "Argument `model` must be compiled with an optimizer and a loss. Received: "
            f"{model.name!r}, which is not. Call model.compile(...) first."
        )
