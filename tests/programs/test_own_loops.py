"""Training loops from scratch: with a tape, stateless on JAX, and an actor-critic."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, digits, one_cycle_values
from keras import layers, ops
from probe import Probe, adam_steps

import tfschedules as tfs

BATCH, EPOCHS = 32, 3
X, Y = digits(480)
UPDATES = EPOCHS * len(X) // BATCH


def classifier() -> tuple[keras.Model, Probe]:
    probe = Probe()
    inputs = keras.Input((64,))
    hidden = layers.Dense(16, activation="relu")(inputs)
    hidden = layers.Dropout(0.1, seed=1)(layers.BatchNormalization()(hidden))
    return keras.Model(inputs, layers.Dense(10)(probe(hidden))), probe


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]


def cross_entropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# With a tape.


@pytest.mark.tensorflow
def test_a_loop_with_a_tape() -> None:
    """Train with a compiled step, validate after each epoch.

    What tfschedules changes in the program: the two lines of the sweep, which takes the
    place of a loop over batches, and the `with` around the epochs.
    """
    import tensorflow as tf

    keras.utils.set_random_seed(7)
    model, probe = classifier()
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    loss_of, accuracy = cross_entropy(), keras.metrics.SparseCategoricalAccuracy()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_of(y, logits)
            total = loss + sum(model.losses)
        weights = model.trainable_weights
        gradients = tape.gradient(total, weights)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        accuracy.update_state(y, logits)
        return loss

    test_step = tf.function(step)
    stream = iter(data.repeat())
    sweep = tfs.Sweep(optimizer, model.variables)  # changed
    for _ in sweep:  # changed
        sweep.record(test_step(*next(stream)))
    peak = sweep.result.suggestion
    assert 1e-3 < peak < 10
    assert probe.read() == 0.0  # it has put everything back

    train_step = tf.function(step)
    seen, scores = [0.0], []
    with tfs.driven(optimizer, **tfs.one_cycle(peak, UPDATES)):  # changed
        for _ in range(EPOCHS):
            accuracy.reset_state()
            for x, y in data:
                train_step(x, y)
                seen.append(probe.read())
            scores.append(float(accuracy.result()))

    velocity, steps = 0.0, []
    for rate, momentum in zip(*one_cycle_values(peak, UPDATES), strict=True):
        velocity = momentum * velocity - rate
        steps.append(velocity)
    np.testing.assert_allclose(np.diff(seen), steps, rtol=1e-4, atol=1e-6)
    assert scores[-1] > 0.8
    assert (optimizer.momentum, float(optimizer.learning_rate)) == (
        0.9,
        pytest.approx(0.01),
    )


# Stateless, on JAX.


@pytest.mark.skipif(BACKEND != "jax", reason="stateless steps are JAX's way")
def test_a_stateless_loop_on_jax() -> None:
    """Train with a compiled step from state to state.

    What tfschedules changes in the program: the step for the sweep and its call, and
    the `with` around the epochs.
    """
    import jax

    keras.utils.set_random_seed(7)
    model, probe = classifier()
    optimizer, loss_of = keras.optimizers.Adam(0.01), cross_entropy()
    optimizer.build(model.trainable_variables)

    def loss_and_updates(weights: Any, others: Any, x: Any, y: Any) -> Any:
        logits, others, losses = model.stateless_call(
            weights, others, x, training=True, return_losses=True
        )
        loss = loss_of(y, logits)
        return loss + sum(losses), (loss, others)

    gradients_of = jax.value_and_grad(loss_and_updates, has_aux=True)

    @jax.jit
    def train_step(state: Any, batch: Any) -> Any:
        weights, others, slots = state
        (_, (loss, others)), gradients = gradients_of(weights, others, *batch)
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return (weights, others, slots), loss

    at = optimizer.variables.index(optimizer.learning_rate)

    def swept_step(state: Any, batch: Any, rate: Any) -> Any:  # changed
        weights, others, slots = state
        slots = [*slots[:at], ops.cast(rate, "float32"), *slots[at + 1 :]]
        return train_step((weights, others, slots), batch)

    def values(variables: Any) -> list[Any]:
        return [v.value for v in variables]

    state = (
        values(model.trainable_variables),
        values(model.non_trainable_variables),
        values(optimizer.variables),
    )
    found = tfs.sweep(swept_step, state, 20 * batches(), steps=100)  # changed
    assert 1e-4 < found.suggestion < 1

    cycle = tfs.warm_restarts(found.suggestion, first_cycle=9, cycle_mult=2)
    place = [v is probe.fallen for v in model.trainable_variables].index(True)
    seen, losses = [0.0], []
    with tfs.driven(optimizer, learning_rate=cycle):  # changed
        for _ in range(EPOCHS):
            for batch in batches():
                state, loss = train_step(state, batch)
                seen.append(float(state[0][place]))
                losses.append(float(loss))
    k = np.arange(UPDATES)
    t = np.where(k < 9, k / 9, np.where(k < 27, (k - 9) / 18, (k - 27) / 36))
    rates = found.suggestion * 0.5 * (1 + np.cos(np.pi * t))
    steps = adam_steps(rates)
    np.testing.assert_allclose(-np.diff(seen), steps, rtol=1e-4, atol=1e-6)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


# An actor and a critic.


class Cart:
    """A cart that is to be kept near 0 by pushes to the left and the right."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        self.state = self.generator.uniform(-0.5, 0.5, 2)
        return self.state.astype("float32")

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        place, speed = self.state
        speed = 0.9 * speed + (0.1 if action else -0.1)
        self.state = np.array([place + speed, speed])
        return self.state.astype("float32"), 1.0, abs(place + speed) > 1


