"""`EarlyStopping` beside a schedule that is made for the whole fit."""

from __future__ import annotations

import types
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from helpers import one_cycle_values
from unit_steps import rates_written, unit_model, units

import tfschedules as tfs
from tfschedules.callbacks.early_stops import first_stop

EPOCHS, PER_EPOCH = 10, 4
STEPS = EPOCHS * PER_EPOCH
RATES = one_cycle_values(0.5, STEPS)[0]


class Stubborn(keras.callbacks.EarlyStopping):
    """A subclass."""


def stop(patience: int = 2, **arguments: Any) -> Any:
    return keras.callbacks.EarlyStopping("loss", patience=patience, **arguments)


def fit(callbacks: Any, epochs: int = EPOCHS, **arguments: Any) -> keras.Model:
    """A fit whose loss is lower in each epoch, and which is not stopped."""
    x, y = units()
    model = unit_model()
    model.fit(
        x[:PER_EPOCH],
        y[:PER_EPOCH],
        batch_size=1,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        **arguments,
    )
    return model


@pytest.mark.parametrize("kind", [keras.callbacks.EarlyStopping, Stubborn])
@pytest.mark.parametrize("first", [True, False])
def test_one_cycle_says_where_it_may_end(kind: Any, first: bool) -> None:
    callbacks = [tfs.OneCycle(0.5), kind("loss", patience=2)]
    # Epochs count from 1: the first is the best, and two without improvement follow.
    highest = RATES[3 * PER_EPOCH - 1 : -PER_EPOCH : PER_EPOCH].max()
    message = (
        rf"{kind.__name__} may end this fit after epoch 3 or a later one.*rate of up "
        rf"to {highest:.3g}: the peak of OneCycle is 0\.5.*down to "
        rf"{RATES[-1]:.3g} .*\(restore_best_weights=True\).*ReduceLROnPlateau"
    )
    with pytest.warns(UserWarning, match=message) as found:
        fit(callbacks if first else callbacks[::-1])
    assert len([w for w in found if "may end this fit" in str(w.message)]) == 1


def test_what_it_says_happens() -> None:
    """A fit that is stopped as early as it can be ends at a rate near the peak."""

    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["worse"] = float(epoch)

    def batches() -> Any:
        x, y = units()
        for i in range(STEPS):
            yield x[i : i + 1], y[:1]

    model = unit_model()
    early = keras.callbacks.EarlyStopping("worse", patience=3, mode="min")
    with pytest.warns(UserWarning, match="after epoch 4 or a later one"):
        model.fit(
            batches(),
            steps_per_epoch=PER_EPOCH,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[tfs.OneCycle(0.5), Worse(), early],
        )
    written = rates_written(model)
    assert np.count_nonzero(written) == 4 * PER_EPOCH
    assert written[4 * PER_EPOCH - 1] == pytest.approx(RATES[4 * PER_EPOCH - 1])
    assert written[4 * PER_EPOCH - 1] > 0.9 * 0.5


@pytest.mark.parametrize("patience", [0, 1, 2, 5])
@pytest.mark.parametrize("baseline", [None, -1.0, 100.0])
@pytest.mark.parametrize(("start", "epoch"), [(0, 0), (3, 0), (3, 2), (2, 5)])
def test_the_first_stop_is_the_one_of_keras(
    patience: int, baseline: float | None, start: int, epoch: int
) -> None:
    """Over what may be seen: the first value, and from then on nothing better."""
    stops = []
    for values in ([0.0] * 20, [200.0] * 20):
        callback = keras.callbacks.EarlyStopping(
            "loss", patience=patience, baseline=baseline, start_from_epoch=start
        )
        model = types.SimpleNamespace(stop_training=False)
        callback.set_model(model)
        callback.on_train_begin()
        for now, value in enumerate(values, start=epoch):
            callback.on_epoch_end(now, {"loss": value})
            if model.stop_training:
                stops.append(now)
                break
    assert first_stop(callback, epoch) == min(stops)


@pytest.mark.parametrize(
    "callbacks",
    [
        # The best epoch is kept.
        lambda: [tfs.OneCycle(0.5), stop(restore_best_weights=True)],
        # The last epoch ends the fit anyway; one before has a low rate already.
        lambda: [tfs.OneCycle(0.5), stop(patience=9)],
        lambda: [tfs.OneCycle(0.5), stop(patience=8)],
        lambda: [tfs.OneCycle(0.5), stop(patience=1, start_from_epoch=8)],
        # A rate that stays near its peak all the time.
        lambda: [tfs.CyclicalLearningRate(0.1, 0.5, 4), stop()],
        lambda: [tfs.HyperparameterScheduler(tfs.Exponential(0.5, 0.1, 40)), stop()],
        lambda: [tfs.HyperparameterScheduler(tfs.Constant(0.1)), stop()],
        # Nothing that stops.
        lambda: [tfs.OneCycle(0.5), keras.callbacks.TerminateOnNaN()],
    ],
    ids=[
        "restored",
        "the last epoch",
        "a low rate",
        "a late start",
        "cycles",
        "a slow decay",
        "constant",
        "no stop",
    ],
)
def test_no_warning_where_it_is_not_so(callbacks: Any) -> None:
    fit(callbacks())


def test_it_is_so_for_every_schedule_that_is_made_for_the_whole_fit() -> None:
    cosine = tfs.HyperparameterScheduler(tfs.Cosine(0.5, 0.0, tfs.epochs(EPOCHS)))
    message = "the peak of HyperparameterScheduler is 0\\.5"
    with pytest.warns(UserWarning, match=message):
        fit([cosine, stop()])


def test_in_a_loop_around_train_on_batch() -> None:
    model = unit_model()
    callbacks = keras.callbacks.CallbackList(
        [tfs.OneCycle(0.5), stop()], model=model, epochs=EPOCHS, steps=PER_EPOCH
    )
    callbacks.on_train_begin()
    with pytest.warns(UserWarning, match="after epoch 3 or a later one"):
        callbacks.on_epoch_begin(0)


def test_the_stop_of_a_fit_around_is_none_of_a_fit_inside() -> None:
    """A callback of one model's fit trains another model."""

    class Inside(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*may end this fit")
                fit([tfs.OneCycle(0.5)])

    fit([Inside(), stop()], epochs=1)


def test_a_fit_that_goes_on() -> None:
    """What is before its beginning can no more be stopped at."""
    late = tfs.OneCycle(0.5, total_steps=STEPS, start_step=6 * PER_EPOCH)
    highest = RATES[8 * PER_EPOCH - 1]  # after its second epoch of four
    with pytest.warns(UserWarning, match=f"epoch 2 or a later.*up to {highest:.3g}:"):
        fit([late, stop(patience=1)], epochs=4)
    fit([late, stop(patience=2)], epochs=4)
