"""Copies of callbacks, at any time: KerasTuner makes them, and so does `pickle`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers import Interrupt, line, one_cycle_values, patches
from unit_steps import rates_written, unit_model, units

import tfschedules as tfs

STEPS = 4
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda callback: pickle.loads(pickle.dumps(callback)),
}
GROUPS = [tfs.LayerGroup(name, [name]) for name in ("body", "head")]
RESTARTS = 0.05 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS))

# What makes each callback, and the rates of its fit of four steps.
CALLBACKS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "scheduler": (
        lambda folder: tfs.HyperparameterScheduler(tfs.Linear(0.8, 0.0, tfs.epochs(1))),
        line(0.8, 0.0, STEPS, STEPS),
    ),
    "cyclical": (
        lambda folder: tfs.CyclicalLearningRate(0.1, 0.3, step_size=2),
        [0.1, 0.2, 0.3, 0.2],
    ),
    "restarts": (lambda folder: tfs.WarmRestarts(0.1, STEPS), RESTARTS),
    "one cycle": (lambda folder: tfs.OneCycle(0.1), one_cycle_values(0.1, STEPS)[0]),
    "range test": (
        lambda folder: tfs.RangeTest(1e-3, 1.0, STEPS, stop_factor=None),
        np.geomspace(1e-3, 1.0, STEPS),
    ),
    "unfreezing": (lambda folder: tfs.GradualUnfreezing(GROUPS), [0.25] * STEPS),
    "ensemble": (lambda folder: tfs.SnapshotEnsemble(folder / "kept"), RESTARTS),
    "logger": (lambda folder: tfs.TensorBoardLogger(folder / "logs"), [0.25] * STEPS),
}


class AtBatch(keras.callbacks.Callback):
    """Does something in a fit, after its second batch."""

    def __init__(self, action: Callable[[], None]):
        super().__init__()
        self.action = action

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.action()


def fit(model: keras.Model, callback: Any, *others: Any) -> np.ndarray:
    """The rates of the next fit of four steps."""
    x, y = units()
    if isinstance(callback, tfs.SnapshotEnsemble):
        callback.overwrite = True
        others = (tfs.WarmRestarts(0.1, STEPS), *others)
    before = rates_written(model)[:STEPS]
    written = before

    class Reads(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            nonlocal written
            written = rates_written(self.model)[:STEPS]

    model.fit(
        x[:STEPS], y[:STEPS], batch_size=1, shuffle=False, verbose=0,
        callbacks=[callback, *others, Reads()],
    )  # fmt: skip
    return written - before


def is_free(callback: Any) -> bool:
    return callback._loan is None and callback._model is None


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_copy_at_any_time_is_a_callback_of_its_own(name, tmp_path) -> None:
    make, rates = CALLBACKS[name]
    callback, model = (
        make(tmp_path),
        unit_model(rate=0.25, run_eagerly=True, jit_compile=False),
    )
    copies: list[Any] = []

    def keep() -> None:
        copies.extend(way(callback) for way in WAYS.values())

    keep()  # before a fit
    np.testing.assert_allclose(fit(model, callback, AtBatch(keep)), rates, rtol=1e-4)
    keep()  # after a fit
    with pytest.raises(KeyboardInterrupt, match="by the test"):
        fit(model, callback, Interrupt(2))
    keep()  # after one that was interrupted
    if name == "range test":
        callback.restore()
        known = [one.result is not None for one in copies]
        assert known == [False] * 6 + [True] * 3 + [False] * 3
        for one in copies[6:9]:
            np.testing.assert_allclose(one.result.learning_rates, rates)
    assert len(copies) == 12
    for one in copies:
        assert is_free(one)
        assert repr(one) == repr(callback)
        model.optimizer.learning_rate = 0.25
        np.testing.assert_allclose(fit(model, one), rates, rtol=1e-4)
        assert patches(model) == []
        assert all(weight.trainable for weight in model.weights)


def test_a_copy_in_a_fit_of_its_own_while_the_original_is_in_one() -> None:
    callback = tfs.OneCycle(0.1)
    rates = one_cycle_values(0.1, STEPS)[0]
    other = unit_model()
    written = []

    def use_a_copy() -> None:
        written.append(fit(other, copy.deepcopy(callback)))

    found = fit(unit_model(), callback, AtBatch(use_a_copy))
    np.testing.assert_allclose(found, rates, rtol=1e-4)
    np.testing.assert_allclose(written[0], rates, rtol=1e-4)


def test_a_deep_copy_keeps_data_that_can_be_read_once() -> None:
    x, y = units()
    batches = (batch for batch in [(x[:4], y[:4])])
    test = tfs.RangeTest(steps=STEPS, validation_data=batches)
    again = copy.deepcopy(test)
    assert again.result is None
    assert again._validation[0].shape == (4, len(x))


@pytest.mark.parametrize("way", ["copy", "deepcopy"])
def test_a_copy_unfreezes_the_layers_of_the_same_model(way) -> None:
    model = unit_model(rate=0.25)
    groups = [tfs.LayerGroup(n, [model.get_layer(n)]) for n in ("body", "head")]
    again = WAYS[way](tfs.GradualUnfreezing(groups))
    fit(model, again)
    np.testing.assert_allclose(rates_written(model, "body")[:STEPS], 0)
    np.testing.assert_allclose(rates_written(model)[:STEPS], 0.25)


def test_layers_that_were_pickled_are_those_of_no_model() -> None:
    model = unit_model(rate=0.25)
    groups = [tfs.LayerGroup(n, [model.get_layer(n)]) for n in ("body", "head")]
    again = WAYS["pickle"](tfs.GradualUnfreezing(groups))
    with pytest.raises(ValueError, match="is not in the model that is trained"):
        fit(model, again)
    assert patches(model) == []
