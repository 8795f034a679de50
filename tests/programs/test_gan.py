"""A small GAN: two optimizers, each with a schedule, a range test and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from event_files import scalars
from helpers import BACKEND
from own_steps import Reported, gradients, update

import tfschedules as tfs

pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="the step changes variables")

BATCHES, EPOCHS = 20, 10
LAYERS = keras.layers


class GAN(keras.Model):
    """Learns to draw from a normal distribution in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential(
            [keras.Input((4,)), LAYERS.Dense(16, "tanh"), LAYERS.Dense(2)]
        )
        self.discriminator = keras.Sequential(
            [keras.Input((2,)), LAYERS.Dense(16, "tanh"), LAYERS.Dense(1)]
        )
        self.seeds = keras.random.SeedGenerator(0)
        self.built = True

    def compile(self, d_optimizer: Any, g_optimizer: Any) -> None:
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        d_optimizer.build(self.discriminator.trainable_variables)
        g_optimizer.build(self.generator.trainable_variables)

    def drawn(self, count: Any) -> Any:
        return self.generator(keras.random.normal((count, 4), seed=self.seeds))

    def train_step(self, real: Any) -> Any:
        ops, count = keras.ops, keras.ops.shape(real)[0]
        fake = ops.stop_gradient(self.drawn(count))

        def of_discriminator() -> Any:
            told = self.discriminator(ops.concatenate([real, fake]))
            return ops.mean(ops.softplus(-told[:count]) + ops.softplus(told[count:]))

        def of_generator() -> Any:
            return ops.mean(ops.softplus(-self.discriminator(self.drawn(count))))

        weights = self.discriminator.trainable_variables
        d_loss, grads = gradients(of_discriminator, weights)
        d_rate = update(self.d_optimizer, grads, weights)
        weights = self.generator.trainable_variables
        g_loss, grads = gradients(of_generator, weights)
        g_rate = update(self.g_optimizer, grads, weights)
        return {"d_loss": d_loss, "g_loss": g_loss, "d_rate": d_rate, "g_rate": g_rate}


def gan(d_optimizer: Any, g_optimizer: Any) -> GAN:
    keras.utils.set_random_seed(0)
    model = GAN()
    model.compile(d_optimizer, g_optimizer)
    return model


def real() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal((1.0, -1.0), 0.2, (16 * BATCHES, 2)).astype("float32")


def test_each_network_has_its_rate_in_each_update(tmp_path: Path) -> None:
    model = gan(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    reported, steps = Reported(), BATCHES * EPOCHS
    history = model.fit(
        real(),
        batch_size=16,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            tfs.OneCycle(0.4, optimizer="d_optimizer"),
            tfs.HyperparameterScheduler(
                tfs.Cosine(0.2, 0.05, tfs.epochs(EPOCHS)), optimizer="g_optimizer"
            ),
            tfs.TensorBoardLogger(tmp_path),
            reported,
        ],
    )
    cycle = tfs.one_cycle(0.4, steps)["learning_rate"].values(steps)
    cosine = 0.125 + 0.075 * np.cos(np.pi * np.arange(steps) / steps)
    # Rounded where a weight moves by a small part of itself.
    used = reported.values
    np.testing.assert_allclose(used["d_rate"], cycle, rtol=5e-3, atol=2e-4)
    np.testing.assert_allclose(used["g_rate"], cosine, rtol=5e-3, atol=2e-4)
    for name, rates in (("d", cycle), ("g", cosine)):
        key = f"{name}_optimizer"
        last = history.history[f"{key}/learning_rate"]
        np.testing.assert_allclose(last, rates[BATCHES - 1 :: BATCHES], rtol=1e-6)
        folder, tag = tmp_path / f"schedules_{key}", f"schedule/{key}/learning_rate"
        at, recorded = scalars(folder, tag)
        assert at == list(range(steps))
        np.testing.assert_allclose(recorded, rates, rtol=1e-5, atol=1e-9)
    drawn = keras.ops.convert_to_numpy(model.drawn(200))
    assert np.abs(drawn.mean(axis=0) - (1.0, -1.0)).max() < 0.5


def test_a_rate_is_found_for_one_and_training_goes_on_as_if_it_had_not_been() -> None:
    swept, other = (
        gan(keras.optimizers.Adam(1e-3, beta_1=0.5), keras.optimizers.Adam(1e-3))
        for _ in range(2)
    )
    before = [np.array(weight) for weight in swept.get_weights()]
    keras.utils.set_random_seed(1)
    result = tfs.find_learning_rate(
        swept, real(), batch_size=16, steps=60, optimizer="d_optimizer",
        metric="d_loss", verbose=0,
    )  # fmt: skip
    assert result.metric == "d_loss"
    assert np.isfinite(result.losses[:20]).all()
    assert all(map(np.array_equal, before, swept.get_weights()))
    trained = []
    for model in (swept, other):
        keras.utils.set_random_seed(1)
        model.fit(real(), batch_size=16, verbose=0)
        optimizers = model.d_optimizer, model.g_optimizer
        variables = [v for each in (model, *optimizers) for v in each.variables]
        trained.append([keras.ops.convert_to_numpy(each) for each in variables])
    assert all(map(np.array_equal, *trained))
