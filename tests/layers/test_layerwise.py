"""LayerwiseOptimizer against NumPy in float64, and against the optimizer alone.

Fixed gradients are applied one by one, and every step is compared: a rate that is off
by one step, scaled twice, or not scaled in the decay, is seen at once. Fits on digits
are compared to the bit with those of the optimizer alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    relative_error,
)
from layerwise import (
    EVERY,
    FACTORS,
    STEPS,
    number,
    one_each,
    optimizers,
    problem,
    same,
    sgd,
    step_by_step,
    variables,
)

import tfschedules as tfs


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
