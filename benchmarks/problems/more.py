"""Eleven more small training tasks for `suggestion.py`, to tune rules on.

They were kept aside, and the rule measured on them once; then it was changed by what
that showed. Data come with scikit-learn or Python, or are made from a fixed seed. Those
that no rule was tuned on are in `unseen.py`.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers, optimizers
from sklearn import datasets

from benchmarks.problems.tuned import (
    CROSS_ENTROPY,
    SQUARED,
    Data,
    Problem,
    resnet,
    standardized,
)


def flower_patches(size: int, n: int) -> np.ndarray:
    """Patches of a photograph of a flower, in colour, deviation about 1."""
    image = datasets.load_sample_image("flower.jpg")[::3, ::3] / 80.0
    image = image - image.mean()
    rng = np.random.default_rng(0)
    rows = rng.integers(0, image.shape[0] - size, n)
    columns = rng.integers(0, image.shape[1] - size, n)
    places = zip(rows, columns, strict=True)
    return np.stack([image[r : r + size, c : c + size] for r, c in places])


def colours() -> Data:
    """Grey patches of 9 x 9 pixels, and the colour in their middle."""
    x = flower_patches(9, 1500)
    return x.mean(3, keepdims=True), x[:, 4, 4]


def corruptions() -> Data:
    """Colour patches: as they are, blurred, with few levels, or mirrored in part."""
    x, rng = flower_patches(12, 1200), np.random.default_rng(1)
    y = rng.integers(0, 4, len(x))
    blurred = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, (1, 1), (1, 2))) / 4
    halved = np.concatenate([x[:, :6], x[:, 5::-1]], axis=1)
    every = np.stack([x, blurred, np.round(1.5 * x) / 1.5, halved])
    return every[y, np.arange(len(x))], y


def wine() -> Data:
    """178 wines of three growers."""
    x, y = datasets.load_wine(return_X_y=True)
    return standardized(x), y


def source() -> Data:
    """Twelve characters of a module of Python, and the one that follows."""
    text = inspect.getsource(textwrap)
    codes = np.clip(np.array([ord(letter) for letter in text]) - 31, 0, 95)
    starts = np.random.default_rng(0).integers(0, len(codes) - 13, 2000)
    windows = codes[starts[:, None] + np.arange(13)]
    return windows[:, :12], windows[:, 12]


def pendulum() -> Data:
    """Angle, speed, friction and time of a pendulum; where it is after that time."""
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-3, 3, 2000), rng.normal(0, 1, 2000)
    friction, time = rng.uniform(0, 1, 2000), rng.uniform(0, 2, 2000)
    x = standardized(np.stack([angle, speed, friction, time], 1))
    for _ in range(200):
        speed = speed - time / 200 * (np.sin(angle) + friction * speed)
        angle = angle + time / 200 * speed
    return x, np.stack([np.sin(angle), np.cos(angle), speed], 1)


def throws(height: bool) -> Data:
    """Speed, slope and drag of a thrown body; how far it flies, or how high."""
    rng = np.random.default_rng(2 + height)
    n = 1500
    speed, slope = rng.uniform(1, 3, n), rng.uniform(0.2, 1.4, n)
    drag, gravity = rng.uniform(0, 0.6, n), rng.uniform(0.5, 1.5, n)
    u, v = speed * np.cos(slope), speed * np.sin(slope)
    place, level, top = np.zeros(n), np.full(n, 1e-9), np.zeros(n)
    for _ in range(600):
        flying = 0.02 * (level > 0)
        place, level = place + flying * u, level + flying * v
        top = np.maximum(top, level)
        along = drag * np.hypot(u, v)
        u, v = u - flying * along * u, v - flying * (along * v + gravity)
    x = standardized(np.stack([speed, slope, drag, gravity], 1))
    return x, standardized(top if height else place)[:, None]


def recall() -> Data:
    """Eight of five symbols, one marked: which was marked?"""
    rng = np.random.default_rng(0)
    symbols, marked = rng.integers(0, 5, (2000, 8)), rng.integers(0, 8, 2000)
    x = np.concatenate([np.eye(5)[symbols], np.zeros((2000, 8, 1))], axis=2)
    x[np.arange(2000), marked, 5] = 1.0
    return x, symbols[np.arange(2000), marked]


def sets() -> Data:
    """Ten points in a plane; the area of the box around them, and the longest way."""
    x = np.random.default_rng(0).normal(size=(2000, 10, 2))
    area = np.ptp(x, axis=1).prod(axis=1)
    ways = np.hypot(*(x[:, :, None] - x[:, None]).transpose(3, 0, 1, 2))
    return x, standardized(np.stack([area, ways.max((1, 2))], 1))


def mislabelled_moons() -> Data:
    """Two half-moons; a quarter of the labels is wrong."""
    x, y = datasets.make_moons(1500, noise=0.15, random_state=0)
    wrong = np.random.default_rng(0).random(1500) < 0.25
    return standardized(x), np.where(wrong, 1 - y, y)


def bandit() -> Data:
    """Twelve features of a visitor; the reward of each of five offers, with noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 12))
    hidden = np.tanh(x @ rng.normal(size=(12, 16)) / 2.0)
    rewards = hidden @ rng.normal(size=(16, 5)) / 4.0
    return x, rewards + 0.5 * rng.normal(size=rewards.shape)


