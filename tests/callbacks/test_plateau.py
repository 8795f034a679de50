"""Stock callbacks that set the rate, beside a schedule: what they do to it.

A reduction between epochs scales the schedule from there on; anything else is told of
and ignored; and nothing is told where nobody has touched the rate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, arrays, relative_error, sgd_loop, softmax_regression
from slope_fits import BATCHES, SLOPE, X, Y, fit, interrupted_fit, same, slope

import tfschedules as tfs

SGD = keras.optimizers.SGD
LEFT = "has set the learning rate while HyperparameterScheduler drives it"
# What is said of a reduction, and only that; all other warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")


def plain(**compiled: Any) -> keras.Model:
    return softmax_regression(SGD(0.1), **compiled)


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """The stock callback, on losses that fall at the epochs that are given."""

    def __init__(self, *better: int, factor: float = 0.5, min_lr: float = 0.0) -> None:
        super().__init__("loss", factor, patience=1, min_lr=min_lr, min_delta=0)
        self.better = better

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        loss = -float(epoch) if epoch in self.better else 1e3
        super().on_epoch_end(epoch, {"loss": loss})


def executions(values: np.ndarray, steps_per_execution: int) -> np.ndarray:
    """What is seen after each execution: here two to an epoch."""
    if steps_per_execution == 1:
        return values
    return values.reshape(-1, 6)[:, [3, 5]].ravel()


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_plateau_scales_the_schedule(order: str, steps_per_execution: int) -> None:
    # Epoch 0 is the best so far; 1 is not: a half from epoch 2 on; 2 is, and 3 is not.
    model = plain(steps_per_execution=steps_per_execution)
    pair = [tfs.HyperparameterScheduler(SLOPE), Plateau(0, 2)]
    with pytest.warns(UserWarning, match=LEFT) as told:
        rates = fit(model, *(pair if order == "before" else pair[::-1]), epochs=5)
    values = slope(0, 30) * np.repeat([1, 1, 0.5, 0.5, 0.25], 6)
    same(rates, executions(values, steps_per_execution))
    assert relative_error(arrays(model), sgd_loop(BATCHES * 5, values)) < 1e-6
    said = [str(one.message) for one in told if LEFT in str(one.message)]
    assert len(said) == 2
    assert all("goes on at 0.5 times its height" in text for text in said)


def test_the_next_fit_has_the_whole_schedule_again() -> None:
    model, callback = plain(), tfs.HyperparameterScheduler(SLOPE)
    with pytest.warns(UserWarning, match=LEFT):
        fit(model, callback, Plateau(0), epochs=3)
    same(fit(model, callback, epochs=2), slope(0, 12))


@pytest.mark.parametrize("rate", [0.6, 0.0])
def test_a_rate_that_another_callback_insists_on_is_told_of(rate: float) -> None:
    def always(epoch: int, now: float) -> float:
        return rate

    stock = keras.callbacks.LearningRateScheduler(always)
    # First in the list, so that the schedule begins with its own value.
    with pytest.warns(UserWarning, match=LEFT) as told:
        rates = fit(plain(), stock, tfs.HyperparameterScheduler(SLOPE), epochs=3)
    same(rates, slope(0, 18))
    assert sum(LEFT in str(one.message) for one in told) == 2
    assert "is ignored" in str([str(one.message) for one in told])


def test_a_schedule_that_is_0_at_an_epochs_end() -> None:
    """There is nothing to reduce: a plateau changes nothing, and nothing is told."""
    cycles = tfs.Repeat(tfs.Linear(0.5, 0.0, 5), 6)  # 0 at the last step of an epoch
    rates = fit(plain(), tfs.HyperparameterScheduler(cycles), Plateau(0), epochs=3)
    same(rates, np.tile(np.linspace(0.5, 0, 6), 3))


# No false alarm. -------------------------------------------------------------------


def test_not_where_a_plateau_only_watches() -> None:
    same(
        fit(plain(), tfs.HyperparameterScheduler(SLOPE), Plateau(0, 1, 2), epochs=3),
        slope(0, 18),
    )


@pytest.mark.parametrize(
    "schedule",
    [
        tfs.warm_restarts(0.5, 6),
        tfs.warm_restarts(0.5, 5, cycle_mult=1.5, peak_decay=0.5),
        tfs.cyclical(0.0, 0.5, 3),
        tfs.cyclical(1e-9, 0.5, 6, window="hann"),
        tfs.one_cycle(0.5, 18)["learning_rate"],
        tfs.Cosine(0.5, 0.0, 6),
        tfs.Polynomial(0.5, 0.0, 18, 4),
        tfs.Exponential(0.5, 1e-30, 18),
        tfs.InverseSqrt(0.5, 3),
        tfs.Piecewise([6, 12], [0.5, 0.25, 1e-3]),
    ],
    ids=repr,
)
def test_not_in_ordinary_fits(schedule: Any) -> None:
    model, callback = plain(), tfs.HyperparameterScheduler(schedule)
    for _ in range(2):
        rates = fit(model, callback, epochs=3)
        np.testing.assert_allclose(rates, schedule.values(18), rtol=4e-6, atol=1e-37)


@pytest.mark.parametrize("accumulate", [2, 4, 5, 7])
def test_not_with_gradient_accumulation(accumulate: int) -> None:
    """Where an update is made of batches of two epochs, too."""
    model = softmax_regression(SGD(0.1, gradient_accumulation_steps=accumulate))
    rates = fit(model, tfs.HyperparameterScheduler(SLOPE), epochs=4)
    same(rates, slope(0, 24)[np.arange(24) // accumulate])


def test_not_for_a_users_cosine_near_its_end() -> None:
    """1 + cos in float32 is off by half where NumPy's has all its digits."""

    def function(step: Any) -> Any:
        return 0.05 * (1 + keras.ops.cos(np.pi * (step % 1000) / 1000))

    x, y = np.tile(X, (21, 1))[:1000], np.tile(Y, 21)[:1000]
    callback = tfs.HyperparameterScheduler(function)
    rates = fit(plain(), callback, x=x, y=y, batch_size=1, epochs=2)
    np.testing.assert_allclose(rates[[0, 1, 1000, 1001]], 0.1, rtol=1e-5)


@pytest.mark.parametrize("save_freq", ["epoch", 4])
def test_not_in_a_resumed_fit(tmp_path: Path, save_freq: Any) -> None:
    def callbacks() -> list[Any]:
        folder = str(tmp_path / "b")
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
        return [tfs.HyperparameterScheduler(SLOPE), backup]

    interrupted_fit(plain(), 10, *callbacks(), epochs=4)
    rates = fit(plain(), *callbacks(), epochs=4)
    begin = 6 if save_freq == "epoch" else 8
    same(rates, slope(begin, begin + 18))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_not_under_loss_scaling_where_steps_are_skipped(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1))
        model = softmax_regression(optimizer)
        x = X.copy()
        x[40:] = np.nan  # the last step of each epoch is skipped
        callback = tfs.HyperparameterScheduler(SLOPE)
        rates = fit(model, callback, x=x, y=Y, batch_size=8, epochs=3)
    finally:
        keras.config.set_dtype_policy(before)
    assert int(model.optimizer.iterations) == 15
    seen = [*range(5), 4, *range(5, 10), 9, *range(10, 15), 14]
    # On JAX the assignment of a skipped step is dropped with the step.
    same(rates, slope(0, 15)[seen])
    assert BACKEND in ("tensorflow", "jax")
