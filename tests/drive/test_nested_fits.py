"""What a callback does with the model in the middle of a fit.

Its own steps have the rate that is set, and do not count; the fit goes on as if they
had not been made, but for the weights. The networks write their rates down
(unit_steps.py).
"""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, line, one_cycle_values, patches
from nested_fits import FIT, OTHERS, Does, fit, on_batches
from unit_steps import output, rates_written, unit_model, units

import tfschedules as tfs


def plain_fit(model: keras.Model, at: int) -> None:
    x, y = units()
    model.fit(x[at : at + 2], y[:2], batch_size=1, shuffle=False, verbose=0)


no_stops_on_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras has neither blocks nor stops on torch"
)


@pytest.mark.parametrize(
    "hook", ["epoch_begin", "epoch_end", "train_batch_begin", "train_batch_end"]
)
@pytest.mark.parametrize(
    ("action", "block"),
    [(on_batches, 1), pytest.param(plain_fit, 3, marks=no_stops_on_torch)],
)
def test_steps_of_a_callback_have_the_rate_that_is_set_and_do_not_count(
    action, hook, block
) -> None:
    model = unit_model(steps_per_execution=block)
    schedule = line(0.24, 0.0, 12, FIT)
    other = Does(hook, action)
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver, other)
    written = rates_written(model)
    np.testing.assert_allclose(written[:FIT], schedule, rtol=1e-5)

    # The rate of the update before; at the very beginning that of the first one.
    per_epoch = 3
    done = {
        "epoch_begin": lambda i: per_epoch * i,
        "epoch_end": lambda i: per_epoch * (i + 1),
        "train_batch_begin": lambda i: block * i,
        "train_batch_end": lambda i: block * (i + 1),
    }[hook]
    expected = [schedule[max(done(i) - 1, 0)] for i in range(other.times)]
    others = written[OTHERS : OTHERS + 2 * other.times]
    np.testing.assert_allclose(others, np.repeat(expected, 2), rtol=1e-5)
    assert int(model.optimizer.iterations) == FIT + 2 * other.times
    assert patches(model) == []


def test_one_cycle_cycles_momentum_for_its_own_steps_alone() -> None:
    rates, momenta = one_cycle_values(0.1, FIT)
    model = unit_model(keras.optimizers.SGD(0.1, momentum=0.9))
    other = Does("epoch_end", on_batches)
    fit(model, tfs.OneCycle(0.1), other)
    # v ← m·v − r·g, w ← w + v: by NumPy, with the steps of the callback in between.
    weights, speed = np.zeros(48), np.zeros(48)

    def update(at: int, rate: float, momentum: float) -> None:
        nonlocal speed
        speed = momentum * speed - rate * np.eye(48)[at]
        weights[:] += speed

    for epoch in range(4):
        for step in range(3 * epoch, 3 * epoch + 3):
            update(step, rates[step], momenta[step])
        for at in (OTHERS + 2 * epoch, OTHERS + 2 * epoch + 1):
            update(at, rates[step], 0.9)
    np.testing.assert_allclose(rates_written(model), -weights, rtol=1e-4, atol=1e-7)


def test_with_gradient_accumulation_micro_batches_of_others_do_not_count() -> None:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = unit_model(optimizer)
    other = Does("epoch_end", on_batches)
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver, other)
    schedule = line(0.24, 0.0, 12, FIT)
    written = rates_written(model)
    np.testing.assert_allclose(written[:FIT], schedule, rtol=1e-5)
    halves = np.repeat(schedule[2::3], 2) / 2
    np.testing.assert_allclose(written[OTHERS : OTHERS + 8], halves, rtol=1e-5)


def test_the_step_is_not_traced_anew_after_steps_of_others() -> None:
    traces = []

    @keras.saving.register_keras_serializable("tfschedules_tests", "counted")
    def counted(y_true: Any, y_pred: Any) -> Any:
        traces.append(1)
        return output(y_true, y_pred)

    model = unit_model(loss=counted)
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver, Does("train_batch_end", on_batches))
    few = len(traces)
    traces.clear()
    model = unit_model(loss=counted)
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver)
    # The plain step is one more function; Keras looks at the loss once more for it.
    assert few <= 3 * len(traces)


def test_a_logger_records_the_fits_steps_and_leaves_out_those_of_others(tmp_path):
    from event_files import scalars

    model = unit_model()
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    logger = tfs.TensorBoardLogger(tmp_path)
    fit(model, driver, Does("epoch_end", on_batches), logger)
    steps, rates = scalars(tmp_path / "schedules", "schedule/learning_rate")
    own = [5 * epoch + i for epoch in range(4) for i in range(3)]
    assert steps == own  # the optimizer's count goes on through all of them
    np.testing.assert_allclose(rates, line(0.24, 0.0, 12, FIT), rtol=1e-5)
    steps, losses = scalars(tmp_path / "schedules", "schedule/loss")
    assert steps == own
    assert losses == [0.0] * FIT


