"""Nine small training tasks for `suggestion.py` that no rule was tuned on.

They were written down, and committed, before anything was measured on them, and share
neither data nor network with those that rules may be tuned on (`tuned.py`,
`more.py`). Data come with scikit-learn, or are made from a fixed seed.
"""

from __future__ import annotations

import functools
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


def iris(wrong: float = 0.2) -> Data:
    """150 irises of three species, some of them with a wrong label."""
    x, y = datasets.load_iris(return_X_y=True)
    rng = np.random.default_rng(0)
    return standardized(x), np.where(rng.random(150) < wrong, (y + 1) % 3, y)


def impedance() -> Data:
    """The current in a circuit of resistor, coil and capacitor, as a logarithm."""
    x, y = datasets.make_friedman2(1800, noise=20.0, random_state=1)
    return standardized(x), standardized(np.log1p(np.abs(y)))[:, None]


def roll() -> Data:
    """Points of a rolled-up sheet with ten empty directions, and the way along it."""
    x, way = datasets.make_swiss_roll(1600, noise=0.3, random_state=0)
    empty = np.random.default_rng(0).normal(size=(1600, 10))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(13, 13)))[0]
    angle = (way - way.min()) / np.ptp(way) * 2.0 * np.pi
    x = np.concatenate([standardized(x), empty], axis=1) @ turn
    return x, np.stack([np.sin(angle), np.cos(angle)], 1)


def bars(diagonal: bool) -> Data:
    """Images of 9 x 9 pixels with a blurred bar at one of five angles."""
    rng = np.random.default_rng(4 + diagonal)
    y = rng.integers(0, 5, 1400)
    i, j = np.indices((9, 9)) - 4.0
    angle = (np.pi * (y + 0.5 * diagonal) / 5.0)[:, None, None]
    shift = rng.uniform(-2, 2, (1400, 1, 1))
    away = i * np.cos(angle) + j * np.sin(angle) - shift
    x = np.exp(-0.5 * away**2) + 0.4 * rng.normal(size=(1400, 9, 9))
    return x[..., None] * (1.0 - 2.0 * diagonal), y


def clicks() -> Data:
    """Twenty moments with clicks on two channels; which had more of them?"""
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.1, 0.6, (1800, 1, 2))
    x = (rng.random((1800, 20, 2)) < chance).astype(float)
    left, right = x.sum(1).T
    return x, (left > right).astype(int)


def brackets() -> Data:
    """Twelve brackets of two kinds; how deep is the last of them, up to three?"""
    rng = np.random.default_rng(0)
    step = rng.choice([-1, 1], (2000, 12), p=[0.45, 0.55])
    depth = np.zeros(2000, int)
    for t in range(12):
        depth = np.clip(depth + step[:, t], 0, 3)
    return (step + 1) // 2 + 2 * rng.integers(0, 2, (2000, 12)), depth


def heat() -> Data:
    """A rod of 32 places with random heat, and the same after some time."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 32)).cumsum(1)
    x = x - x.mean(1, keepdims=True)
    y = x.copy()
    for _ in range(30):
        inner = np.pad(y, ((0, 0), (1, 1)), "edge")
        y = y + 0.3 * (inner[:, 2:] - 2.0 * y + inner[:, :-2])
    return x[..., None] / 3.0, y / 3.0


def counts() -> Data:
    """Eight features, and counts of a Poisson distribution around four a unit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 8))
    rate = np.exp(1.4 + 0.5 * np.sin(2.0 * x[:, 0]) + 0.4 * x[:, 1] * x[:, 2])
    return x, rng.poisson(np.minimum(rate, 40.0))[:, None].astype(float)


def perceptron(*widths: int, act: str, norm: bool = False) -> Callable:
    """A multilayer perceptron; the last width is that of its outputs."""

    def build() -> keras.Model:
        body = []
        for width in widths[:-1]:
            body += [layers.Dense(width, act)]
            body += [layers.LayerNormalization()] if norm else []
        return keras.Sequential([*body, layers.Dense(widths[-1])])

    return build


def small_images() -> keras.Model:
    """Depthwise and pointwise convolutions."""
    return keras.Sequential(
        [
            layers.Conv2D(12, 3, activation="relu"),
            layers.SeparableConv2D(24, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(5),
        ]
    )


def both_ways() -> keras.Model:
    """An LSTM that reads brackets in both directions."""
    return keras.Sequential(
        [
            layers.Embedding(4, 8),
            layers.Bidirectional(layers.LSTM(12, unroll=True)),
            layers.Dense(4),
        ]
    )


def listening() -> keras.Model:
    """Attention with one query over moments that know their place."""
    inputs = keras.Input((20, 2))
    x = layers.Dense(16)(inputs) + layers.Embedding(20, 16)(keras.ops.arange(20)[None])
    x = x + layers.MultiHeadAttention(2, 8)(x, x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x[:, ::4])))


def diffusion() -> keras.Model:
    """Three dilated convolutions over a rod."""
    body = [
        layers.Conv1D(8, 5, padding="same", dilation_rate=d, activation="tanh")
        for d in (1, 2)
    ]
    last = layers.Conv1D(1, 5, padding="same")
    return keras.Sequential([*body, last, layers.Reshape((32,))])


def poisson_likelihood(y: tf.Tensor, log_rate: tf.Tensor) -> tf.Tensor:
    """Negative log likelihood of counts, without its constant: below zero."""
    log_rate = tf.minimum(log_rate, 10.0)
    return tf.exp(log_rate) - y * log_rate


def unseen_problems() -> list[Problem]:
    """Nine problems, all of them held out."""
    ce, se = CROSS_ENTROPY, SQUARED
    sgd, adam, adamw = optimizers.SGD, optimizers.Adam, optimizers.AdamW
    rmsprop, lion = optimizers.RMSprop, optimizers.Lion
    momentum = functools.partial(sgd, momentum=0.9)
    straight, diagonal = (functools.partial(bars, d) for d in (False, True))
    poisson = poisson_likelihood
    flowers = perceptron(16, 3, act="selu")
    sheet = perceptron(64, 64, 2, act="gelu", norm=True)
    rows = [
        ("iris selu momentum 8", iris, flowers, ce, momentum, 8),
        (
            "impedance mlp adam 32",
            impedance,
            perceptron(24, 24, 24, 1, act="relu"),
            se,
            adam,
            32,
        ),
        ("roll layernorm adamw 256", roll, sheet, se, adamw, 256),
        (
            "fine-tuning images rmsprop 32",
            diagonal,
            small_images,
            ce,
            rmsprop,
            32,
            (straight, 0.005),
        ),
        ("clicks attention sgd 64", clicks, listening, ce, sgd, 64),
        ("brackets lstm adam 128", brackets, both_ways, ce, adam, 128),
        ("heat convolutions lion 16", heat, diffusion, se, lion, 16),
        ("bars resnet adamw 64", straight, resnet((9, 9, 1), 5, 6), ce, adamw, 64),
        (
            "counts mlp sgd 128",
            counts,
            perceptron(32, 16, 1, act="tanh"),
            poisson,
            sgd,
            128,
        ),
    ]
    return [Problem(*row, held_out=True) for row in rows]
