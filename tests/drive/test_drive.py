"""Hyperparameters that follow schedules, against loops without tfschedules.

Weights are compared norm-wise: ‖actual − expected‖ / ‖expected‖ over all weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    Batches,
    Rates,
    arrays,
    digits,
    in_batches,
    initial_weights,
    line,
    one_cycle_values,
    patches,
    relative_error,
    sgd_loop,
    softmax_regression,
)
from small_network import STEPS, python_loop, small_data, small_network

import tfschedules as tfs

optimizers = keras.optimizers


# One-cycle on softmax regression, against a float64 NumPy loop.


@pytest.mark.parametrize(
    ("nesterov", "jit_compile"),
    [(False, False), (True, False), (True, True)],
    ids=["heavy-ball", "nesterov", "nesterov-jit"],
)
def test_one_cycle_equals_a_numpy_loop_for_any_steps_per_execution(
    nesterov: bool, jit_compile: bool
) -> None:
    x, y = digits()
    epochs, batches = 2, in_batches(x, y, 60)
    assert len(batches) == 30  # the blocks of 4 and of 7 leave a remainder of 2
    assert len(batches[-1][0]) == 57
    rates, momenta = one_cycle_values(0.5, 60)
    expected = sgd_loop(batches * epochs, rates, momenta, nesterov=nesterov)

    results = []
    for steps_per_execution in [1, 4] if jit_compile else [1, 4, 7]:
        model = softmax_regression(
            optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov),
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
        )
        model.fit(
            x,
            y,
            batch_size=60,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[tfs.OneCycle(0.5)],
        )
        assert relative_error(arrays(model), expected) < 1e-6
        results.append(arrays(model))
    for other in results[1:]:
        for value, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(value, same)


def test_the_loops_own_sensitivity() -> None:
    """One step off, or momentum left alone: far more than the tolerance above."""
    batches = in_batches(*digits(), 60)
    rates, momenta = one_cycle_values(0.5, 30)
    expected = sgd_loop(batches, rates, momenta)
    for other in [
        sgd_loop(batches, np.roll(rates, 1), momenta),
        sgd_loop(batches, rates, np.roll(momenta, 1)),
        sgd_loop(batches, rates, np.full(30, 0.9)),
        sgd_loop(batches, rates, momenta, nesterov=True),
    ]:
        assert relative_error(other, expected) > 1e-3


# Every optimizer, against a Python loop that sets its attributes before each step.

# name: (class, arguments, rate at the start, what momentum means or None)
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any], float, str | None]] = {
    "SGD": (optimizers.SGD, {}, 0.5, None),
    "SGD-momentum": (optimizers.SGD, {"momentum": 0.9}, 0.2, "momentum"),
    "SGD-nesterov": (
        optimizers.SGD,
        {"momentum": 0.9, "nesterov": True},
        0.2,
        "momentum",
    ),
    "Adam": (optimizers.Adam, {}, 0.02, "beta_1"),
    "Adam-amsgrad": (optimizers.Adam, {"amsgrad": True}, 0.02, "beta_1"),
    "AdamW": (optimizers.AdamW, {}, 0.02, "beta_1"),
    "RMSprop": (optimizers.RMSprop, {}, 0.02, None),
    "RMSprop-momentum": (optimizers.RMSprop, {"momentum": 0.9}, 0.005, "momentum"),
    "RMSprop-centered": (
        optimizers.RMSprop,
        {"momentum": 0.9, "centered": True},
        0.005,
        "momentum",
    ),
    "Nadam": (optimizers.Nadam, {}, 0.02, "beta_1"),
    "Adamax": (optimizers.Adamax, {}, 0.02, "beta_1"),
    "Adagrad": (optimizers.Adagrad, {}, 0.1, None),
    "Adadelta": (optimizers.Adadelta, {}, 5.0, None),
    "Lion": (optimizers.Lion, {}, 0.005, "beta_1"),
    "Lamb": (optimizers.Lamb, {}, 0.02, "beta_1"),
    "Adafactor": (optimizers.Adafactor, {}, 0.1, None),
    "Ftrl": (optimizers.Ftrl, {}, 0.5, None),
}
if hasattr(optimizers, "Muon"):  # since Keras 3.10
    OPTIMIZERS["Muon"] = (optimizers.Muon, {}, 0.02, "momentum")


def driven_fit(
    optimizer: Any, schedules: dict[str, Any], batches: Batches
) -> keras.Model:
    model = small_network(optimizer)
    model.fit(
        np.concatenate([x for x, _ in batches]),
        np.concatenate([y for _, y in batches]),
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.HyperparameterScheduler(**schedules)],
    )
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_equals_a_python_loop(name: str) -> None:
    kind, arguments, rate, momentum = OPTIMIZERS[name]
    ends = {"learning_rate": (rate, rate / 5), "weight_decay": (0.01, 0.3)}
    if momentum:
        ends["momentum"] = (0.95, 0.7)
    schedules = {key: tfs.Linear(*values, 5) for key, values in ends.items()}
    settings = {
        str(momentum) if key == "momentum" else key: line(*values, 5, STEPS)
        for key, values in ends.items()
    }
    batches = small_data()

    def optimizer() -> Any:
        return kind(learning_rate=0.04, **{"weight_decay": 0.02, **arguments})

    expected = python_loop(optimizer(), settings, batches)
    model = driven_fit(optimizer(), schedules, batches)
    assert relative_error(arrays(model), expected) < 2e-6
    assert int(model.optimizer.iterations) == STEPS
    assert patches(model) == []

    # Each of them matters here: left alone, it leads elsewhere.
    for left_alone in settings:
        others = {key: settings[key] for key in settings if key != left_alone}
        elsewhere = python_loop(optimizer(), others, batches)
        assert relative_error(elsewhere, expected) > 2e-4, left_alone


@pytest.mark.parametrize(
    ("kind", "arguments", "ends"),
    [
        (optimizers.Adadelta, {}, {"rho": (0.95, 0.5)}),
        (optimizers.RMSprop, {}, {"rho": (0.9, 0.5), "epsilon": (1e-7, 0.1)}),
        (optimizers.Adam, {}, {"beta_2": (0.999, 0.9), "epsilon": (1e-7, 0.1)}),
        (optimizers.Adam, {}, {"beta_1": (0.95, 0.7)}),
        (optimizers.SGD, {"clipnorm": 1.0}, {"clipnorm": (0.1, 0.5)}),
        (optimizers.SGD, {"global_clipnorm": 1.0}, {"global_clipnorm": (0.1, 0.5)}),
        (optimizers.SGD, {"clipvalue": 1.0}, {"clipvalue": (0.01, 0.05)}),
        (
            optimizers.Ftrl,
            {"l1_regularization_strength": 0.01},
            {"l1_regularization_strength": (0.01, 0.1)},
        ),
        pytest.param(
            getattr(optimizers, "Muon", None),
            {},
            {"adam_lr_ratio": (1.0, 2.0), "rms_rate": (0.2, 0.4)},
            marks=pytest.mark.skipif(
                not hasattr(optimizers, "Muon"), reason="Keras has Muon since 3.10"
            ),
        ),
    ],
)
def test_any_other_hyperparameter_equals_a_python_loop(
    kind: Any, arguments: dict[str, Any], ends: dict[str, tuple[float, float]]
) -> None:
    schedules = {key: tfs.Linear(*values, 5) for key, values in ends.items()}
    settings = {key: line(*values, 5, STEPS) for key, values in ends.items()}
    batches = small_data()
    expected = python_loop(kind(0.05, **arguments), settings, batches)
    model = driven_fit(kind(0.05, **arguments), schedules, batches)
    assert relative_error(arrays(model), expected) < 5e-6
    elsewhere = python_loop(kind(0.05, **arguments), {}, batches)
    assert relative_error(elsewhere, expected) > 1e-5


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ("float32", "SGD-momentum"),
        ("mixed_float16", "SGD-momentum"),
        ("mixed_float16", "Adam"),
        ("mixed_bfloat16", "Adam"),
    ],
    indirect=["policy"],
)
def test_mixed_precision_and_loss_scaling(policy: str, kind: str) -> None:
    """The reference is compiled anew for each step: it has the same roundings."""
    make, arguments, rate, momentum = OPTIMIZERS[kind]
    assert momentum
    batches = small_data()[:3]

    def optimizer() -> Any:
        inner = make(0.05, weight_decay=0.02, **arguments)
        # Keras wraps it by itself under mixed_float16.
        return optimizers.LossScaleOptimizer(inner) if policy == "float32" else inner

    ends = {
        "learning_rate": (rate, rate / 5),
        "momentum": (0.95, 0.7),
        "weight_decay": (0.01, 0.3),
    }
    schedules = {key: tfs.Linear(*values, 2) for key, values in ends.items()}
    settings = {
        momentum if key == "momentum" else key: line(*values, 2, 3)
        for key, values in ends.items()
    }
    expected = python_loop(optimizer(), settings, batches, retrace=True)
    model = driven_fit(optimizer(), schedules, batches)
    scaled = isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    assert scaled == (policy != "mixed_bfloat16")
    tolerance = 1e-6 if policy == "float32" else 1e-4
    assert relative_error(arrays(model), expected) < tolerance
    del settings[momentum]
    elsewhere = python_loop(optimizer(), settings, batches, retrace=True)
    assert relative_error(elsewhere, expected) > 10 * tolerance
    assert patches(model) == []


# What the optimizer looks like from outside.


def looks(optimizer: Any) -> dict[str, Any]:
    """Everything about an optimizer that training must not change."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    config = optimizer.get_config()
    config.pop("learning_rate")
    attributes = vars(optimizer)
    plain = (int, float, str, bool, type(None))
    return {
        "variables": [(value.path, value.shape) for value in optimizer.variables],
        "config": config,
        "names": sorted(attributes.keys() - {"apply"}),
        # The exact type too: a subclass of float is not a float to everyone.
        "plain": {
            name: (type(value), value)
            for name, value in attributes.items()
            if isinstance(value, plain)
        },
    }


