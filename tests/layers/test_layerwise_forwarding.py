"""What the wrapped optimizer has, `LayerwiseOptimizer` has, by whatever class it is of.

An independent rule says what a class overrides: `inspect.getattr_static` on it and on
Keras's base class. The values are those of the optimizer alone.
"""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, arrays, relative_error
from layerwise import (
    EVERY,
    compiled,
    network,
    number,
    problem,
    same,
    state,
    step_by_step,
    train,
    variables,
)

import tfschedules as tfs

optimizers = keras.optimizers


def layerwise(optimizer: Any, factor: Any = 1.0) -> Any:
    """One group of all weights."""
    return tfs.LayerwiseOptimizer(optimizer, [tfs.LayerGroup("all", ".", factor)])


def overridden(optimizer: Any) -> set[str]:
    """Names for which the class has something else than Keras's base class."""
    static, kind, base = inspect.getattr_static, type(optimizer), optimizers.Optimizer
    names = [name for name in dir(kind) if not name.startswith("__")]
    return {n for n in names if static(kind, n) is not static(base, n, names)}


# 1. Every optimizer of Keras, now and later.


@pytest.mark.parametrize("built", [False, True], ids=["new", "built"])
@pytest.mark.parametrize("name", EVERY)
def test_what_is_overridden_is_the_wrapped_optimizers(name: str, built: bool) -> None:
    inner = EVERY[name](0.02)
    wrapped = layerwise(inner)
    if built:
        wrapped.build(variables(problem()[0]))
    names = overridden(inner) | vars(inner).keys()
    assert "update_step" in names
    others = []
    for each in names - vars(tfs.LayerwiseOptimizer).keys() - {"name"}:
        ours, theirs = getattr(wrapped, each, None), getattr(inner, each)
        tracked = each.startswith(("_self_", "_update_uid"))  # by TensorFlow
        if not (tracked or ours is theirs or ours == theirs):  # methods are made anew
            others.append(each)
    assert not others


@pytest.mark.parametrize("name", EVERY)
def test_a_fit_after_the_inner_one_was_built(name: str) -> None:
    """Equal to the optimizer alone to the bit; and it is divided."""
    made = []
    for wrap in (False, True):
        model, inner = network("ab"), EVERY[name](0.02)
        compiled(model, layerwise(inner) if wrap else inner)
        inner.build(model.trainable_variables)
        train(model, count=48)
        made.append([*arrays(model), *state(model.optimizer)])
    same(*made)
    assert "build" not in vars(inner)
    assert [row.parameters for row in model.optimizer.table().rows] == [610]


# 2. Methods of Keras's own optimizers, called by hand.


def test_update_step_has_the_groups_rate() -> None:
    weights = variables([[1.0, 2.0], [1.0, 2.0]])
    groups = [tfs.LayerGroup(f"{i}", [w], 0.5 + i) for i, w in enumerate(weights)]
    wrapped = tfs.LayerwiseOptimizer(optimizers.SGD(1.0), groups)
    wrapped.build(weights)
    for weight in weights:
        wrapped.update_step(keras.ops.ones(2), weight, 0.5)
    same([number(w) for w in weights], [[0.75, 1.75], [0.25, 1.25]])


