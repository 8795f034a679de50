"""LayerwiseOptimizer against NumPy in float64, and against the optimizer alone.

Fixed gradients are applied one by one, and every step is compared: a rate that is off
by one step, scaled twice, or not scaled in the decay, is seen at once. Fits on digits
are compared to the bit with those of the optimizer alone.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    JIT,
    Batches,
    Interrupt,
    Rates,
    arrays,
    digits,
    in_batches,
    initial_weights,
    one_cycle_values,
    relative_error,
    softmax_regression,
)

import tfschedules as tfs

optimizers = keras.optimizers
JAX = BACKEND == "jax"

FACTORS = (0.0, 0.1, 1.0, 3.0)
STEPS = 50


# NumPy references: one weight, the rate and the decay of each step; all its values.


def sgd(
    value: Any, gradients: Any, rates: Any, decays: Any = 0.0, momentum: Any = 0.9
) -> np.ndarray:
    """v ← μ·v − α·g after w ← w·(1 − α·λ)."""
    w, v, seen = np.asarray(value, np.float64), 0.0, []
    steps = len(gradients)
    for g, rate, decay, mu in zip(
        np.asarray(gradients, np.float64),
        np.broadcast_to(rates, steps),
        np.broadcast_to(decays, steps),
        np.broadcast_to(momentum, steps),
        strict=True,
    ):
        w = w * (1 - rate * decay)
        v = mu * v - rate * g
        w = w + v
        seen.append(w)
    return np.array(seen)


def adamw(value: Any, gradients: Any, rates: Any, decays: Any = 0.0) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2, with Keras's place for ε."""
    w, m, v, seen = np.asarray(value, np.float64), 0.0, 0.0, []
    steps = len(gradients)
    for t, (g, rate, decay) in enumerate(
        zip(
            np.asarray(gradients, np.float64),
            np.broadcast_to(rates, steps),
            np.broadcast_to(decays, steps),
            strict=True,
        ),
        start=1,
    ):
        w = w * (1 - rate * decay)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        alpha = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - alpha * m / (np.sqrt(v) + 1e-7)
        seen.append(w)
    return np.array(seen)


def lion(value: Any, gradients: Any, rates: Any, decays: Any = 0.0) -> np.ndarray:
    """Chen et al. 2023, algorithm 2; no sign may hang on the last digits."""
    w, m, seen = np.asarray(value, np.float64), 0.0, []
    steps = len(gradients)
    for g, rate, decay in zip(
        np.asarray(gradients, np.float64),
        np.broadcast_to(rates, steps),
        np.broadcast_to(decays, steps),
        strict=True,
    ):
        w = w * (1 - rate * decay)
        c = 0.9 * m + 0.1 * g
        assert np.abs(c).min() > 1e-5  # float32 has the same sign
        w = w - rate * np.sign(c)
        m = 0.99 * m + 0.01 * g
        seen.append(w)
    return np.array(seen)


KINDS: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray], float, float]] = {
    "SGD": (
        lambda **more: optimizers.SGD(0.01, momentum=0.9, **more),
        sgd,
        0.01,
        0.0,
    ),
    "SGD, decay": (
        lambda **more: optimizers.SGD(0.01, momentum=0.9, weight_decay=0.3, **more),
        sgd,
        0.01,
        0.3,
    ),
    "AdamW": (
        lambda **more: optimizers.AdamW(0.002, weight_decay=0.5, **more),
        adamw,
        0.002,
        0.5,
    ),
    "Lion": (
        lambda **more: optimizers.Lion(0.002, weight_decay=0.5, **more),
        lion,
        0.002,
        0.5,
    ),
}


def problem(shape: tuple[int, ...] = (3, 4), count: int = len(FACTORS)) -> Any:
    """Values of `count` weights, and `STEPS` gradients for each: `(step, weight)`."""
    generator = np.random.default_rng(11)
    values = generator.normal(0, 1, (count, *shape)).astype("float32")
    gradients = generator.normal(0.3, 1, (STEPS, count, *shape)).astype("float32")
    return values, gradients


def variables(values: Any) -> list[keras.Variable]:
    return [
        keras.Variable(np.asarray(value, "float32"), name=f"w{i}", dtype="float32")
        for i, value in enumerate(values)
    ]


def one_each(
    weights: Sequence[keras.Variable], factors: Sequence[Any], **arguments: Any
) -> list[tfs.LayerGroup]:
    """A group for each weight."""
    return [
        tfs.LayerGroup(f"group {i}", [weight], factor, **arguments)
        for i, (weight, factor) in enumerate(zip(weights, factors, strict=True))
    ]


def step_by_step(optimizer: Any, weights: Any, gradients: Any) -> np.ndarray:
    """Apply the gradients; the weights after every step, `(step, weight, …)`."""
    seen = []
    for gradient in gradients:
        given = [keras.ops.convert_to_tensor(g) for g in gradient]
        if JAX and isinstance(optimizer, optimizers.LossScaleOptimizer):
            _apply_statelessly(optimizer, weights, given)  # it has no other way
        else:
            optimizer.apply(given, weights)
        seen.append([number(weight) for weight in weights])
    return np.array(seen)