class Looks(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(looks(self.model.optimizer))


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1, momentum=0.9),
        lambda: optimizers.AdamW(0.01),
        lambda: optimizers.LossScaleOptimizer(optimizers.Nadam(0.01, weight_decay=0.1)),
    ],
    ids=["SGD", "AdamW", "scaled Nadam"],
)
def test_the_optimizer_looks_the_same_before_during_and_after(make: Any) -> None:
    x, y = digits(48)
    model = softmax_regression(make())
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    schedules = {"momentum": tfs.Linear(0.95, 0.7, 6)}
    if inner.weight_decay is not None:
        schedules["weight_decay"] = tfs.Linear(0.0, 0.1, 6)
    # Keras's optimizers make a cache of their own in the first step.
    model.train_on_batch(x[:8], y[:8])
    before, variables = looks(model.optimizer), model.optimizer.variables
    observer = Looks()
    model.fit(
        x,
        y,
        batch_size=8,
        verbose=0,
        callbacks=[
            tfs.HyperparameterScheduler(tfs.Linear(0.1, 0.0, 6), **schedules),
            observer,
        ],
    )
    assert len(observer.seen) == 6
    for seen in [*observer.seen, looks(model.optimizer)]:
        assert seen == before
    assert all(
        now is then
        for now, then in zip(model.optimizer.variables, variables, strict=True)
    )
    assert patches(model) == []


