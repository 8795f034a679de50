"""Loops of the user's own: `CallbackList` around `train_on_batch`, tapes.

The networks write down the rates that they really had: the loss is the output, batch k
is the k-th unit vector, and so weight k is minus the rate of the update with batch k.
"""

from __future__ import annotations

import gc
from typing import Any

import keras
import numpy as np
import pytest
from event_files import scalars
from helpers import BACKEND, JIT, line, one_cycle_values, patches
from unit_steps import STEPS, loop, rates_written, tape_step, unit_model, units

import tfschedules as tfs


def one_cycle_rates(max_lr: float, steps: int) -> np.ndarray:
    return one_cycle_values(max_lr, steps)[0]


# Loops around train_on_batch are fits.


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (lambda: tfs.OneCycle(0.1), one_cycle_rates(0.1, 8)),
        (
            lambda: tfs.CyclicalLearningRate(0.001, 0.1, step_size=4),
            np.interp(np.arange(8), [0, 4, 8], [0.001, 0.1, 0.001]),
        ),
        (
            lambda: tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.8, 0.0, 8)),
            line(0.8, 0.0, 8, 8),
        ),
        (
            lambda: tfs.HyperparameterScheduler(
                learning_rate=tfs.Linear(0.8, 0.0, tfs.epochs(4)), start_step=2
            ),
            line(0.8, 0.0, 16, 10)[2:],
        ),
    ],
    ids=["one-cycle", "cyclical", "linear", "epochs-and-start"],
)
def test_a_loop_around_train_on_batch_is_driven_as_a_fit(callback, expected) -> None:
    model = unit_model()
    loop(model, [quiet(callback())])
    np.testing.assert_allclose(rates_written(model)[:8], expected, rtol=1e-5)
    assert patches(model) == []
    assert float(model.optimizer.learning_rate) == pytest.approx(expected[-1])


def quiet(callback: Any) -> Any:
    """Without the comparison of lengths, which differ here on purpose."""
    callback._compare_lengths = lambda *lengths: None
    return callback


def test_a_loop_may_tell_no_lengths_and_begin_without_a_list() -> None:
    model = unit_model()
    x, y = units()
    callback = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callback.set_model(model)
    callback.on_train_begin()
    for batch in range(4):
        callback.on_train_batch_begin(batch)
        model.train_on_batch(x[batch : batch + 1], y[:1])
    callback.on_train_end()
    np.testing.assert_allclose(rates_written(model)[:4], line(0.4, 0, 4, 4), rtol=1e-5)
    assert patches(model) == []


def test_one_cycle_without_a_length_names_the_ways_to_give_one() -> None:
    callback = tfs.OneCycle(0.1)
    callback.set_model(unit_model())
    with pytest.raises(ValueError, match=r"total_steps=….*epochs=…, steps=…"):
        callback.on_train_begin()


def test_a_count_that_is_not_zero_is_the_begin_of_a_loop() -> None:
    model = unit_model(rate=0.25)
    x, y = units()
    model.fit(x[:3], y[:3], batch_size=1, shuffle=False, verbose=0)
    schedule = tfs.Linear(0.4, 0.0, 4)
    loop(
        model,
        [tfs.HyperparameterScheduler(learning_rate=schedule)],
        epochs=1,
        begin=3,
    )
    expected = [0.25] * 3 + [0.4, 0.3, 0.2, 0.1]
    np.testing.assert_allclose(rates_written(model)[:7], expected, rtol=1e-5)


def test_validation_in_a_loop_changes_nothing() -> None:
    model = unit_model()
    x, y = units()

    class Validate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.evaluate(x, y, verbose=0)
            self.model.test_on_batch(x[:1], y[:1])

    loop(model, [tfs.OneCycle(0.1), Validate()])
    np.testing.assert_allclose(
        rates_written(model)[:8], one_cycle_rates(0.1, 8), rtol=1e-5
    )


def test_unfreezing_freezes_in_a_loop() -> None:
    model = unit_model()
    groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
    loop(model, [tfs.GradualUnfreezing(groups)])
    np.testing.assert_allclose(rates_written(model, "body")[:8], [0] * 4 + [0.1] * 4)
    np.testing.assert_allclose(rates_written(model, "head")[:8], [0.1] * 8, rtol=1e-6)
    assert all(weight.trainable for weight in model.weights)


def test_unfreezing_in_a_loop_without_epochs_says_so() -> None:
    model = unit_model()
    groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
    callback = tfs.GradualUnfreezing(groups)
    callback.set_model(model)
    callback.on_train_begin()
    with pytest.raises(RuntimeError, match=r"call\s+callbacks.on_epoch_begin"):
        callback.on_train_batch_begin(0)
    callback.on_train_end()


