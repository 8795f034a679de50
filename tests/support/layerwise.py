"""Every optimizer wrapped, its groups, and the NumPy references of its updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from helpers import (
    BACKEND,
    JIT,
    Batches,
    arrays,
    digits,
    initial_weights,
    relative_error,
    softmax_regression,
)

import tfschedules as tfs

optimizers = keras.optimizers


JAX = BACKEND == "jax"
FACTORS = (0.0, 0.1, 1.0, 3.0)
STEPS = 50


# NumPy references: one weight, the rate and the decay of each step; all its values.


def sgd(
    value: Any, gradients: Any, rates: Any, decays: Any = 0.0, momentum: Any = 0.9
) -> np.ndarray:
    """v ← μ·v − α·g after w ← w·(1 − α·λ)."""
    w, v, seen = np.asarray(value, np.float64), 0.0, []
    steps = len(gradients)
    for g, rate, decay, mu in zip(
        np.asarray(gradients, np.float64),
        np.broadcast_to(rates, steps),
        np.broadcast_to(decays, steps),
        np.broadcast_to(momentum, steps),
        strict=True,
    ):
        w = w * (1 - rate * decay)
        v = mu * v - rate * g
        w = w + v
        seen.append(w)
    return np.array(seen)


def problem(shape: tuple[int, ...] = (3, 4), count: int = len(FACTORS)) -> Any:
    """Values of `count` weights, and `STEPS` gradients for each: `(step, weight)`."""
    generator = np.random.default_rng(11)
    values = generator.normal(0, 1, (count, *shape)).astype("float32")
    gradients = generator.normal(0.3, 1, (STEPS, count, *shape)).astype("float32")
    return values, gradients


def variables(values: Any) -> list[keras.Variable]:
    return [
        keras.Variable(np.asarray(value, "float32"), name=f"w{i}", dtype="float32")
        for i, value in enumerate(values)
    ]


def one_each(
    weights: Sequence[keras.Variable], factors: Sequence[Any], **arguments: Any
) -> list[tfs.LayerGroup]:
    """A group for each weight."""
    return [
        tfs.LayerGroup(f"group {i}", [weight], factor, **arguments)
        for i, (weight, factor) in enumerate(zip(weights, factors, strict=True))
    ]


def step_by_step(optimizer: Any, weights: Any, gradients: Any) -> np.ndarray:
    """Apply the gradients; the weights after every step, `(step, weight, …)`."""
    seen = []
    for gradient in gradients:
        given = [keras.ops.convert_to_tensor(g) for g in gradient]
        if JAX and isinstance(optimizer, optimizers.LossScaleOptimizer):
            _apply_statelessly(optimizer, weights, given)  # it has no other way
        else:
            optimizer.apply(given, weights)
        seen.append([number(weight) for weight in weights])
    return np.array(seen)


def _apply_statelessly(optimizer: Any, weights: Any, gradients: Any) -> None:
    if not optimizer.built:
        optimizer.build(weights)
    updated = optimizer.stateless_apply(
        [variable.value for variable in optimizer.variables],
        gradients,
        [weight.value for weight in weights],
    )
    for variables, values in zip((weights, optimizer.variables), updated, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def number(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


def state(optimizer: Any) -> list[np.ndarray]:
    return [number(variable) for variable in optimizer.variables]


def same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> None:
    """Equal to the bit."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# Every optimizer of Keras, each with what it can do besides.

EVERY: dict[str, Callable[[float], Any]] = {
    "SGD": lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "SGD, decay": lambda rate: optimizers.SGD(rate, weight_decay=0.1),
    "RMSprop": lambda rate: optimizers.RMSprop(rate, momentum=0.5, centered=True),
    "Adam": lambda rate: optimizers.Adam(rate, amsgrad=True),
    "AdamW": lambda rate: optimizers.AdamW(rate, weight_decay=0.1),
    "Adadelta": lambda rate: optimizers.Adadelta(rate, weight_decay=0.1),
    "Adagrad": lambda rate: optimizers.Adagrad(rate),
    "Adamax": lambda rate: optimizers.Adamax(rate, clipnorm=1.0),
    "Adafactor": lambda rate: optimizers.Adafactor(rate, weight_decay=0.1),
    "Nadam": lambda rate: optimizers.Nadam(rate, weight_decay=0.1),
    "Ftrl": lambda rate: optimizers.Ftrl(rate, l1_regularization_strength=0.01),
    "Lion": lambda rate: optimizers.Lion(rate / 4, weight_decay=0.1),
    "Lamb": lambda rate: optimizers.Lamb(rate, weight_decay=0.1),
}
if hasattr(optimizers, "Muon"):  # since Keras 3.10
    EVERY["Muon"] = lambda rate: optimizers.Muon(rate, weight_decay=0.1)
