"""A small WGAN-GP: three updates of the critic for each of the generator."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND
from own_steps import Reported, gradients, slopes, update

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="the step changes variables")

BATCHES, EPOCHS, CRITICS = 20, 5, 3
LAYERS = keras.layers


class WGAN(keras.Model):
    """Learns to draw from a normal distribution in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential(
            [keras.Input((4,)), LAYERS.Dense(16, "tanh"), LAYERS.Dense(2)]
        )
        self.critic = keras.Sequential(
            [keras.Input((2,)), LAYERS.Dense(16, "tanh"), LAYERS.Dense(1)]
        )
        self.seeds = keras.random.SeedGenerator(0)
        self.built = True

    def compile(self, optimizer: Any, c_optimizer: Any) -> None:
        # The generator's is the compiled one here; the critic's is beside it.
        super().compile(optimizer)
        self.c_optimizer = c_optimizer
        c_optimizer.build(self.critic.trainable_variables)
        optimizer.build(self.generator.trainable_variables)

    def drawn(self, count: Any) -> Any:
        return self.generator(keras.random.normal((count, 4), seed=self.seeds))

    def train_step(self, real: Any) -> Any:
        ops, count = keras.ops, keras.ops.shape(real)[0]
        logs = {}
        for number in range(CRITICS):
            fake = ops.stop_gradient(self.drawn(count))
            share = keras.random.uniform((count, 1), seed=self.seeds)
            between = share * real + (1 - share) * fake

            def of_critic(fake: Any = fake, between: Any = between) -> Any:
                steep = slopes(self.critic, between)
                length = ops.sqrt(ops.sum(steep**2, axis=1) + 1e-12)
                told = ops.mean(self.critic(fake)) - ops.mean(self.critic(real))
                return told + 10.0 * ops.mean((length - 1) ** 2)

            weights = self.critic.trainable_variables
            # The last bias has no gradient here: rates are measured by the kernel.
            logs["c_loss"], grads = gradients(of_critic, weights)
            order = [0, 1, 3, 2]
            grads = [ops.zeros_like(w) if g is None else g
                     for g, w in zip(grads, weights, strict=True)]  # fmt: skip
            logs[f"c_rate_{number}"] = update(
                self.c_optimizer, [grads[i] for i in order], [weights[i] for i in order]
            )

        def of_generator() -> Any:
            return -ops.mean(self.critic(self.drawn(count)))

        weights = self.generator.trainable_variables
        logs["g_loss"], grads = gradients(of_generator, weights)
        logs["g_rate"] = update(self.optimizer, grads, weights)
        return logs


def test_each_of_three_updates_of_the_critic_has_its_rate() -> None:
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    x = generator.normal((1.0, -1.0), 0.2, (16 * BATCHES, 2)).astype("float32")
    model = WGAN()
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    reported, updates = Reported(), BATCHES * EPOCHS
    history = model.fit(
        x,
        batch_size=16,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            tfs.OneCycle(0.1, CRITICS * updates, optimizer="c_optimizer"),
            tfs.OneCycle(0.1),
            reported,
        ],
    )
    used = reported.values
    rates = np.stack([used[f"c_rate_{i}"] for i in range(CRITICS)], axis=1).ravel()
    cycle = tfs.one_cycle(0.1, CRITICS * updates)["learning_rate"]
    cycle = cycle.values(CRITICS * updates)
    np.testing.assert_allclose(rates, cycle, rtol=5e-3, atol=2e-4)
    own = tfs.one_cycle(0.1, updates)["learning_rate"].values(updates)
    np.testing.assert_allclose(used["g_rate"], own, rtol=5e-3, atol=2e-4)
    every = CRITICS * BATCHES
    last = history.history["c_optimizer/learning_rate"]
    np.testing.assert_allclose(last, cycle[every - 1 :: every], rtol=1e-6)
    last = history.history["learning_rate"]
    np.testing.assert_allclose(last, own[BATCHES - 1 :: BATCHES], rtol=1e-6)
    drawn = keras.ops.convert_to_numpy(model.drawn(200))
    assert np.abs(drawn.mean(axis=0) - (1.0, -1.0)).max() < 0.7
    # A sweep over the critic's updates: each batch has three.
    result = tfs.find_learning_rate(
        model, x, batch_size=16, optimizer="c_optimizer", metric="c_loss", steps=60,
        min_lr=1e-4, max_lr=1e-2, stop_factor=None, verbose=0,
    )  # fmt: skip
    swept = np.geomspace(1e-4, 1e-2, 60)[CRITICS - 1 :: CRITICS]
    np.testing.assert_allclose(result.learning_rates, swept, rtol=1e-5)
