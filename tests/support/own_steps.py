"""What train steps of programs' own are written with, on TensorFlow and on torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from helpers import BACKEND


def gradients(loss: Callable[[], Any], weights: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The value of a loss, and its gradients with respect to some weights."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        return value, tape.gradient(value, list(weights))
    import torch

    value = loss()
    return value.detach(), list(torch.autograd.grad(value, [w.value for w in weights]))


def slopes(function: Callable[[Any], Any], x: Any) -> Any:
    """The gradient of a function with respect to its input, to be derived again."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)
    import torch

    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x, create_graph=True)[0]


def update(optimizer: Any, grads: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Make an update, and return the rate by which it has moved the last weight.

    By SGD without momentum that is the rate of this update, whoever has set it.
    """
    ops = keras.ops
    weight, slope = weights[-1], grads[-1]
    before = ops.copy(ops.convert_to_tensor(weight))
    optimizer.apply(grads, weights)
    moved = before - ops.convert_to_tensor(weight)
    return ops.sum(moved * slope) / ops.sum(slope * slope)


class Reported(keras.callbacks.Callback):
    """Keeps what the train step reports of each batch, by name."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.values: dict[str, list[float]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for name, value in logs.items():
            self.values.setdefault(name, []).append(float(value))