def test_a_float_can_be_assigned_afterwards_and_is_used() -> None:
    x, y = digits(48)
    batches = in_batches(x, y, 8)
    model = softmax_regression(optimizers.SGD(0.1, momentum=0.9))
    schedule = tfs.Linear(0.2, 0.1, 6)
    model.fit(
        x,
        y,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.HyperparameterScheduler(schedule)],
    )
    model.optimizer.learning_rate = 0.03
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    expected = sgd_loop(batches * 2, [*line(0.2, 0.1, 6, 6), *[0.03] * 6], [0.9] * 12)
    assert relative_error(arrays(model), expected) < 1e-6
    assert float(model.optimizer.learning_rate) == pytest.approx(0.03)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_stock_readers_see_the_live_rate(steps_per_execution: int) -> None:
    x, y = digits(48)
    model = softmax_regression(
        optimizers.SGD(0.1), steps_per_execution=steps_per_execution
    )
    reader = Rates()
    # This stock callback logs the rate at the end of each epoch, and never changes it.
    stock = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=100)
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[
            tfs.HyperparameterScheduler(tfs.Linear(0.3, 0.01, 11)),
            reader,
            stock,
        ],
    ).history
    values = line(0.3, 0.01, 11, 12)
    seen = values if steps_per_execution == 1 else values[[3, 5, 9, 11]]
    np.testing.assert_allclose(reader.rates, seen, rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate"], values[[5, 11]], rtol=1e-6)
    # Before the first step the rate of that step is shown.
    assert reader.at_epoch_begin[0] == pytest.approx(0.3)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_checkpoints_fit_both_ways(tmp_path: Any) -> None:
    """Warnings are errors here: Keras only warns of optimizer state that it skips."""
    x, y = digits(48)
    before, after = str(tmp_path / "a.weights.h5"), str(tmp_path / "b.weights.h5")
    model = softmax_regression(optimizers.SGD(0.1, momentum=0.9))
    model.fit(x, y, batch_size=8, verbose=0)
    model.save_weights(before)
    saved = [np.array(value) for value in model.optimizer.variables]

    model.fit(x, y, batch_size=8, verbose=0, callbacks=[tfs.OneCycle(0.3)])
    model.save_weights(after)
    driven = [np.array(value) for value in model.optimizer.variables]
    assert not np.array_equal(saved[2], driven[2])

    model.load_weights(before)
    plain = softmax_regression(optimizers.SGD(0.1, momentum=0.9))
    plain.load_weights(after)
    for optimizer, expected in [(model.optimizer, saved), (plain.optimizer, driven)]:
        for value, same in zip(optimizer.variables, expected, strict=True):
            np.testing.assert_array_equal(np.array(value), same)


# What a step is.


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_with_gradient_accumulation_a_step_is_an_update(
    steps_per_execution: int,
) -> None:
    x, y = digits(80)
    batches = in_batches(x, y, 8)
    model = softmax_regression(
        optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3),
        steps_per_execution=steps_per_execution,
    )
    reader = Rates()
    # 3 epochs of 10 batches: 10 updates of 3 batches, across the ends of epochs.
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.OneCycle(0.5), reader],
    )
    rates, momenta = one_cycle_values(0.5, 10)
    expected = sgd_loop(batches * 3, rates, momenta, accumulate=3)
    assert relative_error(arrays(model), expected) < 1e-6
    if steps_per_execution == 1:
        np.testing.assert_allclose(reader.rates, np.repeat(rates, 3), rtol=1e-5)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_step_skipped_by_loss_scaling_does_not_advance(
    steps_per_execution: int,
) -> None:
    x, y = digits(80)
    good = in_batches(x, y, 8)
    del good[7], good[2]
    x[2 * 8] = np.nan
    x[7 * 8 + 3, 5] = np.inf
    model = softmax_regression(
        optimizers.LossScaleOptimizer(
            optimizers.SGD(0.1, momentum=0.9), initial_scale=1024.0
        ),
        steps_per_execution=steps_per_execution,
    )
    reader = Rates()
    callback = tfs.OneCycle(0.5, total_steps=10)
    model.fit(
        x,
        y,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[callback, reader],
    )
    rates, momenta = one_cycle_values(0.5, 10)
    expected = sgd_loop(good, rates, momenta)
    assert relative_error(arrays(model), expected) < 1e-6
    assert reader.counts[-1] == 8
    assert reader.rates[-1] == pytest.approx(rates[7], rel=1e-5)


