"""A trace of before is not taken for one of now, whatever keeps it alive.

JAX finds the trace of an equal function again. Keras compiles `model.train_step`, and
bound methods of one object are equal: so what a fit, a user or a traceback holds of an
older train function must not decide what a later one computes. The networks write their
rates down (unit_steps.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, Interrupt, line
from unit_steps import STEPS, output, rates_written, unit_model, units

import tfschedules as tfs

SWEEP = 24  # steps of a sweep


class Seen(keras.callbacks.Callback):
    """The weights of one layer after each batch of a sweep, which puts them back."""

    def __init__(self, layer: str = "head") -> None:
        super().__init__()
        self.layer = layer

    def on_train_begin(self, logs: Any = None) -> None:
        self.before = rates_written(self.model, self.layer)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.rates = rates_written(self.model, self.layer) - self.before


def linear(start: float) -> tfs.HyperparameterScheduler:
    return tfs.HyperparameterScheduler(learning_rate=tfs.Linear(start, 0.0, STEPS))


def fit(model: keras.Model, *callbacks: Any) -> np.ndarray:
    """The rates that a fit over all unit vectors had."""
    x, y = units()
    model.set_weights([np.zeros((STEPS, 1)), np.zeros((STEPS, 1))])
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[*callbacks])
    return rates_written(model)


def swept(
    model: keras.Model, low: float, high: float, layer: str = "head", **arguments: Any
) -> np.ndarray:
    """The rates that a range test really had."""
    x, y = units()
    seen = Seen(layer)
    tfs.find_learning_rate(
        model, x, y, batch_size=1, shuffle=False, verbose=0, stop_factor=None,
        steps=SWEEP, min_lr=low, max_lr=high, callbacks=[seen], **arguments,
    )  # fmt: skip
    return seen.rates[:SWEEP]


@pytest.mark.parametrize("in_between", [False, True])
def test_each_range_test_has_its_own_rates_after_a_fit(in_between: bool) -> None:
    model = unit_model()
    fit(model)
    for low, high in ((1e-3, 1.0), (1e-5, 1e-2), (1e-1, 10.0)):
        expected = np.geomspace(low, high, SWEEP)
        rates = swept(model, low, high)
        np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-7)
        if in_between:  # the optimizer's count is another one then
            fit(model)


def test_a_range_test_in_a_fit_has_its_own_rates_after_a_fit() -> None:
    model = unit_model()
    x, y = units()
    fit(model)
    for high in (1.0, 0.1):
        seen, test = Seen(), tfs.RangeTest(1e-3, high, SWEEP, stop_factor=None)
        callbacks = [test, seen]
        model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
        expected = np.geomspace(1e-3, high, SWEEP)
        np.testing.assert_allclose(seen.rates[:SWEEP], expected, rtol=1e-4)


def test_range_tests_that_are_compared_after_a_fit_differ_in_weight_decay() -> None:
    optimizer = keras.optimizers.SGD(0.1, weight_decay=1e-3)
    model = unit_model(optimizer)
    fit(model)
    x, y = units()
    decays = [0.0, 0.5, 1.0]
    kernels = {}
    start = rates_written(model)

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kernels[decays[min(len(kernels), 2)] if batch == 0 else last()] = (
                rates_written(self.model)
            )

    def last() -> float:
        return list(kernels)[-1]

    tfs.compare_range_tests(
        model, x, y, weight_decay=decays, batch_size=1, shuffle=False, verbose=0,
        stop_factor=None, steps=SWEEP, min_lr=1e-2, max_lr=0.5, callbacks=[Keep()],
    )  # fmt: skip
    rates = np.geomspace(1e-2, 0.5, SWEEP)
    for decay in decays:
        expected = start.copy()
        for step, rate in enumerate(rates):
            expected -= rate * decay * expected
            expected[step] += rate
        np.testing.assert_allclose(kernels[decay], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="there are no groups on torch")
def test_the_group_that_is_swept_after_a_fit_is_the_one_that_was_asked_for() -> None:
    groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
    model = unit_model(tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups))
    fit(model)
    expected = np.geomspace(1e-3, 1.0, SWEEP)
    for group, other in (("body", "head"), ("head", "body"), ("body", "head")):
        rates = swept(model, 1e-3, 1.0, group, group=group)
        np.testing.assert_allclose(rates, expected, rtol=1e-4)
        assert not swept(model, 1e-3, 1.0, other, group=group).any()
    # The sweep that follows a longer history begins at its own step 0.
    fit(model)
    rates = swept(model, 1e-2, 1.0, group="head")
    np.testing.assert_allclose(rates, np.geomspace(1e-2, 1.0, SWEEP), rtol=1e-4)


def test_schedules_are_their_own_though_a_train_function_is_held() -> None:
    model = unit_model()
    fit(model)
    held = [model.train_function]
    for start in (0.1, 0.2, 0.3):
        expected = line(start, 0.0, STEPS, STEPS)
        np.testing.assert_allclose(fit(model, linear(start)), expected, rtol=1e-5)
    assert held


def failing_fit(model: keras.Model, how: str) -> BaseException:
    """A scheduled fit that dies; the error holds its frames, as in IPython."""
    x, y = units()

    def batches() -> Iterator[Any]:
        for i in range(6):
            yield x[i : i + 1], y[:1]
        yield x[:1, :7], y[:1]  # of another width

    try:
        if how == "in the step":
            model.fit(batches(), shuffle=False, verbose=0, callbacks=[linear(0.4)])
        else:
            callbacks = [linear(0.4), Interrupt(6)]
            model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
    except (KeyboardInterrupt, ValueError, Exception) as error:
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("how", ["in the step", "by Ctrl-C"])
@pytest.mark.parametrize("next_one", ["plain", "scheduled", "compiled anew"])
def test_a_fit_that_died_does_not_drive_the_next_though_its_frames_are_kept(
    how, next_one
) -> None:
    model = unit_model()
    kept = failing_fit(model, how)
    if next_one == "scheduled":
        expected = line(0.2, 0.0, STEPS, STEPS)
        np.testing.assert_allclose(fit(model, linear(0.2)), expected, rtol=1e-5)
    if next_one == "compiled anew":
        model.compile(keras.optimizers.SGD(0.05), loss=output, jit_compile=JIT)
    model.optimizer.learning_rate = 0.05
    np.testing.assert_allclose(fit(model), np.full(STEPS, 0.05), rtol=1e-5)
    assert kept.__traceback__ is not None


def test_after_another_loss_was_compiled_in_ours_is_right_where_keras_is_not() -> None:
    model = unit_model()
    fit(model)
    held = [model.train_function]

    def twice(y_true: Any, y_pred: Any) -> Any:
        return 2 * y_pred

    model.compile(keras.optimizers.SGD(0.1), loss=twice, jit_compile=JIT)
    expected = 2 * line(0.2, 0.0, STEPS, STEPS)
    np.testing.assert_allclose(fit(model, linear(0.2)), expected, rtol=1e-5)
    assert held


def test_what_is_frozen_in_a_second_fit_is_not_what_was_in_the_first() -> None:
    """Also in a validation, whose state on JAX is of the same shape in both."""
    model = unit_model()
    x, y = units()
    body, head = (model.get_layer(name) for name in ("body", "head"))
    doubled = keras.layers.Rescaling(2.0)(head(model.input))
    model = keras.Model(model.input, keras.layers.Add()([body(model.input), doubled]))
    model.compile(keras.optimizers.SGD(0.1), loss=output, jit_compile=JIT)
    groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
    step = {"body": 0.1, "head": 0.2}  # the rate times the gradient
    held = []
    for order in (groups, groups[::-1], groups):
        model.set_weights([np.zeros((STEPS, 1)), np.zeros((STEPS, 1))])
        seen = []
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, seen=seen: seen.append(logs["val_loss"])
        )
        model.fit(
            x[:4], y[:4], batch_size=1, epochs=2, shuffle=False, verbose=0,
            validation_data=(x[:4], y[:4]),
            callbacks=[tfs.GradualUnfreezing(order), look],
        )  # fmt: skip
        held += [model.test_function]
        updates = {order[0].name: 1, order[1].name: 2}
        for name, made in updates.items():
            written = rates_written(model, name)[:4]
            np.testing.assert_allclose(written, made * step[name], rtol=1e-5)
        # The validation of the first epoch has seen the weights that were trained.
        share = {"body": 0.1, "head": 0.4}
        first = -share[order[1].name]
        second = -sum(made * share[name] for name, made in updates.items())
        np.testing.assert_allclose(seen, [first, second], rtol=1e-5)
        fit(model)
        held += [model.train_function]


@pytest.mark.skipif(BACKEND == "torch", reason="missed updates are not known there")
def test_updates_missed_by_frozen_weights_are_known_to_a_plain_fit() -> None:
    """Adam corrects a late weight by its own count, also where an old trace is held."""

    def trained(hold: bool) -> list[np.ndarray]:
        model = unit_model(keras.optimizers.Adam(0.1))
        x, y = units()
        held = []
        if hold:
            model.fit(x[:4], y[:4], batch_size=2, verbose=0)
            held.append(model.train_function)
            for variable in (*model.variables, *model.optimizer.variables):
                variable.assign(np.zeros(variable.shape))
            model.optimizer.learning_rate = 0.1
        groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
        model.fit(
            x[:4], y[:4], batch_size=2, epochs=1, shuffle=False, verbose=0,
            callbacks=[tfs.GradualUnfreezing(groups)],
        )  # fmt: skip
        model.fit(x[:4], y[:4], batch_size=2, shuffle=False, verbose=0)
        return [rates_written(model, name)[:4] for name in ("body", "head")]

    (body, head), plain = trained(hold=True), trained(hold=False)
    np.testing.assert_array_equal([body, head], plain)
    # By Adam's equations with the body's own count, of which these two are 1 and 2.
    weights, mean, square = np.zeros((3, 4))
    for count, batch in ((1, slice(0, 2)), (2, slice(2, 4))):
        gradient = np.zeros(4)
        gradient[batch] = 0.5
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = 0.1 * np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        weights -= rate * mean / (np.sqrt(square) + 1e-7)
    np.testing.assert_allclose(-body, weights, rtol=1e-3)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX finds traces by the function")
def test_a_users_own_compiled_step_of_the_fit_is_not_found_by_the_next() -> None:
    import jax

    model = unit_model()
    x, y = units()
    own = jax.jit(model.train_step)

    class Cost(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            state = self.model._get_jax_state(
                trainable_variables=True,
                non_trainable_variables=True,
                optimizer_variables=True,
                metrics_variables=True,
            )
            with pytest.warns(UserWarning, match="This update is not driven"):
                own(state, (x[:1], y[:1], None))

    expected = line(0.2, 0.0, STEPS, STEPS)
    np.testing.assert_allclose(fit(model, linear(0.2), Cost()), expected, rtol=1e-5)
    model.optimizer.learning_rate = 0.05
    np.testing.assert_allclose(fit(model), np.full(STEPS, 0.05), rtol=1e-5)
