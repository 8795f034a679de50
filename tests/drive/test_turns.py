"""Whose step it is, where that is not plain to see."""

from __future__ import annotations

import functools
import gc
import sys
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, JIT, line, patches
from nested_fits import FIT, Does, fit
from unit_steps import rates_written, tape_step, unit_model, units

import tfschedules as tfs
from tfschedules.drive import frames, step_lock

FALLING = line(0.24, 0.0, 12, FIT)


def falling() -> tfs.HyperparameterScheduler:
    return tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.24, 0.0, 12))


class Wrap(keras.callbacks.Callback):
    """Hands its calls on to a list of its own."""

    def __init__(self, *callbacks: Any) -> None:
        super().__init__()
        self.given = callbacks

    def on_train_begin(self, logs: Any = None) -> None:
        self.list = keras.callbacks.CallbackList(
            [*self.given], model=self.model, **self.params
        )
        self.list.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.list.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.list.on_train_batch_begin(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.list.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self.list.on_train_end(logs)


def test_a_callback_that_has_callbacks_of_its_own_hands_the_fit_on() -> None:
    model = unit_model()
    fit(model, Wrap(falling()))
    np.testing.assert_allclose(rates_written(model)[:FIT], FALLING, rtol=1e-5)
    assert patches(model) == []


def test_a_fit_is_found_though_somebody_has_wrapped_keras_model(monkeypatch) -> None:
    wrapped = keras.Model.fit
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: wrapped(*a, **k))
    frames.codes.cache_clear()
    model = unit_model()
    fit(model, falling())
    np.testing.assert_allclose(rates_written(model)[:FIT], FALLING, rtol=1e-5)
    monkeypatch.undo()
    frames.codes.cache_clear()


def test_a_train_function_that_a_callback_calls_makes_no_step_of_the_fit() -> None:
    model = unit_model()

    class Direct(keras.Model):
        def train_on_batch(self, x: Any, y: Any) -> None:
            self.make_train_function()
            if BACKEND == "jax":
                state = self._get_jax_state(
                    trainable_variables=True,
                    non_trainable_variables=True,
                    optimizer_variables=True,
                    metrics_variables=True,
                )
                _, state = self.train_function(state, iter([(x, y, None)]))
                kinds = ("trainable", "non_trainable", "optimizer", "metrics")
                names = [f"{kind}_variables" for kind in kinds]
                self._jax_state = dict(zip(names, state, strict=True))
                self._jax_state_synced = False
                self.jax_state_sync()
            elif BACKEND == "torch":
                self.train_function([(x, y, None)])
            else:
                self.train_function(iter([(x, y, None)]))

    own = Direct(model.input, model.output)
    own.compile(keras.optimizers.SGD(0.1), loss=model.loss)

    def once(model: keras.Model, at: int) -> None:
        x, y = units()
        model.train_on_batch(x[at : at + 1], y[:1])

    fit(own, falling(), Does("epoch_end", once))
    np.testing.assert_allclose(rates_written(own)[:FIT], FALLING, rtol=1e-5)


@pytest.mark.tensorflow
def test_an_optimizer_is_free_after_a_fit_that_died() -> None:
    import tensorflow as tf

    model = unit_model()
    x, _ = units()

    def die(*_: Any) -> None:
        raise ValueError("by the test")

    with pytest.raises(ValueError, match="by the test"):
        fit(model, falling(), Does("train_batch_end", die))
    model.optimizer.learning_rate = 0.5

    step = tape_step(model)
    step(x[20:21])
    tf.function(step)(x[21:22])
    np.testing.assert_allclose(rates_written(model)[20:22], 0.5, rtol=1e-6)
    assert patches(model) == []


