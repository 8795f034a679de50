"""Wide and deep: a linear model beside a network, with rates of their own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT
from keras import layers
from probe import Probe, Watch

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="no layer groups on torch")

ROWS, BATCH, EPOCHS, STEP_SIZE = 512, 32, 3, 8


def table() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Numbers, a category and its crossings; the label depends on all of them."""
    generator = np.random.default_rng(6)
    numbers = generator.normal(size=(ROWS, 4)).astype("float32")
    category = generator.integers(0, 6, ROWS)
    crossed = np.eye(12, dtype="float32")[2 * category + (numbers[:, 0] > 0)]
    logit = np.sin(2 * numbers[:, 1]) + numbers[:, 2] * (category % 3 - 1)
    labels = (logit + generator.normal(0, 0.3, ROWS) > 0).astype("float32")[:, None]
    return {
        "numbers": numbers,
        "category": category[:, None],
        "crossed": crossed,
    }, labels


def network() -> tuple[keras.Model, dict[str, Probe]]:
    probes = {"wide": Probe(), "deep": Probe()}
    numbers, crossed = (
        keras.Input((4,), name="numbers"),
        keras.Input((12,), name="crossed"),
    )
    category = keras.Input((1,), dtype="int32", name="category")
    embedded = layers.Flatten()(layers.Embedding(6, 3, name="embedding")(category))
    deep = probes["deep"](layers.Concatenate()([numbers, embedded]))
    for i, units in enumerate((16, 8)):
        deep = layers.Dense(units, activation="relu", name=f"hidden_{i}")(deep)
    wide = layers.Dense(1, name="linear")(probes["wide"](crossed))
    together = layers.Add()([wide, layers.Dense(1, name="top")(deep)])
    outputs = layers.Activation("sigmoid")(together)
    return keras.Model([numbers, category, crossed], outputs), probes


def train() -> tuple[Any, dict[str, Watch], Any]:
    """Train one.

    What tfschedules changes in the program: the two groups, the optimizer in which they
    are, and the callback.
    """
    x, y = table()
    model, probes = network()
    deep = ["embedding", "hidden_0", "hidden_1", "top", probes["deep"]]
    groups = [  # changed
        tfs.LayerGroup("wide", ["linear", probes["wide"]], multiplier=3.0),
        tfs.LayerGroup("deep", deep),
    ]
    optimizer = tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups)  # changed
    model.compile(
        optimizer, "binary_crossentropy", metrics=["accuracy"], jit_compile=JIT
    )
    watches = {name: Watch(probe) for name, probe in probes.items()}
    cycle = tfs.CyclicalLearningRate(0.02, 0.2, step_size=STEP_SIZE)  # changed
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[cycle, *watches.values()],
    )
    return model, watches, history.history


def test_wide_and_deep() -> None:
    keras.utils.set_random_seed(5)
    model, watches, history = train()
    k = np.arange(EPOCHS * ROWS // BATCH)
    triangle = 1 - np.abs(k / STEP_SIZE - 2 * np.floor(k / (2 * STEP_SIZE)) - 1)
    rates = 0.02 + 0.18 * triangle
    ends = slice(ROWS // BATCH - 1, None, ROWS // BATCH)
    for name, multiplier in (("wide", 3.0), ("deep", 1.0)):
        seen = watches[name].rates
        np.testing.assert_allclose(seen, multiplier * rates, rtol=1e-5, atol=1e-6)
        logged = history[f"learning_rate/{name}"]
        np.testing.assert_allclose(logged, multiplier * rates[ends], rtol=1e-9)
    assert history["loss"][-1] < history["loss"][0]
    assert model.count_params() > 0
