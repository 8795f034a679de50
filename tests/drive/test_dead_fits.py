"""Loops of the user's own after a fit that has died, and what it has left.

The networks write down the rates that they really had: see `unit_steps`.
"""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
import pytest
from event_files import read
from helpers import BACKEND, patches
from unit_steps import output, rates_written, tape_step, unit_model, units

import tfschedules as tfs


class Accident(keras.callbacks.Callback):
    """Ends a fit after three updates, as Ctrl-C does."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            raise KeyboardInterrupt("by the test")


def schedule() -> tfs.HyperparameterScheduler:
    return tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 8))


def unfreezing() -> tfs.GradualUnfreezing:
    return tfs.GradualUnfreezing([tfs.LayerGroup(n, [n]) for n in ("body", "head")])


def dead(*callbacks: Any) -> keras.Model:
    """A model whose fit has died; then its rate is set to 0.5."""
    model = unit_model()
    x, y = units()
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        model.fit(
            x[:8],
            y[:8],
            batch_size=1,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, Accident()],
        )
    model.optimizer.learning_rate = 0.5
    return model


def step_of(model: keras.Model, compiled: bool) -> Any:
    """A step of a user's own, on each backend: a function of a batch."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        step = tape_step(model)
        return tf.function(step) if compiled else step
    import jax

    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(model.trainable_variables)

    def update(weights: Any, others: Any, state: Any, batch: Any) -> Any:
        def loss(weights: Any) -> Any:
            return model.stateless_call(weights, others, batch, training=True)[0].sum()

        return optimizer.stateless_apply(state, jax.grad(loss)(weights), weights)

    update = jax.jit(update) if compiled else update

    def step(batch: Any) -> None:
        kinds = (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
        values = [[variable.value for variable in kind] for kind in kinds]
        weights, state = update(*values, batch)
        for variable, value in zip(
            [*kinds[0], *kinds[2]], [*weights, *state], strict=True
        ):
            variable.assign(value)

    return step


each = pytest.mark.parametrize("compiled", [False, True])
not_torch = pytest.mark.skipif(BACKEND == "torch", reason="torch traces nothing")


def go_on(model: keras.Model, step: Any) -> None:
    """Four updates are plain, in both layers, and so is a fit after them."""
    x, y = units()
    for at in range(20, 24):
        step(x[at : at + 1])
    model.fit(x[24:26], y[:2], batch_size=1, shuffle=False, verbose=0)
    for layer in ("body", "head"):
        np.testing.assert_allclose(
            rates_written(model, layer)[20:26], 0.5, rtol=1e-6, err_msg=layer
        )
    assert patches(model) == []


@not_torch
@each
def test_a_loop_after_a_fit_that_died_is_plain(compiled: bool, tmp_path) -> None:
    model = dead(schedule(), tfs.TensorBoardLogger(tmp_path))
    go_on(model, step_of(model, compiled))


@not_torch
@each
@pytest.mark.parametrize("beside", [[], [schedule]], ids=["alone", "with schedule"])
def test_weights_that_a_dead_fit_has_frozen_are_no_silent_loss(
    beside: list[Any], compiled: bool, caplog
) -> None:
    model = dead(*(make() for make in beside), unfreezing())
    x, _ = units()
    step = step_of(model, compiled)
    before = rates_written(model)
    with (
        caplog.at_level(logging.WARNING, "tensorflow"),
        pytest.raises(RuntimeError, match=r"has died.*Nothing has been upd") as e,
    ):
        step(x[19:20])
    assert "AutoGraph" not in caplog.text
    np.testing.assert_array_equal(rates_written(model), before)
    if BACKEND == "jax" and compiled:  # within a trace nothing can be given back
        assert "Call model.make_train_function()" in str(e.value)
        model.make_train_function()
    assert all(weight.trainable for weight in model.weights)
    go_on(model, step)


@not_torch
def test_another_model_with_the_optimizer_of_a_dead_fit_is_trained(tmp_path) -> None:
    model = dead(schedule(), tfs.TensorBoardLogger(tmp_path))
    other = keras.Model(model.input, model.output)
    other.compile(model.optimizer, output, jit_compile=BACKEND == "jax")
    x, y = units()
    arguments = {"batch_size": 1, "shuffle": False, "verbose": 0}
    other.fit(x[20:24], y[:4], **arguments)
    np.testing.assert_allclose(rates_written(other)[20:24], 0.5, rtol=1e-6)
    falling = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.4, 0.0, 4))
    other.fit(x[30:34], y[:4], callbacks=[falling], **arguments)
    np.testing.assert_allclose(
        rates_written(other)[30:34], [0.4, 0.3, 0.2, 0.1], rtol=1e-5
    )
    assert patches(model) == patches(other) == []


