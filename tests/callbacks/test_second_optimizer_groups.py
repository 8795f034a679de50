"""Groups of a second optimizer: beside a plateau rule, with momentum of their own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import JIT
from two_optimizers import STEPS, data, left, step, written

import tfschedules as tfs

pytestmark = pytest.mark.tensorflow  # on JAX a step hands its state on; torch has none


class Grouped(keras.Model):
    """Updates two groups of layers by `d_optimizer`, and `g` by `g_optimizer`."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = (
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name=name)
            for name in ("body", "head")
        )
        for layer in (self.body, self.head):
            layer.build((None, STEPS))
        self.g = self.add_weight((STEPS,), "zeros", name="g")
        self.built = True

    def compile(self, d: Any, g: Any) -> None:
        super().compile(jit_compile=JIT)
        self.d_optimizer, self.g_optimizer = d, g
        d.build([self.body.kernel, self.head.kernel])
        g.build([self.g])

    def train_step(self, batch: Any) -> Any:
        made = keras.ops.convert_to_tensor(self.d_optimizer.iterations)
        gradient = keras.ops.one_hot(made, STEPS, dtype="float32")[:, None]
        self.d_optimizer.apply([gradient] * 2, [self.body.kernel, self.head.kernel])
        step(self.g_optimizer, self.g)
        return {"loss": keras.ops.ones(())}  # it never improves


def grouped(start: float, **body: Any) -> Grouped:
    groups = [
        tfs.LayerGroup("body", ["body"], multiplier=0.1, **body),
        tfs.LayerGroup("head", ["head"]),
    ]
    inner = keras.optimizers.SGD(0.5, momentum=start)
    model = Grouped()
    model.compile(tfs.LayerwiseOptimizer(inner, groups), keras.optimizers.SGD(0.25))
    return model


def changes(layer: Any) -> np.ndarray:
    return -np.array(layer.kernel)[:, 0]


def test_plateau_rules_of_two_optimizers_and_the_least_rate_of_a_group() -> None:
    model = grouped(0.0)
    plateau = {"monitor": "loss", "factor": 0.5}
    history = model.fit(
        data(8),
        batch_size=2,
        epochs=4,
        verbose=0,
        callbacks=[
            tfs.OneCycle(1.0, optimizer="d_optimizer"),
            tfs.ReduceOnPlateau(
                **plateau, patience=1, min_lr={"body": 0.02}, optimizer="d_optimizer"
            ),
            tfs.ReduceOnPlateau(**plateau, patience=2, optimizer="g_optimizer"),
        ],
    ).history
    cycle = tfs.one_cycle(1.0, total_steps=32)["learning_rate"].values(32)
    factors = np.repeat([1.0, 1.0, 0.5, 0.25], 8)  # the first epoch is the best
    body = np.maximum(0.1 * cycle * factors, np.minimum(0.1 * cycle, 0.02))
    np.testing.assert_allclose(changes(model.head)[:32], cycle * factors, atol=1e-6)
    np.testing.assert_allclose(changes(model.body)[:32], body, atol=1e-6)
    g = np.repeat([0.25, 0.25, 0.25, 0.125], 8)
    np.testing.assert_allclose(written(model.g)[:32], g, rtol=1e-6)
    rates = history["d_optimizer/learning_rate/body"]
    np.testing.assert_allclose(rates, body[7::8], rtol=1e-6)
    np.testing.assert_allclose(history["g_optimizer/learning_rate"], g[7::8], rtol=1e-6)
    assert left(model) == []


def test_a_group_keeps_its_momentum_where_the_cycle_drives_the_others() -> None:
    model = grouped(0.9, momentum=0.5)
    cycle = tfs.OneCycle(0.1, optimizer="d_optimizer")
    model.fit(data(8), batch_size=2, epochs=2, verbose=0, callbacks=[cycle])
    parts = tfs.one_cycle(0.1, total_steps=16)
    rates, momenta = (parts[name].values(16) for name in ("learning_rate", "momentum"))
    for layer, share, own in ((model.body, 0.1, 0.5), (model.head, 1.0, None)):
        weights, velocity = np.zeros(STEPS), np.zeros(STEPS)
        for k in range(16):
            velocity *= momenta[k] if own is None else own
            velocity[k] -= share * rates[k]
            weights += velocity
        np.testing.assert_allclose(changes(layer), -weights, atol=1e-6)
    assert left(model) == []
