"""A small SimCLR: a contrastive optimizer, and one for a probe of what is learned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, digits
from own_steps import Reported, gradients, update

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="the step changes variables")

BATCH, BATCHES, EPOCHS = 64, 8, 6
LAYERS = keras.layers


class SimCLR(keras.Model):
    """Two noisy views of a digit are alike; a linear probe reads the features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.Input((64,)), LAYERS.Dense(64, "relu"), LAYERS.Dense(32, "relu")]
        )
        self.projection = keras.Sequential([keras.Input((32,)), LAYERS.Dense(16)])
        self.probe = keras.Sequential([keras.Input((32,)), LAYERS.Dense(10)])
        self.seeds = keras.random.SeedGenerator(0)
        self.built = True

    def compile(self, contrastive_optimizer: Any, probe_optimizer: Any) -> None:
        super().compile()
        self.contrastive_optimizer = contrastive_optimizer
        self.probe_optimizer = probe_optimizer
        contrastive_optimizer.build(self.contrasted)
        probe_optimizer.build(self.probe.trainable_variables)

    @property
    def contrasted(self) -> list[Any]:
        parts = self.encoder, self.projection
        return [weight for part in parts for weight in part.trainable_variables]

    def view(self, x: Any) -> Any:
        noise = keras.random.normal(keras.ops.shape(x), stddev=0.1, seed=self.seeds)
        seen = self.projection(self.encoder(x + noise))
        return keras.ops.normalize(seen, axis=-1)

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        ops, count = keras.ops, keras.ops.shape(x)[0]

        def alike() -> Any:
            alike = ops.matmul(self.view(x), ops.transpose(self.view(x))) / 0.2
            own = ops.arange(count)
            entropy = keras.losses.sparse_categorical_crossentropy
            return ops.mean(
                entropy(own, alike, from_logits=True)
                + entropy(own, ops.transpose(alike), from_logits=True)
            )

        c_loss, grads = gradients(alike, self.contrasted)
        c_rate = update(self.contrastive_optimizer, grads, self.contrasted)
        features = ops.stop_gradient(self.encoder(x))

        def read() -> Any:
            entropy = keras.losses.sparse_categorical_crossentropy
            return ops.mean(entropy(y, self.probe(features), from_logits=True))

        weights = self.probe.trainable_variables
        p_loss, grads = gradients(read, weights)
        p_rate = update(self.probe_optimizer, grads, weights)
        return {"c_loss": c_loss, "p_loss": p_loss, "c_rate": c_rate, "p_rate": p_rate}


def test_the_contrast_and_the_probe_have_their_schedules() -> None:
    x, y = digits(BATCH * BATCHES)
    keras.utils.set_random_seed(0)
    model = SimCLR()
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    found = tfs.find_learning_rate(
        model, x, y, batch_size=BATCH, optimizer="probe_optimizer", metric="p_loss",
        verbose=0, min_lr=1e-3, max_lr=100.0,
    )  # fmt: skip
    assert found.suggestion is not None
    assert 0.01 < found.suggestion < 20
    peak = float(found.suggestion)
    reported, steps = Reported(), BATCHES * EPOCHS
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            tfs.HyperparameterScheduler(
                tfs.warmup(tfs.Cosine(0.5, 0.0, steps - 8), 8),
                optimizer="contrastive_optimizer",
            ),
            tfs.OneCycle(peak, optimizer="probe_optimizer"),
            reported,
        ],
    )
    ramp = 0.5 * np.arange(8) / 8
    fall = 0.25 * (1 + np.cos(np.pi * np.arange(steps - 8) / (steps - 8)))
    cycle = tfs.one_cycle(peak, steps)["learning_rate"].values(steps)
    used, contrast = reported.values, np.concatenate([ramp, fall])
    np.testing.assert_allclose(used["c_rate"], contrast, rtol=5e-3, atol=5e-4)
    np.testing.assert_allclose(used["p_rate"], cycle, rtol=5e-3, atol=5e-4)
    for name, rates in (("contrastive", contrast), ("probe", cycle)):
        last = history.history[f"{name}_optimizer/learning_rate"]
        np.testing.assert_allclose(last, rates[BATCHES - 1 :: BATCHES], rtol=1e-6)
    assert used["c_loss"][-1] < used["c_loss"][0]
    scores = keras.ops.convert_to_numpy(model.probe(model.encoder(x)))
    assert np.mean(scores.argmax(axis=1) == y) > 0.6