def hastie() -> Data:
    """Whether the squares of ten normal variables sum to more than their median."""
    x, y = datasets.make_hastie_10_2(2500, random_state=0)
    return x, (y > 0).astype(int)


def dense(
    widths: tuple[int, ...], outputs: int, act: str, *, dropout: float = 0.0
) -> Callable[[], keras.Model]:
    """A multilayer perceptron of layers of different widths."""

    def build() -> keras.Model:
        body = []
        for width in widths:
            body += [layers.Dense(width, act)]
            body += [layers.Dropout(dropout)] if dropout else []
        return keras.Sequential([*body, layers.Dense(outputs)])

    return build


def colourist() -> keras.Model:
    """Two convolutions with pooling between."""
    return keras.Sequential(
        [
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def convolved_text() -> keras.Model:
    """Embedded characters, two convolutions over them, and a linear layer."""
    return keras.Sequential(
        [
            layers.Embedding(96, 16),
            layers.Conv1D(32, 3, activation="relu"),
            layers.Conv1D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(96),
        ]
    )


def gru() -> keras.Model:
    """A GRU over eight symbols; its last state is read."""
    return keras.Sequential([layers.GRU(20, unroll=True), layers.Dense(5)])


def set_attention() -> keras.Model:
    """Every point attends to every other; the mean of them is read."""
    inputs = keras.Input((10, 2))
    x = layers.Dense(24, "relu")(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(3, 8)(x, x))
    x = layers.GlobalAveragePooling1D()(layers.Dense(24, "relu")(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def lost_reward(rewards: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The negative of the reward to be expected of offers drawn at random."""
    return -tf.reduce_sum(rewards * tf.nn.softmax(logits), axis=1)


def more_problems() -> list[Problem]:
    """All problems of this file."""
    ce, se = CROSS_ENTROPY, SQUARED
    sgd, adam, adamw = optimizers.SGD, optimizers.Adam, optimizers.AdamW
    rmsprop, lion = optimizers.RMSprop, optimizers.Lion
    momentum = functools.partial(sgd, momentum=0.9)
    far, high = (functools.partial(throws, height) for height in (False, True))
    moons = mislabelled_moons
    corrupted = resnet((12, 12, 3), 4, 10)
    rows = [
        ("colours cnn rmsprop 64", colours, colourist, se, rmsprop, 64),
        ("corruptions resnet sgd 32", corruptions, corrupted, ce, sgd, 32),
        ("wine tanh lion 8", wine, dense((24, 12), 3, "tanh"), ce, lion, 8),
        ("source cnn adamw 32", source, convolved_text, ce, adamw, 32),
        (
            "pendulum swish momentum 128",
            pendulum,
            dense((40, 40, 40), 3, "swish"),
            se,
            momentum,
            128,
        ),
        (
            "fine-tuning elu sgd 16",
            high,
            dense((32, 16), 1, "elu"),
            se,
            sgd,
            16,
            (far, 0.1),
        ),
        ("recall gru momentum 32", recall, gru, ce, momentum, 32),
        ("sets attention adam 128", sets, set_attention, se, adam, 128),
        ("moons mlp rmsprop 16", moons, dense((32, 8), 2, "relu"), ce, rmsprop, 16),
        ("bandit mlp adam 16", bandit, dense((40,), 5, "relu"), lost_reward, adam, 16),
        (
            "hastie dropout lion 256",
            hastie,
            dense((64, 32), 2, "relu", dropout=0.2),
            ce,
            lion,
            256,
        ),
    ]
    return [Problem(*row) for row in rows]
