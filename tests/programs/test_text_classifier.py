"""A transformer that tells licences from documentation, word by word hashed."""

from __future__ import annotations

import builtins
import re
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from event_files import scalars
from helpers import BACKEND, JIT, ROOT
from keras import layers, ops
from probe import Probe, Watch, adam_steps

import tfschedules as tfs

WORDS, VOCABULARY, SIZE, BATCH, EPOCHS, WARMUP = 16, 200, 16, 16, 4, 12


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Pieces of this repository's licence (1), and of Python's own docstrings (0)."""
    of_python = " ".join(str(value.__doc__) for value in vars(builtins).values())
    licence = (ROOT / "LICENSE").read_text("utf-8")
    rows, labels = [], []
    for label, text in enumerate((of_python, licence)):
        words = re.findall(r"[a-z]+", text.lower())[: WORDS * 64]
        tokens = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in words]
        rows += [tokens[i : i + WORDS] for i in range(0, len(tokens), WORDS)]
        labels += [label] * (len(rows) - len(labels))
    order = np.random.default_rng(7).permutation(len(rows))
    return np.array(rows, "int32")[order], np.array(labels, "float32")[order, None]


class TokenAndPosition(layers.Layer):
    """The sum of two embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.token = layers.Embedding(VOCABULARY, SIZE)
        self.position = layers.Embedding(WORDS, SIZE)

    def build(self, shape: Any) -> None:
        self.token.build(shape)
        self.position.build((WORDS,))

    def call(self, x: Any) -> Any:
        return self.token(x) + self.position(ops.arange(WORDS))


class TransformerBlock(layers.Layer):
    """Attention and a feed-forward part, each with a residual and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(num_heads=2, key_dim=SIZE // 2)
        self.inner = layers.Dense(2 * SIZE, activation="relu")
        self.outer = layers.Dense(SIZE)
        self.first = layers.LayerNormalization(epsilon=1e-6)
        self.second = layers.LayerNormalization(epsilon=1e-6)
        self.dropout = layers.Dropout(0.1, seed=8)

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)
        self.inner.build(shape)
        self.outer.build((*shape[:-1], 2 * SIZE))
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        attended = self.dropout(self.attention(x, x), training=training)
        x = self.first(x + attended)
        return self.second(x + self.outer(self.inner(x)))


def train(logs: Path) -> tuple[Watch, Any]:
    """Train one, with the warm-up and the decay of the paper.

    What tfschedules changes in the program: the callback with the schedule, and the one
    that records it.
    """
    x, y = texts()
    probe = Probe()
    inputs = keras.Input((WORDS,), dtype="int32")
    hidden = TransformerBlock()(TokenAndPosition()(inputs))
    pooled = layers.Dropout(0.1, seed=9)(layers.GlobalAveragePooling1D()(hidden))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(probe(pooled)))
    optimizer = keras.optimizers.Adam(beta_2=0.98)
    model.compile(
        optimizer, "binary_crossentropy", metrics=["accuracy"], jit_compile=JIT
    )
    watch = Watch(probe)
    peak = tfs.InverseSqrt(0.01, WARMUP)  # changed
    callbacks = [tfs.HyperparameterScheduler(peak), watch]  # changed
    if BACKEND != "torch":
        callbacks.append(tfs.TensorBoardLogger(logs))  # changed
    history = model.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks
    )
    return watch, history.history


def test_a_transformer_for_texts(tmp_path: Path) -> None:
    keras.utils.set_random_seed(6)
    watch, history = train(tmp_path)
    k = np.arange(EPOCHS * 128 // BATCH)
    rates = 0.01 * np.minimum(k / WARMUP, np.sqrt(WARMUP / np.maximum(k, 1)))
    steps = adam_steps(rates, beta_2=0.98)
    np.testing.assert_allclose(watch.rates, steps, rtol=1e-4, atol=1e-7)
    ends = rates[128 // BATCH - 1 :: 128 // BATCH]
    np.testing.assert_allclose(history["learning_rate"], ends, rtol=1e-9)
    assert history["accuracy"][-1] > 0.9
    if BACKEND == "torch":
        return
    recorded, values = scalars(tmp_path / "schedules", "schedule/learning_rate")
    assert recorded == list(k)
    np.testing.assert_allclose(values, rates, rtol=1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="there are no blocks on torch")
def test_its_embeddings_in_blocks() -> None:
    """Blocks of steps are compiled together, and each step has its own rate."""
    probe = Probe()
    inputs = keras.Input((WORDS,), dtype="int32")
    pooled = layers.GlobalAveragePooling1D()(TokenAndPosition()(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(probe(pooled)))
    model.compile(
        keras.optimizers.SGD(),
        "binary_crossentropy",
        steps_per_execution=4,
        jit_compile=JIT,
    )
    schedule = tfs.InverseSqrt(0.01, WARMUP)
    x, y = texts()
    driven = tfs.HyperparameterScheduler(schedule)
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[driven])
    k = np.arange(2 * 128 // BATCH)
    rates = 0.01 * np.minimum(k / WARMUP, np.sqrt(WARMUP / np.maximum(k, 1)))
    assert -probe.read() == pytest.approx(rates.sum(), rel=1e-5)
