"""How good is the rate that a range test suggests? Train with it and see."""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from problems import Problem, problems

SWEEP = np.geomspace(1e-7, 10.0, 100)
GRID = np.geomspace(1e-5, 10.0, 21)
BUDGET = 200  # steps of a training
JIT = False


class Trainer:
    """A problem with one compiled training loop."""

    def __init__(self, problem: Problem) -> None:
        """Build model and optimizer."""
        self.problem = problem
        self.data = self.constant(problem.data())
        self.before = self.constant(problem.before[0]()) if problem.before else None
        self.model = self.build(0)
        self.optimizer = problem.optimizer()
        self.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.variables, *self.optimizer.variables]
        self.slots = [v.numpy() for v in self.optimizer.variables]
        self.compiled = tf.function(self.loop, reduce_retracing=True, jit_compile=JIT)
        self.compiled_evaluate = tf.function(self.evaluate)

    def constant(self, data):
        """As tensors."""
        x, y = data
        return tf.constant(x, "float32"), tf.constant(
            y, "int32" if y.dtype.kind == "i" else "float32"
        )

    def build(self, seed: int) -> keras.Model:
        """The network with first weights."""
        keras.utils.set_random_seed(seed)
        model = self.problem.model()
        model(self.data[0][:2])
        return model

    def begin(self, seed: int) -> None:
        """Draw the first weights; train them on other data if it is to be fine-tuned."""
        fresh = [v.numpy() for v in self.build(seed).variables]
        self.first = [*fresh, *self.slots]
        if self.before is None:
            return
        self.run(one_cycle(self.problem.before[1], 300), seed, self.before)
        trained = [v.numpy() for v in self.model.variables]
        self.first = [*trained[:-2], *fresh[-2:], *self.slots]

    def evaluate(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The loss of the whole training set."""
        return tf.reduce_mean(self.problem.loss(y, self.model(x, training=False)))

    def loop(self, rates, order, data_x, data_y) -> tf.Tensor:
        """Train with `rates[i]` on the examples `order[i]`; every batch's loss."""
        values = tf.TensorArray("float32", tf.shape(rates)[0])
        for i in tf.range(tf.shape(rates)[0]):
            x, y = tf.gather(data_x, order[i]), tf.gather(data_y, order[i])
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(
                    self.problem.loss(y, self.model(x, training=True))
                )
            self.optimizer.learning_rate.assign(rates[i])
            gradients = tape.gradient(value, self.model.trainable_variables)
            self.optimizer.apply(gradients)
            values = values.write(i, value)
        return values.stack()

    def run(self, rates: np.ndarray, seed: int, data=None) -> tuple[np.ndarray, float]:
        """Train from the first weights; batch losses and the final loss."""
        for variable, value in zip(self.variables, self.first, strict=True):
            variable.assign(value)
        x, y = data or self.data
        size = self.problem.batch_size
        rng = np.random.default_rng(seed)
        epochs = -(-len(rates) * size // len(x))
        order = np.concatenate([rng.permutation(len(x)) for _ in range(epochs)])
        order = order[: len(rates) * size].reshape(len(rates), -1)
        batch_losses = self.compiled(
            tf.constant(rates, "float32"), tf.constant(order, "int32"), x, y
        )
        return batch_losses.numpy().astype(float), float(self.compiled_evaluate(x, y))


def one_cycle(peak: float, steps: int) -> np.ndarray:
    """Smith's cycle with cosine sides: peak/25, peak at 0.3, peak/2.5e5."""
    t = np.arange(steps) / (steps - 1)
    up, down = np.minimum(t / 0.3, 1.0), np.maximum((t - 0.3) / 0.7, 0.0)
    rise = 1 / 25 + (1 - 1 / 25) * (1 - np.cos(np.pi * up)) / 2
    return peak * np.where(t < 0.3, rise, 4e-6 + (1 + np.cos(np.pi * down)) / 2)


def measure(trainer, seed: int, budget: int = BUDGET) -> dict:
    """The raw losses of three whole sweeps; the losses after training."""
    trainer.begin(seed)
    sweeps = [trainer.run(SWEEP, 1000 + 10 * seed + i)[0] for i in range(3)]
    start = trainer.run(np.zeros(budget), seed)[1]
    final = [
        [trainer.run(shape(rate), seed)[1] for rate in GRID]
        for shape in (lambda r: np.full(budget, r), lambda r: one_cycle(r, budget))
    ]
    return {"sweeps": np.array(sweeps), "start": start, "final": np.array(final)}