def test_a_logger_records_every_step_of_a_loop(tmp_path) -> None:
    model = unit_model()
    loop(model, [tfs.OneCycle(0.1), tfs.TensorBoardLogger(tmp_path)])
    steps, rates = scalars(tmp_path / "schedules", "schedule/learning_rate")
    assert steps == list(range(8))
    np.testing.assert_allclose(rates, one_cycle_rates(0.1, 8), rtol=1e-6)
    steps, losses = scalars(tmp_path / "schedules", "schedule/loss")
    assert steps == list(range(8))
    assert losses == [0.0] * 8  # each batch meets a weight that is still 0


@pytest.mark.skipif(BACKEND == "torch", reason="there are no stops on torch")
def test_snapshots_are_taken_in_a_loop(tmp_path) -> None:
    model = unit_model()
    kept = tfs.SnapshotEnsemble(tmp_path)
    loop(model, [quiet(tfs.WarmRestarts(0.1, 3)), kept])
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == [
        "cycle_0001_step_000000003.keras",
        "cycle_0002_step_000000006.keras",
    ]


def test_a_range_test_in_a_loop_sweeps_and_puts_back() -> None:
    model = unit_model()
    test = tfs.RangeTest(1e-3, 1.0, steps=8, stop_factor=None)
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(rates_written(self.model)[:8])

    loop(model, [test, See()])
    np.testing.assert_allclose(seen[-1], np.geomspace(1e-3, 1, 8), rtol=1e-5)
    assert np.array_equal(rates_written(model), np.zeros(STEPS))
    assert int(model.optimizer.iterations) == 0
    assert test.result.stop_reason == "finished"


# Loops that end badly, and what comes after them.


@pytest.mark.parametrize("drop", [True, False])
def test_a_fit_after_a_loop_that_died_is_plain(drop: bool) -> None:
    model = unit_model(rate=0.25)
    x, y = units()
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callbacks = keras.callbacks.CallbackList([schedule], model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    model.train_on_batch(x[:1], y[:1])
    if drop:
        del callbacks, schedule
        gc.collect()
    model.fit(x[1:3], y[1:3], batch_size=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(rates_written(model)[:3], [0.4, 0.4, 0.4], rtol=1e-6)
    assert patches(model) == []


def test_a_loop_around_fit_is_refused_with_the_way_out() -> None:
    model = unit_model()
    x, y = units()
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callbacks = keras.callbacks.CallbackList([schedule], model=model, epochs=1, steps=4)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    model.fit(x[:1], y[:1], batch_size=1, verbose=0)
    with pytest.raises(RuntimeError, match=r"a fit takes the callbacks itself, and st"):
        callbacks.on_train_batch_begin(1)
    callbacks.on_train_end()
    assert patches(model) == []


@pytest.mark.parametrize("by", ["train_on_batch", "fit"])
def test_steps_of_a_callback_in_a_loop_do_not_count(by: str) -> None:
    model = unit_model()
    x, y = units()

    class Steps(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            at = 16 + epoch
            if by == "fit":
                model.fit(x[at : at + 1], y[:1], verbose=0)
            else:
                model.train_on_batch(x[at : at + 1], y[:1])

    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.8, 0.0, 8))
    loop(model, [schedule, Steps()])
    written = rates_written(model)
    np.testing.assert_allclose(written[:8], line(0.8, 0.0, 8, 8), rtol=1e-5)
    np.testing.assert_allclose(written[16:18], [0.5, 0.1], rtol=1e-5)
    assert patches(model) == []


def test_a_second_loop_takes_over_and_the_first_is_told() -> None:
    model = unit_model()
    x, y = units()
    first = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    old = keras.callbacks.CallbackList([first], model=model, epochs=1, steps=4)
    old.on_train_begin()
    old.on_epoch_begin(0)
    old.on_train_batch_begin(0)
    model.train_on_batch(x[:1], y[:1])

    second = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.8, 0.0, 8))
    loop(model, [second], epochs=2, steps=4, begin=1)
    expected = [0.4, *line(0.8, 0.0, 8, 8)]
    np.testing.assert_allclose(rates_written(model)[:9], expected, rtol=1e-5)

    with pytest.raises(RuntimeError, match="its loop had not ended"):
        old.on_epoch_begin(1)
    assert patches(model) == []


def test_a_model_compiled_anew_in_a_loop_is_no_longer_driven_and_that_is_said() -> None:
    model = unit_model()
    x, y = units()
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callbacks = keras.callbacks.CallbackList([schedule], model=model, epochs=2, steps=2)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    model.train_on_batch(x[:1], y[:1])
    model.compile(keras.optimizers.SGD(0.05), loss=lambda a, b: b, jit_compile=JIT)
    assert patches(model) == []
    callbacks.on_epoch_end(0)
    with pytest.raises(RuntimeError, match="the model was compiled anew"):
        callbacks.on_epoch_begin(1)
    callbacks.on_train_end()
    model.train_on_batch(x[1:2], y[:1])
    np.testing.assert_allclose(rates_written(model)[:2], [0.4, 0.05], rtol=1e-6)