def a_loop(model: keras.Model, callback: Any, step: Any, hooks: bool = True) -> None:
    known = keras.callbacks.CallbackList([callback], model=model)
    known.on_train_begin()
    try:
        for epoch in range(2):
            if hooks:
                known.on_epoch_begin(epoch)
            for batch in range(4):
                if hooks:
                    known.on_train_batch_begin(batch)
                step(8 + 4 * epoch + batch)
            if hooks:
                known.on_epoch_end(epoch)
    finally:
        known.on_train_end()


def test_a_loop_without_any_hooks_begins_at_step_0() -> None:
    model = unit_model()
    x, y = units()
    model.fit(x[:5], y[:5], batch_size=1, shuffle=False, verbose=0)
    schedule = tfs.HyperparameterScheduler(learning_rate=tfs.Linear(0.8, 0.0, 8))
    a_loop(
        model,
        schedule,
        lambda at: model.train_on_batch(x[at : at + 1], y[:1]),
        hooks=False,
    )
    expected = line(0.8, 0.0, 8, 8)
    np.testing.assert_allclose(rates_written(model)[8:16], expected, rtol=1e-5)


@pytest.mark.tensorflow
def test_what_a_compiled_step_cannot_be_told_is_refused() -> None:
    import tensorflow as tf

    def tape_of(model: keras.Model) -> Any:
        x, _ = units()
        step = tf.function(tape_step(model))
        return lambda at: step(x[at : at + 1])

    model = unit_model()
    waits = tfs.Piecewise([tfs.epochs(1)], [0.1, 0.01])
    callback = tfs.HyperparameterScheduler(learning_rate=waits)
    with pytest.raises(RuntimeError, match="is to have another schedule"):
        a_loop(model, callback, tape_of(model))

    model = unit_model()
    step = tape_of(model)
    step(0)
    with pytest.raises(RuntimeError, match="does not drive the updates"):
        a_loop(model, falling(), step, hooks=False)
    assert patches(model) == []

    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = unit_model(accumulating)
    step = tape_of(model)
    step(0)
    step(1)
    with pytest.raises(RuntimeError, match="does not drive the updates"):
        a_loop(model, falling(), step)
    assert int(model.optimizer.iterations) == 2  # refused with the next update


def test_a_range_test_in_a_callback_of_a_loop_is_refused_and_the_loop_goes_on() -> None:
    model = unit_model()
    x, y = units()
    seen = []

    class Find(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            with pytest.raises(RuntimeError, match="or loop, has ended") as error:
                tfs.find_learning_rate(model, x, y, verbose=0, steps=4)
            seen.append(error)

    known = keras.callbacks.CallbackList([falling(), Find()], model=model)
    known.on_train_begin()
    for epoch in range(2):
        known.on_epoch_begin(epoch)
        for batch in range(4):
            at = 4 * epoch + batch
            known.on_train_batch_begin(batch)
            model.train_on_batch(x[at : at + 1], y[:1])
        known.on_epoch_end(epoch)
    known.on_train_end()
    assert len(seen) == 2
    np.testing.assert_allclose(rates_written(model)[:8], FALLING[:8], rtol=1e-5)


def test_a_loop_whose_list_is_gone_says_so() -> None:
    model = unit_model()
    x, y = units()
    callback = falling()
    known = keras.callbacks.CallbackList([callback], model=model)
    known.on_train_begin()
    del known
    gc.collect()
    model.train_on_batch(x[:1], y[:1])  # plain
    with pytest.raises(RuntimeError, match="its CallbackList is gone: keep it"):
        callback.on_epoch_begin(0)


@pytest.mark.tensorflow
def test_a_model_without_an_optimizer_is_refused_in_words(tmp_path) -> None:
    model = unit_model()
    model.compile(optimizer=None, loss=model.loss)
    callback = tfs.TensorBoardLogger(tmp_path)
    callback.set_model(model)
    with pytest.raises(ValueError, match="compiled with an optimizer"):
        callback.on_train_begin()


@pytest.mark.tensorflow
def test_steps_of_another_thread_take_turns_with_those_of_the_fit() -> None:
    import threading

    model = unit_model()
    x, y = units()
    begun, ended = threading.Event(), threading.Event()

    def others() -> None:
        begun.wait()
        at = 16
        while not ended.is_set() and at < 40:
            model.train_on_batch(x[at : at + 1], y[:1])
            at += 1

    thread = threading.Thread(target=others)
    thread.start()
    fit(model, falling(), Does("train_begin", lambda model, at: begun.set()))
    ended.set()
    thread.join()
    np.testing.assert_allclose(rates_written(model)[:FIT], FALLING, rtol=1e-5)


class OwnList(keras.callbacks.CallbackList):
    """A list of a kind of its own."""

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)