def _apply_statelessly(optimizer: Any, weights: Any, gradients: Any) -> None:
    if not optimizer.built:
        optimizer.build(weights)
    updated = optimizer.stateless_apply(
        [variable.value for variable in optimizer.variables],
        gradients,
        [weight.value for weight in weights],
    )
    for variables, values in zip((weights, optimizer.variables), updated, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def number(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


def state(optimizer: Any) -> list[np.ndarray]:
    return [number(variable) for variable in optimizer.variables]


def same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> None:
    """Equal to the bit."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# 1. Fixed gradients, against NumPy.


@pytest.mark.parametrize("name", KINDS)
def test_every_one_of_fifty_steps_equals_numpy(name: str) -> None:
    make, reference, rate, decay = KINDS[name]
    values, gradients = problem()
    weights = variables(values)
    inner = make()
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, FACTORS))
    seen = step_by_step(wrapped, weights, gradients)
    for i, factor in enumerate(FACTORS):
        if factor == 0:
            same(seen[:, i], [values[i]] * STEPS)
        expected = reference(values[i], gradients[:, i], rate * factor, decay)
        for step in range(STEPS):
            assert relative_error([seen[step, i]], [expected[step]]) < 1e-6
    assert int(number(wrapped.iterations)) == STEPS
    # The references tell these factors from others.
    for off in (0.1 * 0.1, 0.11, 1.0):
        elsewhere = reference(values[1], gradients[:, 1], rate * off, decay)[-1]
        assert relative_error([elsewhere], [seen[-1, 1]]) > 1e-4
    if decay:
        without = reference(values[3], gradients[:, 3], rate * 3, decay / 3)[-1]
        assert relative_error([without], [seen[-1, 3]]) > 1e-3


@pytest.mark.parametrize("name", ["SGD, decay", "AdamW", "Lion"])
def test_decay_has_a_multiplier_of_its_own(name: str) -> None:
    make, reference, rate, decay = KINDS[name]
    values, gradients = problem()
    weights = variables(values)
    groups = [
        tfs.LayerGroup(f"g{i}", [weight], factor, own)
        for i, (weight, factor, own) in enumerate(
            zip(weights, (2.0, 2.0, 0.5, 1.0), (0.0, 3.0, 0.5, 1.0), strict=True)
        )
    ]
    seen = step_by_step(tfs.LayerwiseOptimizer(make(), groups), weights, gradients[:20])
    for i, group in enumerate(groups):
        expected = reference(
            values[i],
            gradients[:20, i],
            rate * group.multiplier,
            decay * group.weight_decay_multiplier,
        )
        assert relative_error([seen[-1, i]], [expected[-1]]) < 1e-6


@pytest.mark.parametrize("name", ["SGD, decay", "AdamW", "Lion"])
def test_schedules_as_multipliers_equal_numpy_at_each_step(name: str) -> None:
    make, reference, rate, decay = KINDS[name]
    values, gradients = problem()
    weights = variables(values)
    factors = [
        tfs.Linear(0.0, 2.0, 30),
        0.25,
        tfs.Piecewise([7, 8], [1.0, 0.0, 3.0]),
        tfs.Cosine(3.0, 0.5, 40) * 0.5,
    ]
    by_hand = [
        np.interp(np.arange(STEPS), [0, 30], [0.0, 2.0]),
        np.full(STEPS, 0.25),
        np.array([1.0] * 7 + [0.0] + [3.0] * (STEPS - 8)),
        0.25 + 0.5 * 1.25 * (1 + np.cos(np.pi * np.minimum(np.arange(STEPS) / 40, 1))),
        # ½·(½ + 2½·½(1 + cos)): the equation once more, by hand
    ]
    wrapped = tfs.LayerwiseOptimizer(make(), one_each(weights, factors))
    seen = step_by_step(wrapped, weights, gradients)
    for i, own in enumerate(by_hand):
        expected = reference(values[i], gradients[:, i], rate * own, decay)
        for step in range(STEPS):
            assert relative_error([seen[step, i]], [expected[step]]) < 1e-6
    shifted = reference(values[0], gradients[:, 0], rate * np.roll(by_hand[0], 1))
    assert relative_error([shifted[20]], [seen[20, 0]]) > 1e-5


def test_default_is_the_multiplier_of_what_is_left() -> None:
    values, gradients = problem()
    weights = variables(values)
    groups = [tfs.LayerGroup("first", [weights[0]], 0.5)]
    optimizer = optimizers.SGD(0.01, momentum=0.9, weight_decay=0.3)
    wrapped = tfs.LayerwiseOptimizer(optimizer, groups, default=2.0)
    seen = step_by_step(wrapped, weights, gradients[:10])
    for i, factor in enumerate([0.5, 2.0, 2.0, 2.0]):
        expected = sgd(values[i], gradients[:10, i], 0.01 * factor, 0.3)
        assert relative_error([seen[-1, i]], [expected[-1]]) < 1e-6
    rows = wrapped.table().rows
    assert [(row.multiplier, row.parameters) for row in rows] == [
        ("0.5", 12),
        ("2", 36),
    ]


@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 2.0)])
def test_norms_of_three_and_four_are_clipped_together(
    factors: tuple[float, float],
) -> None:
    weights = variables([np.zeros(2), np.zeros((1, 2))])
    inner = optimizers.SGD(1.0, global_clipnorm=1.0)
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, factors))
    gradients = [np.array([1.8, 2.4]), np.array([[4.0, 0.0]])]
    wrapped.apply([keras.ops.cast(g, "float32") for g in gradients], weights)
    norms = [np.linalg.norm(number(weight)) for weight in weights]
    # Clipped first, and then multiplied.
    np.testing.assert_allclose(norms, np.array([0.6, 0.8]) * factors, rtol=1e-6)


@pytest.mark.parametrize(
    ("how", "expected"),
    [({"clipnorm": 2.0}, [2.0 * 0.5, 2.0 * 2]), ({"clipvalue": 2.0}, [1.0, 4.0])],
)
def test_other_clipping_comes_before_the_multiplier(
    how: dict[str, float], expected: list[float]
) -> None:
    weights = variables([np.zeros(1), np.zeros(1)])
    inner = optimizers.SGD(1.0, **how)
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, [0.5, 2.0]))
    wrapped.apply([keras.ops.array([3.0]), keras.ops.array([4.0])], weights)
    np.testing.assert_allclose([-number(w)[0] for w in weights], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD, decay", "AdamW"])
def test_accumulated_gradients_have_the_rate_of_their_update(name: str) -> None:
    make, reference, rate, decay = KINDS[name]
    values, gradients = problem()
    weights = variables(values)
    factors = [0.0, 0.1, tfs.Linear(0.0, 2.0, 10), 3.0]
    wrapped = tfs.LayerwiseOptimizer(
        make(gradient_accumulation_steps=3), one_each(weights, factors)
    )
    seen = step_by_step(wrapped, weights, gradients)
    means = gradients[:48].astype(np.float64).reshape(16, 3, *gradients.shape[1:])
    by_hand = [0.0, 0.1, np.interp(np.arange(16), [0, 10], [0, 2.0]), 3.0]
    for i, own in enumerate(by_hand):
        expected = reference(
            values[i], means.mean(axis=1)[:, i], rate * np.asarray(own), decay
        )
        for update in range(16):
            got = seen[3 * update + 2, i]
            assert relative_error([got], [expected[update]]) < 1e-6
            same([seen[3 * update + 3, i]], [got])  # a micro-batch moves nothing
    assert int(number(wrapped.iterations)) == 16


def test_averages_are_those_of_the_weights() -> None:
    make, reference, rate, decay = KINDS["SGD, decay"]
    values, gradients = problem()
    weights = variables(values)
    wrapped = tfs.LayerwiseOptimizer(
        make(use_ema=True, ema_momentum=0.8), one_each(weights, FACTORS)
    )
    step_by_step(wrapped, weights, gradients[:12])
    expected = []
    for i, factor in enumerate(FACTORS):
        path = reference(values[i], gradients[:12, i], rate * factor, decay)
        average = path[0]
        for value in path[1:]:
            average = 0.8 * average + 0.2 * value
        expected.append(average)
    before = [number(weight) for weight in weights]
    assert relative_error(before[1:], expected[1:]) > 1e-3
    wrapped.finalize_variable_values(weights)
    assert relative_error([number(w) for w in weights], expected) < 1e-6


def test_averages_overwrite_weights_every_few_updates() -> None:
    """As the optimizer alone does, with the rates of the groups."""
    values, gradients = problem()
    arguments = {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3}
    weights = variables(values)
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(0.1, **arguments), one_each(weights, FACTORS)
    )
    seen = step_by_step(wrapped, weights, gradients[:10])
    for i, factor in enumerate(FACTORS):
        w, average = values[i].astype(np.float64), None
        for step in range(10):
            w = w - 0.1 * factor * gradients[step, i].astype(np.float64)
            average = w if average is None else 0.8 * average + 0.2 * w
            if (step + 1) % 3 == 0:
                w = average
            assert relative_error([seen[step, i]], [w]) < 1e-6


def test_a_loss_scale_inside_the_optimizer() -> None:
    make, reference, rate, decay = KINDS["SGD, decay"]
    values, gradients = problem()
    weights = variables(values)
    wrapped = tfs.LayerwiseOptimizer(
        make(loss_scale_factor=8.0), one_each(weights, FACTORS)
    )
    assert float(wrapped.scale_loss(2.0)) == 16.0
    seen = step_by_step(wrapped, weights, 8 * gradients[:10])
    for i, factor in enumerate(FACTORS):
        expected = reference(values[i], gradients[:10, i], rate * factor, decay)
        assert relative_error([seen[-1, i]], [expected[-1]]) < 1e-6


def test_a_loss_scale_around_the_optimizer() -> None:
    """Gradients are unscaled; a step that overflows counts for nothing."""
    make, reference, rate, decay = KINDS["AdamW"]
    values, gradients = problem()
    weights = variables(values)
    factors = [0.0, 0.1, tfs.Linear(0.0, 2.0, 10), 3.0]
    wrapped = tfs.LayerwiseOptimizer(make(), one_each(weights, factors))
    around = optimizers.LossScaleOptimizer(wrapped, initial_scale=1024.0)
    step_by_step(around, weights, 1024 * gradients[:5])
    before = [number(weight) for weight in weights]
    overflow = np.full_like(gradients[:1], np.inf)
    step_by_step(around, weights, overflow)
    same([number(weight) for weight in weights], before)
    assert int(number(around.iterations)) == 5
    seen = step_by_step(around, weights, 512 * gradients[5:10])  # halved
    by_hand = [0.0, 0.1, np.arange(10) / 5, 3.0]
    for i, own in enumerate(by_hand):
        expected = reference(
            values[i], gradients[:10, i], rate * np.asarray(own), decay
        )
        assert relative_error([seen[-1, i]], [expected[-1]]) < 1e-6
    around.learning_rate = 0.5
    assert float(wrapped.learning_rate) == float(around.learning_rate) == 0.5


# Every optimizer of Keras, each with what it can do besides.

EVERY: dict[str, Callable[[float], Any]] = {
    "SGD": lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "SGD, decay": lambda rate: optimizers.SGD(rate, weight_decay=0.1),
    "RMSprop": lambda rate: optimizers.RMSprop(rate, momentum=0.5, centered=True),
    "Adam": lambda rate: optimizers.Adam(rate, amsgrad=True),
    "AdamW": lambda rate: optimizers.AdamW(rate, weight_decay=0.1),
    "Adadelta": lambda rate: optimizers.Adadelta(rate, weight_decay=0.1),
    "Adagrad": lambda rate: optimizers.Adagrad(rate),
    "Adamax": lambda rate: optimizers.Adamax(rate, clipnorm=1.0),
    "Adafactor": lambda rate: optimizers.Adafactor(rate, weight_decay=0.1),
    "Nadam": lambda rate: optimizers.Nadam(rate, weight_decay=0.1),
    "Ftrl": lambda rate: optimizers.Ftrl(rate, l1_regularization_strength=0.01),
    "Lion": lambda rate: optimizers.Lion(rate / 4, weight_decay=0.1),
    "Lamb": lambda rate: optimizers.Lamb(rate, weight_decay=0.1),
}
if hasattr(optimizers, "Muon"):  # since Keras 3.10
    EVERY["Muon"] = lambda rate: optimizers.Muon(rate, weight_decay=0.1)
if hasattr(optimizers, "ScheduleFreeAdamW"):  # since Keras 3.14
    EVERY["ScheduleFreeAdamW"] = lambda rate: optimizers.ScheduleFreeAdamW(
        rate, weight_decay=0.1
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_multiplier_is_an_optimizers_own_rate(name: str) -> None:
    """Two groups, and the optimizer alone on each, with the rate of the group."""
    values, gradients = problem(count=2)
    weights = variables(values)
    groups = one_each(weights, [0.25, 2.0])
    wrapped = tfs.LayerwiseOptimizer(EVERY[name](0.02), groups)
    seen = step_by_step(wrapped, weights, gradients[:8])
    for i, factor in enumerate([0.25, 2.0]):
        alone = variables(values[i : i + 1])
        own = step_by_step(EVERY[name](0.02 * factor), alone, gradients[:8, i : i + 1])
        assert relative_error([seen[-1, i]], [own[-1, 0]]) < 1e-6
        assert relative_error([values[i]], [own[-1, 0]]) > 1e-4


@pytest.mark.parametrize("name", EVERY)
def test_a_multiplier_of_zero_leaves_a_weight_alone(name: str) -> None:
    # Ftrl divides by the rate.
    values, gradients = problem(count=2)
    weights = variables(values)
    groups = one_each(weights, [0.0, 1.0])
    wrapped = tfs.LayerwiseOptimizer(EVERY[name](0.02), groups)
    step_by_step(wrapped, weights, gradients[:3])
    # ScheduleFreeAdamW puts the weight together anew from two that do not move.
    tolerance = 1e-6 if name == "ScheduleFreeAdamW" else 0.0
    np.testing.assert_allclose(
        number(weights[0]), values[0], rtol=tolerance, atol=tolerance
    )
    assert relative_error([number(weights[1])], [values[1]]) > 1e-4


# 2. Fits on digits.


def network(names: str = "abc", optimizer: Any = None, **arguments: Any) -> Any:
    """A network of three layers on digits, always from the same weights."""
    layers = [keras.layers.Dense(8, "tanh", name=name) for name in names[:-1]]
    model = keras.Sequential(
        [keras.Input((64,)), *layers, keras.layers.Dense(10, name=names[-1])]
    )
    generator = np.random.default_rng(5)
    model.set_weights(
        [generator.normal(0, 0.3, value.shape) for value in model.get_weights()]
    )
    return model if optimizer is None else compiled(model, optimizer, **arguments)


def compiled(model: Any, optimizer: Any, **arguments: Any) -> Any:
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": JIT, **arguments},
    )
    return model


def by_layer(
    model: Any, factors: Sequence[Any] = (1.0, 1.0, 1.0), **arguments: Any
) -> list[tfs.LayerGroup]:
    """A group for each layer that has weights, as an object."""
    return [
        tfs.LayerGroup(layer.name, [layer], factor, **arguments)
        for layer, factor in zip(model.layers, factors, strict=True)
    ]


def layerwise(
    optimizer: Any, factors: Sequence[Any] = (1.0, 1.0, 1.0), **arguments: Any
) -> Any:
    """The network with a factor for each layer."""
    model = network()
    wrapped = tfs.LayerwiseOptimizer(optimizer, by_layer(model, factors))
    return compiled(model, wrapped, **arguments)


def train(
    model: Any,
    epochs: int = 1,
    count: int = 96,
    *,
    build: bool = True,
    **arguments: Any,
) -> Any:
    """Six batches of sixteen digits an epoch.

    Where a fit has to build the optimizer by itself, TensorFlow traces the step twice:
    only where that is the point is it left to do so.
    """
    if build and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    x, y = digits(count)
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, epochs=epochs, **settings)


def goes_on_alike(model: Any, other: Any, **arguments: Any) -> None:
    """Both train on, and end with the same weights and state, to the bit."""
    same(arrays(other), arrays(model))
    before = arrays(model)
    for each in (model, other):
        train(each, **arguments)
    same(arrays(other), arrays(model))
    same(state(other.optimizer), state(model.optimizer))
    assert relative_error(arrays(model), before) > 1e-5


FANCY: dict[str, Callable[[float], Any]] = {
    **EVERY,
    "all at once": lambda rate: optimizers.AdamW(
        rate,
        weight_decay=0.1,
        global_clipnorm=0.5,
        gradient_accumulation_steps=2,
        use_ema=True,
        ema_overwrite_frequency=2,
        loss_scale_factor=4.0,
    ),
    "a schedule inside": lambda rate: optimizers.AdamW(tfs.Cosine(rate, 0.0, 10)),
}


def looks(optimizer: Any) -> list[tuple[str, tuple[int, ...], str]]:
    """Names without the numbers that Keras gives, shapes and dtypes."""
    return [
        (re.sub(r"_?\d+", "", variable.name), tuple(variable.shape), variable.dtype)
        for variable in optimizer.variables
    ]


@pytest.mark.parametrize("name", FANCY)
def test_multipliers_of_one_are_the_optimizer_alone_to_the_bit(name: str) -> None:
    plain = network("ab", FANCY[name](0.02))
    wrapped = network("ab")
    groups = by_layer(wrapped, [1, np.float32(1)])
    compiled(wrapped, tfs.LayerwiseOptimizer(FANCY[name](0.02), groups))
    x, y = digits(48)
    for model in (plain, wrapped):
        if name not in ("SGD", "AdamW", "all at once"):  # these build while they train
            model.optimizer.build(model.trainable_variables)
        for batch, labels in in_batches(x, y, 12):
            model.train_on_batch(batch, labels)
    same(arrays(wrapped), arrays(plain))
    same(state(wrapped.optimizer), state(plain.optimizer))
    assert looks(wrapped.optimizer) == looks(plain.optimizer)
    assert relative_error(arrays(wrapped), arrays(network("ab"))) > 1e-5


@pytest.fixture
def mixed() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("mixed")
def test_multipliers_of_one_under_mixed_precision() -> None:
    models = [network(optimizer=EVERY["AdamW"](0.02)), layerwise(EVERY["AdamW"](0.02))]
    for model in models:
        assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
        train(model)
    same(arrays(models[1]), arrays(models[0]))
    same(state(models[1].optimizer), state(models[0].optimizer))


@pytest.mark.usefixtures("mixed")
def test_groups_under_mixed_precision(tmp_path: Path) -> None:
    """A layer at 0 stands still, the others have their rates, and it can be saved."""
    model = layerwise(optimizers.SGD(0.1), [0.0, 0.5, tfs.Linear(0.0, 1.0, 12)])
    half = layerwise(optimizers.SGD(0.05), [0.0, 1.0, tfs.Linear(0.0, 2.0, 12)])
    before = arrays(model)
    for each in (model, half):
        train(each, 2)
    assert relative_error(arrays(half), arrays(model)) < 1e-5
    same(arrays(model)[:2], before[:2])
    assert all(
        (a != b).any() for a, b in zip(arrays(model)[2:], before[2:], strict=True)
    )
    model.save(tmp_path / "mixed.keras")
    loaded = keras.models.load_model(tmp_path / "mixed.keras")
    goes_on_alike(model, loaded)


def softmax_loop(
    batches: Batches,
    update: Callable[..., Any],
) -> list[np.ndarray]:
    """Softmax regression in float64: `update(step, index, weight, gradient)`."""
    weights = [value.astype(np.float64) for value in initial_weights()]
    for step, (x, y) in enumerate(batches):
        logits = x.astype(np.float64) @ weights[0] + weights[1]
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error -= np.eye(10)[y]
        gradients = [x.astype(np.float64).T @ error / len(y), error.mean(axis=0)]
        weights = [
            update(step, i, weights[i], gradient)
            for i, gradient in enumerate(gradients)
        ]
    return weights


def regression(optimizer: Any, factors: Sequence[Any], **arguments: Any) -> Any:
    """Softmax regression, its kernel and its bias each in a group."""
    model = softmax_regression("sgd", **arguments)
    groups = one_each(model.trainable_variables, factors)
    wrapped = tfs.LayerwiseOptimizer(optimizer, groups)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(wrapped, loss, **{"jit_compile": JIT, **arguments})
    return model


def momentum_update(
    factors: Any, rates: Any, momenta: Any = 0.9, decays: Any = 0.0
) -> Callable[..., Any]:
    """SGD with momentum; all of it may differ from step to step."""
    speeds: list[Any] = [0.0, 0.0]

    def at(values: Any, step: int) -> Any:
        return values if np.ndim(values) == 0 else values[step]

    def update(step: int, i: int, w: Any, g: Any) -> Any:
        rate = at(rates, step) * at(factors[i], step)
        speeds[i] = at(momenta, step) * speeds[i] - rate * g
        return w - rate * at(decays, step) * w + speeds[i]

    return update


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("kind", ["numbers", "schedules", "both"])
def test_a_fit_equals_a_numpy_loop(kind: str, steps_per_execution: int) -> None:
    factors, by_hand = {
        "numbers": ([0.3, 2.0], [0.3, 2.0]),
        "schedules": (
            [tfs.Linear(0.0, 1.0, 20), tfs.Linear(3.0, 1.0, 10)],
            [
                np.interp(np.arange(30), [0, 20], [0, 1]),
                np.interp(np.arange(30), [0, 10], [3, 1]),
            ],
        ),
        "both": (
            [0.0, tfs.Piecewise([13], [0.5, 2.0])],
            [0.0, np.where(np.arange(30) < 13, 0.5, 2.0)],
        ),
    }[kind]
    x, y = digits(300)
    batches = in_batches(x, y, 20) * 2
    assert len(batches) == 30
    model = regression(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.05),
        factors,
        steps_per_execution=steps_per_execution,
    )
    model.fit(x, y, batch_size=20, epochs=2, shuffle=False, verbose=0)
    expected = softmax_loop(batches, momentum_update(by_hand, 0.1, decays=0.05))
    for got, each in zip(arrays(model), expected, strict=True):
        assert relative_error([got], [each]) < 2e-6
    swapped = softmax_loop(batches, momentum_update(by_hand[::-1], 0.1, decays=0.05))
    assert relative_error(arrays(model), swapped) > 1e-2


@pytest.mark.parametrize(
    "arguments", [{"run_eagerly": True, "jit_compile": False}, {"jit_compile": True}]
)
def test_compiled_or_not(arguments: dict[str, bool]) -> None:
    x, y = digits(60)
    model = regression(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.05),
        [tfs.Linear(0.0, 1.0, 4), 2.0],
        **arguments,
    )
    for batch, labels in in_batches(x, y, 20) * 2:
        model.train_on_batch(batch, labels)
    by_hand = [np.interp(np.arange(6), [0, 4], [0, 1]), 2.0]
    update = momentum_update(by_hand, 0.1, decays=0.05)
    expected = softmax_loop(in_batches(x, y, 20) * 2, update)
    assert relative_error(arrays(model), expected) < 1e-6


def test_no_decay_spares_by_name() -> None:
    model = network()
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(0.5, weight_decay=0.5),
        by_layer(model, [1.0, 2.0, 0.0]),
        no_decay=["bias"],
    )
    weights = model.trainable_variables
    before = arrays(model)
    zeros = [keras.ops.zeros(weight.shape) for weight in weights]
    wrapped.apply(zeros, weights)
    left = [0.75, 1, 0.5, 1, 1, 1]
    same(arrays(model), [np.float32(s) * b for s, b in zip(left, before, strict=True)])


def test_decay_is_not_applied_where_the_optimizer_excludes_it() -> None:
    values, gradients = problem(count=2)
    weights = variables(values)
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(0.5, weight_decay=0.5), one_each(weights, [2.0, 2.0])
    )
    wrapped.exclude_from_weight_decay(var_names=["w1"])
    step_by_step(wrapped, weights, 0 * gradients[:1])
    same([number(w) for w in weights], [values[0] * np.float32(0.5), values[1]])


# 3. Still one optimizer.


def test_it_is_one_optimizer_and_adds_no_variables() -> None:
    plain, weights = optimizers.Adam(0.25), variables([np.ones(2), np.ones(3)])
    plain.build(weights)
    inner = optimizers.Adam(0.25)
    factors = [0.5, tfs.Linear(0.0, 1.0, 5)]
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, factors))
    assert not wrapped.built
    assert len(wrapped.variables) == 2
    wrapped.build(weights)
    assert wrapped.built
    assert inner.built
    wrapped.build(weights)  # as any optimizer: a second time does nothing
    assert [id(v) for v in wrapped.variables] == [id(v) for v in inner.variables]
    assert [(v.name, v.shape) for v in wrapped.variables] == [
        (v.name, v.shape) for v in plain.variables
    ]
    assert isinstance(wrapped, keras.optimizers.Optimizer)
    assert wrapped.iterations is inner.iterations
    assert keras.optimizers.get(wrapped) is wrapped


def test_the_base_rate_is_read_and_set() -> None:
    weights = variables([np.zeros(1), np.zeros(1)])
    inner = optimizers.SGD(0.5)
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, [0.5, 2.0]))
    assert float(wrapped.learning_rate) == 0.5
    ones = [keras.ops.ones(1), keras.ops.ones(1)]
    wrapped.apply(ones, weights)
    wrapped.learning_rate = 0.125
    assert float(inner.learning_rate) == float(wrapped.learning_rate) == 0.125
    wrapped.apply(ones, weights)
    np.testing.assert_array_equal([number(w)[0] for w in weights], [-0.3125, -1.25])
    wrapped.learning_rate = tfs.Piecewise([3], [1.0, 4.0])  # updates 2 and 3
    wrapped.apply(ones, weights)
    assert float(wrapped.learning_rate) == 4.0
    wrapped.apply(ones, weights)
    np.testing.assert_array_equal([number(w)[0] for w in weights], [-2.8125, -11.25])


def test_a_rate_may_be_any_callable_of_keras() -> None:
    weights = variables([np.zeros(1), np.zeros(1)])
    inner = optimizers.SGD(lambda: 0.5)
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, [0.5, 2.0]))
    wrapped.apply([keras.ops.ones(1), keras.ops.ones(1)], weights)
    np.testing.assert_array_equal([number(w)[0] for w in weights], [-0.25, -1.0])


def test_other_attributes_are_the_wrapped_optimizers() -> None:
    model = network()
    inner = optimizers.AdamW(0.1, weight_decay=0.25)
    wrapped = tfs.LayerwiseOptimizer(inner, by_layer(model))
    assert wrapped.beta_2 == inner.beta_2
    assert wrapped.weight_decay == 0.25
    wrapped.weight_decay = 0.5
    wrapped.beta_1 = 0.5
    assert (inner.weight_decay, inner.beta_1) == (0.5, 0.5)
    assert wrapped.name == "layerwise"
    with pytest.raises(AttributeError, match="momentum"):
        _ = wrapped.momentum


@pytest.mark.parametrize("how", ["apply", "apply, unbuilt", "apply_gradients"])
def test_ways_to_apply(how: str) -> None:
    weights = variables([np.zeros(1), np.zeros(1)])
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), one_each(weights, [0.5, 2.0]))
    ones = [keras.ops.ones(1), keras.ops.ones(1)]
    if how == "apply":
        wrapped.build(weights)
        wrapped.apply(ones)
    elif how == "apply, unbuilt":
        with pytest.raises(ValueError, match="must already be built"):
            wrapped.apply(ones)
        wrapped.apply(ones, iter(weights))
    else:
        count = wrapped.apply_gradients(zip(ones, weights, strict=True))
        assert int(number(count)) == 1
    np.testing.assert_array_equal([number(w)[0] for w in weights], [-0.5, -2.0])


def test_without_any_gradients_nothing_is_done() -> None:
    """As by the optimizer alone: a model may have nothing to train."""
    optimizers.SGD(1.0).apply([], [])
    weights = variables([np.zeros(1)])
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), one_each(weights, [1.0]))
    wrapped.apply([], [])
    assert not wrapped.built


def test_the_state_is_set_as_that_of_any_optimizer() -> None:
    values, gradients = problem()
    first, second = variables(values), variables(values)
    made = [
        tfs.LayerwiseOptimizer(optimizers.Adam(0.01), one_each(weights, FACTORS))
        for weights in (first, second)
    ]
    step_by_step(made[0], first, gradients[:5])
    made[1].build(second)
    made[1].set_weights(state(made[0]))
    same(state(made[1]), state(made[0]))
    for weight, value in zip(second, first, strict=True):
        weight.assign(value)
    same(
        step_by_step(made[0], first, gradients[5:9]),
        step_by_step(made[1], second, gradients[5:9]),
    )


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_group_that_gets_no_gradient_is_no_error() -> None:
    values, gradients = problem()
    weights = variables(values)
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(0.01, momentum=0.9, weight_decay=0.3), one_each(weights, FACTORS)
    )
    for step in range(6):
        given = [keras.ops.convert_to_tensor(g) for g in gradients[step]]
        wrapped.apply([given[0], None, None, given[3]], weights)
    same([number(weights[1]), number(weights[2])], values[1:3])
    expected = sgd(values[3], gradients[:6, 3], 0.03, 0.3)[-1]
    assert relative_error([number(weights[3])], [expected]) < 1e-6


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_branch_without_gradient_in_a_fit() -> None:
    inputs = keras.Input((64,))
    stem = keras.layers.Dense(8, "tanh", name="a")(inputs)
    aside = keras.layers.Lambda(keras.ops.stop_gradient)(
        keras.layers.Dense(8, name="b")(inputs)
    )
    both = keras.layers.Add()([stem, aside])
    model = keras.Model(inputs, keras.layers.Dense(10, name="c")(both))
    groups = [tfs.LayerGroup(name, [name], 2.0) for name in "abc"]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups)
    before = {weight.path: number(weight) for weight in model.trainable_variables}
    train(compiled(model, wrapped))
    changed = {
        weight.path.split("/")[0]
        for weight in model.trainable_variables
        if (number(weight) != before[weight.path]).any()
    }
    assert changed == {"a", "c"}


def test_constraints_are_kept() -> None:
    made = []
    for wrap in (False, True):
        keras.utils.set_random_seed(3)
        layer = keras.layers.Dense(10, name="a", kernel_constraint="non_neg")
        model = keras.Sequential([keras.Input((64,)), layer])
        optimizer = optimizers.SGD(0.1)
        if wrap:
            groups = [tfs.LayerGroup("a", [layer])]
            optimizer = tfs.LayerwiseOptimizer(optimizer, groups)
        train(compiled(model, optimizer))
        made.append(arrays(model))
        assert made[-1][0].min() == 0
    same(*made)


class Halving(keras.optimizers.Optimizer):
    """A user's optimizer with state of its own: w ← w − α·m, m ← (m + g)/2."""

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.means = self.add_optimizer_variables(variables, "mean")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        mean = self.means[self._get_variable_index(variable)]
        self.assign(mean, (mean + gradient) / 2)
        rate = keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * mean)


class Hasty(optimizers.SGD):
    """A built-in one whose update is overridden, and calls the original."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, 2 * learning_rate)


def test_users_own_optimizers() -> None:
    values, gradients = problem()
    weights = variables(values)
    wrapped = tfs.LayerwiseOptimizer(Halving(0.01), one_each(weights, FACTORS))
    seen = step_by_step(wrapped, weights, gradients[:10])
    hasty = variables(values)
    wrapped = tfs.LayerwiseOptimizer(Hasty(0.01), one_each(hasty, FACTORS))
    twice = step_by_step(wrapped, hasty, gradients[:10])
    for i, factor in enumerate(FACTORS):
        w, mean = values[i].astype(np.float64), 0.0
        for gradient in gradients[:10, i]:
            mean = (mean + gradient) / 2
            w = w - 0.01 * factor * mean
        assert relative_error([seen[-1, i]], [w]) < 1e-6
        w = sgd(values[i], gradients[:10, i], 0.02 * factor, momentum=0.0)[-1]
        assert relative_error([twice[-1, i]], [w]) < 1e-6


def test_an_optimizer_that_is_built_goes_on() -> None:
    """Trained with already: its state is kept, its count goes on."""
    plain, other = (network(optimizer=EVERY["AdamW"](0.02)) for _ in range(2))
    for model in (plain, other):
        train(model)
    held = [id(v) for v in other.optimizer.variables]
    wrapped = tfs.LayerwiseOptimizer(other.optimizer, by_layer(other))
    assert wrapped.built
    assert [id(v) for v in wrapped.variables] == held
    assert int(number(wrapped.iterations)) == 6
    goes_on_alike(plain, compiled(other, wrapped))


def test_a_schedule_of_a_built_optimizer_follows_its_count() -> None:
    values, gradients = problem(count=1)
    weights = variables(values)
    inner = optimizers.SGD(0.01)
    step_by_step(inner, weights, gradients[:10])
    before = number(weights[0])
    factor = tfs.Piecewise([10, 11], [1.0, 5.0, 0.0])
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, [factor]))
    seen = step_by_step(wrapped, weights, gradients[10:12])[:, 0]
    np.testing.assert_allclose(seen[0], before - 0.05 * gradients[10, 0], rtol=1e-5)
    same([seen[1]], [seen[0]])


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["SGD, decay", "Adam"])
def test_gradients_of_an_embedding(name: str) -> None:
    """They are `IndexedSlices`; at 1 nothing changes, at 0.5 it is half the rate."""
    tokens = np.random.default_rng(0).integers(0, 9, (96, 5))

    def fit(wrap: bool, factor: float, rate: float) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                keras.layers.Embedding(20, 4, name="table"),
                keras.layers.GlobalAveragePooling1D(name="mean"),
                keras.layers.Dense(10, name="head"),
            ]
        )
        optimizer = EVERY[name](rate)
        if wrap:
            groups = [tfs.LayerGroup(n, [n], factor) for n in ("table", "head")]
            optimizer = tfs.LayerwiseOptimizer(optimizer, groups)
        compiled(model, optimizer)
        model.fit(tokens, digits(96)[1], batch_size=16, shuffle=False, verbose=0)
        return arrays(model)

    plain = fit(False, 1.0, 0.02)
    same(fit(True, 1.0, 0.02), plain)
    half = fit(True, 0.5, 0.04)
    assert relative_error(half, plain) < 1e-6


@pytest.mark.tensorflow
def test_a_loop_of_ones_own_in_tensorflow() -> None:
    import tensorflow as tf

    values, gradients = problem()
    weights = variables(values)
    factors = [0.0, 0.1, tfs.Linear(0.0, 1.0, 4), 3.0]
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(0.01, momentum=0.9), one_each(weights, factors)
    )

    @tf.function
    def step(given: Any) -> None:  # builds the optimizer, too
        wrapped.apply(tf.unstack(given), weights)

    for gradient in gradients[:8]:
        step(tf.constant(gradient))
    by_hand = [0.0, 0.1, np.interp(np.arange(8), [0, 4], [0, 1]), 3.0]
    for i, own in enumerate(by_hand):
        expected = sgd(values[i], gradients[:8, i], 0.01 * np.asarray(own))
        assert relative_error([number(weights[i])], [expected[-1]]) < 1e-6


@pytest.mark.skipif(not JAX, reason="Keras has no stateless updates on TensorFlow")
def test_stateless_updates() -> None:
    """What JAX calls; no variable changes meanwhile."""
    values, gradients = problem()
    weights = variables(values)
    factors = [0.0, 0.1, tfs.Linear(0.0, 1.0, 4), 3.0]
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.SGD(0.01, momentum=0.9, weight_decay=0.3), one_each(weights, factors)
    )
    with pytest.raises(ValueError, match="must be built"):
        wrapped.stateless_apply([], list(gradients[0]), list(values))
    wrapped.build(weights)
    held = [keras.ops.convert_to_tensor(v) for v in state(wrapped)]
    now = [keras.ops.convert_to_tensor(value) for value in values]
    for gradient in gradients[:8]:
        given = [keras.ops.convert_to_tensor(g) for g in gradient]
        now, held = wrapped.stateless_apply(held, given, now)
    by_hand = [0.0, 0.1, np.interp(np.arange(8), [0, 4], [0, 1]), 3.0]
    for i, own in enumerate(by_hand):
        expected = sgd(values[i], gradients[:8, i], 0.01 * np.asarray(own), 0.3)
        got = keras.ops.convert_to_numpy(now[i])
        assert relative_error([got], [expected[-1]]) < 1e-6
    same([number(weight) for weight in weights], list(values))
    assert int(number(wrapped.iterations)) == 0


# 4. Callbacks of Keras.


def test_learning_rate_scheduler_and_plateau_set_the_base_rate() -> None:
    x, y = digits(60)
    model = regression(optimizers.SGD(0.4, momentum=0.9), [0.25, 2.0])
    rates = Rates()
    history = model.fit(
        x,
        y,
        batch_size=20,
        epochs=5,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(
                lambda epoch, rate: rate / 2 if epoch == 2 else rate
            ),
            # Never good enough: a tenth after epochs 1, 2, 3 …
            keras.callbacks.ReduceLROnPlateau(
                monitor="loss", patience=1, min_delta=1e9, factor=0.1
            ),
            rates,
        ],
    ).history
    by_epoch = [0.4, 0.4, 0.02, 0.002, 0.0002]
    assert np.allclose(rates.rates, np.repeat(by_epoch, 3), rtol=1e-5)
    assert np.allclose(history["learning_rate"], by_epoch, rtol=1e-5)
    update = momentum_update([0.25, 2.0], np.repeat(by_epoch, 3))
    expected = softmax_loop(in_batches(x, y, 20) * 5, update)
    assert relative_error(arrays(model), expected) < 2e-6


@pytest.mark.usefixtures("mixed")
def test_learning_rate_scheduler_under_mixed_precision() -> None:
    model = layerwise(optimizers.SGD(0.4), [0.0, 0.5, 1.0])
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    train(model, 2, callbacks=[callback])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.tensorflow
def test_tensorboard_of_keras_writes_the_base_rate(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    model = layerwise(optimizers.SGD(0.25), [0.0, 0.5, 1.0])
    train(model, 2, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    written = [
        float(tensor_util.make_ndarray(event.tensor_proto))
        for event in events.Tensors("epoch_learning_rate")
    ]
    assert written == [0.25, 0.25]


@pytest.mark.parametrize("around", [False, True], ids=["bare", "loss scale"])
def test_swap_ema_weights(around: bool) -> None:
    def optimizer() -> Any:
        return optimizers.AdamW(0.02, use_ema=True, ema_momentum=0.8)

    histories = []
    for wrap in (False, True):
        model = network()
        made = optimizer()
        if wrap:
            made = tfs.LayerwiseOptimizer(made, by_layer(model))
        if around:
            made = optimizers.LossScaleOptimizer(made)
        compiled(model, made)
        x, y = digits(48)
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        train(model, 2, callbacks=[swap], validation_data=(x, y))
        histories.append((model.history.history, arrays(model)))
    assert histories[0][0] == histories[1][0]
    same(histories[0][1], histories[1][1])


FACTORS_OF_LAYERS = (0.25, tfs.Linear(0.0, 1.0, 15), 2.0)


def adam_by_layer() -> Any:
    return layerwise(EVERY["AdamW"](0.02), FACTORS_OF_LAYERS)


@pytest.mark.parametrize("whole", [True, False])
def test_model_checkpoint(whole: bool, tmp_path: Path) -> None:
    model = adam_by_layer()
    path = tmp_path / ("{epoch}.keras" if whole else "{epoch}.weights.h5")
    callback = keras.callbacks.ModelCheckpoint(path, save_weights_only=not whole)
    train(model, 2, callbacks=[callback])
    if whole:
        other = keras.models.load_model(tmp_path / "1.keras")
    else:
        other = adam_by_layer()
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / "1.weights.h5")
    train(other)
    same(arrays(other), arrays(model))
    same(state(other.optimizer), state(model.optimizer))


def test_backup_and_restore(tmp_path: Path) -> None:
    straight = adam_by_layer()
    train(straight, 3)
    broken = adam_by_layer()
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        train(broken, 3, callbacks=[*backup, Interrupt(8)])
    again = adam_by_layer()
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    history = train(again, 3, callbacks=backup)
    assert history.epoch == [1, 2]
    same(arrays(again), arrays(straight))
    same(state(again.optimizer), state(straight.optimizer))


# 5. Callbacks of this package.


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_rate_momentum_and_decay_follow_schedules(steps_per_execution: int) -> None:
    x, y = digits(200)
    steps = np.arange(20)
    model = regression(
        optimizers.SGD(0.1, momentum=0.5, weight_decay=0.3),
        [0.25, tfs.Linear(0.0, 2.0, 10)],
        steps_per_execution=steps_per_execution,
    )
    driven = tfs.HyperparameterScheduler(
        learning_rate=tfs.Linear(0.2, 0.01, 19),
        momentum=tfs.Linear(0.95, 0.7, 19),
        weight_decay=tfs.Linear(0.01, 0.2, 19),
    )
    model.fit(
        x, y, batch_size=20, epochs=2, shuffle=False, verbose=0, callbacks=[driven]
    )
    update = momentum_update(
        [0.25, np.interp(steps, [0, 10], [0, 2])],
        np.interp(steps, [0, 19], [0.2, 0.01]),
        np.interp(steps, [0, 19], [0.95, 0.7]),
        np.interp(steps, [0, 19], [0.01, 0.2]),
    )
    expected = softmax_loop(in_batches(x, y, 20) * 2, update)
    for got, each in zip(arrays(model), expected, strict=True):
        assert relative_error([got], [each]) < 2e-6
    inner = model.optimizer.inner_optimizer
    assert (inner.momentum, inner.weight_decay) == (0.5, 0.3)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_one_cycle_over_groups() -> None:
    x, y = digits(200)
    model = regression(optimizers.SGD(0.1, momentum=0.9), [0.1, 3.0])
    model.fit(
        x,
        y,
        batch_size=10,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.OneCycle(0.5)],
    )
    rates, momenta = one_cycle_values(0.5, 20)
    update = momentum_update([0.1, 3.0], rates, momenta)
    expected = softmax_loop(in_batches(x, y, 10), update)
    for got, each in zip(arrays(model), expected, strict=True):
        assert relative_error([got], [each]) < 2e-6


# Other pairs of the two: test_range_test_restoring.py.
@pytest.mark.parametrize(("how", "trained"), [("callback", True), ("function", False)])
def test_a_range_test_gives_everything_back(how: str, trained: bool) -> None:
    model, twin = adam_by_layer(), adam_by_layer()
    for each in (model, twin):
        each.optimizer.build(each.trainable_variables)
        if trained:
            train(each)
    before = [number(v) for v in model.variables], state(model.optimizer)
    config = json.dumps(model.optimizer.get_config())
    if how == "callback":
        test = tfs.RangeTest(steps=12)
        train(model, 2, callbacks=[test])
        result = test.result
    else:
        x, y = digits(96)
        result = tfs.find_learning_rate(model, x, y, batch_size=16, steps=12, verbose=0)
    assert 2 < len(result.losses) <= 12
    assert np.ptp(result.losses) > 0
    same([number(v) for v in model.variables], before[0])
    same(state(model.optimizer), before[1])
    assert json.dumps(model.optimizer.get_config()) == config
    goes_on_alike(model, twin)


def test_a_range_test_sweeps_the_base_rate() -> None:
    """Losses of a group at 0.1 are those of a rate ten times higher, alone."""
    results = []
    x, y = digits(160)
    for factor, scale in ((0.1, 10.0), (1.0, 1.0)):
        keras.utils.set_random_seed(0)  # the data is shuffled
        model = layerwise(optimizers.SGD(0.1), [factor] * 3)
        result = tfs.find_learning_rate(
            model,
            x,
            y,
            batch_size=16,
            steps=10,
            verbose=0,
            min_lr=1e-3 * scale,
            max_lr=0.1 * scale,
        )
        np.testing.assert_allclose(
            result.learning_rates, scale * np.geomspace(1e-3, 0.1, 10), rtol=1e-6
        )
        results.append(result.losses)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_snapshots_keep_groups_and_state(tmp_path: Path) -> None:
    model = adam_by_layer()
    ensemble = tfs.SnapshotEnsemble(tmp_path)
    callbacks = [tfs.WarmRestarts(0.05, tfs.epochs(1)), ensemble]
    train(model, 2, callbacks=callbacks)
    files = sorted(tmp_path.glob("*.keras"))
    assert len(files) == 2
    last = keras.models.load_model(files[-1])
    assert [row.group for row in last.optimizer.table().rows] == ["a", "b", "c"]
    assert int(number(last.optimizer.iterations)) == 12
    same(arrays(last), arrays(model))


# 6. Saved and loaded.

WAYS: dict[str, Callable[[Any], list[tfs.LayerGroup]]] = {
    "objects": lambda model: by_layer(model, FACTORS_OF_LAYERS),
    "names": lambda model: [
        tfs.LayerGroup(name, [name], factor, weight_decay_multiplier=0.5)
        for name, factor in zip("abc", FACTORS_OF_LAYERS, strict=True)
    ],
    "expressions": lambda model: [
        tfs.LayerGroup("kernels", "^[ab]/kernel", 0.25),
        tfs.LayerGroup("biases", "bias$", tfs.Linear(0.0, 1.0, 15)),
        tfs.LayerGroup("head", "^c/k"),
    ],
    "weights": lambda model: [
        tfs.LayerGroup("first", model.trainable_variables[:3], 0.25),
        tfs.LayerGroup("others", model.trainable_variables[3:], 2.0),
    ],
}
UNBUILT = pytest.mark.filterwarnings(
    # Keras says so of every optimizer that was saved before it was built.
    "ignore:Skipping variable loading for optimizer:UserWarning"
)


@UNBUILT
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "unbuilt"])
@pytest.mark.parametrize("way", WAYS)
def test_a_loaded_model_goes_on_to_the_bit(
    way: str, trained: bool, tmp_path: Path
) -> None:
    model = network()
    # Without a state to be saved a simple one will do, and is traced in half the time.
    inner = EVERY["AdamW" if trained else "SGD, decay"](0.02)
    wrapped = tfs.LayerwiseOptimizer(inner, WAYS[way](model))
    compiled(model, wrapped)
    if trained:
        train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded.optimizer) is tfs.LayerwiseOptimizer
    paths = [[v.path for v in m.trainable_variables] for m in (model, loaded)]
    assert paths[0] != paths[1]  # the Sequential has another name now
    goes_on_alike(model, loaded)
    rows = [m.optimizer.table().rows for m in (model, loaded)]
    for ours, theirs in zip(*rows, strict=True):
        assert (ours.group, ours.parameters, ours.rate, ours.decay) == (
            theirs.group,
            theirs.parameters,
            theirs.rate,
            theirs.decay,
        )
    if way == "objects":  # and once more, from the loaded one
        loaded.save(tmp_path / "again.keras")
        goes_on_alike(loaded, keras.models.load_model(tmp_path / "again.keras"))


@UNBUILT
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "unbuilt"])
def test_arguments_survive_a_file(trained: bool, tmp_path: Path) -> None:
    model = network()
    groups = [tfs.LayerGroup("first", ["a"], 0.5, weight_decay_multiplier=3.0)]
    wrapped = tfs.LayerwiseOptimizer(
        EVERY["AdamW"](0.02), groups, default=0.125, no_decay=["norm", "bias"], name="x"
    )
    compiled(model, wrapped)
    if trained:
        train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert (loaded.default, loaded.name) == (0.125, "x")
    assert list(loaded.no_decay) == ["norm", "bias"]
    rows = loaded.table().rows
    assert [(row.multiplier, row.undecayed) for row in rows] == [
        ("0.5", 8),
        ("0.125", 18),
    ]
    assert rows[0].decay == pytest.approx(0.3)


def test_weights_files_fit_both_ways(tmp_path: Path) -> None:
    """Of the optimizer alone to the one with groups, and back."""
    plain = network(optimizer=EVERY["AdamW"](0.02))
    train(plain)
    plain.save_weights(tmp_path / "plain.weights.h5")
    wrapped = layerwise(EVERY["AdamW"](0.5))
    wrapped.optimizer.build(wrapped.trainable_variables)
    wrapped.load_weights(tmp_path / "plain.weights.h5")
    assert float(wrapped.optimizer.learning_rate) == pytest.approx(0.02)
    goes_on_alike(plain, wrapped)
    wrapped.save_weights(tmp_path / "wrapped.weights.h5")
    back = network(optimizer=EVERY["AdamW"](0.5))
    back.optimizer.build(back.trainable_variables)
    back.load_weights(tmp_path / "wrapped.weights.h5")
    goes_on_alike(wrapped, back)


def towers(kind: str) -> tuple[Any, Any, Any]:
    """A model of two nested ones, whose layers have the same names."""

    def tower(name: str) -> Any:
        inputs = keras.Input((64,))
        layer = keras.layers.Dense(10, name="inside")
        if kind == "functional":
            return keras.Model(inputs, layer(inputs), name=name)
        return keras.Sequential([inputs, layer], name=name)

    left, right = tower("left"), tower("right")
    inputs = keras.Input((64,))
    both = keras.layers.Add()([left(inputs), right(inputs)])
    keras.utils.set_random_seed(2)
    return keras.Model(inputs, both), left, right


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_nested_models_keep_their_groups(
    kind: str, trained: bool, tmp_path: Path
) -> None:
    model, left, right = towers(kind)
    groups = [tfs.LayerGroup("left", [left], 0.0), tfs.LayerGroup("right", [right])]
    compiled(model, tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups))
    if trained:
        train(model)
    else:  # by names they cannot be told apart, and there are no positions yet
        with pytest.warns(UserWarning, match="Several layers are called inside"):
            model.save(tmp_path / "unbuilt.keras")
        with pytest.raises(ValueError, match=r"In more than one.*compile=False"):
            keras.models.load_model(tmp_path / "unbuilt.keras")
        model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = arrays(loaded)
    train(loaded)
    changed = [(a != b).any() for a, b in zip(arrays(loaded), before, strict=True)]
    assert changed == [False, False, True, True]


@UNBUILT
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "unbuilt"])
@pytest.mark.parametrize("how", ["frozen before", "frozen after"])
def test_a_model_with_frozen_layers_can_be_loaded(
    how: str, trained: bool, tmp_path: Path
) -> None:
    """Keras itself loads all of these with any optimizer of its own."""
    model = network()
    if how == "frozen before":
        model.layers[0].trainable = False
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), by_layer(model))
    compiled(model, wrapped)
    if trained:
        train(model)
    model.layers[0].trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = arrays(loaded)
    train(loaded)
    changed = [(a != b).any() for a, b in zip(arrays(loaded), before, strict=True)]
    assert changed == [False, False, True, True, True, True]


def test_a_copy_made_of_the_config() -> None:
    model = adam_by_layer()
    train(model)
    config = json.loads(json.dumps(keras.optimizers.serialize(model.optimizer)))
    other = network()
    other.set_weights(model.get_weights())
    compiled(other, keras.optimizers.deserialize(config))
    other.optimizer.build(other.trainable_variables)
    other.optimizer.set_weights(state(model.optimizer))
    goes_on_alike(model, other)
    # The optimizer inside is another one, and so are its groups.
    assert other.optimizer.inner_optimizer is not model.optimizer.inner_optimizer
    again = tfs.LayerwiseOptimizer.from_config(other.optimizer.get_config())
    again.build(network().trainable_variables)
    assert [row.parameters for row in again.table().rows] == [520, 72, 90]


def test_a_config_goes_to_layers_by_name_in_another_order() -> None:
    def two(names: str) -> Any:
        layers = [keras.layers.Dense(4, name=name) for name in names]
        return keras.Sequential([keras.Input((4,)), *layers])

    groups = [tfs.LayerGroup("A", ["a"], 0.0), tfs.LayerGroup("B", ["b"], 1.0)]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), groups)
    wrapped.build(two("ab").trainable_variables)
    other = two("ba")
    again = tfs.LayerwiseOptimizer.from_config(wrapped.get_config())
    before = arrays(other)
    again.apply(
        [keras.ops.ones(weight.shape) for weight in other.trainable_variables],
        other.trainable_variables,
    )
    changed = [(a != b).any() for a, b in zip(arrays(other), before, strict=True)]
    assert changed == [True, True, False, False]


def test_a_deep_copy_of_an_unbuilt_optimizer() -> None:
    """Built ones lose their state, as all of Keras do."""
    inner = optimizers.SGD(0.5, momentum=0.9)
    wrapped = tfs.LayerwiseOptimizer(inner, [tfs.LayerGroup("all", ".", 2.0)])
    other = copy.deepcopy(wrapped)
    assert other.inner_optimizer is not inner
    weights = variables([np.zeros(1)])
    other.apply([keras.ops.ones(1)], weights)
    assert number(weights[0])[0] == -1.0
    assert not wrapped.built


def test_a_clone_is_compiled_from_the_compile_config() -> None:
    model = adam_by_layer()
    train(model)
    clone = keras.models.clone_model(model)
    clone.compile_from_config(model.get_compile_config())
    clone.set_weights(model.get_weights())
    clone.optimizer.build(clone.trainable_variables)
    clone.optimizer.set_weights(state(model.optimizer))
    goes_on_alike(model, clone)


def test_a_users_optimizer_is_loaded_with_custom_objects(tmp_path: Path) -> None:
    model = layerwise(Halving(0.5), FACTORS_OF_LAYERS)
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"Halving": Halving}
    )
    assert isinstance(loaded.optimizer.inner_optimizer, Halving)
    goes_on_alike(model, loaded)


@pytest.mark.tensorflow
@pytest.mark.parametrize("before", [True, False], ids=["built", "deferred"])
def test_a_checkpoint_of_tensorflow(before: bool, tmp_path: Path) -> None:
    import tensorflow as tf

    model = adam_by_layer()
    train(model)
    saved = tf.train.Checkpoint(optimizer=model.optimizer)
    path = saved.save(str(tmp_path / "checkpoint"))
    other = adam_by_layer()
    other.set_weights(model.get_weights())
    if before:
        other.optimizer.build(other.trainable_variables)
    restored = tf.train.Checkpoint(optimizer=other.optimizer).restore(path)
    if before:
        restored.assert_consumed()
    else:
        other.optimizer.build(other.trainable_variables)
    same(state(other.optimizer), state(model.optimizer))
    goes_on_alike(model, other)


_REPLICAS = """
import sys
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
sys.path.insert(0, sys.argv[1])
from test_layerwise import *

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = digits(120)
with strategy.scope():
    model = regression(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5),
        [0.25, tfs.Linear(0.0, 2.0, 4)],
    )
