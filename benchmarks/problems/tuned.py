"""Twenty-four small training tasks for `suggestion.py`, to tune rules on.

Data come with scikit-learn or are made from a fixed seed; a problem takes half a second
to a few seconds a seed. Those that no rule was tuned on are in `unseen.py`.
The last eight were kept aside until the first default rule was measured on them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import layers, losses, optimizers
from sklearn import datasets

Data = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """One training task.

    Attributes:
        name: data, network, optimizer, batch size.
        data: makes inputs `(n, ...)` and targets; integers are classes.
        model: makes the network.
        loss: of targets and outputs.
        optimizer: makes the optimizer.
        batch_size: of the sweep and of the trainings.
        before: for fine-tuning, the data that the network has been trained on before,
            and the peak rate of that training.
        held_out: whether no rule was tuned on it.
    """

    name: str
    data: Callable[[], Data]
    model: Callable[[], keras.Model]
    loss: Callable
    optimizer: Callable[[], optimizers.Optimizer]
    batch_size: int
    before: tuple[Callable[[], Data], float] | None = None
    held_out: bool = False


def standardized(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and deviation 1."""
    return (values - values.mean(0)) / (values.std(0) + 1e-9)


# Data of the first sixteen problems.


def digits(classes: slice = slice(0, 10)) -> Data:
    """1,797 images of 8 x 8 pixels; the classes from `start` to `stop` of them."""
    x, y = datasets.load_digits(return_X_y=True)
    kept = (y >= classes.start) & (y < classes.stop)
    return x[kept].reshape(-1, 8, 8, 1) / 8.0 - 1.0, y[kept] - classes.start


def noisy_digits() -> Data:
    """The digits, three in ten labels drawn at random."""
    x, y = digits()
    rng = np.random.default_rng(0)
    return x, np.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)


def table(load: Callable) -> Callable[[], Data]:
    """A scikit-learn table of features, standardized; real targets too."""

    def data() -> Data:
        x, y = load(return_X_y=True)
        real = len(np.unique(y)) > 20
        return standardized(x), standardized(y)[:, None] if real else y

    return data


def friedman() -> Data:
    """Friedman's first function of ten uniform variables, with noise."""
    x, y = datasets.make_friedman1(2000, noise=1.0, random_state=0)
    return standardized(x), standardized(y)[:, None]


def reconstruction() -> Data:
    """The digits' pixels as their own targets."""
    x = standardized(datasets.load_digits().data)
    return x, x


def spirals() -> Data:
    """Three spiral arms in a plane."""
    rng = np.random.default_rng(0)
    arm = np.arange(1500) % 3
    radius = np.sqrt(rng.random(1500))
    angle = 5.0 * radius + 2.0 * np.pi * arm / 3.0 + 0.15 * rng.normal(size=1500)
    return 2.0 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), arm


