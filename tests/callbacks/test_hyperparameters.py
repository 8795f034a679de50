"""Each hyperparameter in the compiled step, and those that cannot be there.

`test_drive.py` compares each with a Python loop on its own; here they are driven
together, in execution blocks, across epochs, from functions, and with averages.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import Rates, arrays, line, patches, relative_error
from slope_fits import untouched
from small_network import python_loop, small_data, small_network

import tfschedules as tfs

optimizers = keras.optimizers
BATCHES = small_data()  # six
STEPS = 2 * len(BATCHES)  # two epochs


def driven(
    optimizer: Any,
    schedules: dict[str, Any],
    *callbacks: Any,
    batches: Any = BATCHES,
    **compiled: Any,
) -> keras.Model:
    """Two epochs of the data, under the schedules."""
    model = small_network(optimizer, **compiled)
    model.fit(
        np.concatenate([x for x, _ in batches]),
        np.concatenate([y for _, y in batches]),
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[tfs.HyperparameterScheduler(**schedules), *callbacks],
    )
    return model


def lines(
    ends: dict[str, tuple[float, float]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Schedules for a fit, and the same numbers for a Python loop."""
    last = STEPS - 1
    return (
        {key: tfs.Linear(*values, last) for key, values in ends.items()},
        {key: line(*values, last, STEPS) for key, values in ends.items()},
    )