def test_weights_that_are_set_after_an_error_in_a_loop_are_kept() -> None:
    class Fails(keras.Model):
        def train_step(self, *data: Any) -> Any:
            raise ValueError("by the test")

    plain = unit_model()
    model = Fails(plain.input, plain.output)
    model.compile(keras.optimizers.SGD(0.1), loss=plain.loss)
    x, y = units()
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callbacks = keras.callbacks.CallbackList([schedule], model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    with pytest.raises(ValueError, match="by the test"):
        model.train_on_batch(x[:1], y[:1])
    sevens = [np.full_like(weights, 7.0) for weights in model.get_weights()]
    model.set_weights(sevens)
    callbacks.on_train_end()
    del Fails.train_step
    model.fit(x[:1], y[:1], verbose=0)
    assert rates_written(model)[1] == -7.0


# Loops that call the optimizer themselves.


@pytest.mark.tensorflow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_tape_is_driven_and_a_compiled_one_is_let_go(compiled: bool) -> None:
    import tensorflow as tf

    model = unit_model(rate=0.25)
    x, _ = units()

    step = tape_step(model)

    if compiled:
        step = tf.function(step)
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callbacks = keras.callbacks.CallbackList([schedule], model=model, epochs=1, steps=4)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(4):
        callbacks.on_train_batch_begin(batch)
        step(x[batch : batch + 1])
    callbacks.on_epoch_end(0)
    callbacks.on_train_end()
    step(x[4:5])  # after it: the rate stays
    model.optimizer.learning_rate = 0.5
    step(x[5:6])  # and is the user's to set
    expected = [0.4, 0.3, 0.2, 0.1, 0.1, 0.5]
    np.testing.assert_allclose(rates_written(model)[:6], expected, rtol=1e-5)


@pytest.mark.tensorflow
def test_momentum_in_a_compiled_tape_has_its_value_back_after_the_loop() -> None:
    import tensorflow as tf

    model = unit_model(keras.optimizers.SGD(0.1, momentum=0.5))
    x, _ = units()

    step = tf.function(tape_step(model))

    schedule = tfs.HyperparameterScheduler(momentum=tfs.Constant(0.9))
    callbacks = keras.callbacks.CallbackList([schedule], model=model, epochs=1, steps=2)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(2):
        callbacks.on_train_batch_begin(batch)
        step(x[batch : batch + 1])
    callbacks.on_epoch_end(0)
    callbacks.on_train_end()
    step(x[2:3])
    # Weight 0 has its gradient in step 0 only: then its velocity is times the momentum.
    expected = 0.1 * (1 + 0.9 + 0.9 * 0.5)
    assert rates_written(model)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.tensorflow
def test_a_function_that_was_compiled_before_the_loop_is_refused() -> None:
    import tensorflow as tf

    model = unit_model()
    x, _ = units()

    step = tf.function(tape_step(model))

    step(x[:1])
    for _ in range(2):  # traced before the first loop, and so before the second
        schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
        callbacks = keras.callbacks.CallbackList([schedule], model=model)
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        callbacks.on_train_batch_begin(0)
        step(x[1:2])
        with pytest.raises(RuntimeError, match="compiled before the callback began"):
            callbacks.on_train_batch_begin(1)
        with pytest.raises(RuntimeError, match="compiled before the callback began"):
            callbacks.on_epoch_end(0)
        callbacks.on_train_end()
        assert patches(model) == []


@pytest.mark.skipif(BACKEND != "jax", reason="stateless_apply is JAX's way")
def test_a_compiled_stateless_step_in_a_loop_is_refused_and_changes_nothing() -> None:
    import jax

    model = unit_model()
    x, _ = units()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)

    @jax.jit
    def step(weights: Any, state: Any, batch: Any) -> Any:
        def loss(weights: Any) -> Any:
            return model.stateless_call(weights, [], batch)[0].sum()

        return optimizer.stateless_apply(state, jax.grad(loss)(weights), weights)

    weights = [w.value for w in model.trainable_variables]
    state = [v.value for v in optimizer.variables]
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    callbacks = keras.callbacks.CallbackList([schedule], model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    with pytest.raises(RuntimeError, match="put the schedule into the optimizer"):
        step(weights, state, x[:1])
    callbacks.on_train_end()
    weights, state = step(weights, state, x[:1])  # plain, and nothing is kept
    np.testing.assert_allclose(-np.asarray(weights[0])[0, 0], 0.1, rtol=1e-6)


def test_an_optimizer_of_two_models_is_driven_in_one_fit_at_a_time() -> None:
    optimizer = keras.optimizers.SGD(0.1)
    first = unit_model(optimizer)
    second = keras.models.clone_model(first)
    optimizer.build([*first.trainable_variables, *second.trainable_variables])
    second.compile(optimizer, loss=lambda a, b: b, jit_compile=JIT)
    callback = tfs.HyperparameterScheduler(learning_rate=tfs.Constant(0.3))
    callback.set_model(first)
    callback.on_train_begin()
    other = tfs.HyperparameterScheduler(learning_rate=tfs.Constant(0.2))
    other.set_model(second)
    with pytest.raises(ValueError, match="driven already"):
        other.on_train_begin()
    callback.on_train_end()
    assert patches(first) == patches(second) == []