@pytest.mark.parametrize("order", [1, -1])
def test_a_logger_in_mid_epoch_writes_what_is_done_before_others_step(tmp_path, order):
    from event_files import scalars

    model = unit_model()
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    both = [Does("train_batch_end", on_batches), tfs.TensorBoardLogger(tmp_path)]
    fit(model, driver, *both[::order])
    steps, rates = scalars(tmp_path / "schedules", "schedule/learning_rate")
    assert steps == list(range(0, 3 * FIT, 3))
    np.testing.assert_allclose(rates, line(0.24, 0.0, 12, FIT), rtol=1e-5)


def test_a_range_test_goes_on_and_puts_everything_back() -> None:
    model = unit_model()
    test = tfs.RangeTest(1e-3, 1.0, steps=FIT, stop_factor=None)
    seen = []

    def look(model: keras.Model, at: int) -> None:
        seen.append(rates_written(model)[:FIT])

    fit(model, Does("train_batch_end", on_batches), test, Does("train_batch_end", look))
    np.testing.assert_allclose(seen[-1], np.geomspace(1e-3, 1, FIT), rtol=1e-5)
    assert len(test.result.losses) == FIT
    assert not rates_written(model).any()
    assert int(model.optimizer.iterations) == 0


@no_stops_on_torch
def test_snapshots_are_those_of_the_fits_cycles(tmp_path) -> None:
    model = unit_model(steps_per_execution=3)
    fit(
        model,
        tfs.WarmRestarts(0.1, 4),
        tfs.SnapshotEnsemble(tmp_path),
        Does("epoch_end", on_batches),
    )
    names = sorted(path.name for path in tmp_path.glob("*.keras"))
    assert names == [f"cycle_{i:04d}_step_{4 * i:09d}.keras" for i in (1, 2, 3)]
    found = keras.saving.load_model(tmp_path / names[1])
    written = rates_written(found)
    assert written[:8].all()
    assert not written[8:FIT].any()


@pytest.mark.parametrize("momentum", [False, True])
def test_a_plateau_rule_is_followed_also_where_others_step(momentum: bool) -> None:
    model = unit_model()

    class Halve(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            optimizer = self.model.optimizer
            optimizer.learning_rate = float(optimizer.learning_rate) / 2

    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Constant(0.4))
    other = Does("epoch_end", on_batches)
    both = [Halve(), other] if momentum else [other, Halve()]
    with pytest.warns(UserWarning, match=r"goes on at 0\.5 times its height"):
        fit(model, driver, *both)
    expected = np.repeat([0.4, 0.2, 0.1, 0.05], 3)
    np.testing.assert_allclose(rates_written(model)[:FIT], expected, rtol=1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is traced there")
def test_a_train_function_that_a_model_makes_itself_is_made_anew_where_needed() -> None:
    class Own(keras.Model):
        def make_train_function(self, force: bool = False) -> Any:
            if self.train_function is not None and not force:
                return
            if BACKEND == "jax":
                import jax

                step = jax.jit(self.train_step)
                self.train_function = lambda state, iterator: step(
                    state, next(iterator)
                )
            else:
                import tensorflow as tf

                step = tf.function(self.train_step)
                self.train_function = lambda iterator: step(next(iter(iterator)))

    plain = unit_model()
    model = Own(plain.inputs, plain.outputs)
    model.compile(keras.optimizers.SGD(0.1), loss=output)
    other = Does("epoch_end", on_batches)
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver, other)
    schedule = line(0.24, 0.0, 12, FIT)
    written = rates_written(model)
    np.testing.assert_allclose(written[:FIT], schedule, rtol=1e-5)
    expected = np.repeat(schedule[2::3], 2)
    np.testing.assert_allclose(written[OTHERS : OTHERS + 8], expected, rtol=1e-5)


# Callbacks of this package in a fit inside a fit.


