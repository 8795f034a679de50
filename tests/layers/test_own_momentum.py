"""A momentum of its own for a group: against NumPy, and against optimizers alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import arrays, digits, in_batches, relative_error
from layerwise import (
    EVERY,
    STEPS,
    Halving,
    by_layer,
    compiled,
    goes_on_alike,
    network,
    number,
    one_each,
    optimizers,
    problem,
    regression,
    same,
    sgd,
    softmax_loop,
    step_by_step,
    train,
    variables,
)

import tfschedules as tfs
from tfschedules.drive import Split

REFUSED = {
    "SGD, decay": r"compiled with momentum=0\.0.*momentum=0\.3, and give the other",
    "Nadam": "has one for all weights",
    "Muon": "Muon has two",
    **dict.fromkeys(
        ("Adadelta", "Adagrad", "Adafactor", "Ftrl"), "neither `momentum` nor `beta_1`"
    ),
}


def with_momenta(weights: Any, factors: Any, momenta: Any) -> list[tfs.LayerGroup]:
    groups = one_each(weights, factors)
    return [
        tfs.LayerGroup(group.name, group.layers, group.multiplier, momentum=momentum)
        for group, momentum in zip(groups, momenta, strict=True)
    ]


@pytest.mark.parametrize("name", EVERY)
def test_it_is_two_optimizers_to_the_bit_or_refused(name: str) -> None:
    values, gradients = problem(count=2)
    weights = variables(values)
    inner = EVERY[name](0.02)
    groups = with_momenta(weights, [1.0, 1.0], [0.3, None])
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"group 'group 0' .*{REFUSED[name]}"):
            tfs.LayerwiseOptimizer(inner, groups)
        assert "build" not in vars(inner)
        return
    seen = step_by_step(tfs.LayerwiseOptimizer(inner, groups), weights, gradients[:8])
    own = "momentum" if hasattr(inner, "momentum") else "beta_1"
    for i, momentum in enumerate([0.3, getattr(inner, own)]):
        alone = variables(values[i : i + 1])
        plain = type(inner).from_config(
            {**EVERY[name](0.02).get_config(), own: momentum}
        )
        expected = step_by_step(plain, alone, gradients[:8, i : i + 1])
        same([seen[:, i]], [expected[:, 0]])
    if name == "ScheduleFreeAdamW":  # on TensorFlow Keras's does not depend on β₁
        return
    other = step_by_step(EVERY[name](0.02), variables(values[:1]), gradients[:8, :1])
    assert relative_error([seen[-1, 0]], [other[-1, 0]]) > 1e-4


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_every_step_equals_numpy(momentum: float) -> None:
    """Also with none at all, where others have one, and nobody but 0 has one."""
    values, gradients = problem(count=3)
    weights = variables(values)
    factors, momenta = [0.1, 1.0, 3.0], [0.5, 0.0, None]
    if momentum == 0:
        momenta[0] = None
    inner = optimizers.SGD(0.01, momentum=momentum, weight_decay=0.3)
    groups = with_momenta(weights, factors, momenta)
    seen = step_by_step(tfs.LayerwiseOptimizer(inner, groups), weights, gradients)
    for i, (factor, own) in enumerate(zip(factors, momenta, strict=True)):
        expected = sgd(
            values[i],
            gradients[:, i],
            0.01 * factor,
            0.3,
            momentum=momentum if own is None else own,
        )
        for step in range(STEPS):
            assert relative_error([seen[step, i]], [expected[step]]) < 1e-6
    assert inner.momentum == momentum


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_schedule_drives_the_momentum_of_the_others(steps_per_execution: int) -> None:
    x, y = digits(200)
    model = regression(
        optimizers.SGD(0.1, momentum=0.6),
        [0.25, 2.0],
        steps_per_execution=steps_per_execution,
    )
    groups = with_momenta(model.trainable_variables, [0.25, 2.0], [0.4, None])
    inner = optimizers.SGD(0.1, momentum=0.6)
    model.compile(
        tfs.LayerwiseOptimizer(inner, groups),
        model.loss,
        steps_per_execution=steps_per_execution,
    )
    driven = tfs.HyperparameterScheduler(momentum=tfs.Linear(0.95, 0.7, 19))
    model.fit(
        x, y, batch_size=20, epochs=2, shuffle=False, verbose=0, callbacks=[driven]
    )
    momenta = [np.full(20, 0.4), np.linspace(0.95, 0.7, 20)]
    speeds: list[Any] = [0.0, 0.0]

    def update(step: int, i: int, w: Any, g: Any) -> Any:
        speeds[i] = momenta[i][step] * speeds[i] - 0.1 * [0.25, 2.0][i] * g
        return w + speeds[i]

    expected = softmax_loop(in_batches(x, y, 20) * 2, update)
    assert relative_error(arrays(model), expected) < 2e-6
    assert inner.momentum == 0.6


def test_a_weight_that_joins_late_is_corrected_by_its_own_count() -> None:
    """Adam's first step is as long as the rate, with any β₁."""
    values, gradients = problem(count=2)
    weights = variables(values)
    groups = with_momenta(weights, [1.0, 1.0], [0.5, None])
    inner = optimizers.Adam(0.01, epsilon=1e-12)
    wrapped = tfs.LayerwiseOptimizer(inner, groups)
    wrapped.build(weights)
    inner.iterations.assign(7)
    Split.of(inner).set_missed({0: 7, 1: 7})
    step_by_step(wrapped, weights, gradients[:1])
    for i in range(2):
        expected = values[i] - 0.01 * np.sign(gradients[0, i])
        np.testing.assert_allclose(number(weights[i]), expected, rtol=1e-5, atol=1e-7)
    assert (inner.beta_1, int(number(inner.iterations))) == (0.9, 8)