class CustomStep(keras.Model):
    """A train step written out by the user, with a log of its own."""

    if BACKEND == "jax":

        def train_step(self, state: Any, data: Any) -> Any:
            import jax

            weights, others, slots, metrics = state
            x, y = data

            def loss_of(weights: Any) -> Any:
                y_pred, _ = self.stateless_call(weights, others, x, training=True)
                return self.compute_loss(x, y, y_pred)

            loss, gradients = jax.value_and_grad(loss_of)(weights)
            weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
            return {"mine": loss}, (weights, others, slots, metrics)

    else:

        def train_step(self, data: Any) -> Any:
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"mine": loss}


def test_a_custom_train_step_is_driven() -> None:
    x, y = digits(80)
    model = softmax_regression(
        optimizers.SGD(0.1, momentum=0.9), CustomStep, steps_per_execution=4
    )
    history = model.fit(
        x,
        y,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.OneCycle(0.5)],
    ).history
    rates, momenta = one_cycle_values(0.5, 10)
    expected = sgd_loop(in_batches(x, y, 8), rates, momenta)
    assert relative_error(arrays(model), expected) < 1e-6
    assert "mine" in history


def test_an_eager_fit_is_driven() -> None:
    x, y = digits(80)
    model = softmax_regression(
        optimizers.SGD(0.1, momentum=0.9), run_eagerly=True, jit_compile=False
    )
    model.fit(
        x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[tfs.OneCycle(0.5)]
    )
    rates, momenta = one_cycle_values(0.5, 10)
    expected = sgd_loop(in_batches(x, y, 8), rates, momenta)
    assert relative_error(arrays(model), expected) < 1e-6
    assert model.optimizer.momentum == 0.9


@pytest.mark.tensorflow
def test_a_mirrored_model_is_driven() -> None:
    import tensorflow as tf

    x, y = digits(80)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = softmax_regression(optimizers.SGD(0.1, momentum=0.9))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model.fit(data, shuffle=False, verbose=0, callbacks=[tfs.OneCycle(0.5)])
    rates, momenta = one_cycle_values(0.5, 10)
    expected = sgd_loop(in_batches(x, y, 8), rates, momenta)
    assert relative_error(arrays(model), expected) < 1e-6


def test_initial_weights_are_what_models_begin_with() -> None:
    model = softmax_regression(optimizers.SGD(0.1))
    for value, same in zip(arrays(model), initial_weights(), strict=True):
        np.testing.assert_array_equal(value, same)
