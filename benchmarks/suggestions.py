"""How good is the rate that a range test suggests? Train with it and see.

For each of sixteen small problems: one exponential sweep gives the curve that the
rules read; then short runs over a grid of rates, constant and as the peak of a
one-cycle, give the final loss as a function of the rate. A rule's score is

    share = (start - final at the suggested rate) / (start - best final of the grid)

clipped to [0, 1], interpolated in the logarithm of the rate, averaged over constant
rate and one-cycle. A refusal scores 0. Losses are those of the whole training set,
since a range test is about optimization, not about generalization.

    python benchmarks/suggestions.py [--seeds 3] [--seed 0]

Nothing is stored. Data come with scikit-learn or are made from a seed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, losses, optimizers
from sklearn import datasets

from tfschedules.suggestions import RULES, suggest

SWEEP = np.geomspace(1e-6, 10.0, 100)
GRID = np.geomspace(1e-5, 10.0, 13)
TRAINING_STEPS = 200


@dataclass(frozen=True)
class Problem:
    """One training task; `held_out` ones were not used to choose numbers."""

    name: str
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    model: Callable[[], keras.Model]
    loss: Callable
    optimizer: Callable[[], keras.optimizers.Optimizer]
    batch_size: int
    held_out: bool = False


def standardized(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and deviation 1."""
    return (values - values.mean(0)) / (values.std(0) + 1e-9)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images of 8 x 8 pixels, ten classes."""
    x, y = datasets.load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1) / 8.0 - 1.0, y


def noisy_digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits, three in ten labels drawn at random."""
    x, y = digits()
    rng = np.random.default_rng(0)
    wrong = rng.random(len(y)) < 0.3
    return x, np.where(wrong, rng.integers(0, 10, len(y)), y)


def table(load: Callable) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """A scikit-learn table of features, standardized; real targets too."""

    def data() -> tuple[np.ndarray, np.ndarray]:
        x, y = load(return_X_y=True)
        real = not np.array_equal(y, np.round(y)) or len(np.unique(y)) > 20
        return standardized(x), standardized(y)[:, None] if real else y

    return data


def friedman() -> tuple[np.ndarray, np.ndarray]:
    """Friedman's first function of ten uniform variables, with noise."""
    x, y = datasets.make_friedman1(2000, noise=1.0, random_state=0)
    return standardized(x), standardized(y)[:, None]


def low_rank() -> tuple[np.ndarray, np.ndarray]:
    """Images' own reconstruction through a narrow layer."""
    x = standardized(datasets.load_digits().data)
    return x, x


def mlp(width: int, outputs: int, depth: int = 2, norm: bool = False) -> Callable:
    """A function that makes a multilayer perceptron."""

    def build() -> keras.Model:
        body = [layers.Flatten()]
        for _ in range(depth):
            body += [layers.Dense(width, activation=None if norm else "relu")]
            body += [layers.BatchNormalization(momentum=0.9)] if norm else []
            body += [layers.ReLU()] if norm else []
        return keras.Sequential([*body, layers.Dense(outputs)])

    return build


def conv(norm: bool) -> Callable[[], keras.Model]:
    """A function that makes a small convolutional network."""

    def build() -> keras.Model:
        body = []
        for filters in (8, 16):
            body += [layers.Conv2D(filters, 3, strides=2, padding="same")]
            body += [layers.BatchNormalization(momentum=0.9)] if norm else []
            body += [layers.ReLU()]
        return keras.Sequential([*body, layers.Flatten(), layers.Dense(10)])

    return build