if hasattr(optimizers, "ScheduleFreeAdamW"):  # since Keras 3.14
    EVERY["ScheduleFreeAdamW"] = lambda rate: optimizers.ScheduleFreeAdamW(
        rate, weight_decay=0.1
    )


# 2. Fits on digits.


def network(names: str = "abc", optimizer: Any = None, **arguments: Any) -> Any:
    """A network of three layers on digits, always from the same weights."""
    layers = [keras.layers.Dense(8, "tanh", name=name) for name in names[:-1]]
    model = keras.Sequential(
        [keras.Input((64,)), *layers, keras.layers.Dense(10, name=names[-1])]
    )
    generator = np.random.default_rng(5)
    model.set_weights(
        [generator.normal(0, 0.3, value.shape) for value in model.get_weights()]
    )
    return model if optimizer is None else compiled(model, optimizer, **arguments)


def compiled(model: Any, optimizer: Any, **arguments: Any) -> Any:
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": JIT, **arguments},
    )
    return model


def by_layer(
    model: Any, factors: Sequence[Any] = (1.0, 1.0, 1.0), **arguments: Any
) -> list[tfs.LayerGroup]:
    """A group for each layer that has weights, as an object."""
    return [
        tfs.LayerGroup(layer.name, [layer], factor, **arguments)
        for layer, factor in zip(model.layers, factors, strict=True)
    ]


def layerwise(
    optimizer: Any, factors: Sequence[Any] = (1.0, 1.0, 1.0), **arguments: Any
) -> Any:
    """The network with a factor for each layer."""
    model = network()
    wrapped = tfs.LayerwiseOptimizer(optimizer, by_layer(model, factors))
    return compiled(model, wrapped, **arguments)


def train(
    model: Any,
    epochs: int = 1,
    count: int = 96,
    *,
    build: bool = True,
    **arguments: Any,
) -> Any:
    """Six batches of sixteen digits an epoch.

    Where a fit has to build the optimizer by itself, TensorFlow traces the step twice:
    only where that is the point is it left to do so.
    """
    if build and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    x, y = digits(count)
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, epochs=epochs, **settings)


def goes_on_alike(model: Any, other: Any, **arguments: Any) -> None:
    """Both train on, and end with the same weights and state, to the bit."""
    same(arrays(other), arrays(model))
    before = arrays(model)
    for each in (model, other):
        train(each, **arguments)
    same(arrays(other), arrays(model))
    same(state(other.optimizer), state(model.optimizer))
    assert relative_error(arrays(model), before) > 1e-5


def softmax_loop(
    batches: Batches,
    update: Callable[..., Any],
) -> list[np.ndarray]:
    """Softmax regression in float64: `update(step, index, weight, gradient)`."""
    weights = [value.astype(np.float64) for value in initial_weights()]
    for step, (x, y) in enumerate(batches):
        logits = x.astype(np.float64) @ weights[0] + weights[1]
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error -= np.eye(10)[y]
        gradients = [x.astype(np.float64).T @ error / len(y), error.mean(axis=0)]
        weights = [
            update(step, i, weights[i], gradient)
            for i, gradient in enumerate(gradients)
        ]
    return weights


def regression(optimizer: Any, factors: Sequence[Any], **arguments: Any) -> Any:
    """Softmax regression, its kernel and its bias each in a group."""
    model = softmax_regression("sgd", **arguments)
    groups = one_each(model.trainable_variables, factors)
    wrapped = tfs.LayerwiseOptimizer(optimizer, groups)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(wrapped, loss, **{"jit_compile": JIT, **arguments})
    return model


def momentum_update(
    factors: Any, rates: Any, momenta: Any = 0.9, decays: Any = 0.0
) -> Callable[..., Any]:
    """SGD with momentum; all of it may differ from step to step."""
    speeds: list[Any] = [0.0, 0.0]

    def at(values: Any, step: int) -> Any:
        return values if np.ndim(values) == 0 else values[step]

    def update(step: int, i: int, w: Any, g: Any) -> Any:
        rate = at(rates, step) * at(factors[i], step)
        speeds[i] = at(momenta, step) * speeds[i] - rate * g
        return w - rate * at(decays, step) * w + speeds[i]

    return update


class Halving(keras.optimizers.Optimizer):
    """A user's optimizer with state of its own: w ← w − α·m, m ← (m + g)/2."""

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.means = self.add_optimizer_variables(variables, "mean")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        mean = self.means[self._get_variable_index(variable)]
        self.assign(mean, (mean + gradient) / 2)
        rate = keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * mean)


FACTORS_OF_LAYERS = (0.25, tfs.Linear(0.0, 1.0, 15), 2.0)


def adam_by_layer() -> Any:
    return layerwise(EVERY["AdamW"](0.02), FACTORS_OF_LAYERS)
