"""Networks of which snapshots are taken, and what was kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from helpers import (
    JIT,
    digits,
)

import tfschedules as tfs

optimizers = keras.optimizers
layers = keras.layers
X, Y = digits(48)  # six batches of eight to an epoch


def identical(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def network(optimizer: Any = None, **compile_arguments: Any) -> keras.Model:
    """Convolution, BatchNorm and Dropout: state that the forward pass changes."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(momentum=0.8),
            layers.Flatten(),
            layers.Dropout(0.3, seed=3),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer or optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": JIT, **compile_arguments},
    )
    # TensorFlow traces a step twice where a fit has to build the optimizer.
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model: keras.Model, *callbacks: Any, **arguments: Any) -> keras.Model:
    model.fit(
        X,
        Y,
        **{"batch_size": 8, "verbose": 0, "shuffle": False, "epochs": 3, **arguments},
        callbacks=list(callbacks),
    )
    return model


def kept(directory: Path) -> dict[int, keras.Model]:
    """Whole compiled models by step, loaded by Keras alone."""
    return {
        int(path.stem.split("_")[3]): keras.saving.load_model(path)
        for path in directory.glob("*.keras")
    }


def restarts(**arguments: Any) -> keras.callbacks.Callback:
    return tfs.WarmRestarts(0.2, **{"first_cycle": 4, **arguments})