def actor_critic() -> tuple[keras.Model, Probe]:
    probe = Probe()
    inputs = keras.Input((2,))
    common = probe(layers.Dense(16, activation="relu")(inputs))
    action = layers.Dense(2, activation="softmax")(common)
    return keras.Model(inputs, [action, layers.Dense(1)(common)]), probe


def gradients_of(loss: Any, weights: list[Any]) -> list[Any]:
    """The gradients of what `loss()` returns, eagerly, as each backend has it."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = loss()
        return tape.gradient(total, weights)
    for weight in weights:
        weight.value.grad = None
    loss().backward()
    return [weight.value.grad for weight in weights]


def apply(optimizer: Any, gradients: list[Any], weights: list[Any]) -> None:
    if BACKEND == "torch":
        import torch

        with torch.no_grad():
            optimizer.apply(gradients, weights)
    else:
        optimizer.apply(gradients, weights)


@pytest.mark.skipif(BACKEND == "jax", reason="this loop is eager, with a tape's kind")
def test_an_actor_critic_loop() -> None:
    """Train by whole episodes, one update each.

    What tfschedules changes in the program: the `with` around the episodes, with a rate
    that falls and a second moment that gets longer.
    """
    keras.utils.set_random_seed(8)
    model, probe = actor_critic()
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    huber, cart, generator = keras.losses.Huber(), Cart(9), np.random.default_rng(10)
    episodes, seen = 12, [0.0]
    schedules = {  # changed
        "learning_rate": tfs.flat_cosine(0.02, episodes, pct_flat=0.5),
        "beta_1": tfs.Linear(0.95, 0.85, episodes),
    }
    with tfs.driven(optimizer, **schedules):  # changed
        for _ in range(episodes):
            state, states, actions, rewards = cart.reset(), [], [], []
            for _ in range(20):
                chances = ops.convert_to_numpy(model(state[None])[0])[0]
                action = int(generator.random() < chances[1])
                states.append(state)
                actions.append(action)
                state, reward, done = cart.step(action)
                rewards.append(reward)
                if done:
                    break
            discounts = 0.99 ** np.arange(len(rewards))
            returns = [sum(discounts[: len(rewards) - i]) for i in range(len(rewards))]
            returns = np.float32(returns - np.mean(returns))[:, None]
            episode = np.array(states), np.eye(2, dtype="float32")[actions], returns

            def loss(episode: Any = episode) -> Any:
                states, chosen, returns = map(ops.convert_to_tensor, episode)
                chances, values = model(states)
                logs = ops.log(ops.sum(chances * chosen, axis=1, keepdims=True))
                advantage = returns - ops.stop_gradient(values)
                critic = huber(returns, values)
                return critic - ops.mean(logs * advantage) + sum(model.losses)

            weights = model.trainable_variables
            apply(optimizer, gradients_of(loss, weights), weights)
            seen.append(probe.read())
    k = np.arange(episodes)
    falling = 0.01 * (1 + np.cos(np.pi * (k - episodes / 2) / (episodes / 2)))
    rates = np.where(k < episodes / 2, 0.02, falling)
    steps = adam_steps(rates, 0.95 - 0.1 * k / episodes)
    np.testing.assert_allclose(-np.diff(seen), steps, rtol=1e-4, atol=1e-6)
    assert optimizer.beta_1 == 0.9