def stretched() -> Data:
    """A linear function of thirty variables with deviations from 1 to 0.03."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 30)) * np.geomspace(1.0, 0.03, 30)
    slopes = rng.normal(size=30) / np.geomspace(1.0, 0.1, 30)
    return x, standardized(x @ slopes)[:, None]


def adding() -> Data:
    """Ten numbers, two of them marked; the target is the sum of those two."""
    rng = np.random.default_rng(0)
    values, marks = rng.normal(size=(2000, 10)), np.zeros((2000, 10))
    places = np.argsort(rng.random((2000, 10)), axis=1)[:, :2]
    np.put_along_axis(marks, places, 1.0, axis=1)
    return np.stack([values, marks], 2), (values * marks).sum(1)[:, None]


def retrieval() -> Data:
    """A memory of eight keys with labels, and a noisy copy of one of the keys."""
    rng = np.random.default_rng(0)
    keys, labels = rng.normal(size=(2000, 8, 8)), rng.integers(0, 4, (2000, 8))
    asked = rng.integers(0, 8, 2000)
    query = keys[np.arange(2000), asked] + 0.3 * rng.normal(size=(2000, 8))
    memory = np.concatenate([keys, np.eye(4)[labels]], axis=2)
    query = np.concatenate([query, np.zeros((2000, 4))], axis=1)
    return np.concatenate([query[:, None], memory], 1), labels[np.arange(2000), asked]


# Data of the last eight.


def photograph(step: int) -> np.ndarray:
    """A photograph in grey, every `step`-th pixel, deviation 1."""
    image = datasets.load_sample_image("china.jpg").mean(axis=2)[::step, ::step]
    return (image - image.mean()) / image.std()


def noisy_patches() -> Data:
    """Patches of 12 x 12 pixels with noise; the targets are those without."""
    image, rng = photograph(2), np.random.default_rng(0)
    rows = rng.integers(0, image.shape[0] - 12, 1000)
    columns = rng.integers(0, image.shape[1] - 12, 1000)
    y = np.stack(
        [image[r : r + 12, c : c + 12] for r, c in zip(rows, columns, strict=True)]
    )[..., None]
    return y + 0.5 * rng.normal(size=y.shape), y


def pixels() -> Data:
    """The places of a photograph's pixels as sines and cosines, and their grey."""
    image = photograph(10)
    places = np.indices(image.shape).reshape(2, -1).T / max(image.shape)
    waves = np.random.default_rng(0).normal(0.0, 3.0, (2, 24))
    phases = 2.0 * np.pi * places @ waves
    return np.concatenate([np.sin(phases), np.cos(phases)], 1), image.reshape(-1, 1)


def characters() -> Data:
    """Sixteen characters of scikit-learn's descriptions of data, and the next one."""
    text = datasets.load_diabetes().DESCR + datasets.load_wine().DESCR
    text = " ".join(text.lower().split())
    codes = np.array([max(0, min(ord(letter) - 31, 95)) for letter in text])
    starts = np.random.default_rng(0).integers(0, len(codes) - 17, 2000)
    windows = codes[starts[:, None] + np.arange(17)]
    return windows[:, :16], windows[:, 16]


def mislabelled() -> Data:
    """Clusters of five classes in twenty dimensions; a fifth of the labels is wrong."""
    x, y = datasets.make_classification(
        2000, 20, n_informative=10, n_classes=5, flip_y=0.2, random_state=0
    )
    return standardized(x), y


def patterns(turned: bool) -> Data:
    """Images of 10 x 10 pixels with one of six patterns, upright or turned."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 6, 1500)
    i, j = np.indices((10, 10)) / 9.0
    shapes = [
        np.sin(9.0 * i),
        np.sin(9.0 * j),
        np.sin(6.0 * (i + j)),
        np.sin(6.0 * (i - j)),
        np.sin(9.0 * np.hypot(i - 0.5, j - 0.5)),
        np.sin(6.0 * i) * np.sin(6.0 * j),
    ]
    shift = rng.integers(0, 10, (1500, 2))
    x = np.stack(
        [np.roll(shapes[k], s, axis=(0, 1)) for k, s in zip(y, shift, strict=True)]
    )
    x = (np.rot90(x, axes=(1, 2)) ** 2 - 0.5) * 1.5 if turned else x
    return (x + 0.5 * rng.normal(size=x.shape))[..., None], y


def series() -> Data:
    """Twelve values of two mixed waves of random periods, and the next one."""
    rng = np.random.default_rng(0)
    t, n = np.arange(13), 2000
    phase, period = rng.uniform(0, 6.3, (2, n, 1)), rng.uniform(4, 20, (2, n, 1))
    waves = np.sin(2.0 * np.pi * t / period + phase).sum(0)
    waves += 0.05 * rng.normal(size=waves.shape)
    return waves[:, :12, None], waves[:, 12:]


def folded() -> Data:
    """Bishop's inverse problem: several values of the target for one input."""
    rng = np.random.default_rng(0)
    y = rng.random(2000)
    x = y + 0.3 * np.sin(2.0 * np.pi * y) + 0.03 * rng.normal(size=2000)
    return standardized(x)[:, None], y[:, None]


