"""`OneCycle`'s length, its momentum, and the warning of another length."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
    one_cycle_values,
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
    untouched,
)

import tfschedules as tfs

# Many schedules here are longer or shorter than their fit, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")


# OneCycle's length and its momentum.


def generator(rounds: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _ in range(rounds):
        yield from BATCHES


def test_one_cycles_default_length_is_that_of_the_fit() -> None:
    model, callback = momentum_model(), tfs.OneCycle(0.5)
    same(fit(model, callback, epochs=2), one_cycle_values(0.5, 12)[0])
    same(fit(model, callback, epochs=3), one_cycle_values(0.5, 18)[0])
    rates = fit(model, callback, x=generator(), steps_per_epoch=3, epochs=2)
    same(rates, one_cycle_values(0.5, 6)[0])


def test_one_cycles_default_length_counts_updates() -> None:
    model = softmax_regression(
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)
    )
    rates = fit(model, tfs.OneCycle(0.5), epochs=3)
    same(rates, np.repeat(one_cycle_values(0.5, 9)[0], 2))


# Keras says so of any data whose length it learns only when they end.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_one_cycle_needs_a_known_length() -> None:
    model = momentum_model()
    before = arrays(model)
    with pytest.raises(
        ValueError, match=r"not known before the first is over.*total_steps"
    ):
        fit(model, tfs.OneCycle(0.5), x=generator())
    untouched(model, before)
    rates = fit(model, tfs.OneCycle(0.5, total_steps=6), x=generator())
    same(rates, one_cycle_values(0.5, 6)[0])


@pytest.mark.parametrize(
    ("total", "consequence"), [(9, "stays as it is"), (15, "not be finished")]
)
def test_one_cycle_warns_of_another_length_than_the_fits(
    total: int, consequence: str
) -> None:
    model = momentum_model()
    with pytest.warns(
        UserWarning, match=rf"step {total - 1}, .* 12 steps: it .*{consequence}"
    ):
        rates = fit(model, tfs.OneCycle(0.5, total_steps=total), epochs=2)
    values = one_cycle_values(0.5, total)[0]
    same(rates, values[np.minimum(np.arange(12), total - 1)])


@contextlib.contextmanager
def told_of_lengths() -> Iterator[None]:
    """Errors out of warnings of lengths, which `pytestmark` hides in this file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The schedule of ")
        yield


def test_one_cycle_of_the_fits_own_length_does_not_warn() -> None:
    with told_of_lengths():
        fit(momentum_model(), tfs.OneCycle(0.5, total_steps=12), epochs=2)


@pytest.mark.parametrize("save_freq", ["epoch", 4])
def test_a_resumed_fit_of_the_schedules_own_length_does_not_warn(
    tmp_path: Path, save_freq: Any
) -> None:
    def callbacks() -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(
            str(tmp_path / "b"), save_freq=save_freq
        )
        return [tfs.HyperparameterScheduler(tfs.Linear(0.5, 0.0, 18)), backup]

    with told_of_lengths():
        interrupted_fit(momentum_model(), 9, *callbacks(), epochs=3)
        fit(momentum_model(), *callbacks(), epochs=3)
        fit(momentum_model(), *callbacks()[:1], epochs=3, initial_epoch=1)


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_one_cycle_of_a_very_short_fit_does_not_warn(updates: int) -> None:
    """In two steps the length is 1.4 - 0.4 = 0.9999999999999999, not 1."""
    short = {"x": X[: 8 * updates], "y": Y[: 8 * updates], "batch_size": 8}
    with told_of_lengths():
        assert len(fit(momentum_model(), tfs.OneCycle(0.5), **short)) == updates


def test_one_cycle_on_plain_sgd_drives_the_rate_alone() -> None:
    model = softmax_regression(keras.optimizers.SGD(0.1))
    variables = len(model.optimizer.variables)
    fit(model, tfs.OneCycle(0.5))
    expected = sgd_loop(BATCHES, one_cycle_values(0.5, 6)[0])
    assert relative_error(arrays(model), expected) < 1e-6
    assert model.optimizer.momentum == 0
    assert len(model.optimizer.variables) == variables


@pytest.mark.parametrize("kind", [keras.optimizers.RMSprop, keras.optimizers.Adagrad])
def test_one_cycle_on_other_optimizers_without_momentum(kind: Any) -> None:
    rates = fit(softmax_regression(kind(0.01)), tfs.OneCycle(0.05))
    same(rates, one_cycle_values(0.05, 6)[0])


def test_one_cycle_cycles_beta_1_of_adam() -> None:
    model = softmax_regression(keras.optimizers.Adam(0.01))
    fit(model, tfs.OneCycle(0.1))
    reference = softmax_regression(
        keras.optimizers.Adam(0.01), run_eagerly=True, jit_compile=False
    )
    rates, momenta = one_cycle_values(0.1, 6)
    for (x, y), rate, momentum in zip(BATCHES, rates, momenta, strict=True):
        reference.optimizer.learning_rate = float(rate)
        reference.optimizer.beta_1 = float(momentum)
        reference.train_on_batch(x, y)
    assert relative_error(arrays(model), arrays(reference)) < 2e-6
    assert model.optimizer.beta_1 == 0.9


def test_after_the_fit_the_rate_stays_and_momentum_is_back() -> None:
    model = momentum_model()
    fit(model, tfs.OneCycle(0.5))
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert rate == pytest.approx(0.5 / 25 / 1e4, rel=1e-6)
    assert model.optimizer.momentum == 0.9
    assert type(model.optimizer.momentum) is float


# Keras says so of any data whose length it learns only when they end.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_schedule_runs_on_data_of_unknown_length() -> None:
    callback = tfs.HyperparameterScheduler(SLOPE)
    same(fit(momentum_model(), callback, x=generator()), slope(0, 6))