def gaussian_likelihood(y: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Negative log likelihood, which is below zero where the fit is sharp."""
    mean, log_scale = output[:, :1], output[:, 1:]
    log_scale = 3.0 * tf.tanh(log_scale / 3.0)
    return log_scale - 2.0 + 0.5 * tf.square((y - mean) * tf.exp(-log_scale))


CROSS_ENTROPY = losses.SparseCategoricalCrossentropy(from_logits=True)
SQUARED = losses.MeanSquaredError()


def problems() -> list[Problem]:
    """The problems, the ones kept aside last."""
    cancer, wine = table(datasets.load_breast_cancer), table(datasets.load_wine)
    diabetes = table(datasets.load_diabetes)
    sgd, adam = optimizers.SGD, optimizers.Adam

    def momentum() -> keras.optimizers.Optimizer:
        return sgd(momentum=0.9)

    rows = [
        ("digits mlp sgd", digits, mlp(64, 10), CROSS_ENTROPY, sgd, 32),
        ("digits mlp momentum", digits, mlp(64, 10), CROSS_ENTROPY, momentum, 64),
        ("digits conv+bn momentum", digits, conv(True), CROSS_ENTROPY, momentum, 64),
        ("digits conv adam", digits, conv(False), CROSS_ENTROPY, adam, 32),
        ("cancer mlp adam", cancer, mlp(32, 2), CROSS_ENTROPY, adam, 16),
        ("wine mlp sgd", wine, mlp(32, 3), CROSS_ENTROPY, sgd, 16),
        ("diabetes mlp momentum", diabetes, mlp(32, 1), SQUARED, momentum, 32),
        ("friedman mlp+bn adam", friedman, mlp(32, 1, 2, True), SQUARED, adam, 64),
        ("label noise mlp adam", noisy_digits, mlp(64, 10), CROSS_ENTROPY, adam, 16),
        ("autoencoder mlp momentum", low_rank, mlp(16, 64, 1), SQUARED, momentum, 128),
        ("cancer mlp+bn sgd", cancer, mlp(32, 2, 1, True), CROSS_ENTROPY, sgd, 128),
        ("friedman nll adam", friedman, mlp(32, 2), gaussian_likelihood, adam, 32),
        (
            "digits deep mlp rmsprop",
            digits,
            mlp(32, 10, 6),
            CROSS_ENTROPY,
            optimizers.RMSprop,
            64,
        ),
        (
            "digits mlp+bn adamw",
            digits,
            mlp(64, 10, 3, True),
            CROSS_ENTROPY,
            optimizers.AdamW,
            32,
        ),
        (
            "autoencoder mlp nadam",
            low_rank,
            mlp(32, 64, 1),
            SQUARED,
            optimizers.Nadam,
            64,
        ),
        ("friedman mlp sgd", friedman, mlp(32, 1), SQUARED, sgd, 16),
    ]
    return [Problem(*row, held_out=i >= 10) for i, row in enumerate(rows)]


class Trainer:
    """A problem with one set of first weights and one compiled training loop."""

    def __init__(self, problem: Problem, seed: int) -> None:
        """Build model and optimizer, and keep their first values."""
        keras.utils.set_random_seed(seed)
        x, y = problem.data()
        self.x = tf.constant(x, "float32")
        self.y = tf.constant(y, "int32" if y.ndim == 1 else "float32")
        self.model, self.loss = problem.model(), problem.loss
        self.model(self.x[:2])
        self.optimizer = problem.optimizer()
        self.optimizer.build(self.model.trainable_variables)
        self.batch_size = problem.batch_size
        self.variables = [*self.model.variables, *self.optimizer.variables]
        self.first = [v.numpy() for v in self.variables]
        self.compiled = tf.function(self.loop, reduce_retracing=True)
        self.compiled_evaluate = tf.function(self.evaluate)

    def evaluate(self) -> tf.Tensor:
        """The loss of the whole training set."""
        return tf.reduce_mean(self.loss(self.y, self.model(self.x, training=False)))

    def loop(self, rates: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        """Train with `rates[i]` on the examples `order[i]`; every batch's loss."""
        values = tf.TensorArray("float32", tf.shape(rates)[0])
        for i in tf.range(tf.shape(rates)[0]):
            x, y = tf.gather(self.x, order[i]), tf.gather(self.y, order[i])
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(self.loss(y, self.model(x, training=True)))
            self.optimizer.learning_rate.assign(rates[i])
            gradients = tape.gradient(value, self.model.trainable_variables)
            self.optimizer.apply(gradients)
            values = values.write(i, value)
        return values.stack()

    def run(self, rates: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
        """Train from the first weights; batch losses and the final loss."""
        for variable, value in zip(self.variables, self.first, strict=True):
            variable.assign(value)
        rng = np.random.default_rng(seed)
        epochs = -(-len(rates) * self.batch_size // len(self.x))
        order = np.concatenate([rng.permutation(len(self.x)) for _ in range(epochs)])
        order = order[: len(rates) * self.batch_size].reshape(len(rates), -1)
        batch_losses = self.compiled(
            tf.constant(rates, "float32"), tf.constant(order, "int32")
        )
        return batch_losses.numpy().astype(float), float(self.compiled_evaluate())


def one_cycle(peak: float, steps: int) -> np.ndarray:
    """Smith's cycle with cosine sides: peak/25, peak at 0.3, peak/2.5e5."""
    t = np.arange(steps) / (steps - 1)
    up, down = np.minimum(t / 0.3, 1.0), np.maximum((t - 0.3) / 0.7, 0.0)
    rise = 1 / 25 + (1 - 1 / 25) * (1 - np.cos(np.pi * up)) / 2
    return peak * np.where(t < 0.3, rise, 4e-6 + (1 + np.cos(np.pi * down)) / 2)


def measure(problem: Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The sweep's batch losses, and shares of shape (2, len(GRID))."""
    trainer = Trainer(problem, seed)
    curve, _ = trainer.run(SWEEP, seed=1000 + seed)
    start = trainer.run(np.zeros(TRAINING_STEPS), seed=0)[1]
    constant = [trainer.run(np.full(TRAINING_STEPS, r), seed)[1] for r in GRID]
    cycle = [trainer.run(one_cycle(r, TRAINING_STEPS), seed)[1] for r in GRID]
    final = np.nan_to_num(np.array([constant, cycle]), nan=np.inf, posinf=np.inf)
    best = final.min(axis=1, keepdims=True)
    return curve, np.clip((start - final) / (start - best), 0.0, 1.0)


def share(rate: float | None, shares: np.ndarray) -> float:
    """The score of a suggested rate; 0 for a refusal."""
    if rate is None:
        return 0.0
    return float(np.mean([np.interp(np.log(rate), np.log(GRID), s) for s in shares]))


def cell(score: float, rate: float | None) -> str:
    """Score and rate, 17 characters wide."""
    return f"{score:6.2f} " + ("   refused" if rate is None else f"{rate:10.1e}")


def main() -> None:
    """Measure every problem and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="first weights a problem")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    began = time.perf_counter()
    print("share of the reachable improvement, and suggested rate; * = held out")
    print(f"{'problem':28}" + "".join(f"{rule:>17}" for rule in RULES))
    scores, held = [], []
    for problem in problems():
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            curve, shares = measure(problem, seed)
            rates = suggest(SWEEP, curve).suggestions
            scores.append([share(rates[rule], shares) for rule in RULES])
            held.append(problem.held_out)
            cells = [cell(*row) for row in zip(scores[-1], rates.values(), strict=True)]
            print(f"{problem.name + ' *' * problem.held_out:28}" + "".join(cells))
    scores, held = np.array(scores), np.array(held)
    print(f"{'mean':28}" + "".join(f"{s:17.3f}" for s in scores.mean(0)))
    print(
        f"{'mean of those held out':28}"
        + "".join(f"{s:17.3f}" for s in scores[held].mean(0))
    )
    print(f"{'worst':28}" + "".join(f"{s:17.3f}" for s in scores.min(0)))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
