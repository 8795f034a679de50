"""Fits in several threads: who may, who may not, and what an interruption leaves."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers import one_cycle_values, patches
from injector import EVERY, Injector
from interrupted import Interrupts, differences, find, network, state
from unit_steps import rates_written, unit_model, units

import tfschedules as tfs

STEPS = 6
WAIT = 60  # seconds, for what comes at once


class Pause(keras.callbacks.Callback):
    """A fit that waits in one of its hooks until it may go on."""

    def __init__(self, hook: str = "on_train_batch_end"):
        super().__init__()
        self.reached, self.may_go_on = threading.Event(), threading.Event()
        self.batches = 0
        action = getattr(self, hook)

        def pauses(*arguments: Any, **keywords: Any) -> None:
            action(*arguments, **keywords)
            self.batches += 1
            if self.batches == 3 or hook == "set_model":
                self.reached.set()
                assert self.may_go_on.wait(WAIT)

        setattr(self, hook, pauses)


class Thread(threading.Thread):
    """A thread whose error is raised where it is waited for."""

    def __init__(self, function: Callable[[], Any]):
        super().__init__(daemon=True)
        self.function = function
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error

    def end(self) -> Any:
        self.join(WAIT)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result

    def was_interrupted(self) -> bool:
        """Whether KeyboardInterrupt has ended it."""
        self.join(WAIT)
        return isinstance(self.error, KeyboardInterrupt)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt there, between two of its statements."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self.ident), ctypes.py_object(KeyboardInterrupt)
        )


def fit(model: keras.Model, *callbacks: Any, at: int = 0) -> np.ndarray:
    """The rates of a fit."""
    x, y = units()
    those = slice(at, at + STEPS)
    model.fit(
        x[those], y[those], batch_size=1, shuffle=False, verbose=0,
        callbacks=list(callbacks),
    )  # fmt: skip
    return rates_written(model)[those]


def one_cycle() -> np.ndarray:
    return one_cycle_values(0.1, STEPS)[0]


@pytest.mark.parametrize("hook", ["set_model", "on_train_batch_end"])
@pytest.mark.parametrize("same_model", [False, True])
def test_one_callback_is_in_one_fit_at_a_time(hook, same_model) -> None:
    callback, pause = tfs.OneCycle(0.1), Pause(hook)
    first = unit_model()
    second = first if same_model else unit_model()
    thread = Thread(lambda: fit(first, callback, pause))
    assert pause.reached.wait(WAIT)
    with pytest.raises(RuntimeError, match=r"is in use.*Make another one"):
        fit(second, callback)
    pause.may_go_on.set()
    np.testing.assert_allclose(thread.end(), one_cycle(), rtol=1e-5)
    assert patches(first) == patches(second) == []
    second.optimizer.learning_rate = 0.25
    np.testing.assert_allclose(fit(second, at=10), 0.25)
    # And the callback is free again.
    np.testing.assert_allclose(fit(second, callback, at=20), one_cycle(), rtol=1e-5)


def test_two_fits_of_a_model_have_one_driver() -> None:
    model, pause = unit_model(), Pause()
    thread = Thread(lambda: fit(model, tfs.OneCycle(0.1), pause))
    assert pause.reached.wait(WAIT)
    with pytest.raises(RuntimeError, match=r"another thread has begun.*clone_model"):
        fit(model, tfs.WarmRestarts(0.2, STEPS))
    pause.may_go_on.set()
    np.testing.assert_allclose(thread.end(), one_cycle(), rtol=1e-5)
    assert patches(model) == []


def test_a_range_test_beside_a_fit_is_refused_and_the_fit_is_as_without() -> None:
    expected = fit(unit_model())
    model, pause = unit_model(), Pause()
    thread = Thread(lambda: fit(model, pause))
    assert pause.reached.wait(WAIT)
    with pytest.raises(ValueError, match="beside it in another thread"):
        tfs.find_learning_rate(model, *units(), verbose=0)
    pause.may_go_on.set()
    np.testing.assert_array_equal(thread.end(), expected)
    assert patches(model) == []


def test_an_exception_from_outside_ends_a_fit_in_a_thread(tmp_path) -> None:
    model, pause = unit_model(), Pause()
    groups = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
    callbacks = [
        tfs.OneCycle(0.1),
        tfs.GradualUnfreezing(groups),
        tfs.TensorBoardLogger(tmp_path),
    ]
    thread = Thread(lambda: fit(model, *callbacks, pause))
    assert pause.reached.wait(WAIT)
    thread.interrupt()
    pause.may_go_on.set()
    assert thread.was_interrupted()
    model.optimizer.learning_rate = 0.25
    np.testing.assert_allclose(fit(model, at=10), 0.25)
    assert patches(model) == []
    assert all(weight.trainable for weight in model.weights)
    assert rates_written(model, "body")[10:16] == pytest.approx(0.25)


def test_a_range_test_in_a_thread_finds_the_same() -> None:
    expected = find(network()).losses
    model = network()
    before = state(model)
    result = Thread(lambda: find(model)).end()
    np.testing.assert_array_equal(result.losses, expected)
    assert differences(before, state(model)) == []


def test_a_range_test_in_a_thread_is_interrupted_twice_and_puts_back() -> None:
    """Signals do not come there, and nothing waits."""
    model = network()
    before = state(model)

    def interrupted(injector: Injector) -> Any:
        try:
            find(model, callbacks=[Interrupts(injector, "batch")])
        finally:
            injector.disarm()

    counted = Injector()
    assert Thread(lambda: interrupted(counted)).was_interrupted()
    numbers = counted.firsts_and_lasts()
    for number in numbers if EVERY else numbers[:: len(numbers) // 8]:
        injector = Injector(number)
        thread = Thread(lambda injector=injector: interrupted(injector))
        assert thread.was_interrupted()
        assert injector.where
        assert differences(before, state(model)) == [], injector.where
