"""Weights averaged from a step on, with equal weights: Keras's EMA, driven.

The network of `unit_steps` has weights that are known at every update: weight k is
minus the rate of update k, from that update on.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND
from unit_steps import STEPS, rates_written, unit_model, units

import tfschedules as tfs

START = 18


def equal_weights(start: int, every: int = 1) -> tfs.Schedule:
    """As on the page for those who come from torch."""

    def momentum(step: Any) -> Any:
        averaged = keras.ops.maximum(step - start, 0) / every
        whole = keras.ops.floor(averaged)
        return keras.ops.where(averaged == whole, whole / (whole + 1), 1.0)

    return tfs.ScaleFunction(momentum)


@pytest.mark.parametrize(("every", "block"), [(1, 4), (5, 1)])
def test_the_weights_are_the_mean_of_those_from_the_start_on(
    every: int, block: int
) -> None:
    model = unit_model(
        keras.optimizers.SGD(0.1, use_ema=True),
        steps_per_execution=1 if BACKEND == "torch" else block,
    )
    x, y = units()
    rate = tfs.swa(tfs.Cosine(0.1, 0.0, STEPS - 1), START, 0.05, anneal_steps=10)
    callback = tfs.HyperparameterScheduler(
        rate, ema_momentum=equal_weights(START, every)
    )
    arguments = {"batch_size": 1, "epochs": 4, "steps_per_epoch": 12, "verbose": 0}
    model.fit(x, y, shuffle=False, callbacks=[callback], **arguments)

    rates = rate.values(STEPS)
    updates = np.arange(STEPS)
    weights = np.where(updates[:, None] >= updates, rates, 0.0)  # after each update
    mean = weights[START::every].mean(axis=0)
    assert np.abs(mean - weights[-1]).max() > 0.01
    np.testing.assert_allclose(rates_written(model), mean, rtol=2e-6, atol=1e-9)
