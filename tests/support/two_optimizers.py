"""A model with two optimizers, which writes down the rates that each really had.

As in a GAN, `compile` sets two attributes, and what Keras compiles by itself is not
used. Update k of an optimizer has as its gradient the k-th unit vector: by SGD without
momentum weight k is minus the rate of that update.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from helpers import BACKEND, JIT

STEPS = 96  # updates that are written down


@keras.saving.register_keras_serializable("tfschedules_tests")
class Duel(keras.Model):
    """Updates `d` several times with each batch, and `g` once."""

    def __init__(self, critic_steps: int = 1, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.critic_steps = critic_steps
        self.d = self.add_weight((STEPS,), "zeros", name="d")
        self.g = self.add_weight((STEPS,), "zeros", name="g")
        self.built = True

    def compile(self, d: Any = None, g: Any = None, **arguments: Any) -> None:
        super().compile(**{"jit_compile": JIT, **arguments})
        self.d_optimizer = keras.optimizers.SGD(0.5) if d is None else d
        self.g_optimizer = keras.optimizers.SGD(0.25) if g is None else g
        self.d_optimizer.build([self.d])
        self.g_optimizer.build([self.g])
        if BACKEND == "jax":  # what a step on JAX is to carry
            self.state = keras.layers.Layer()
            self.state.held = [*self.d_optimizer.variables, *self.g_optimizer.variables]
            self.state.built = True

    def train_step(self, *arguments: Any) -> Any:
        if BACKEND == "jax":
            return self._with_state(*arguments)
        for _ in range(self.critic_steps):
            step(self.d_optimizer, self.d)
        step(self.g_optimizer, self.g)
        return {"d_loss": keras.ops.sum(self.d**2), "g_loss": keras.ops.sum(self.g)}

    def _with_state(self, state: Any, data: Any) -> Any:
        weights, others, *rest = map(list, state)
        for _ in range(self.critic_steps):
            self._step(self.d_optimizer, self.d, weights, others)
        self._step(self.g_optimizer, self.g, weights, others)
        logs = {"d_loss": (weights[0] ** 2).sum(), "g_loss": weights[1].sum()}
        return logs, (weights, others, *rest)

    def _step(self, optimizer: Any, weight: Any, weights: Any, others: Any) -> None:
        own = [
            place(each, self.non_trainable_variables) for each in optimizer.variables
        ]
        at = place(weight, self.trainable_variables)
        made = others[own[0]]  # the first variable is the count
        gradient = keras.ops.one_hot(made, STEPS, dtype="float32")
        (weights[at],), new = optimizer.stateless_apply(
            [others[i] for i in own], [gradient], [weights[at]]
        )
        for i, value in zip(own, new, strict=True):
            others[i] = value


def place(variable: Any, variables: Any) -> int:
    """Where a variable is in a list."""
    return next(i for i, each in enumerate(variables) if each is variable)


def step(optimizer: Any, weight: Any) -> None:
    """An update whose gradient is the unit vector of its number."""
    made = keras.ops.convert_to_tensor(optimizer.iterations)
    gradient = keras.ops.one_hot(made, STEPS, dtype=weight.dtype)
    optimizer.apply([gradient], [weight])


def duel(*arguments: Any, critic_steps: int = 1, **compile_arguments: Any) -> Duel:
    """The model, compiled."""
    model = Duel(critic_steps)
    model.compile(*arguments, **compile_arguments)
    return model


def written(weight: Any) -> np.ndarray:
    """The rates of all updates so far."""
    return -np.array(keras.ops.convert_to_numpy(weight))


def data(batches: int) -> np.ndarray:
    """So many batches of two."""
    return np.zeros((2 * batches, 1), "float32")


def left(model: keras.Model) -> list[str]:
    """What is still set over methods of the model and of its optimizers."""
    owners = [model, model.optimizer, model.d_optimizer, model.g_optimizer]
    names = {"apply", "make_train_function", "train_step", "compile"}
    return [name for o in owners for name in names & vars(o).keys()]
