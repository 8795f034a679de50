"""Rates for layers in fits on digits, beside NumPy loops of the same training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
    digits,
    in_batches,
    relative_error,
)
from layerwise import (
    EVERY,
    by_layer,
    compiled,
    goes_on_alike,
    layerwise,
    momentum_update,
    network,
    number,
    one_each,
    optimizers,
    problem,
    regression,
    same,
    softmax_loop,
    state,
    step_by_step,
    train,
    variables,
)

import tfschedules as tfs

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