def waveforms() -> Data:
    """Sine, square, saw and chirp with noise, forty samples of a random phase."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 1500)
    phase = rng.random((1500, 1)) + rng.uniform(1, 3, (1500, 1)) * np.arange(40) / 40
    sine = np.sin(2.0 * np.pi * phase)
    kinds = [sine, np.sign(sine), 2.0 * (phase % 1) - 1.0, np.sin(4.0 * phase**2)]
    x = np.choose(y[:, None], kinds) + 0.4 * rng.normal(size=(1500, 40))
    return x[..., None], y


# Networks.


def mlp(
    width: int, outputs: int, depth: int = 2, norm: bool = False, act: str = "relu"
) -> Callable[[], keras.Model]:
    """A multilayer perceptron; of depth 0 a linear function."""

    def build() -> keras.Model:
        body = [layers.Flatten()]
        for _ in range(depth):
            body += [layers.Dense(width)]
            body += [layers.BatchNormalization(momentum=0.9)] if norm else []
            body += [layers.Activation(act)]
        return keras.Sequential([*body, layers.Dense(outputs)])

    return build


def conv(outputs: int) -> Callable[[], keras.Model]:
    """Two convolutions with strides, and a linear layer."""

    def build() -> keras.Model:
        body = [
            layers.Conv2D(f, 3, strides=2, padding="same", activation="relu")
            for f in (8, 16)
        ]
        return keras.Sequential([*body, layers.Flatten(), layers.Dense(outputs)])

    return build


def resnet(
    shape: tuple[int, ...], outputs: int, width: int = 8
) -> Callable[[], keras.Model]:
    """Two residual blocks with BatchNormalization, over images or over series."""
    convolution = layers.Conv2D if len(shape) == 3 else layers.Conv1D
    pool = (
        layers.GlobalAveragePooling2D
        if len(shape) == 3
        else layers.GlobalAveragePooling1D
    )

    def normed(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
        x = convolution(filters, 3, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    def build() -> keras.Model:
        inputs = keras.Input(shape)
        x = layers.ReLU()(normed(inputs, width, 2))
        for stride in (1, 2):
            filters = stride * width
            inner = layers.ReLU()(normed(x, filters, stride))
            inner = normed(inner, filters, 1)
            short = convolution(filters, 1, stride, padding="same")(x)
            x = layers.ReLU()(layers.Add()([short, inner]))
        return keras.Model(inputs, layers.Dense(outputs)(pool()(x)))

    return build


def lstm(units: int, outputs: int, shape: tuple[int, ...] | None = None) -> Callable:
    """An LSTM over a sequence; its last state is read."""

    def build() -> keras.Model:
        body = [layers.Reshape(shape)] if shape else []
        body += [layers.LSTM(units, unroll=True), layers.Dense(outputs)]
        return keras.Sequential(body)

    return build


def attention() -> keras.Model:
    """Soft attention of a query, the first row, over the memory that follows."""
    inputs = keras.Input((9, 12))
    query = layers.Dense(16)(inputs[:, :1])
    keys, values = (layers.Dense(16)(inputs[:, 1:]) for _ in range(2))
    found = layers.Attention()([query, values, keys])
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(found)))


def transformer() -> keras.Model:
    """One block of attention with two heads, and what is usual around it."""
    inputs = keras.Input((16,))
    place = layers.Embedding(16, 24)(keras.ops.arange(16)[None])
    x = layers.Embedding(96, 24)(inputs) + place
    normed = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 12)(normed, normed)
    inner = layers.Dense(48, "gelu")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(x + layers.Dense(24)(inner))
    return keras.Model(inputs, layers.Dense(96)(x[:, -1]))


def denoiser() -> keras.Model:
    """Three convolutions that keep the size, and a way around them."""
    inputs = x = keras.Input((12, 12, 1))
    for _ in range(2):
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(1, 3, padding="same")(x)
    return keras.Model(inputs, layers.Add()([inputs, x]))


# Losses.

CROSS_ENTROPY = losses.SparseCategoricalCrossentropy(from_logits=True)
SQUARED = losses.MeanSquaredError()


def gaussian_likelihood(y: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Negative log likelihood of a scaled target: below zero where the fit is good."""
    mean, log_scale = output[:, :1], output[:, 1:]
    log_scale = 3.0 * tf.tanh(log_scale / 3.0)
    return log_scale - 2.0 + 0.5 * tf.square((y - mean) * tf.exp(-log_scale))


