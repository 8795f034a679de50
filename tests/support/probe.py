"""A layer that shows the rates a training really had, whatever else it trains.

Its weight is added to the loss, so its gradient is 1 in every update: SGD without
momentum lowers it by the rate, and Adam with a fixed `beta_1`, too, to some 1e-5 of it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


class Probe(keras.layers.Layer):
    """Passes its input on, and adds its weight to the losses of the model.

    A program that computes its loss itself does not call it, and adds `loss()`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fallen = self.add_weight(shape=(), initializer="zeros", name="fallen")
        self.built = True

    def call(self, x: Any) -> Any:
        self.add_loss(self.loss())
        return x

    def loss(self) -> Any:
        """Its weight, as a tensor."""
        return keras.ops.convert_to_tensor(self.fallen)

    def read(self) -> float:
        """The weight now."""
        return float(keras.ops.convert_to_numpy(self.fallen))


class Watch(keras.callbacks.Callback):
    """Reads a probe after every batch of a fit."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe, self.values = probe, [0.0]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # On JAX `self.model` writes the state back first, for all that is read here.
        assert self.model is not None
        self.values.append(self.probe.read())

    @property
    def rates(self) -> np.ndarray:
        """By how much the weight has fallen in each update."""
        return -np.diff(self.values)


def adam_steps(rates: np.ndarray, beta_1: Any = 0.9, beta_2: float = 0.999) -> Any:
    """By how much Adam lowers a weight whose gradient is 1, update by update."""
    momenta, mean, square, steps = np.broadcast_to(beta_1, len(rates)), 0.0, 0.0, []
    for t, (rate, b) in enumerate(zip(rates, momenta, strict=True), start=1):
        mean, square = b * mean + 1 - b, beta_2 * square + 1 - beta_2
        corrected = rate * np.sqrt(1 - beta_2**t) / (1 - b**t)
        steps.append(corrected * mean / (np.sqrt(square) + 1e-7))
    return np.array(steps)
