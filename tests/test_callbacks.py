"""Schedules in `fit`: position, one fit after another, and refusals."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    Interrupt,
    Rates,
    arrays,
    digits,
    in_batches,
    line,
    one_cycle_values,
    patches,
    relative_error,
    sgd_loop,
    softmax_regression,
)

import tfschedules as tfs

optimizers = keras.optimizers

X, Y = digits(48)
BATCHES = in_batches(X, Y, 8)  # six to an epoch
SLOPE = tfs.Linear(0.5, 0.02, 30)

# Many schedules here are longer or shorter than their fit, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")


def slope(first: int, last: int) -> np.ndarray:
    """What SLOPE is at the steps `first` … `last` - 1."""
    return line(0.5, 0.02, 30, last)[first:]


def fit(
    model: keras.Model, *callbacks: keras.callbacks.Callback, **arguments: Any
) -> np.ndarray:
    """Fit in a fixed order; return the rate that was read after each step."""
    reader = Rates()
    data = {} if "x" in arguments else {"x": X, "y": Y, "batch_size": 8}
    try:
        model.fit(
            **data,
            **{"verbose": 0, "shuffle": False, **arguments},
            callbacks=[*callbacks, reader],
        )
    finally:
        fit.rates = np.array(reader.rates)  # type: ignore[attr-defined]
    return np.array(reader.rates)


def interrupted_fit(
    model: keras.Model, steps: int, *callbacks: Any, **arguments: Any
) -> np.ndarray:
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, *callbacks, Interrupt(steps), **arguments)
    return fit.rates  # type: ignore[attr-defined]


def momentum_model(**compile_arguments: Any) -> keras.Model:
    return softmax_regression(optimizers.SGD(0.1, momentum=0.9), **compile_arguments)


def same(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-6)


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
    model = softmax_regression(optimizers.SGD(0.1, gradient_accumulation_steps=4))
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
    model.compile(optimizers.SGD(0.1, momentum=0.8), model.loss)
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
    one, two = momentum_model(), softmax_regression(optimizers.SGD(0.1))
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
        optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)
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
    model = softmax_regression(optimizers.SGD(0.1))
    variables = len(model.optimizer.variables)
    fit(model, tfs.OneCycle(0.5))
    expected = sgd_loop(BATCHES, one_cycle_values(0.5, 6)[0])
    assert relative_error(arrays(model), expected) < 1e-6
    assert model.optimizer.momentum == 0
    assert len(model.optimizer.variables) == variables


@pytest.mark.parametrize("kind", [optimizers.RMSprop, optimizers.Adagrad])
def test_one_cycle_on_other_optimizers_without_momentum(kind: Any) -> None:
    rates = fit(softmax_regression(kind(0.01)), tfs.OneCycle(0.05))
    same(rates, one_cycle_values(0.05, 6)[0])


def test_one_cycle_cycles_beta_1_of_adam() -> None:
    model = softmax_regression(optimizers.Adam(0.01))
    fit(model, tfs.OneCycle(0.1))
    reference = softmax_regression(
        optimizers.Adam(0.01), run_eagerly=True, jit_compile=False
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


# Refusals.


def untouched(model: keras.Model, weights: list[np.ndarray]) -> None:
    """Nothing was changed, and the model still trains."""
    assert patches(model) == []
    for value, expected in zip(arrays(model), weights, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("value", [0.1, 1, "cosine", None, tfs.Constant, [0.1]])
def test_refuses_what_is_no_schedule(value: Any) -> None:
    with pytest.raises(TypeError, match=r"`momentum` must be a tfschedules\.Schedule"):
        tfs.HyperparameterScheduler(SLOPE, momentum=value)
    if value is not None:
        match = r"`learning_rate` must be a tfschedules\.Schedule\. Received: learning"
        with pytest.raises(TypeError, match=match):
            tfs.HyperparameterScheduler(value)


def test_keras_schedules_and_functions_are_followed() -> None:
    decay = optimizers.schedules.CosineDecay(0.1, 12)
    expected = 0.1 * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
    same(fit(momentum_model(), tfs.HyperparameterScheduler(decay), epochs=2), expected)

    def inverse(step):
        return 0.1 / (1 + step)

    expected = 0.1 / (1 + np.arange(12))
    callback = tfs.HyperparameterScheduler(inverse)
    same(fit(momentum_model(), callback, epochs=2), expected)
    with pytest.raises(ValueError, match=r"inverse.* cannot be saved: it is not regis"):
        callback.schedules["learning_rate"].get_config()


def test_refuses_the_dictionary_and_says_how_to_unpack_it() -> None:
    with pytest.raises(TypeError, match=r"unpack it with \*\*"):
        tfs.HyperparameterScheduler(tfs.one_cycle(0.1, 100))


@pytest.mark.parametrize(
    ("callbacks", "shown"),
    [
        ([tfs.Cosine(0.1, 0.0, 9)], r"Cosine\(start=0\.1"),
        ([tfs.warm_restarts(0.1, tfs.epochs(1))], r"warm_restarts\(max_lr=0\.1"),
        (tfs.one_cycle(0.1, 9), r"Join\("),
    ],
)
def test_a_schedule_among_the_callbacks_is_told_where_to_go(
    callbacks: Any, shown: str
) -> None:
    way_out = r"callbacks=\[tfs\.HyperparameterScheduler\(learning_rate=schedule\)\]"
    with pytest.raises(AttributeError, match=f"{way_out}.*Received: {shown}"):
        momentum_model().fit(X, Y, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize(
    ("callback", "shown"),
    [
        (lambda: tfs.OneCycle(0.1), "OneCycle(max_lr=0.1)"),
        (
            lambda: tfs.WarmRestarts(0.1, tfs.epochs(1), cycle_mult=2),
            "WarmRestarts(max_lr=0.1, first_cycle=epochs(1.0), cycle_mult=2)",
        ),
        (
            lambda: tfs.HyperparameterScheduler(
                tfs.Constant(0.1), start_step=3, momentum=tfs.Constant(0.9)
            ),
            "HyperparameterScheduler(learning_rate=Constant(value=0.1), start_step=3, "
            "momentum=Constant(value=0.9))",
        ),
        (lambda: tfs.RangeTest(steps=50), "RangeTest(steps=50)"),
        (lambda: tfs.TensorBoardLogger("logs"), "TensorBoardLogger(log_dir='logs')"),
        (lambda: tfs.SnapshotEnsemble("kept", 3), "max_to_keep=3)"),
        (
            lambda: tfs.GradualUnfreezing([tfs.LayerGroup("all", ".")]),
            "GradualUnfreezing(groups=[LayerGroup(name='all', layers='.', ",
        ),
        (lambda: pickle.loads(pickle.dumps(tfs.OneCycle(0.1))), "OneCycle(max_lr=0.1)"),
        (lambda: copy.copy(tfs.OneCycle(0.1)), "OneCycle(max_lr=0.1)"),
    ],
)
def test_a_callback_shows_what_it_was_made_with(
    callback: Callable[[], Any], shown: str
) -> None:
    assert shown in repr(callback())


def test_what_is_long_is_shown_in_short() -> None:
    test = tfs.RangeTest(validation_data=(X, Y))
    assert repr(test).startswith("RangeTest(validation_data=(array([[0.")
    assert len(repr(test)) < 150


def test_refuses_to_follow_nothing() -> None:
    with pytest.raises(ValueError, match=r"needs a schedule.*Received: none"):
        tfs.HyperparameterScheduler()


@pytest.mark.parametrize(
    ("start_step", "error", "rule"),
    [
        (-1, ValueError, ">= 0"),
        (2.5, ValueError, "a whole number"),
        (float("nan"), ValueError, "finite"),
        (float("inf"), ValueError, "finite"),
        ("3", TypeError, "a number"),
        (True, TypeError, "a number"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda start_step: tfs.HyperparameterScheduler(SLOPE, start_step=start_step),
        lambda start_step: tfs.OneCycle(0.1, start_step=start_step),
        lambda start_step: tfs.CyclicalLearningRate(
            0.1, 0.2, 10, start_step=start_step
        ),
        lambda start_step: tfs.WarmRestarts(0.1, 10, start_step=start_step),
    ],
    ids=["scheduler", "one-cycle", "cyclical", "restarts"],
)
def test_refuses_a_start_step(
    make: Any, start_step: Any, error: type[Exception], rule: str
) -> None:
    match = rf"`start_step` must be {rule}.*Received: start_step={start_step!r}"
    with pytest.raises(error, match=match):
        make(start_step)


def swept() -> tfs.RangeTestResult:
    """What a range test returns, of which `max_lr` is a part."""
    rates = np.geomspace(1e-4, 1, 50)
    return tfs.RangeTestResult.from_sweep(rates, 1 / (1 + rates) + rates, steps=50)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tfs.OneCycle(-0.1), "`max_lr` must be > 0"),
        (lambda: tfs.OneCycle(True), "`max_lr` must be a number"),
        (lambda: tfs.OneCycle(0.1, total_steps=0), "`total_steps` must be >= 1"),
        (lambda: tfs.OneCycle(0.1, pct_start=1.5), "`pct_start` must be <= 1"),
        (lambda: tfs.OneCycle(0.1, anneal="sine"), "`anneal` must be one of"),
        (lambda: tfs.CyclicalLearningRate(0.2, 0.1, 10), "`base_lr` must be <="),
        (lambda: tfs.CyclicalLearningRate(0.1, 0.2, 10, "saw"), "`mode` must be one"),
        (lambda: tfs.WarmRestarts(float("nan"), 10), "`max_lr` must be finite"),
        (lambda: tfs.WarmRestarts(0.1, "10"), "`first_cycle` must be a number"),
        (
            lambda: tfs.WarmRestarts(0.1, 0.5),
            r"Received: first_cycle=0\.5\. Or .*epochs",
        ),
        (lambda: tfs.OneCycle(0.1, 2.5), r"Received: total_steps=2\.5\. Or .*epochs"),
        (lambda: tfs.OneCycle(None), "`max_lr` must be .*suggests no rate.*reason"),
        (
            lambda: tfs.OneCycle(swept()),
            "`max_lr` must be .*For a rate give result.suggestion",
        ),
        (lambda: tfs.WarmRestarts(swept(), 9), "`max_lr` must .*give result.sugg"),
        (lambda: tfs.Cosine(swept(), 0, 9), "`start` must .*give result.suggestion"),
        (
            lambda: tfs.HyperparameterScheduler(tfs.OneCycle(0.1)),
            r"Received: learning_rate=OneCycle\(max_lr=0\.1\)\. A callback goes into",
        ),
        (
            lambda: tfs.warmup(tfs.OneCycle(0.1), 9),
            r"Received: schedule=OneCycle\(max_lr=0\.1\)\. A callback goes into",
        ),
    ],
)
def test_refuses_bad_arguments_where_the_callback_is_made(
    make: Any, match: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()


REFUSED_IN_FIT = {
    "unknown": (
        lambda: optimizers.SGD(0.1, momentum=0.9),
        {"speed": SLOPE},
        r"SGD has no hyperparameter 'speed'.* It has: learning_rate, momentum\.",
    ),
    "unknown to Adam": (
        lambda: optimizers.Adam(0.1, weight_decay=0.1),
        {"nesterov_momentum": SLOPE},
        "It has: learning_rate, beta_1, beta_2, epsilon, weight_decay",
    ),
    "momentum of plain SGD": (
        lambda: optimizers.SGD(0.1),
        {"momentum": SLOPE},
        r"SGD was compiled with momentum=0\.0.*SGD\(momentum=0\.9\)",
    ),
    "momentum of plain RMSprop": (
        lambda: optimizers.RMSprop(0.1),
        {"momentum": SLOPE},
        r"RMSprop was compiled with momentum=0\.0.*RMSprop\(momentum=0\.9\)",
    ),
    "momentum of Adagrad": (
        lambda: optimizers.Adagrad(0.1),
        {"momentum": SLOPE},
        "Adagrad has no hyperparameter 'momentum'.* It has: learning_rate",
    ),
    "weight decay": (
        lambda: optimizers.SGD(0.1),
        {"weight_decay": SLOPE},
        "SGD was compiled with weight_decay=None.*Compile it with",
    ),
    "weight decay, scaled": (
        lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.1)),
        {"weight_decay": SLOPE},
        "Adam was compiled with weight_decay=None",
    ),
    "a switch": (
        lambda: optimizers.SGD(0.1, momentum=0.9),
        {"nesterov": SLOPE},
        "SGD has no hyperparameter 'nesterov'.* It has: learning_rate, momentum",
    ),
    "a name": (
        lambda: optimizers.SGD(0.1, momentum=0.9),
        {"name": SLOPE},
        "SGD has no hyperparameter 'name'.* It has: learning_rate, momentum",
    ),
    "a count": (
        lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
        {"gradient_accumulation_steps": SLOPE},
        "SGD has no hyperparameter 'gradient_accumulation_steps'",
    ),
    "a schedule already": (
        lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 100)),
        {"learning_rate": SLOPE},
        r"must be a number for a callback.*CosineDecay.*Compile with a float",
    ),
    "one good, one bad": (
        lambda: optimizers.SGD(0.1, momentum=0.9),
        {"learning_rate": SLOPE, "momentum": SLOPE, "speed": SLOPE},
        "SGD has no hyperparameter 'speed'",
    ),
    "twice under two names": (
        lambda: optimizers.Adam(0.1),
        {"momentum": SLOPE, "beta_1": SLOPE},
        "'beta_1' of Adam is driven already",
    ),
}


@pytest.mark.parametrize("name", REFUSED_IN_FIT)
def test_refuses_in_fit_before_anything_is_changed(name: str) -> None:
    make, schedules, match = REFUSED_IN_FIT[name]
    model = softmax_regression(make())
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    weights, attributes = arrays(model), dict(vars(optimizer))
    rate = keras.ops.convert_to_numpy(optimizer.learning_rate)
    with pytest.raises(ValueError, match=match):
        fit(model, tfs.HyperparameterScheduler(**schedules))
    untouched(model, weights)
    assert vars(optimizer) == attributes
    assert keras.ops.convert_to_numpy(optimizer.learning_rate) == rate


def test_refuses_two_schedulers_on_one_hyperparameter() -> None:
    model = momentum_model()
    weights = arrays(model)
    with pytest.raises(ValueError, match="'learning_rate' of SGD is driven already"):
        fit(model, tfs.OneCycle(0.5), tfs.HyperparameterScheduler(SLOPE))
    for value, expected in zip(arrays(model), weights, strict=True):
        np.testing.assert_array_equal(value, expected)
    # The first one is let go of by the next fit.
    model.optimizer.learning_rate = 0.1
    same(fit(model), [0.1] * 6)
    assert patches(model) == []
    assert relative_error(arrays(model), sgd_loop(BATCHES, [0.1] * 6, [0.9] * 6)) < 1e-6


def test_refuses_a_model_that_is_not_compiled() -> None:
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match=r"compile\(\)"):
        model.fit(X, Y, verbose=0, callbacks=[tfs.OneCycle(0.5)])
    assert "make_train_function" not in vars(model)


def test_a_train_function_made_anew_inside_a_fit_is_driven_on() -> None:
    class Remake(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.make_train_function(force=True)

    model = momentum_model()
    rates = fit(model, tfs.HyperparameterScheduler(SLOPE), Remake(), epochs=3)
    same(rates, SLOPE.values(18))
    assert "make_train_function" not in vars(model)


def test_a_remainder_of_accumulated_batches_is_no_plateau() -> None:
    optimizer = optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4)
    model = softmax_regression(optimizer)
    slope = tfs.Linear(0.1, 0.0, 10)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Another callback has set")
        rates = fit(model, tfs.HyperparameterScheduler(slope), epochs=4)
    same(rates, slope.values(np.arange(24) // 4))


def test_an_optimizer_left_driven_by_an_interrupted_fit_serves_another_model() -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt("here")

    optimizer = optimizers.SGD(0.1, momentum=0.9)
    first = softmax_regression(optimizer)
    with pytest.raises(KeyboardInterrupt, match="here"):
        fit(first, tfs.HyperparameterScheduler(SLOPE), Stop())
    second = keras.Model(first.inputs, first.outputs)
    second.compile(optimizer, first.loss)
    rates = fit(second, tfs.HyperparameterScheduler(tfs.Constant(0.25)))
    same(rates, np.full(6, 0.25))
    assert "apply" not in vars(optimizer)


def test_a_model_with_another_optimizer_of_its_own_is_warned_of() -> None:
    model = momentum_model()

    class Frozen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            self.model.optimizer.iterations.assign(0)

    with pytest.warns(UserWarning, match="has made no update in this epoch"):
        fit(model, Frozen(), tfs.HyperparameterScheduler(SLOPE))


def test_an_epoch_that_a_loss_scale_skips_is_told() -> None:
    """Gradients of about 1e38, times a scale of 2^15, have no place in float32."""
    inner = optimizers.SGD(0.1, momentum=0.9)
    model = softmax_regression(optimizers.LossScaleOptimizer(inner))
    with pytest.warns(UserWarning, match="no update in this epoch.*loss scale.*skip"):
        fit(model, tfs.HyperparameterScheduler(SLOPE), x=X * 1e38, y=Y, batch_size=8)
    assert int(keras.ops.convert_to_numpy(inner.iterations)) == 0


def test_what_an_earlier_fit_has_left_puts_no_fit_back(tmp_path: Path) -> None:
    """That fit had no callback of this package: nothing was known of its end."""
    model, path = momentum_model(), tmp_path / "backup"
    for _ in range(2):  # the second is put back at epoch 1
        backup = keras.callbacks.BackupAndRestore(path, delete_checkpoint=False)
        fit(model, backup, epochs=1)
    assert model._initial_epoch == 1
    model._initial_epoch = 0  # as a backup within the first epoch leaves it
    rates = fit(model, tfs.HyperparameterScheduler(SLOPE), epochs=1)
    same(rates, slope(0, 6))
    assert model._initial_epoch == 0