def mixture_likelihood(y: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Negative log likelihood of a mixture of three normal distributions."""
    logits, mean, log_scale = tf.split(output, 3, axis=1)
    log_scale = 4.0 * tf.tanh(log_scale / 4.0)
    each = -0.5 * tf.square((y - mean) * tf.exp(-log_scale)) - log_scale - 0.919
    return -tf.reduce_logsumexp(tf.nn.log_softmax(logits) + each, axis=1)


def problems() -> list[Problem]:
    """All problems that rules may be tuned on."""
    sgd, adam, adamw = optimizers.SGD, optimizers.Adam, optimizers.AdamW
    rmsprop, lion = optimizers.RMSprop, optimizers.Lion
    momentum = functools.partial(sgd, momentum=0.9)
    cancer = table(datasets.load_breast_cancer)
    diabetes = table(datasets.load_diabetes)
    image = (8, 8, 1)
    old, new = (
        functools.partial(digits, slice(0, 5)),
        functools.partial(digits, slice(5, 10)),
    )
    upright, turned = (functools.partial(patterns, t) for t in (False, True))
    ce, se, nll = CROSS_ENTROPY, SQUARED, gaussian_likelihood
    rows = [
        ("digits mlp sgd 32", digits, mlp(64, 10), ce, sgd, 32),
        ("digits cnn adam 32", digits, conv(10), ce, adam, 32),
        ("digits resnet momentum 64", digits, resnet(image, 10), ce, momentum, 64),
        ("digits resnet lion 128", digits, resnet(image, 10), ce, lion, 128),
        ("digits lstm adam 64", digits, lstm(24, 10, (8, 8)), ce, adam, 64),
        ("adding lstm rmsprop 32", adding, lstm(16, 1), se, rmsprop, 32),
        ("retrieval attention adamw 64", retrieval, attention, ce, adamw, 64),
        ("diabetes mlp momentum 8", diabetes, mlp(32, 1), se, momentum, 8),
        (
            "friedman mlp+bn rmsprop 128",
            friedman,
            mlp(32, 1, 2, True),
            se,
            rmsprop,
            128,
        ),
        ("friedman nll adam 64", friedman, mlp(32, 2), nll, adam, 64),
        ("label noise mlp adam 16", noisy_digits, mlp(64, 10), ce, adam, 16),
        ("fine-tuning cnn momentum 32", new, conv(5), ce, momentum, 32, (old, 0.05)),
        ("cancer linear sgd 16", cancer, mlp(0, 2, 0), ce, sgd, 16),
        ("autoencoder lion 128", reconstruction, mlp(16, 64, 1), se, lion, 128),
        ("spirals tanh adamw 256", spirals, mlp(32, 3, 3, act="tanh"), ce, adamw, 256),
        ("stretched linear sgd 256", stretched, mlp(0, 1, 0), se, sgd, 256),
        ("denoising cnn adamw 16", noisy_patches, denoiser, se, adamw, 16),
        ("photograph mlp adam 256", pixels, mlp(48, 1), se, adam, 256),
        ("characters transformer adamw 32", characters, transformer, ce, adamw, 32),
        ("mislabelled mlp momentum 8", mislabelled, mlp(48, 5, 1), ce, momentum, 8),
        (
            "fine-tuning resnet adam 64",
            turned,
            resnet((10, 10, 1), 6),
            ce,
            adam,
            64,
            (upright, 0.01),
        ),
        ("series lstm momentum 64", series, lstm(16, 1), se, momentum, 64),
        (
            "folded mixture rmsprop 128",
            folded,
            mlp(32, 9, act="tanh"),
            mixture_likelihood,
            rmsprop,
            128,
        ),
        ("waveforms resnet lion 32", waveforms, resnet((40, 1), 4), ce, lion, 32),
    ]
    return [Problem(*row) for row in rows]