class Later(Wrap):
    """Hands its calls on from the first batch on."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.list = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        pass

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.list is None:
            super().on_train_begin()
            self.list.on_epoch_begin(0)
        super().on_train_batch_begin(batch, logs)


def instrumented(model: keras.Model, monkeypatch: Any) -> list[Any]:
    method = keras.callbacks.CallbackList.on_train_begin

    @functools.wraps(method)
    def counted(self: Any, logs: Any = None) -> None:
        method(self, logs)

    monkeypatch.setattr(keras.callbacks.CallbackList, "on_train_begin", counted)
    return [falling()]


LISTS = {
    "of a kind of its own": lambda model, _: OwnList(
        [falling()], model=model, epochs=1, steps=FIT, add_history=True
    ),
    "instrumented": instrumented,
    "begun at the first batch": lambda *_: [Later(falling())],
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_fit_is_driven_whichever_list_has_the_callback(kind, monkeypatch) -> None:
    model = unit_model()
    x, y = units()
    callbacks = LISTS[kind](model, monkeypatch)
    arguments = {"batch_size": 1, "shuffle": False, "verbose": 0}
    model.fit(x[:FIT], y[:FIT], callbacks=callbacks, **arguments)
    np.testing.assert_allclose(rates_written(model)[:FIT], FALLING, rtol=1e-5)
    assert patches(model) == []


@pytest.mark.skipif(BACKEND == "torch", reason="torch's trainer has one of its own")
def test_a_train_function_of_ones_own_need_not_know_force() -> None:
    class Own(keras.Model):
        def make_train_function(self) -> Any:
            return super().make_train_function()

        def make_test_function(self) -> Any:
            return super().make_test_function()

    plain = unit_model()
    model = Own(plain.input, plain.output)
    model.compile(keras.optimizers.SGD(0.1), loss=plain.loss, jit_compile=JIT)
    fit(model, falling())
    np.testing.assert_allclose(rates_written(model)[:FIT], FALLING, rtol=1e-5)


def test_a_fit_that_one_look_misses_is_no_dead_one(monkeypatch) -> None:
    """A frame that returns while it is looked at has lost those that wait for it."""
    model = unit_model()
    real, looks = sys._current_frames, []

    def sees_half() -> dict[int, Any]:
        looks.append(0)
        return {} if len(looks) % 2 else real()

    monkeypatch.setattr(sys, "_current_frames", sees_half)
    fit(model, falling(), Does("train_batch_end", lambda m, _: m.make_train_function()))
    assert len(looks) > FIT
    np.testing.assert_allclose(rates_written(model)[:FIT], FALLING, rtol=1e-5)


@pytest.mark.tensorflow
def test_a_step_that_waits_for_another_one_does_not_wait_in_silence(
    monkeypatch,
) -> None:
    import threading

    monkeypatch.setattr(step_lock, "PATIENCE", 0.05)
    lock = step_lock.StepLock("mine")
    with lock, lock:  # one thread may take it again
        waiting = threading.Thread(target=lambda: said.append(told(lock)))
        said: list[str] = []
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join()
    assert "A step of 'mine' has waited 0.05 seconds" in said[0]


def told(lock: step_lock.StepLock) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with lock:
            return str(caught[0].message)