def test_an_update_that_fails_leaves_the_optimizers_own() -> None:
    class Fails(keras.optimizers.SGD):
        def update_step(self, *arguments: Any) -> None:
            assert self.momentum == 0.5
            raise RuntimeError("by the test")

    values, gradients = problem(count=1)
    weights = variables(values)
    inner = Fails(0.1, momentum=0.9)
    wrapped = tfs.LayerwiseOptimizer(inner, with_momenta(weights, [1.0], [0.5]))
    with pytest.raises(RuntimeError, match="by the test"):
        step_by_step(wrapped, weights, gradients[:1])
    assert inner.momentum == 0.9


def test_it_is_in_files_and_in_the_table(tmp_path: Path) -> None:
    model = network()
    groups = by_layer(model, momentum=0.25)[:1]
    wrapped = tfs.LayerwiseOptimizer(optimizers.Adam(0.01), groups, default=1.0)
    before = wrapped.table().rows
    train(compiled(model, wrapped))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [group.momentum for group in loaded.optimizer.groups] == [0.25]
    for rows in (before, wrapped.table().rows, loaded.optimizer.table().rows):
        assert [row.momentum for row in rows] == [0.25, 0.9]
    assert "0.25" in str(wrapped.table())
    goes_on_alike(model, loaded)
    # A file of before there was a momentum.
    config = wrapped.get_config()
    del config["groups"][0]["momentum"]
    assert tfs.LayerwiseOptimizer.from_config(config).groups[0].momentum is None
    plain = tfs.LayerwiseOptimizer(optimizers.Adagrad(0.1), by_layer(network()))
    assert {row.momentum for row in plain.table().rows} == {None}


def test_what_is_refused() -> None:
    for value in (1.0, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="Argument `momentum` must be"):
            tfs.LayerGroup("a", ["a"], momentum=value)
    with pytest.raises(TypeError, match="Argument `momentum` must be a number"):
        tfs.LayerGroup("a", ["a"], momentum=tfs.Linear(0.9, 0.8, 10))  # type: ignore[arg-type]
    still = [tfs.LayerGroup("a", ["a"], momentum=0.0)]
    with pytest.raises(ValueError, match="Lion needs one > 0"):
        tfs.LayerwiseOptimizer(optimizers.Lion(0.1), still)

    class Together(optimizers.SGD):
        def _backend_update_step(self, *arguments: Any) -> None:
            super()._backend_update_step(*arguments)

    for inner, why in (
        (Together(0.1, momentum=0.9), "Together has one for all weights"),
        (Halving(0.1), "Halving has neither `momentum` nor `beta_1`"),
    ):
        with pytest.raises(ValueError, match=re.escape(why)):
            tfs.LayerwiseOptimizer(inner, still)
