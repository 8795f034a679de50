"""An optimizer of layers is one optimizer, as Keras knows them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
    digits,
    relative_error,
)
from layerwise import (
    EVERY,
    FACTORS,
    JAX,
    Halving,
    by_layer,
    compiled,
    goes_on_alike,
    network,
    number,
    one_each,
    optimizers,
    problem,
    same,
    sgd,
    state,
    step_by_step,
    train,
    variables,
)

import tfschedules as tfs

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