model.fit(x, y, batch_size=20, shuffle=False, verbose=0)
by_hand = [0.25, np.interp(np.arange(6), [0, 4], [0, 2])]
update = momentum_update(by_hand, 0.1, decays=0.5)
expected = softmax_loop(in_batches(x, y, 20), update)
error = relative_error(arrays(model), expected)
assert strategy.num_replicas_in_sync == 2
sys.exit(0 if error < 1e-6 else f"relative error {error}")
"""


@pytest.mark.tensorflow
def test_two_replicas_equal_a_numpy_loop() -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", _REPLICAS, here]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# 7. The table.


def test_the_table_says_how_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    groups = [
        tfs.LayerGroup("<low>", [model.layers[0]], 0.5, weight_decay_multiplier=0.5),
        tfs.LayerGroup("middle", "^b/", tfs.Linear(0.0, 1.0, 12)),
        tfs.LayerGroup("head", ["c"], 3.0),
    ]
    wrapped = tfs.LayerwiseOptimizer(
        optimizers.AdamW(0.02, weight_decay=0.1, gradient_accumulation_steps=2),
        groups,
        no_decay=["bias"],
    )
    train(compiled(model, wrapped))  # six batches, three updates
    wrapped.learning_rate = 0.04
    model.layers[2].bias.trainable = False
    capsys.readouterr()
    assert wrapped.describe() is None  # a notebook would show it once more
    table = wrapped.table()
    assert capsys.readouterr().out == f"{table}\n"
    rows = table.rows
    assert [row.group for row in rows] == ["<low>", "middle", "head"]
    assert [list(row.layers) for row in rows] == [["a"], ["/^b//"], ["c"]]
    assert [row.parameters for row in rows] == [520, 72, 90]
    assert [row.undecayed for row in rows] == [8, 8, 10]
    np.testing.assert_allclose(
        [row.rate for row in rows], [0.02, 0.04 * 3 / 12, 0.12], rtol=1e-6
    )
    np.testing.assert_allclose([row.decay for row in rows], [0.05, 0.1, 0.1])
    assert [row.frozen for row in rows] == ["no", "no", "partly"]
    html = wrapped._repr_html_()
    assert html == table._repr_html_()
    assert "&lt;low&gt;" in html
    assert "<low>" not in html
    assert html.count("<tr>") == 4


def test_the_table_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    groups = [
        tfs.LayerGroup("objects", [model.layers[0]], 0.5, weight_decay_multiplier=0.5),
        tfs.LayerGroup("expression", "^b/", tfs.Linear(0.25, 1.0, 12)),
    ]

    def unbuilt(groups: Any, **arguments: Any) -> Any:
        inner = optimizers.AdamW(0.02, weight_decay=0.1)
        return tfs.LayerwiseOptimizer(inner, groups, no_decay=["bias"], **arguments)

    wrapped = unbuilt(groups, default=2.0)
    table = wrapped.table()
    found = [
        (row.group, row.parameters, row.undecayed, row.frozen) for row in table.rows
    ]
    assert found == [
        ("objects", 520, 8, "no"),
        ("expression", None, 0, "?"),
        ("(default)", None, 0, "?"),
    ]
    np.testing.assert_allclose(
        [(row.rate, row.decay) for row in table.rows],
        [(0.01, 0.05), (0.005, 0.1), (0.04, 0.1)],
        rtol=1e-6,
    )
    assert not wrapped.built  # to look changes nothing
    wrapped.describe()
    shown = capsys.readouterr().out
    assert shown == f"{table}\n"
    assert "not built" in shown
    assert shown.count("objects") == 1
    assert "not built" in wrapped._repr_html_()
    assert repr(table) == "<GroupTable: 3 groups, unknown parameters>"

    whole = unbuilt(tfs.discriminative_groups(model, low=0.1, n_groups=2))
    before = whole.table()
    assert "not built" not in str(before)
    whole.build(model.trainable_variables)
    assert before == whole.table()

    lazy = keras.layers.Dense(4)  # not built, and no part of the model yet
    assert unbuilt([tfs.LayerGroup("lazy", [lazy])]).table().rows[0].parameters is None


# 8. Bad input: refused with the way out, and nothing has changed.


def untouched(optimizer: Any) -> dict[str, Any]:
    """What of an optimizer a refused wrapper could have changed."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if not name.startswith("_self_") and name != "build"  # which still divides
    }


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"optimizer": "sgd"}, TypeError, r"must be a Keras optimizer.*'sgd'"),
        ({"optimizer": optimizers.SGD}, TypeError, "must be a Keras optimizer"),
        ({"groups": []}, ValueError, "at least one LayerGroup"),
        ({"groups": "all"}, TypeError, "LayerGroup"),
        ({"groups": {"a": 0.1}}, TypeError, "LayerGroup"),
        ({"groups": [("a", ["a"])]}, TypeError, "LayerGroup"),
        ({"groups": tfs.LayerGroup("a", ".")}, TypeError, "must be a list"),
        (
            {"groups": [tfs.LayerGroup("a", "^a"), tfs.LayerGroup("a", "^b")]},
            ValueError,
            "name 'a' twice",
        ),
        ({"default": -0.5}, ValueError, "`default` must be >= 0"),
        ({"default": float("nan")}, ValueError, "`default` must be finite"),
        ({"default": float("inf")}, ValueError, "`default` must be finite"),
        ({"default": "1"}, TypeError, "`default` must be a number"),
        ({"default": True}, TypeError, "`default` must be a number"),
        ({"no_decay": "bias"}, TypeError, "`no_decay` must be True, False, or a list"),
        ({"no_decay": ["bias", "kernel"]}, ValueError, "`no_decay` must be one of"),
        (
            {"groups": [tfs.LayerGroup("a", ".", tfs.Linear(0, 1, tfs.epochs(2)))]},
            ValueError,
            "lengths in epochs",
        ),
        (
            {"groups": [tfs.LayerGroup("a", ".", tfs.Linear(-1.0, 1.0, 10))]},
            ValueError,
            "of the group 'a' must be finite and >= 0.*which is -1 at step 0",
        ),
        (
            {"groups": [tfs.LayerGroup("a", ".", tfs.Linear(1.0, -1.0, 10**8))]},
            ValueError,
            "must be finite and >= 0 at every step.*at step 67108864",
        ),
        (
            {"groups": [tfs.LayerGroup("a", ".", lambda step: step * float("nan"))]},
            ValueError,
            "must be finite and >= 0.*which is nan at step 0",
        ),
        (
            {"groups": [tfs.LayerGroup("(default)", "^a")], "default": 1.0},
            ValueError,
            r"The name '\(default\)' is that of the weights in no group",
        ),
        (
            {"groups": [tfs.LayerGroup(n, f"^{n}", 0.0) for n in "ab"]},
            ValueError,
            r"Every multiplier is 0, which freezes everything.*2 group\(s\), default=N",
        ),
        (
            {"groups": [tfs.LayerGroup("a", "^a", 0)], "default": 0.0},
            ValueError,
            "Every multiplier is 0, which freezes everything",
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(
    arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    inner = optimizers.SGD(0.1, momentum=0.9)
    before = untouched(inner)
    given = {"optimizer": inner, "groups": [tfs.LayerGroup("all", ".")], **arguments}
    with pytest.raises(error, match=match):
        tfs.LayerwiseOptimizer(**given)
    assert untouched(inner) == before


@pytest.mark.parametrize("argument", ["multiplier", "weight_decay_multiplier"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_bad_multipliers_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"`{argument}` must be .*{value}"):
        tfs.LayerGroup("a", ["a"], **{argument: value})


def test_wrappers_belong_outside() -> None:
    groups = [tfs.LayerGroup("all", ".")]
    inner = optimizers.SGD(0.1)
    wrapped = tfs.LayerwiseOptimizer(inner, groups)
    with pytest.raises(ValueError, match="goes inside the LossScaleOptimizer"):
        tfs.LayerwiseOptimizer(optimizers.LossScaleOptimizer(inner), groups)
    with pytest.raises(ValueError, match="wraps others"):
        tfs.LayerwiseOptimizer(wrapped, groups)
    wrapped.build(variables([np.zeros(1)]))
    with pytest.raises(ValueError, match="in a LayerwiseOptimizer already"):
        tfs.LayerwiseOptimizer(inner, groups)


@pytest.mark.parametrize("built", [False, True], ids=["new", "built"])
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda model: by_layer(model)[:2],
            r"In no group: c/kernel, c/bias.*default=1",
        ),
        (
            lambda model: [*by_layer(model), tfs.LayerGroup("more", "kernel")],
            r"In more than one: a/kernel \(in 'a' and 'more'\), b/kernel",
        ),
        (
            lambda model: [*by_layer(model), tfs.LayerGroup("x", ["c"])],
            r"In more than one: c/kernel \(in 'c' and 'x'\), c/bias",
        ),
        (
            lambda model: [tfs.LayerGroup("a", ["a"]), tfs.LayerGroup("k", "kernel")],
            r"In no group: b/bias, c/bias\. In more than one: a/kernel \(in 'a' and",
        ),
        (
            lambda model: [tfs.LayerGroup("x", ["a", "hidden"])],
            r"The layer 'hidden' of the group 'x' is unknown.*There are: a, b, c",
        ),
        (
            lambda model: [tfs.LayerGroup("x", ["a"]), tfs.LayerGroup("y", "^z")],
            r"The group 'y' is empty.*'\^z' matches none of a/kernel",
        ),
        (
            lambda model: [
                *by_layer(model),
                tfs.LayerGroup("f", [keras.layers.ReLU()]),
            ],
            "'f'",
        ),
        (
            lambda model: by_layer(network()),
            "The layer 'a' of the group 'a' is not in the model that is trained",
        ),
        (
            lambda model: [
                *by_layer(model),
                tfs.LayerGroup("n", [keras.layers.Dense(3, name="new")]),
            ],
            "The layer 'new' of the group 'n' is not built",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused_before_anything_changes(
    make: Callable[[Any], list[tfs.LayerGroup]], match: str, built: bool
) -> None:
    model = network()
    inner = EVERY["AdamW"](0.02)
    if built:
        inner.build(model.trainable_variables)
    before = untouched(inner), state(inner), arrays(model)
    groups = make(model)

    def use() -> None:
        tfs.LayerwiseOptimizer(inner, groups).build(model.trainable_variables)

    with pytest.raises(ValueError, match=match):
        use()
    after = untouched(inner), state(inner), arrays(model)
    assert after[0] == before[0]
    same(after[1], before[1])
    same(after[2], before[2])
    # Both can still be used, together with groups that fit.
    wrapped = tfs.LayerwiseOptimizer(inner, by_layer(model, [0.0, 1.0, 1.0]))
    weights = model.trainable_variables
    wrapped.apply([keras.ops.ones(weight.shape) for weight in weights], weights)
    changed = [(a != b).any() for a, b in zip(arrays(model), before[2], strict=True)]
    assert changed == [False, False, True, True, True, True]


def test_a_fit_with_groups_that_do_not_fit_changes_nothing() -> None:
    model = network()
    wrong = tfs.LayerwiseOptimizer(EVERY["AdamW"](0.02), by_layer(model)[:2])
    before = arrays(model)
    with pytest.raises(ValueError, match="In no group: c/kernel, c/bias"):
        train(compiled(model, wrong), build=False)
    assert not wrong.built
    assert len(wrong.variables) == 2
    same(arrays(model), before)
    plain = network(optimizer=EVERY["AdamW"](0.02))
    goes_on_alike(plain, compiled(model, EVERY["AdamW"](0.02)))


def test_a_group_of_layers_that_never_have_a_gradient_is_empty() -> None:
    # A Dropout holds its random state, which is not trainable, but not frozen either.
    model = network()
    groups = [*by_layer(model), tfs.LayerGroup("none", [keras.layers.Dropout(0.5)])]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups)
    with pytest.raises(ValueError, match="'none'"):
        wrapped.build(model.trainable_variables)


def test_default_does_not_excuse_a_weight_in_two_groups() -> None:
    model = network()
    groups = [*by_layer(model), tfs.LayerGroup("more", "^a/kernel")]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(0.1), groups, default=1.0)
    with pytest.raises(ValueError, match=r"In more than one: a/kernel \(in 'a' and"):
        wrapped.build(model.trainable_variables)
    assert not wrapped.built


def test_weights_it_was_not_built_on_are_refused() -> None:
    """As by any optimizer of Keras."""
    model = adam_by_layer()
    train(model)
    other = network()
    zeros = [keras.ops.zeros(weight.shape) for weight in other.trainable_variables]
    before = state(model.optimizer)
    with pytest.raises(ValueError, match="Unknown variable"):
        model.optimizer.apply(zeros, other.trainable_variables)
    same(state(model.optimizer), before)


def test_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(NotImplementedError, match="the TensorFlow or the JAX backend"):
        tfs.LayerwiseOptimizer(optimizers.SGD(0.1), [tfs.LayerGroup("all", ".")])


def test_an_update_that_fails_leaves_nothing_behind() -> None:
    """An error of the user's inside a step: the next one is right."""

    class Failing(optimizers.SGD):
        def update_step(self, *arguments: Any) -> None:
            if self.fail:
                raise RuntimeError("of the user's")
            super().update_step(*arguments)

    values, gradients = problem()
    weights = variables(values)
    inner = Failing(0.01)
    inner.fail = False
    wrapped = tfs.LayerwiseOptimizer(inner, one_each(weights, FACTORS))
    step_by_step(wrapped, weights, gradients[:2])
    names = set(vars(inner))
    inner.fail = True
    with pytest.raises(RuntimeError, match="of the user's"):
        step_by_step(wrapped, weights, gradients[2:3])
    inner.fail = False
    assert set(vars(inner)) == names
    seen = step_by_step(wrapped, weights, gradients[2:4])
    for i, factor in enumerate(FACTORS):
        expected = sgd(values[i], gradients[:4, i], 0.01 * factor, momentum=0.0)
        assert relative_error([seen[-1, i]], [expected[-1]]) < 1e-6


def test_a_loaded_group_that_finds_nothing_does_not_fall_to_the_default_unseen() -> (
    None
):
    groups = [tfs.LayerGroup("a", ["a"], 0.0)]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), groups, default=1.0)
    copy = tfs.LayerwiseOptimizer.from_config(wrapped.get_config())
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="x")])
    with pytest.warns(UserWarning, match="loaded groups a have no trainable weights"):
        copy.build(other.trainable_variables)