@pytest.mark.parametrize("first", ["schedule", "logger"])
def test_the_callbacks_of_a_dead_fit_serve_another_one(first: str, tmp_path) -> None:
    """As in a notebook: a cell is interrupted, and run once more."""
    rates_in_cycles = tfs.warm_restarts(0.24, first_cycle=4)
    rates = tfs.HyperparameterScheduler(learning_rate=rates_in_cycles)
    logger = tfs.TensorBoardLogger(tmp_path)
    callbacks = [rates, logger] if first == "schedule" else [logger, rates]
    if BACKEND != "torch":
        callbacks.append(tfs.SnapshotEnsemble(tmp_path / "snapshots", overwrite=True))
    model = dead(*callbacks)
    x, y = units()
    arguments = {"batch_size": 1, "shuffle": False, "verbose": 0}
    model.fit(x[20:28], y[:8], callbacks=callbacks, **arguments)
    expected = rates_in_cycles.values(8)
    np.testing.assert_allclose(rates_written(model)[20:28], expected, rtol=1e-5)
    _, recorded, _ = read(tmp_path / "schedules")["schedule/learning_rate"]
    np.testing.assert_allclose(recorded[-8:], expected, rtol=1e-5)
    if BACKEND != "torch":
        assert len(tfs.SnapshotEnsemble.load(tmp_path / "snapshots")) == 2
    assert patches(model) == []


# Loops that are alive, but do not call what is borrowed.


def loop(model: keras.Model, *callbacks: Any, compiled: bool, epochs: int = 3) -> None:
    """A loop with steps of the user's own, compiled after `on_train_begin`."""
    x, _ = units()
    known = keras.callbacks.CallbackList([*callbacks], model=model)
    known.on_train_begin()
    step = None
    try:
        for epoch in range(epochs):
            known.on_epoch_begin(epoch)
            for batch in range(4):
                at = 4 * epoch + batch
                known.on_train_batch_begin(batch)
                if step is None:
                    step = step_of(model, compiled)
                step(x[at : at + 1])
                known.on_train_batch_end(batch, {})
            known.on_epoch_end(epoch, {})
    finally:
        known.on_train_end()


@not_torch
def test_unfreezing_works_in_a_loop_whose_steps_are_not_compiled() -> None:
    model = unit_model()
    loop(model, unfreezing(), compiled=False)
    expected = [0] * 4 + [0.1] * 8
    np.testing.assert_allclose(rates_written(model, "body")[:12], expected, rtol=1e-6)
    np.testing.assert_allclose(rates_written(model)[:12], 0.1, rtol=1e-6)
    assert patches(model) == []


@not_torch
def test_unfreezing_refuses_a_step_that_is_compiled_while_weights_are_frozen() -> None:
    model = unit_model()
    with pytest.raises(RuntimeError, match=r"GradualUnfreezing.*leave the step uncomp"):
        loop(model, unfreezing(), compiled=True)
    assert not rates_written(model).any()
    assert all(weight.trainable for weight in model.weights)
    assert patches(model) == []


@pytest.mark.tensorflow
def test_unfreezing_refuses_a_step_that_was_compiled_before() -> None:
    import tensorflow as tf

    model = unit_model()
    x, _ = units()
    step = tf.function(tape_step(model))
    step(x[:1])
    known = keras.callbacks.CallbackList([unfreezing()], model=model)
    known.on_train_begin()
    known.on_epoch_begin(0)
    known.on_train_batch_begin(0)
    step(x[1:2])
    with pytest.raises(RuntimeError, match="GradualUnfreezing does not see"):
        known.on_train_batch_begin(1)
    known.on_train_end()
    assert patches(model) == []


