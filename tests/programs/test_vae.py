"""A variational autoencoder, in both ways in which Keras's guides write one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import JIT, digits, one_cycle_values
from keras import layers, ops
from probe import Probe, Watch, adam_steps

import tfschedules as tfs

LATENT, BATCH, EPOCHS = 2, 32, 3
X = digits(320)[0]
UPDATES = EPOCHS * len(X) // BATCH


class Sampling(layers.Layer):
    """Draws z from the normal distribution that the encoder describes."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, inputs: Any) -> Any:
        mean, log_var = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(0.5 * log_var) * noise


class Parts(keras.Model):
    """Encoder and decoder, and the two parts of the loss."""

    def __init__(self) -> None:
        super().__init__()
        inputs = keras.Input((64,))
        hidden = layers.Dense(16, activation="relu")(inputs)
        mean, log_var = layers.Dense(LATENT)(hidden), layers.Dense(LATENT)(hidden)
        sampled = Sampling()((mean, log_var))
        self.encoder = keras.Model(inputs, [mean, log_var, sampled])
        latent = keras.Input((LATENT,))
        self.probe = Probe()
        decoded = layers.Dense(64, activation="sigmoid")(
            layers.Dense(16, activation="relu")(latent)
        )
        self.decoder = keras.Model(latent, decoded)
        self.kl_tracker = keras.metrics.Mean(name="kl_loss")

    def call(self, x: Any) -> Any:
        return self.decoder(self.encoder(x)[2])

    def parts(self, x: Any) -> tuple[Any, Any]:
        mean, log_var, sampled = self.encoder(x)
        decoded = self.decoder(sampled)
        pixels = keras.losses.binary_crossentropy(x[..., None], decoded[..., None])
        divergence = -0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var))
        return ops.mean(ops.sum(pixels, axis=1)), ops.mean(ops.sum(divergence, axis=1))


class WithLoss(Parts):
    """Its `fit` is Keras's own: the same on every backend."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **_) -> Any:
        reconstruction, divergence = self.parts(x)
        self.kl_tracker.update_state(divergence)
        return reconstruction + divergence + self.probe.loss()


class WithStep(Parts):
    """It writes its own `train_step`, with a tape and trackers."""

    def __init__(self) -> None:
        super().__init__()
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker, self.kl_tracker]

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            reconstruction, divergence = self.parts(data)
            loss = reconstruction + divergence
            total = loss + self.probe.loss()
        weights = self.trainable_weights
        gradients = tape.gradient(total, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self.loss_tracker.update_state(loss)
        self.kl_tracker.update_state(divergence)
        return {m.name: m.result() for m in self.metrics}


def train(model: Parts) -> tuple[Any, Watch, Any]:
    """Train one.

    What tfschedules changes in the program: the line that finds the rate, and the
    callback that follows it.
    """
    model.compile(keras.optimizers.Adam(), jit_compile=JIT)
    watch = Watch(model.probe)
    found = tfs.find_learning_rate(model, X, batch_size=BATCH, verbose=0)  # changed
    one_cycle = tfs.OneCycle(found.suggestion)  # changed
    history = model.fit(
        X, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[one_cycle, watch]
    )
    return found, watch, history.history


@pytest.mark.parametrize(
    "kind", [WithLoss, pytest.param(WithStep, marks=pytest.mark.tensorflow)]
)
def test_a_variational_autoencoder(kind: type[Parts]) -> None:
    keras.utils.set_random_seed(3)
    found, watch, history = train(kind())
    assert 1e-4 < found.suggestion < 1
    rates, momenta = one_cycle_values(found.suggestion, UPDATES)
    steps = adam_steps(rates, momenta)
    np.testing.assert_allclose(watch.rates, steps, rtol=1e-4, atol=1e-6)
    ends = slice(UPDATES // EPOCHS - 1, None, UPDATES // EPOCHS)
    np.testing.assert_allclose(history["learning_rate"], rates[ends], rtol=1e-9)
    np.testing.assert_allclose(history["momentum"], momenta[ends], rtol=1e-9)
    assert {"loss", "kl_loss"} <= history.keys()
    assert history["loss"][-1] < history["loss"][0]
