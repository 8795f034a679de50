"""Real data, tiny models, and plain NumPy loops to compare a fit with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]  # of the repository
SUPPORT = Path(__file__).parent  # what children of the tests need to import these

BACKEND = keras.backend.backend()
# JAX is slow without compilation, TensorFlow is slow to compile with XLA.
JIT = BACKEND == "jax"

Batches = list[tuple[np.ndarray, np.ndarray]]


def digits(count: int = 1797) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits: float32 `(count, 64)` in 0 … 1, and labels 0 … 9."""
    data = load_digits()
    return (data.data[:count] / 16).astype("float32"), data.target[:count]


def in_batches(x: np.ndarray, y: np.ndarray, size: int) -> Batches:
    """Cut data as `fit(shuffle=False)` does; the last batch may be smaller."""
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def initial_weights() -> list[np.ndarray]:
    """The kernel and the bias with which every softmax regression begins."""
    generator = np.random.default_rng(0)
    return [
        generator.normal(0, 0.1, (64, 10)).astype("float32"),
        generator.normal(0, 0.1, 10).astype("float32"),
    ]


def softmax_regression(
    optimizer: Any, model_class: type = keras.Model, **compile_arguments: Any
) -> keras.Model:
    """A compiled and built softmax regression on digits, always from one beginning."""
    inputs = keras.Input((64,))
    model = model_class(inputs, keras.layers.Dense(10)(inputs))
    model.set_weights(initial_weights())
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": JIT, **compile_arguments},
    )
    model.optimizer.build(model.trainable_variables)
    return model


def sgd_loop(
    batches: Batches,
    rates: Sequence[float] | np.ndarray,
    momenta: Sequence[float] | np.ndarray | None = None,
    *,
    nesterov: bool = False,
    accumulate: int = 1,
    weights: Sequence[np.ndarray] | None = None,
    velocity: list[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Softmax regression by SGD with momentum, in float64; the weights at the end.

    Update t follows `rates[t]` and `momenta[t]`, and is made of the mean gradient of
    `accumulate` batches. `velocity` is changed in place, to go on with it.
    """
    kernel, bias = (
        np.array(value, np.float64) for value in weights or initial_weights()
    )
    if velocity is None:
        velocity = [np.zeros((64, 10)), np.zeros(10)]
    total: list[Any] = [0.0, 0.0]
    for i, (x, y) in enumerate(batches):
        x = np.asarray(x, np.float64)
        logits = x @ kernel + bias
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(y)), y] -= 1
        error /= len(y)
        total = [total[0] + x.T @ error, total[1] + error.sum(axis=0)]
        update, micro = divmod(i, accumulate)
        if micro < accumulate - 1:
            continue
        rate = rates[update]
        momentum = 0.0 if momenta is None else momenta[update]
        for value, speed, gradient in zip((kernel, bias), velocity, total, strict=True):
            step = rate * gradient / accumulate
            speed[...] = momentum * speed - step
            value += momentum * speed - step if nesterov else speed
        total = [0.0, 0.0]
    return [kernel, bias]


def one_cycle_values(
    max_lr: float, steps: int, high: float = 0.95, low: float = 0.85
) -> tuple[np.ndarray, np.ndarray]:
    """Rates and momenta of torch's `OneCycleLR` with its defaults, as written there."""
    rates, momenta = [], []
    peak, last = 0.3 * steps - 1, steps - 1
    first = max_lr / 25

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))

    for step in range(steps):
        if step <= peak:
            rates.append(between(first, max_lr, step / peak))
            momenta.append(between(high, low, step / peak))
        else:
            share = (step - peak) / (last - peak)
            rates.append(between(max_lr, first / 1e4, share))
            momenta.append(between(low, high, share))
    return np.array(rates), np.array(momenta)


def line(start: float, end: float, steps: int, count: int) -> np.ndarray:
    """`count` values on the line from `start` to `end` in `steps`, and then `end`."""
    return np.interp(np.arange(count), [0, steps], [start, end])


def arrays(model: keras.Model) -> list[np.ndarray]:
    """The model's weights, as NumPy arrays."""
    return [np.array(value) for value in model.get_weights()]


def relative_error(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> float:
    """‖actual − expected‖ / ‖expected‖ over all numbers of all arrays, in float64."""
    first, second = (
        np.concatenate([np.ravel(value).astype(np.float64) for value in values])
        for values in (actual, expected)
    )
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def patches(model: keras.Model) -> list[str]:
    """What is still set over a model's and its optimizer's own methods."""
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return [
        *({"apply", "apply_gradients", "stateless_apply"} & vars(optimizer).keys()),
        *({"make_train_function", "train_step", "compile"} & vars(model).keys()),
    ]


class Rates(keras.callbacks.Callback):
    """Reads the rate and the count as any callback does, after every execution."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.counts: list[int] = []
        self.at_epoch_begin: list[float] = []

    def rate(self) -> float:
        # On JAX `self.model` writes the state back first, for all that is read here.
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.at_epoch_begin.append(self.rate())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.rates.append(self.rate())
        self.counts.append(int(self.model.optimizer.iterations))


class Interrupt(keras.callbacks.Callback):
    """Stands for Ctrl-C after `steps` steps of a fit."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt("by the test")


def naming(argument: str, received: object) -> str:
    """A pattern for "… `argument` … Received: … received"."""
    return f"(?s)`{argument}`.*Received: .*{re.escape(repr(received))}"