TOGETHER = {
    "SGD": (
        optimizers.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "clipnorm": 1.0},
        {
            "learning_rate": (0.3, 0.01),
            "momentum": (0.95, 0.5),
            "weight_decay": (0.01, 0.3),
            "clipnorm": (0.2, 0.6),
        },
    ),
    "SGD, global clip": (
        optimizers.SGD,
        {"momentum": 0.9, "global_clipnorm": 1.0},
        {"momentum": (0.5, 0.95), "global_clipnorm": (0.2, 0.6)},
    ),
    "Adam": (
        optimizers.Adam,
        {"clipvalue": 0.5},
        {
            "beta_1": (0.95, 0.7),
            "beta_2": (0.9, 0.999),
            "epsilon": (1e-7, 0.05),
            "clipvalue": (0.01, 0.05),
        },
    ),
    "AdamW": (
        optimizers.AdamW,
        {"amsgrad": True},
        {"weight_decay": (0.0, 0.5), "beta_2": (0.9, 0.99), "epsilon": (1e-3, 1e-7)},
    ),
    "RMSprop": (
        optimizers.RMSprop,
        {"momentum": 0.9, "centered": True},
        {"rho": (0.5, 0.9), "momentum": (0.8, 0.95), "epsilon": (1e-7, 1e-2)},
    ),
    "Nadam": (
        optimizers.Nadam,
        {"weight_decay": 0.1},
        {"beta_1": (0.7, 0.95), "beta_2": (0.9, 0.999), "weight_decay": (0.3, 0.0)},
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_together_and_in_blocks(name: str) -> None:
    kind, arguments, ends = TOGETHER[name]
    rate = {} if "learning_rate" in ends else {"learning_rate": 0.02}
    schedules, settings = lines(ends)
    expected = python_loop(kind(**rate, **arguments), settings, BATCHES * 2)
    for steps_per_execution in (1, 4):
        optimizer = kind(**rate, **arguments)
        before = {
            key: getattr(optimizer, key) for key in ends.keys() - {"learning_rate"}
        }
        model = driven(optimizer, schedules, steps_per_execution=steps_per_execution)
        assert relative_error(arrays(model), expected) < 5e-6
        assert patches(model) == []
        after = {key: getattr(optimizer, key) for key in before}
        assert after == before
        assert {type(value) for value in after.values()} == {float}
    for left_alone in settings:
        others = {key: settings[key] for key in settings if key != left_alone}
        elsewhere = python_loop(kind(**rate, **arguments), others, BATCHES * 2)
        assert relative_error(elsewhere, expected) > 5e-5, left_alone


def averages(model: keras.Model) -> list[np.ndarray]:
    values = model.optimizer._model_variables_moving_average
    return [np.array(keras.ops.convert_to_numpy(value)) for value in values]


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_ema_momentum(steps_per_execution: int) -> None:
    """The average of the weights after each step, each with its own momentum."""
    weights: list[list[np.ndarray]] = []

    class Weights(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            weights.append([np.array(w) for w in self.model.get_weights()])

    # Weights do not depend on their average: they are read from a plain fit.
    start = arrays(small_network(optimizers.SGD(0.3)))
    driven(optimizers.SGD(0.3), {"learning_rate": tfs.Constant(0.3)}, Weights())
    assert len(weights) == STEPS
    momenta = line(0.2, 0.9, STEPS - 1, STEPS)
    momenta[0] = 0.0  # Keras begins the average with the weights after the first step
    expected = [np.array(w, np.float64) for w in start]
    fixed = [np.array(w, np.float64) for w in start]
    for now, momentum in zip(weights, momenta, strict=True):
        for i, value in enumerate(now):
            expected[i] = momentum * expected[i] + (1 - momentum) * value
            fixed[i] = 0.5 * fixed[i] + 0.5 * value

    model = driven(
        optimizers.SGD(0.3, use_ema=True, ema_momentum=0.5),
        {"ema_momentum": tfs.Linear(0.2, 0.9, STEPS - 1)},
        steps_per_execution=steps_per_execution,
    )
    # Overwritten by their average at the end of the fit.
    for values in (averages(model), arrays(model)):
        assert relative_error(values, expected) < 1e-6
        assert relative_error(values, fixed) > 1e-3
    assert model.optimizer.ema_momentum == 0.5


def test_ema_that_overwrites_the_weights_equals_a_python_loop() -> None:
    def optimizer() -> Any:
        return optimizers.Adam(
            0.02, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
        )

    schedules, settings = lines({"ema_momentum": (0.2, 0.9), "beta_1": (0.5, 0.9)})
    expected = python_loop(optimizer(), settings, BATCHES * 2)
    model = driven(optimizer(), schedules)
    assert relative_error(arrays(model), expected) < 5e-6
    elsewhere = python_loop(optimizer(), {"beta_1": settings["beta_1"]}, BATCHES * 2)
    assert relative_error(elsewhere, expected) > 1e-3


def test_weight_decay_spares_what_the_optimizer_spares() -> None:
    def optimizer() -> Any:
        spared = optimizers.AdamW(0.02, weight_decay=0.1)
        spared.exclude_from_weight_decay(var_names=["bias"])
        return spared

    schedules, settings = lines({"weight_decay": (0.0, 2.0)})
    expected = python_loop(optimizer(), settings, BATCHES * 2)
    model = driven(optimizer(), schedules)
    assert relative_error(arrays(model), expected) < 5e-6
    every = python_loop(optimizers.AdamW(0.02), settings, BATCHES * 2)
    assert relative_error(every, expected) > 1e-4


@pytest.mark.parametrize("attribute", ["momentum", "beta_1"])
def test_both_names_of_beta_1(attribute: str) -> None:
    _, settings = lines({"beta_1": (0.95, 0.5)})
    expected = python_loop(optimizers.Adam(0.02), settings, BATCHES * 2)
    model = driven(optimizers.Adam(0.02), {attribute: tfs.Linear(0.95, 0.5, STEPS - 1)})
    assert relative_error(arrays(model), expected) < 5e-6


def test_epochs_and_other_shapes_for_any_of_them() -> None:
    schedules = {
        "beta_2": tfs.Piecewise([tfs.epochs(1)], [0.9, 0.99]),
        "epsilon": tfs.warmup(tfs.Constant(0.1), tfs.epochs(0.5), start=1e-7),
        "weight_decay": tfs.cyclical(0.0, 0.5, 2),
    }
    settings = {name: s.resolve(6).values(STEPS) for name, s in schedules.items()}
    optimizer = {"learning_rate": 0.02, "weight_decay": 0.1}
    expected = python_loop(optimizers.Adam(**optimizer), settings, BATCHES * 2)
    model = driven(optimizers.Adam(**optimizer), schedules)
    assert relative_error(arrays(model), expected) < 5e-6


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_plain_functions_of_the_step(steps_per_execution: int) -> None:
    def falling(step: Any) -> Any:
        return 0.9 / (1 + 0.1 * step)

    def rate(step: Any) -> Any:
        return 0.3 * keras.ops.exp(-0.1 * keras.ops.cast(step, "float32"))

    t = np.arange(STEPS)
    settings = {
        "momentum": 0.9 / (1 + 0.1 * t),
        "learning_rate": 0.3 * np.exp(-0.1 * t),
    }
    expected = python_loop(optimizers.SGD(0.1, 0.5), settings, BATCHES * 2)
    model = driven(
        optimizers.SGD(0.1, 0.5),
        {"momentum": falling, "learning_rate": rate},
        steps_per_execution=steps_per_execution,
    )
    assert relative_error(arrays(model), expected) < 5e-6


def test_a_function_that_fails_changes_nothing() -> None:
    class MineError(Exception):
        pass

    def wrong(step: Any) -> Any:
        raise MineError("the user's own")

    optimizer = optimizers.Adam(0.02)
    model = small_network(optimizer)
    optimizer.build(model.trainable_variables)
    before, (x, y) = arrays(model), BATCHES[0]
    callback = tfs.HyperparameterScheduler(tfs.Constant(0.1), beta_2=wrong)
    with pytest.raises(MineError, match="the user's own"):
        model.fit(x, y, verbose=0, callbacks=[callback])
    assert optimizer.beta_2 == 0.999
    assert type(optimizer.beta_2) is float
    for value, expected in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert int(optimizer.iterations) == 0
    model.fit(x, y, verbose=0)
    assert patches(model) == []
    assert int(optimizer.iterations) == 1


@pytest.mark.filterwarnings("ignore:The schedule of ")
def test_under_loss_scaling() -> None:
    """The value in the inner optimizer is driven; the wrapper's has no effect.

    Momentum and weight decay: test_drive.py.
    """

    def inner() -> Any:
        return optimizers.SGD(0.1, momentum=0.9, clipnorm=0.5)

    schedules, settings = lines({"clipnorm": (0.2, 0.6)})
    wrap = optimizers.LossScaleOptimizer
    batches = BATCHES[:3]  # each step of the loop is compiled anew
    expected = python_loop(wrap(inner()), settings, batches * 2, retrace=True)
    model = driven(wrap(inner()), schedules, batches=batches)
    assert relative_error(arrays(model), expected) < 5e-6
    elsewhere = python_loop(wrap(inner()), {}, batches * 2, retrace=True)
    assert relative_error(elsewhere, expected) > 1e-4


# What cannot work says so. ------------------------------------------------------

SLOPE = tfs.Linear(0.5, 0.1, 10)
REFUSED = {
    "ema_momentum without averages": (
        lambda: optimizers.SGD(0.1),
        "ema_momentum",
        r"ema_momentum.*use_ema",
    ),
    "clipnorm": (
        lambda: optimizers.SGD(0.1),
        "clipnorm",
        r"SGD was compiled with clipnorm=None.*Compile it with one",
    ),
    "global_clipnorm beside clipnorm": (
        lambda: optimizers.Adam(0.1, clipnorm=1.0),
        "global_clipnorm",
        r"Adam was compiled with global_clipnorm=None.* has: .*clipnorm",
    ),
    "clipvalue": (
        lambda: optimizers.Adam(0.1),
        "clipvalue",
        r"Adam was compiled with clipvalue=None",
    ),
    "accumulation": (
        lambda: optimizers.Adam(0.1, gradient_accumulation_steps=2),
        "gradient_accumulation_steps",
        "no hyperparameter 'gradient_accumulation_steps' that a schedule can drive",
    ),
    "no accumulation": (
        lambda: optimizers.Adam(0.1),
        "gradient_accumulation_steps",
        "gradient_accumulation_steps",
    ),
    "how often averages overwrite": (
        lambda: optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2),
        "ema_overwrite_frequency",
        "no hyperparameter 'ema_overwrite_frequency'",
    ),
    "nesterov": (
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "nesterov",
        "no hyperparameter 'nesterov'",
    ),
    "amsgrad": (
        lambda: optimizers.Adam(0.1, amsgrad=True),
        "amsgrad",
        "no hyperparameter 'amsgrad'",
    ),
    "use_ema": (
        lambda: optimizers.Adam(0.1, use_ema=True),
        "use_ema",
        "no hyperparameter 'use_ema'",
    ),
    "a typing error": (
        lambda: optimizers.Adam(0.1),
        "beta1",
        "Adam has no hyperparameter 'beta1' .* It has: learning_rate, beta_1, beta_2",
    ),
    "another optimizer's": (
        lambda: optimizers.Adam(0.1),
        "rho",
        "Adam has no hyperparameter 'rho'",
    ),
    "the count": (
        lambda: optimizers.Adam(0.1),
        "iterations",
        "Adam has no hyperparameter 'iterations'",
    ),
    "a method": (
        lambda: optimizers.Adam(0.1),
        "apply",
        "Adam has no hyperparameter 'apply'",
    ),
    "the scale of the loss": (
        lambda: optimizers.Adam(0.1, loss_scale_factor=2.0),
        "loss_scale_factor",
        "no hyperparameter 'loss_scale_factor'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_says_so_and_changes_nothing(case: str) -> None:
    make, name, match = REFUSED[case]
    model = small_network(make())
    model.optimizer.build(model.trainable_variables)
    weights, attributes = arrays(model), dict(vars(model.optimizer))
    x, y = BATCHES[0]
    for schedule in (SLOPE, lambda step: 0.5 + 0 * step):
        callback = tfs.HyperparameterScheduler(SLOPE, **{name: schedule})
        with pytest.raises(ValueError, match=match):
            model.fit(x, y, verbose=0, callbacks=[callback])
    untouched(model, weights)
    assert vars(model.optimizer) == attributes
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == (
        pytest.approx(0.1)
    )


@pytest.mark.parametrize("value", [0.9, 1, None, "linear", [0.9], tfs.Linear])
@pytest.mark.parametrize("name", ["beta_2", "clipnorm", "ema_momentum", "anything"])
def test_numbers_are_no_schedules(name: str, value: Any) -> None:
    match = rf"`{name}` must be a tfschedules\.Schedule.*tfs\.Constant\(value\)"
    with pytest.raises(TypeError, match=match):
        tfs.HyperparameterScheduler(SLOPE, **{name: value})


def test_readers_see_the_rate_only() -> None:
    """Values of the others live in the step; Python sees the compiled one."""
    seen: list[Any] = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(self.model.optimizer.beta_2)

    reader = Rates()
    schedules, _ = lines({"beta_2": (0.9, 0.99), "learning_rate": (0.1, 0.01)})
    driven(optimizers.Adam(0.02), schedules, Look(), reader)
    assert seen == [0.999] * STEPS
    np.testing.assert_allclose(reader.rates, line(0.1, 0.01, STEPS - 1, STEPS), 1e-5)