def test_update_step_after_a_fit_has_the_schedules_value_now() -> None:
    """And nothing of what was traced in the fit."""
    model = network()
    schedule = tfs.Linear(0.0, 1.0, 12)
    wrapped = layerwise(optimizers.SGD(0.1), schedule)
    train(compiled(model, wrapped))
    weight = model.trainable_variables[0]
    before = number(weight)
    wrapped.update_step(keras.ops.ones(weight.shape), weight, 0.25)
    np.testing.assert_allclose(number(weight), before - 0.25 * 0.5, rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_muon_decays_vectors_as_adam(factor: float) -> None:
    if not hasattr(optimizers, "Muon"):
        pytest.skip("Keras has Muon since 3.10")
    seen = []
    for wrap in (False, True):
        rate = 1.0 if wrap else factor
        inner = optimizers.Muon(rate, weight_decay=0.1, adam_weight_decay=0.01)
        optimizer = layerwise(inner, factor) if wrap else inner
        weights = variables([[[1.0, 2.0], [3.0, 4.0]], [2.0, 2.0]])
        optimizer.build(weights)
        optimizer._apply_weight_decay(weights)
        seen.append([number(weight) for weight in weights])
    same(*seen)
    expected = [2 - 0.02 * factor] * 2
    np.testing.assert_allclose(seen[1][1], expected, rtol=1e-6)


def test_nadam_keeps_its_product() -> None:
    seen = []
    for wrap in (False, True):
        inner = optimizers.Nadam(0.1)
        optimizer = layerwise(inner) if wrap else inner
        weights = variables([[1.0, 2.0]])
        optimizer.build(weights)
        optimizer._backend_update_step([keras.ops.ones(2)], weights, 0.1)
        seen.append([number(inner._u_product), number(weights[0]), *state(optimizer)])
    same(*seen)
    by_hand = 0.9 * (1 - 0.5 * 0.96)
    np.testing.assert_allclose(seen[1][0], by_hand, rtol=1e-6)


# 3. A user's own optimizer.


class Own(optimizers.SGD):
    """Overrides what Keras's trainers and base class call, and counts the calls."""

    bound = 0.05  # a class attribute

    def __init__(self, learning_rate: float = 0.1, **arguments: Any) -> None:
        super().__init__(learning_rate, use_ema=True, **arguments)
        self.calls: dict[str, int] = {}

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    @property
    def half_bound(self) -> float:
        return self.bound / 2

    def __getattr__(self, name: str) -> Any:
        if name == "colour":
            return "red"
        raise AttributeError(name)

    def scale_loss(self, loss: Any) -> Any:
        self._count("scale_loss")
        return loss * 3.0

    def _clip_gradients(self, grads: Any) -> Any:
        self._count("_clip_gradients")
        return [keras.ops.clip(g, -self.bound, self.half_bound) for g in grads]

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        self._count("apply_gradients")
        pairs = [(0.5 * gradient, variable) for gradient, variable in grads_and_vars]
        return super().apply_gradients(pairs)

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        self._count("_update_model_variables_moving_average")
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            average.assign(0.5 * average + 0.25 * variable)


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("eager", [False, True])
def test_a_fit_with_a_users_own_optimizer(factor: float, eager: bool) -> None:
    seen = []
    for wrap in (False, True):
        inner = Own(0.25 if wrap else 0.25 * factor)
        model = network("ab")
        optimizer = layerwise(inner, factor) if wrap else inner
        how = {"run_eagerly": True, "jit_compile": False} if eager else {}
        train(compiled(model, optimizer, **how), count=48, build=False)
        averages = [number(v) for v in inner._model_variables_moving_average]
        seen.append((arrays(model), averages, inner.calls.keys()))
    same(seen[0][0], seen[1][0])
    same(seen[0][1], seen[1][1])
    names = vars(Own).keys() & set(dir(optimizers.Optimizer))
    # JAX's trainer has no use for `apply_gradients`.
    unused = {"apply_gradients"} if BACKEND == "jax" else set()
    assert seen[1][2] == {name for name in names if name[:2] != "__"} - unused
    assert relative_error(seen[1][0], arrays(network("ab"))) > 1e-4


def test_a_users_own_methods_called_by_hand() -> None:
    """Before and after it is built; `apply_gradients` builds it, and it is divided."""
    inner = Own(1.0)
    wrapped = layerwise(inner, 0.5)
    weights = variables([[1.0, 1.0]])
    for _ in range(2):
        assert float(wrapped.scale_loss(2.0)) == 6.0
        clipped = wrapped._clip_gradients([keras.ops.array([-1.0, 1.0])])
        same([number(clipped[0])], [np.array([-0.05, 0.025], "float32")])
        assert (wrapped.bound, wrapped.half_bound) == (0.05, 0.025)
        assert wrapped.colour == "red"
        with pytest.raises(AttributeError, match="shade"):
            _ = wrapped.shade
        before = number(weights[0])
        wrapped.apply_gradients([(keras.ops.array([-0.04, 0.04]), weights[0])])
        expected = before - 0.5 * np.array([-0.02, 0.02])
        np.testing.assert_allclose(number(weights[0]), expected, rtol=1e-6)
    wrapped._update_model_variables_moving_average(weights)
    assert inner.calls["_update_model_variables_moving_average"] == 3
    wrapped.bound = 1.0
    assert inner.half_bound == 0.5


class Bare(optimizers.Optimizer):
    """One whose `build`, the base class's, may be called twice."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, learning_rate * gradient)


def test_the_inner_one_is_divided_however_it_is_built() -> None:
    values, gradients = problem(count=2)
    weights = variables(values)
    inner = Bare(0.01, use_ema=True)
    groups = [tfs.LayerGroup(f"{i}", [w], i / 2) for i, w in enumerate(weights)]
    wrapped = tfs.LayerwiseOptimizer(inner, groups)
    inner.build(weights)
    held = [id(variable) for variable in wrapped.variables]
    wrapped.build(weights)
    assert [id(variable) for variable in wrapped.variables] == held
    step_by_step(inner, weights, gradients[:1])  # also where it is used alone
    expected = values[1] - 0.01 / 2 * gradients[0, 1]
    same([number(weights[0])], values[:1])
    np.testing.assert_allclose(number(weights[1]), expected, rtol=1e-5)


def test_a_derived_class_has_its_own() -> None:
    class Louder(tfs.LayerwiseOptimizer):
        volume = 1

        def scale_loss(self, loss: Any) -> Any:
            return 2 * self.inner_optimizer.scale_loss(loss)

    inner = Own(1.0)
    wrapped = Louder(inner, [tfs.LayerGroup("all", ".")])
    assert wrapped.scale_loss(1.0) == 6.0
    wrapped.volume = 5
    assert (wrapped.volume, hasattr(inner, "volume")) == (5, False)


def test_variables_are_named_as_those_of_the_optimizer_alone() -> None:
    paths = []
    for wrap in (False, True):
        inner = optimizers.SGD(0.1, momentum=0.9, name="mine")
        optimizer = layerwise(inner) if wrap else inner
        optimizer.apply([keras.ops.ones(1)], variables([np.zeros(1)]))
        paths.append([variable.path for variable in optimizer.variables])
    assert paths[0] == paths[1]


def test_attributes_are_set_and_deleted() -> None:
    inner = optimizers.SGD(0.1)
    wrapped = layerwise(inner)
    wrapped.note = "mine"
    assert (inner.note, wrapped.note) == ("mine", "mine")
    del wrapped.note
    assert not hasattr(inner, "note")
    assert not hasattr(wrapped, "note")
    with pytest.raises(AttributeError, match="note"):
        del wrapped.note
    assert isinstance(wrapped, optimizers.Optimizer)


def test_a_pickled_copy_of_the_inner_one_is_an_optimizer_alone() -> None:
    inner = optimizers.SGD(1.0)
    layerwise(inner, 0.5)
    other, weights = pickle.loads(pickle.dumps(inner)), variables([np.zeros(1)])
    other.apply([keras.ops.ones(1)], weights)
    assert number(weights[0])[0] == -1.0


# 4. Nothing to train.


@pytest.mark.filterwarnings("ignore:The model does not have any trainable:UserWarning")
@pytest.mark.parametrize("default", [None, 1.0])
@pytest.mark.parametrize("weights", [True, False], ids=["frozen", "without weights"])
def test_a_model_with_nothing_to_train(
    weights: bool, default: float | None, tmp_path: Path
) -> None:
    x = np.ones((4, 2), "float32")
    seen = []
    for wrap in (False, True):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(2) if weights else keras.layers.Rescaling(2.0)
        model = keras.Sequential([keras.Input((2,)), layer])
        model.trainable = False
        inner = optimizers.Nadam(0.1, weight_decay=0.1)
        groups = [tfs.LayerGroup("a", ["a"], 0.5), tfs.LayerGroup("b", ["b"])]
        optimizer = tfs.LayerwiseOptimizer(inner, groups, default) if wrap else inner
        model.compile(optimizer, "mse", jit_compile=JIT)
        for _ in range(2):
            history = model.fit(x, x, epochs=2, verbose=0)
        model.optimizer.build(model.trainable_variables)
        losses = [history.history["loss"], model.evaluate(x, x, verbose=0)]
        seen.append([*losses, *arrays(model), *state(model.optimizer)])
    same(*seen)
    assert [row.parameters for row in model.optimizer.table().rows] == [0, 0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.optimizer.build([])
    loaded.fit(x, x, verbose=0)
    same(state(loaded.optimizer), state(model.optimizer))


def test_built_on_nothing_it_refuses_weights_as_the_optimizer_alone() -> None:
    weights = variables([np.zeros(1)])
    for optimizer in (optimizers.SGD(0.1), layerwise(optimizers.SGD(0.1))):
        optimizer.build([])
        assert optimizer.built
        with pytest.raises(ValueError, match="Unknown variable"):
            optimizer.apply([keras.ops.ones(1)], weights)
