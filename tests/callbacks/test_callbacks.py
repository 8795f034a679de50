"""Schedules in `fit`: position, one fit after another, and refusals."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
    line,
    one_cycle_values,
    patches,
    relative_error,
    sgd_loop,
    softmax_regression,
)
from slope_fits import (
    BATCHES,
    SLOPE,
    X,
    Y,
    fit,
    interrupted_fit,
    momentum_model,
    same,
    slope,
)

import tfschedules as tfs

# Many schedules here are longer or shorter than their fit, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")


# Position.


def test_a_new_fit_starts_at_0_the_second_too() -> None:
    model, callback = momentum_model(), tfs.HyperparameterScheduler(SLOPE)
    same(fit(model, callback, epochs=2), slope(0, 12))
    same(fit(model, callback), slope(0, 6))
    other = tfs.HyperparameterScheduler(tfs.Linear(0.1, 0.2, 5))
    same(fit(model, other), line(0.1, 0.2, 5, 6))
    assert int(model.optimizer.iterations) == 24


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_start_step_overrides(steps_per_execution: int) -> None:
    model = momentum_model(steps_per_execution=steps_per_execution)
    callback = tfs.HyperparameterScheduler(SLOPE, start_step=7)
    for _ in range(2):
        fit(model, callback)
    rates = [*slope(7, 13)] * 2
    expected = sgd_loop(BATCHES * 2, rates, [0.9] * 12)
    assert relative_error(arrays(model), expected) < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: tfs.OneCycle(0.5, total_steps=30, **more),
        lambda **more: tfs.CyclicalLearningRate(0.1, 0.5, step_size=10, **more),
        lambda **more: tfs.WarmRestarts(0.5, first_cycle=20, **more),
    ],
    ids=["one-cycle", "cyclical", "restarts"],
)
def test_ready_made_callbacks_follow_their_formula_from_start_step(make: Any) -> None:
    steps = np.arange(7, 13)
    formula = {
        "OneCycle": one_cycle_values(0.5, 30)[0][steps],
        "CyclicalLearningRate": 0.1 + 0.4 * (1 - np.abs(steps / 10 - 1)),
        "WarmRestarts": 0.25 * (1 + np.cos(np.pi * steps / 20)),
    }
    callback = make(start_step=7)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OneCycle is 30 steps long")
        rates = fit(momentum_model(), callback)
    same(rates, formula[type(callback).__name__])


@pytest.mark.parametrize(
    ("save_freq", "interrupted", "resumed", "order"),
    [
        # in the second epoch: begun anew, the first one is done
        ("epoch", 9, 6, "schedule first"),
        ("epoch", 9, 6, "backup first"),
        # saved in the second epoch, after 8 steps
        (4, 9, 8, "schedule first"),
        (4, 9, 8, "backup first"),
        (4, 5, 4, "backup first"),  # saved in the first epoch
        (5, 13, 10, "schedule first"),
    ],
)
def test_a_resumed_fit_has_the_rates_of_the_uninterrupted_one(
    tmp_path: Path, save_freq: Any, interrupted: int, resumed: int, order: str
) -> None:
    def callbacks() -> list[Any]:
        pair = [
            tfs.HyperparameterScheduler(SLOPE),
            keras.callbacks.BackupAndRestore(str(tmp_path / "b"), save_freq=save_freq),
        ]
        return pair if order == "schedule first" else pair[::-1]

    rates = interrupted_fit(momentum_model(), interrupted, *callbacks(), epochs=3)
    # The interruption comes before the reader's turn.
    same(rates, slope(0, interrupted - 1))
    # Keras begins the interrupted epoch anew, on top of the updates that were made.
    epochs_left = 3 - resumed // 6
    model = momentum_model()
    rates = fit(model, *callbacks(), epochs=3)
    same(rates, slope(resumed, resumed + 6 * epochs_left))
    assert patches(model) == []


def test_a_resumed_fit_is_followed_by_a_new_one(tmp_path: Path) -> None:
    """`BackupAndRestore` leaves `model._initial_epoch` behind, here as 0."""

    def callbacks() -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "b"), save_freq=4)
        return [tfs.HyperparameterScheduler(SLOPE), backup]

    interrupted_fit(momentum_model(), 5, *callbacks(), epochs=2)
    model = momentum_model()
    same(fit(model, *callbacks(), epochs=2), slope(4, 16))
    same(fit(model, tfs.HyperparameterScheduler(SLOPE)), slope(0, 6))


def test_a_backup_that_does_not_exist_yet_starts_at_0(tmp_path: Path) -> None:
    model = momentum_model()
    fit(model)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "b"), save_freq=4)
    same(fit(model, tfs.HyperparameterScheduler(SLOPE), backup), slope(0, 6))


def test_start_step_overrides_a_resumed_position(tmp_path: Path) -> None:
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "b"), save_freq=4)
    interrupted_fit(momentum_model(), 9, backup, epochs=2)
    callback = tfs.HyperparameterScheduler(SLOPE, start_step=3)
    same(fit(momentum_model(), callback, backup, epochs=2), slope(3, 9))


def test_a_loaded_model_goes_on_at_initial_epoch(tmp_path: Path) -> None:
    """To the bit: the uninterrupted fit ends with the same weights."""
    whole = momentum_model()
    same(fit(whole, tfs.OneCycle(0.5), epochs=3), one_cycle_values(0.5, 18)[0])

    path = str(tmp_path / "model.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    interrupted_fit(momentum_model(), 9, tfs.OneCycle(0.5), checkpoint, epochs=3)
    loaded = keras.saving.load_model(path)
    rates = fit(loaded, tfs.OneCycle(0.5), initial_epoch=1, epochs=3)
    same(rates, one_cycle_values(0.5, 18)[0][6:])
    for value, expected in zip(arrays(loaded), arrays(whole), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_initial_epoch_tells_where_the_optimizer_has_a_longer_history() -> None:
    model = momentum_model()
    fit(model, epochs=4)
    callback = tfs.HyperparameterScheduler(SLOPE)
    same(fit(model, callback, initial_epoch=1, epochs=2), slope(6, 12))


@pytest.mark.parametrize("before", [4, 9])  # updates: less than an epoch, and more
@pytest.mark.parametrize("killed_at", [9, 14])
def test_a_backup_is_gone_on_with_where_the_optimizer_has_a_longer_history(
    tmp_path: Path, before: int, killed_at: int
) -> None:
    """As a fine-tuning of a model that was loaded with its optimizer."""

    def loaded() -> keras.Model:
        model = momentum_model()
        for x, y in (BATCHES * 2)[:before]:
            model.train_on_batch(x, y)
        return model

    def callbacks() -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        return [tfs.HyperparameterScheduler(SLOPE), backup]

    interrupted_fit(loaded(), killed_at, *callbacks(), epochs=3)
    epoch = killed_at // 6
    same(fit(loaded(), *callbacks(), epochs=3), slope(6 * epoch, 18))


def test_a_position_within_gradient_accumulation() -> None:
    """Six batches to an epoch, four to an update: the ends do not fall together."""
    model = softmax_regression(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4))
    callback = tfs.HyperparameterScheduler(SLOPE)
    first = fit(model, callback)
    same(first, slope(0, 2)[[0, 0, 0, 0, 1, 1]])
    # Two batches wait for their update: it is the first of the new fit.
    second = fit(model, callback)
    same(second, slope(0, 2)[[0, 0, 1, 1, 1, 1]])


# One fit after another.


def test_a_second_fit_without_a_schedule_is_not_driven() -> None:
    model = momentum_model()
    fit(model, tfs.OneCycle(0.5))
    rates, momenta = one_cycle_values(0.5, 6)
    same(fit(model), [rates[-1]] * 6)  # stock callbacks leave the last rate, too
    model.optimizer.learning_rate = 0.05
    fit(model)
    expected = sgd_loop(
        BATCHES * 3,
        [*rates, *[rates[-1]] * 6, *[0.05] * 6],
        [*momenta, *[0.9] * 12],
    )
    assert relative_error(arrays(model), expected) < 1e-6
    assert patches(model) == []


def test_a_driven_fit_after_a_plain_one_is_driven() -> None:
    """The train function has been traced by then."""
    model = momentum_model()
    fit(model)
    fit(model, tfs.OneCycle(0.5))
    rates, momenta = one_cycle_values(0.5, 6)
    expected = sgd_loop(BATCHES * 2, [*[0.1] * 6, *rates], [*[0.9] * 6, *momenta])
    assert relative_error(arrays(model), expected) < 1e-6


def test_a_plain_fit_after_an_interrupted_one_is_not_driven() -> None:
    model = momentum_model()
    interrupted_fit(model, 3, tfs.OneCycle(0.5, total_steps=6))
    assert model.optimizer.momentum == 0.9
    model.optimizer.learning_rate = 0.05
    fit(model)
    assert patches(model) == []
    rates, momenta = one_cycle_values(0.5, 6)
    expected = sgd_loop(
        [*BATCHES[:3], *BATCHES],
        [*rates[:3], *[0.05] * 6],
        [*momenta[:3], *[0.9] * 6],
    )
    assert relative_error(arrays(model), expected) < 1e-6


def test_train_on_batch_after_an_interrupted_fit_is_not_driven() -> None:
    model = momentum_model()
    interrupted_fit(model, 3, tfs.OneCycle(0.5, total_steps=6))
    model.optimizer.learning_rate = 0.05
    for x, y in BATCHES[:2]:
        model.train_on_batch(x, y)
    assert patches(model) == []
    rates, momenta = one_cycle_values(0.5, 6)
    expected = sgd_loop(
        [*BATCHES[:3], *BATCHES[:2]],
        [*rates[:3], 0.05, 0.05],
        [*momenta[:3], 0.9, 0.9],
    )
    assert relative_error(arrays(model), expected) < 1e-6


@pytest.mark.parametrize("again", ["the same callback", "another"])
def test_a_driven_fit_after_an_interrupted_one(again: str) -> None:
    model, callback = momentum_model(), tfs.OneCycle(0.5, total_steps=6)
    interrupted_fit(model, 3, callback)
    if again == "another":
        callback = tfs.OneCycle(0.5, total_steps=6)
    fit(model, callback)
    rates, momenta = one_cycle_values(0.5, 6)
    expected = sgd_loop(
        [*BATCHES[:3], *BATCHES],
        [*rates[:3], *rates],
        [*momenta[:3], *momenta],
    )
    assert relative_error(arrays(model), expected) < 1e-6
    assert patches(model) == []


def test_a_recompiled_model_is_driven_and_let_go() -> None:
    model = momentum_model()
    first = model.optimizer
    interrupted_fit(model, 3, tfs.OneCycle(0.5, total_steps=6))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.8), model.loss)
    weights = arrays(model)
    fit(model, tfs.OneCycle(0.3))
    rates, momenta = one_cycle_values(0.3, 6)
    expected = sgd_loop(BATCHES, rates, momenta, weights=weights)
    assert relative_error(arrays(model), expected) < 1e-6
    assert patches(model) == []
    assert "apply" not in vars(first)
    assert (first.momentum, model.optimizer.momentum) == (0.9, 0.8)


def test_one_callback_on_two_models() -> None:
    callback = tfs.OneCycle(0.5)
    one, two = momentum_model(), softmax_regression(keras.optimizers.SGD(0.1))
    rates, momenta = one_cycle_values(0.5, 12)
    fit(one, callback, epochs=2)
    expected = sgd_loop(BATCHES * 2, rates, momenta)
    assert relative_error(arrays(one), expected) < 1e-6

    interrupted_fit(one, 3, callback, epochs=2)
    rates, _ = one_cycle_values(0.5, 6)
    fit(two, callback)
    assert relative_error(arrays(two), sgd_loop(BATCHES, rates)) < 1e-6
    assert patches(one) == patches(two) == []


def test_two_models_one_inside_the_other() -> None:
    """The second is fitted at the end of each epoch of the first, as in a GAN."""
    outer, inner = momentum_model(), momentum_model()

    class Inner(keras.callbacks.Callback):
        rates: list[float]

        def on_train_begin(self, logs: Any = None) -> None:
            self.rates = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            callback = tfs.HyperparameterScheduler(
                SLOPE, momentum=tfs.Constant(0.5), start_step=6 * epoch
            )
            self.rates.extend(fit(inner, callback))

    nested = Inner()
    rates, momenta = one_cycle_values(0.3, 12)
    same(fit(outer, tfs.OneCycle(0.3), nested, epochs=2), rates)
    same(np.array(nested.rates), slope(0, 12))
    expected = sgd_loop(BATCHES * 2, rates, momenta)
    assert relative_error(arrays(outer), expected) < 1e-6
    expected = sgd_loop(BATCHES * 2, slope(0, 12), [0.5] * 12)
    assert relative_error(arrays(inner), expected) < 1e-6
    assert patches(outer) == patches(inner) == []


def test_two_schedulers_on_different_hyperparameters() -> None:
    model = momentum_model()
    fit(
        model,
        tfs.HyperparameterScheduler(SLOPE),
        tfs.HyperparameterScheduler(momentum=tfs.Linear(0.5, 0.9, 5)),
    )
    expected = sgd_loop(BATCHES, slope(0, 6), line(0.5, 0.9, 5, 6))
    assert relative_error(arrays(model), expected) < 1e-6
    assert patches(model) == []
    assert model.optimizer.momentum == 0.9


def test_validation_does_not_disturb() -> None:
    model = momentum_model()
    rates = fit(model, tfs.OneCycle(0.5), validation_data=(X[:16], Y[:16]), epochs=2)
    expected, momenta = one_cycle_values(0.5, 12)
    same(rates, expected)
    reference = sgd_loop(BATCHES * 2, expected, momenta)
    assert relative_error(arrays(model), reference) < 1e-6