@pytest.mark.parametrize(
    "callback",
    [
        lambda folder: tfs.OneCycle(0.1),
        lambda folder: tfs.TensorBoardLogger(folder),
        lambda folder: tfs.RangeTest(steps=2),
        lambda folder: tfs.GradualUnfreezing(
            [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
        ),
    ],
    ids=["one-cycle", "logger", "range-test", "unfreezing"],
)
def test_a_second_fit_with_callbacks_is_refused_and_the_first_goes_on(
    callback, tmp_path
) -> None:
    model = unit_model()
    messages = []

    def nested(model: keras.Model, at: int) -> None:
        x, y = units()
        with pytest.raises(RuntimeError, match=r"while a fit of the same mod") as error:
            model.fit(
                x[at : at + 2],
                y[:2],
                batch_size=1,
                verbose=0,
                callbacks=[callback(tmp_path)],
            )
        messages.append(str(error.value))

    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver, Does("epoch_end", nested))
    assert "HyperparameterScheduler is running: a callback of it" in messages[0]
    np.testing.assert_allclose(
        rates_written(model)[:FIT], line(0.24, 0.0, 12, FIT), rtol=1e-5
    )
    assert not rates_written(model)[OTHERS:].any()
    assert not any(tmp_path.rglob("*tfevents*"))
    assert patches(model) == []


def test_a_loop_with_callbacks_inside_a_fit_without_any_is_driven() -> None:
    from unit_steps import loop

    model = unit_model(rate=0.05)
    x, y = units()

    def nested(model: keras.Model, at: int) -> None:
        loop(
            model,
            [tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.8, 0.0, 8))],
            begin=OTHERS,
        )
        model.optimizer.learning_rate = 0.05

    model.fit(
        x[:2], y[:2], batch_size=1, shuffle=False, verbose=0,
        callbacks=[Does("epoch_end", nested)],
    )  # fmt: skip
    written = rates_written(model)
    np.testing.assert_allclose(written[:2], 0.05, rtol=1e-6)
    np.testing.assert_allclose(written[OTHERS : OTHERS + 8], line(0.8, 0.0, 8, 8), 1e-5)
    assert patches(model) == []


def test_a_nested_fit_that_dies_leaves_the_outer_one_as_it_is() -> None:
    model = unit_model()

    def nested(model: keras.Model, at: int) -> None:
        x, y = units()

        def die(*_: Any) -> None:
            raise ValueError("by the test")

        with pytest.raises(ValueError, match="by the test"):
            model.fit(
                x[at : at + 2],
                y[:2],
                batch_size=1,
                shuffle=False,
                verbose=0,
                callbacks=[Does("train_batch_end", die)],
            )

    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(model, driver, Does("epoch_end", nested))
    written = rates_written(model)
    np.testing.assert_allclose(written[:FIT], line(0.24, 0.0, 12, FIT), rtol=1e-5)
    assert patches(model) == []


def test_a_fit_without_callbacks_in_another_thread_is_not_driven() -> None:
    model = unit_model()

    def elsewhere(model: keras.Model, at: int) -> None:
        thread = threading.Thread(target=plain_fit, args=(model, at))
        thread.start()
        thread.join()

    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    other = Does("epoch_end", elsewhere)
    fit(model, driver, other)
    written = rates_written(model)
    np.testing.assert_allclose(written[:FIT], line(0.24, 0.0, 12, FIT), rtol=1e-5)
    expected = np.repeat(line(0.24, 0.0, 12, FIT)[2::3], 2)
    np.testing.assert_allclose(written[OTHERS : OTHERS + 8], expected, rtol=1e-5)


def test_a_train_function_that_is_kept_is_refused_after_its_fit() -> None:
    model = unit_model()
    kept = []
    driver = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))
    fit(
        model,
        driver,
        Does("epoch_end", lambda model, at: kept.append(model.train_function)),
    )
    with pytest.raises(RuntimeError, match="which is over"):
        kept[0](iter([]))


@pytest.mark.skipif(BACKEND != "jax", reason="on JAX the state is outside the model")
def test_an_error_within_the_first_step_is_the_one_that_is_raised() -> None:
    import jax

    def fails(loss: Any) -> Any:
        raise ValueError("by the test")

    def broken(y_true: Any, y_pred: Any) -> Any:
        jax.debug.callback(fails, y_pred.sum())
        return y_pred

    model = unit_model(loss=broken)
    x, y = units()
    with pytest.raises(Exception, match="by the test"):
        model.fit(x, y, verbose=0, callbacks=[tfs.OneCycle(0.1)])


@pytest.mark.skipif(BACKEND != "jax", reason="on JAX the state is outside the model")
def test_an_error_in_the_first_trace_leaves_the_model_whole() -> None:
    model = unit_model()

    def broken(y_true: Any, y_pred: Any) -> Any:
        raise ValueError("by the test")

    model.compile(keras.optimizers.SGD(0.1), loss=broken)
    x, y = units()
    with pytest.raises(ValueError, match="by the test"):
        model.fit(x, y, verbose=0, callbacks=[tfs.OneCycle(0.1)])
    assert not rates_written(model).any()
    model.compile(keras.optimizers.SGD(0.1), loss=output)
    model.fit(x[:2], y[:2], batch_size=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(rates_written(model)[:2], 0.1, rtol=1e-6)