@pytest.mark.tensorflow
def test_a_step_that_is_compiled_when_all_is_trained_goes_on() -> None:
    import tensorflow as tf

    model = unit_model()
    x, _ = units()
    known = keras.callbacks.CallbackList([unfreezing()], model=model)
    known.on_train_begin()
    eager, step = tape_step(model), tf.function(tape_step(model))
    for epoch, make in enumerate((eager, step, step)):
        known.on_epoch_begin(epoch)
        known.on_train_batch_begin(0)
        make(x[epoch : epoch + 1])
        known.on_epoch_end(epoch)
    known.on_train_end()
    step(x[3:4])
    np.testing.assert_allclose(
        rates_written(model, "body")[:4], [0, 0.1, 0.1, 0.1], rtol=1e-6
    )


@not_torch
@each
def test_a_range_test_refuses_a_loop_that_it_does_not_see(compiled: bool) -> None:
    if compiled and BACKEND == "jax":
        pytest.skip("a compiled step beside a drive is refused when it is traced")
    model = unit_model()
    test = tfs.RangeTest(0.01, 0.1, 12, stop_factor=None)
    with pytest.raises(RuntimeError, match="RangeTest does not see the updates"):
        loop(model, test, compiled=compiled)
    assert not rates_written(model).any()
    assert int(model.optimizer.iterations) == 0
    assert patches(model) == []


@pytest.mark.tensorflow
def test_a_function_of_the_train_step_keeps_no_losses_of_a_loop(tmp_path) -> None:
    import tensorflow as tf

    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    plain = unit_model()
    x, y = units()
    for callback in (
        tfs.TensorBoardLogger(tmp_path),
        tfs.RangeTest(0.01, 0.1, 12, stop_factor=None),
    ):
        model = Own(plain.input, plain.output)
        model.compile(keras.optimizers.SGD(0.1), loss=output)
        step = tf.function(lambda model=model: model.train_step((x[:1], y[:1])))
        known = keras.callbacks.CallbackList([callback], model=model)
        known.on_train_begin()
        known.on_epoch_begin(0)
        known.on_train_batch_begin(0)
        step()
        if isinstance(callback, tfs.RangeTest):
            with pytest.raises(RuntimeError, match="RangeTest does not see"):
                known.on_train_batch_begin(1)
        known.on_train_end()
        before = rates_written(model)
        model.optimizer.learning_rate = 0.5
        tf.function(lambda step=step: step())()
        assert rates_written(model)[0] - before[0] == pytest.approx(0.5)


@not_torch
def test_snapshots_refuse_a_loop_that_they_do_not_see(tmp_path) -> None:
    model = unit_model()
    callbacks = [tfs.WarmRestarts(0.1, 4), tfs.SnapshotEnsemble(tmp_path)]
    with pytest.raises(RuntimeError, match="takes no snapshots here"):
        loop(model, *callbacks, compiled=False)
    assert patches(model) == []


def test_a_resumed_fit_with_nothing_left_to_do_is_no_such_loop(tmp_path) -> None:
    x, y = units()

    def run(epochs: int) -> keras.Model:
        model = unit_model()
        model.fit(
            x[:4],
            y[:4],
            batch_size=1,
            shuffle=False,
            verbose=0,
            epochs=epochs,
            callbacks=[
                unfreezing(),
                tfs.HyperparameterScheduler(learning_rate=tfs.Constant(0.2)),
                keras.callbacks.BackupAndRestore(
                    tmp_path / "backup", delete_checkpoint=False
                ),
            ],
        )
        return model

    run(1)
    model = run(1)
    np.testing.assert_allclose(rates_written(model)[:4], 0.2, rtol=1e-6)
    assert patches(model) == []


@pytest.mark.tensorflow
def test_the_sweep_of_one_group_stays_in_no_step_of_a_users_own() -> None:
    groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
    model = unit_model(tfs.LayerwiseOptimizer(keras.optimizers.SGD(0.1), groups))
    test = tfs.RangeTest(0.01, 0.1, 12, stop_factor=None, group="head")
    with pytest.raises(RuntimeError, match="rate of one group is swept"):
        loop(model, test, compiled=True)
    assert not rates_written(model).any()
    assert patches(model) == []
