"""What callbacks refuse, where they are made and when a fit begins."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    arrays,
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
    momentum_model,
    same,
    slope,
    untouched,
)

import tfschedules as tfs

# Many schedules here are longer or shorter than their fit, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The schedule of ")


# Refusals.


@pytest.mark.parametrize("value", [0.1, 1, "cosine", None, tfs.Constant, [0.1]])
def test_refuses_what_is_no_schedule(value: Any) -> None:
    with pytest.raises(TypeError, match=r"`momentum` must be a tfschedules\.Schedule"):
        tfs.HyperparameterScheduler(SLOPE, momentum=value)
    if value is not None:
        match = r"`learning_rate` must be a tfschedules\.Schedule\. Received: learning"
        with pytest.raises(TypeError, match=match):
            tfs.HyperparameterScheduler(value)


def test_keras_schedules_and_functions_are_followed() -> None:
    decay = keras.optimizers.schedules.CosineDecay(0.1, 12)
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
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        {"speed": SLOPE},
        r"SGD has no hyperparameter 'speed'.* It has: learning_rate, momentum\.",
    ),
    "unknown to Adam": (
        lambda: keras.optimizers.Adam(0.1, weight_decay=0.1),
        {"nesterov_momentum": SLOPE},
        "It has: learning_rate, beta_1, beta_2, epsilon, weight_decay",
    ),
    "momentum of plain SGD": (
        lambda: keras.optimizers.SGD(0.1),
        {"momentum": SLOPE},
        r"SGD was compiled with momentum=0\.0.*SGD\(momentum=0\.9\)",
    ),
    "momentum of plain RMSprop": (
        lambda: keras.optimizers.RMSprop(0.1),
        {"momentum": SLOPE},
        r"RMSprop was compiled with momentum=0\.0.*RMSprop\(momentum=0\.9\)",
    ),
    "momentum of Adagrad": (
        lambda: keras.optimizers.Adagrad(0.1),
        {"momentum": SLOPE},
        "Adagrad has no hyperparameter 'momentum'.* It has: learning_rate",
    ),
    "weight decay": (
        lambda: keras.optimizers.SGD(0.1),
        {"weight_decay": SLOPE},
        "SGD was compiled with weight_decay=None.*Compile it with",
    ),
    "weight decay, scaled": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
        {"weight_decay": SLOPE},
        "Adam was compiled with weight_decay=None",
    ),
    "a switch": (
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        {"nesterov": SLOPE},
        "SGD has no hyperparameter 'nesterov'.* It has: learning_rate, momentum",
    ),
    "a name": (
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        {"name": SLOPE},
        "SGD has no hyperparameter 'name'.* It has: learning_rate, momentum",
    ),
    "a count": (
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        {"gradient_accumulation_steps": SLOPE},
        "SGD has no hyperparameter 'gradient_accumulation_steps'",
    ),
    "a schedule already": (
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)),
        {"learning_rate": SLOPE},
        r"must be a number for a callback.*CosineDecay.*Compile with a float",
    ),
    "one good, one bad": (
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        {"learning_rate": SLOPE, "momentum": SLOPE, "speed": SLOPE},
        "SGD has no hyperparameter 'speed'",
    ),
    "twice under two names": (
        lambda: keras.optimizers.Adam(0.1),
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
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4)
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

    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
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
    inner = keras.optimizers.SGD(0.1, momentum=0.9)
    model = softmax_regression(keras.optimizers.LossScaleOptimizer(inner))
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
