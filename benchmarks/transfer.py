"""What rates per layer and unfreezing are worth: a small ResNet on other digits.

It is trained on scikit-learn's digits 0-4, and then fine-tuned on a few images each of
5-9, with a new head. Every way of doing that has the same number of epochs and chooses
its own peak rate from one grid, on seeds that are not reported. A seed draws the new
head, the images that are trained on, and their order; the accuracy is that on all the
images of 5-9 that were not drawn.

    python -m benchmarks.transfer [--seeds 8] [--per-class 5 20] [--epochs 20]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import tfschedules as tfs

RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
BATCH = 10


def resnet(width: int = 16) -> keras.Model:
    """Three stages of two convolutions each, with BatchNormalization, and a head."""
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU()(x)
    for stage in range(1, 4):
        size, stride = width * stage, 1 if stage == 1 else 2
        part = f"stage_{stage}"
        y = layers.Conv2D(
            size, 3, stride, padding="same", use_bias=False, name=f"{part}_first"
        )(x)
        y = layers.BatchNormalization(name=f"{part}_first_norm")(y)
        y = layers.ReLU()(y)
        y = layers.Conv2D(
            size, 3, padding="same", use_bias=False, name=f"{part}_second"
        )(y)
        y = layers.BatchNormalization(name=f"{part}_second_norm")(y)
        if stage > 1:
            x = layers.Conv2D(size, 1, stride, name=f"{part}_shortcut")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def data(first: int) -> tuple[np.ndarray, np.ndarray]:
    """The five digits from `first` on: images (n, 8, 8, 1) in 0 … 1, labels 0 … 4."""
    images, labels = load_digits(return_X_y=True)
    chosen = (labels >= first) & (labels < first + 5)
    x = (images[chosen] / 16).reshape(-1, 8, 8, 1).astype("float32")
    return x, labels[chosen] - first


def compiled(model: keras.Model, groups: list[tfs.LayerGroup] | None) -> keras.Model:
    """The model with Adam, with a rate for each group if there are groups."""
    optimizer = keras.optimizers.Adam(1e-3)
    if groups:
        optimizer = tfs.LayerwiseOptimizer(optimizer, groups)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(model.trainable_variables)  # or TensorFlow traces each step twice
    return model


def pretrained(epochs: int = 15) -> list[np.ndarray]:
    """The weights of a network that knows 0 to 4."""
    keras.utils.set_random_seed(0)
    model = compiled(resnet(), None)
    x, y = data(0)
    cycle = tfs.OneCycle(max_lr=1e-2)
    model.fit(x, y, 64, epochs, callbacks=[cycle], verbose=0)
    return model.get_weights()


def groups_of(model: keras.Model) -> list[tfs.LayerGroup]:
    """Four groups from the stem to the head, with rates from 1/27 to 1."""
    boundaries = ["stage_2_first", "stage_3_first", "head"]
    return tfs.discriminative_groups(model, low=1 / 27, boundaries=boundaries)


Way = Callable[[keras.Model, list, float, int], tuple[keras.Model, list]]


def one_rate(model, groups, rate, epochs):
    """Everything with one constant rate."""
    return compiled(model, None), [constant(rate)]


def one_rate_one_cycle(model, groups, rate, epochs):
    """Everything with one rate, in one cycle."""
    return compiled(model, None), [tfs.OneCycle(rate)]


def head_only(model, groups, rate, epochs):
    """The head with a constant rate; the rest stays as it was."""
    unfreezing = tfs.GradualUnfreezing(groups, epochs_per_group=epochs)
    return compiled(model, None), [unfreezing, constant(rate)]


def discriminative(model, groups, rate, epochs):
    """A constant rate for each group."""
    return compiled(model, groups), [constant(rate)]


def gradual(model, groups, rate, epochs):
    """A rate for each group, in one cycle, unfrozen in the first half."""
    each = max(epochs // 2 // (len(groups) - 1), 1)
    unfreezing = tfs.GradualUnfreezing(groups, epochs_per_group=each)
    return compiled(model, groups), [unfreezing, tfs.OneCycle(rate)]


def constant(rate: float) -> keras.callbacks.Callback:
    """A rate that stays as it is."""
    return tfs.HyperparameterScheduler(tfs.Constant(rate))


WAYS: dict[str, Way] = {
    "one rate for all": one_rate,
    "one rate, one-cycle": one_rate_one_cycle,
    "head only": head_only,
    "discriminative": discriminative,
    "gradual, discriminative, one-cycle": gradual,
}
SCRATCH = "from scratch, one-cycle"


def accuracy(
    way: Way, weights: list | None, rate: float, seed: int, per_class: int, epochs: int
) -> float:
    """Fine-tune on `per_class` images of each digit, and score all the others."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    x, y = data(5)
    order = np.random.default_rng(seed).permutation(len(x))
    rank = np.zeros(len(x), int)  # the how-manieth of its digit each image is
    for digit in range(5):
        those = order[y[order] == digit]
        rank[those] = np.arange(len(those))
    drawn = rank < per_class
    model = resnet()
    if weights is not None:
        head = model.get_layer("head").get_weights()
        model.set_weights(weights)
        model.get_layer("head").set_weights(head)
    model, callbacks = way(model, groups_of(model), rate, epochs)
    model.fit(x[drawn], y[drawn], BATCH, epochs, callbacks=callbacks, verbose=0)
    return float(model.evaluate(x[~drawn], y[~drawn], 512, verbose=0)[1])


def main() -> None:
    """Choose rates, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="reported, from 100 on")
    parser.add_argument("--choosing", type=int, default=3, help="seeds, from 0 on")
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    weights = pretrained()
    ways = {name: (way, weights) for name, way in WAYS.items()}
    ways[SCRATCH] = (one_rate_one_cycle, None)
    for per_class in arguments.per_class:
        print(f"\n{per_class} images of each digit, {arguments.epochs} epochs")
        print(f"{'':36}{'rate':>8}{'mean':>8}{'median':>8}{'worst':>8}{'best':>8}")
        for name, (way, start) in ways.items():

            def scores(rate, seeds, way=way, start=start, per_class=per_class):
                settings = (per_class, arguments.epochs)
                return [accuracy(way, start, rate, seed, *settings) for seed in seeds]

            chosen = max(
                RATES, key=lambda r: np.mean(scores(r, range(arguments.choosing)))
            )
            found = scores(chosen, range(100, 100 + arguments.seeds))
            row = [np.mean(found), np.median(found), min(found), max(found)]
            print(f"{name:36}{chosen:8g}" + "".join(f"{100 * v:8.1f}" for v in row))


if __name__ == "__main__":
    main()
