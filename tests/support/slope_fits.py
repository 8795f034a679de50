"""Fits of six steps to an epoch along one line, and the rates that they read."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    Interrupt,
    Rates,
    arrays,
    digits,
    in_batches,
    line,
    patches,
    softmax_regression,
)

import tfschedules as tfs

X, Y = digits(48)
BATCHES = in_batches(X, Y, 8)  # six to an epoch
SLOPE = tfs.Linear(0.5, 0.02, 30)


def slope(first: int, last: int) -> np.ndarray:
    """What SLOPE is at the steps `first` … `last` - 1."""
    return line(0.5, 0.02, 30, last)[first:]


def fit(
    model: keras.Model, *callbacks: keras.callbacks.Callback, **arguments: Any
) -> np.ndarray:
    """Fit in a fixed order; return the rate that was read after each step."""
    reader = Rates()
    data = {} if "x" in arguments else {"x": X, "y": Y, "batch_size": 8}
    try:
        model.fit(
            **data,
            **{"verbose": 0, "shuffle": False, **arguments},
            callbacks=[*callbacks, reader],
        )
    finally:
        fit.rates = np.array(reader.rates)  # type: ignore[attr-defined]
    return np.array(reader.rates)


def interrupted_fit(
    model: keras.Model, steps: int, *callbacks: Any, **arguments: Any
) -> np.ndarray:
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, *callbacks, Interrupt(steps), **arguments)
    return fit.rates  # type: ignore[attr-defined]


def momentum_model(**compile_arguments: Any) -> keras.Model:
    return softmax_regression(
        keras.optimizers.SGD(0.1, momentum=0.9), **compile_arguments
    )


def same(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-6)


def untouched(model: keras.Model, weights: list[np.ndarray]) -> None:
    """Nothing was changed, and the model still trains."""
    assert patches(model) == []
    for value, expected in zip(arrays(model), weights, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert int(model.optimizer.iterations) == 0
