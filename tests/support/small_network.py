"""A network with all that a step changes, and its training as a Python loop."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from helpers import (
    JIT,
    Batches,
    arrays,
    digits,
    in_batches,
)

STEPS = 6


def small_data() -> Batches:
    """Six batches of eight digits, projected to twelve features that are never 0."""
    x, y = digits(8 * STEPS)
    projection = np.random.default_rng(1).normal(0, 0.3, (64, 12)).astype("float32")
    return in_batches(x @ projection, y, 8)


def small_network(optimizer: Any, **compile_arguments: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dense(10),
        ]
    )
    generator = np.random.default_rng(2)
    model.set_weights(
        [generator.normal(0, 0.4, value.shape) for value in model.get_weights()]
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": JIT, **compile_arguments},
    )
    # TensorFlow traces a step twice where a fit has to build the optimizer.
    model.optimizer.build(model.trainable_variables)
    return model


def python_loop(
    optimizer: Any,
    settings: dict[str, np.ndarray],
    batches: Batches,
    retrace: bool = False,
) -> list[np.ndarray]:
    """Train with attributes that Python sets; nothing of tfschedules.

    Attributes are seen by an eager step, or by a compiled one that is made anew each
    time (`retrace`), which has the roundings of a compiled fit.
    """
    how = {} if retrace else {"run_eagerly": True, "jit_compile": False}
    model = small_network(optimizer, **how)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    for step, (x, y) in enumerate(batches):
        for attribute, values in settings.items():
            setattr(inner, attribute, float(values[step]))
        if retrace and settings:
            model.make_train_function(force=True)
        model.train_on_batch(x, y)
    return arrays(model)
