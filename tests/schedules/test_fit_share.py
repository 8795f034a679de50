"""Lengths as a share of the fit: in steps, in files and in `fit`; and one factor."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from helpers import Rates, digits, one_cycle_values, softmax_regression

import tfschedules as tfs
from tfschedules import Constant, Cosine, Join, Linear, epochs, fit_share, schedules

X, Y = digits(48)  # six batches of eight


def fit(*callbacks: Any, model: Any = None, **arguments: Any) -> np.ndarray:
    """Fit in a fixed order; return the rate that was read after each step."""
    model = model or softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    reader = Rates()
    data = {} if "x" in arguments else {"x": X, "y": Y, "batch_size": 8}
    model.fit(
        **data,
        **{"verbose": 0, "shuffle": False, **arguments},
        callbacks=[*callbacks, reader],
    )
    return np.array(reader.rates)


def driven(schedule: Any, **more: Any) -> tfs.HyperparameterScheduler:
    return tfs.HyperparameterScheduler(learning_rate=schedule, **more)


# with shares, of an epoch of 10 steps and a fit of 20 epochs; the same in steps
SHARES: dict[str, tuple[Any, Any]] = {
    "linear": (Linear(0.1, 0.2, fit_share(0.25)), Linear(0.1, 0.2, 50)),
    "all of it": (Cosine(0.1, 0.0, fit_share(1)), Cosine(0.1, 0.0, 200)),
    "rounded down": (Cosine(0.1, 0.0, fit_share(0.333)), Cosine(0.1, 0.0, 66)),
    "not by a rounding error": (Linear(1, 0, fit_share(0.29)), Linear(1, 0, 58)),
    "at least a step": (Linear(1, 0, fit_share(1e-9)), Linear(1, 0, 1)),
    "boundaries": (
        Join([Constant(1), Constant(2), Constant(3)], [fit_share(0.4), fit_share(0.9)]),
        Join([Constant(1), Constant(2), Constant(3)], [80, 180]),
    ),
    "boundaries of all kinds": (
        tfs.Piecewise([7, epochs(3), fit_share(0.5), 150], [5, 4, 3, 2, 1]),
        tfs.Piecewise([7, 30, 100, 150], [5, 4, 3, 2, 1]),
    ),
    "cycles": (
        tfs.Repeat(Linear(1, 0, fit_share(0.1)), fit_share(0.1), 2)
        * tfs.PerCycle(0.5, fit_share(0.1), 2),
        tfs.Repeat(Linear(1, 0, 20), 20, 2) * tfs.PerCycle(0.5, 20, 2),
    ),
    "a root": (tfs.InverseSqrt(1, fit_share(0.1)), tfs.InverseSqrt(1, 20)),
    "stretched": (
        Linear(1, 0, fit_share(0.5)).stretch(2),
        Linear(1, 0, 100).stretch(2),
    ),
    "warmup": (
        tfs.warmup(Cosine(0.1, 0, fit_share(0.9)), fit_share(0.1)),
        tfs.warmup(Cosine(0.1, 0, 180), 20),
    ),
    "warmup in epochs": (
        tfs.warmup(Cosine(0.1, 0, fit_share(0.9)), epochs(2)),
        tfs.warmup(Cosine(0.1, 0, 180), 20),
    ),
    "one_cycle": (
        tfs.one_cycle(0.1, fit_share(0.5))["momentum"],
        tfs.one_cycle(0.1, 100)["momentum"],
    ),
    "warm_restarts": (
        tfs.warm_restarts(0.1, fit_share(0.1), cycle_mult=2),
        tfs.warm_restarts(0.1, 20, cycle_mult=2),
    ),
    "warmup_stable_decay": (
        tfs.warmup_stable_decay(0.1, fit_share(0.1), epochs(14), 40),
        tfs.warmup_stable_decay(0.1, 20, 140, 40),
    ),
    "recipes around boundaries of all kinds": (
        tfs.warmup(tfs.Piecewise([epochs(5), fit_share(0.5), 120], [4, 3, 2, 1]), 10),
        tfs.warmup(tfs.Piecewise([50, 100, 120], [4, 3, 2, 1]), 10),
    ),
}
every_share = pytest.mark.parametrize("name", SHARES)


# Alone ------------------------------------------------------------------------


@every_share
def test_resolves_to_the_same_in_steps(name: str) -> None:
    waiting, in_steps = SHARES[name]
    assert waiting.in_epochs
    assert waiting.resolve(10, epochs=20) == in_steps
    assert waiting.resolve(10.0, 20.0) == in_steps
    if "epochs(" not in repr(waiting):
        assert waiting.resolve(200, 1) == in_steps
    assert not in_steps.in_epochs
    assert in_steps.resolve(7, epochs=3) == in_steps


@every_share
def test_the_epochs_have_to_be_known(name: str) -> None:
    waiting = SHARES[name][0]
    rule = r"(?s)fit_share\(.*is a share of the fit.*resolve\(steps_per_epoch, epochs=…"
    with pytest.raises(ValueError, match=rule):
        waiting.resolve(10)
    for use in (lambda: waiting(0), lambda: waiting.values(3)):
        with pytest.raises(ValueError, match="with epochs=… for shares"):
            use()


@every_share
def test_round_trip_while_not_resolved(name: str) -> None:
    waiting, in_steps = SHARES[name]
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(waiting)))
    for other in (
        type(waiting).from_config(json.loads(json.dumps(waiting.get_config()))),
        keras.saving.deserialize_keras_object(serialized),
        pickle.loads(pickle.dumps(waiting)),
        eval(repr(waiting), dict(vars(schedules))),
    ):
        assert other == waiting
        assert hash(other) == hash(waiting)
        assert other.resolve(10, 20) == in_steps


def test_a_share_is_no_number_of_epochs() -> None:
    assert Linear(0, 1, fit_share(1)) != Linear(0, 1, epochs(1))
    assert fit_share(0.5) == fit_share(np.float32(0.5))
    assert repr(fit_share(0.5)) == "fit_share(0.5)"


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 10, float("nan"), "0.1", None, True])
def test_what_is_no_share(share: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="`share` must be"):
        fit_share(share)


def test_a_percentage_is_told_of() -> None:
    with pytest.raises(ValueError, match=r"<= 1\. .*share=10\. The whole fit is 1\."):
        fit_share(10)


@pytest.mark.parametrize("count", [0, -1, float("inf"), "3"])
def test_what_is_no_number_of_epochs(count: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="`epochs` must be"):
        Linear(0, 1, fit_share(1)).resolve(10, epochs=count)


def test_shares_that_do_not_increase() -> None:
    with pytest.raises(ValueError, match=r"must increase.*fit_share\(0\.5\)"):
        tfs.Piecewise([fit_share(0.5), fit_share(0.4)], [3, 2, 1])
    with pytest.raises(ValueError, match="`max_lr` must be > 0"):
        tfs.warm_restarts(-0.1, fit_share(0.5))


# In a fit ---------------------------------------------------------------------


def test_the_callback_knows_the_fit() -> None:
    schedule = tfs.warmup(Cosine(0.5, 0.1, fit_share(0.75)), fit_share(0.25))
    expected = tfs.warmup(Cosine(0.5, 0.1, 18), 6).values(24)
    np.testing.assert_allclose(fit(driven(schedule), epochs=4), expected, rtol=2e-6)
    # One callback, and fits of different lengths.
    callback = driven(schedule)
    fit(callback, epochs=2)
    np.testing.assert_allclose(fit(callback, epochs=4), expected, rtol=2e-6)


def test_updates_are_counted_and_not_batches() -> None:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    schedule = Linear(0.5, 0.1, fit_share(1))
    rates = fit(driven(schedule), model=softmax_regression(optimizer), epochs=4)
    expected = Linear(0.5, 0.1, 12).values(12).repeat(2)
    np.testing.assert_allclose(rates, expected, rtol=2e-6)


def test_a_later_part_of_a_fit_is_a_part_of_the_whole() -> None:
    schedule = Linear(0.5, 0.1, fit_share(1))
    whole = fit(driven(schedule), epochs=4)
    model = softmax_regression(keras.optimizers.SGD(0.1, momentum=0.9))
    fit(driven(schedule.resolve(6, 4)), driven_short := Rates(), model=model, epochs=4)
    assert len(driven_short.rates) == 24
    rest = fit(driven(schedule), epochs=4, initial_epoch=2)
    np.testing.assert_allclose(rest, whole[12:], rtol=2e-6)


def test_the_cycle_of_a_part_of_the_fit() -> None:
    with pytest.warns(UserWarning, match="reaches its end at step 11.*24 steps"):
        rates = fit(tfs.OneCycle(0.5, total_steps=fit_share(0.5)), epochs=4)
    expected = one_cycle_values(0.5, 12)[0]
    np.testing.assert_allclose(rates[:12], expected, rtol=2e-6)
    np.testing.assert_allclose(rates[12:], expected[-1], rtol=2e-6)


def test_shares_of_the_whole_fit_do_not_warn() -> None:
    """Of 18 steps they are 3.6, 6.1 and 8.3 long, and 17 when they are rounded."""
    parts = [Linear(0.5, 0.2, fit_share(0.2)), Linear(0.2, 0.3, fit_share(0.34))]
    last = Linear(0.3, 0.1, fit_share(0.46))
    edges = [fit_share(0.2), fit_share(0.54)]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The schedule of ")
        fit(driven(Join([*parts, last], edges)), epochs=3)
        fit(
            driven(
                tfs.warmup_stable_decay(
                    0.1, fit_share(0.2), fit_share(0.34), fit_share(0.46)
                )
            ),
            epochs=3,
        )
    with pytest.warns(UserWarning, match="reaches its end at step 9, and this fit has"):
        fit(driven(Linear(0.5, 0.1, fit_share(0.5))), epochs=3)


def batches() -> Iterator[Any]:
    for i in range(0, 48, 8):
        yield X[i : i + 8], Y[i : i + 8]


class Batches:
    """Data of unknown length, again and again."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from batches()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.filterwarnings("ignore:The schedule of ")
def test_data_of_unknown_length() -> None:
    late = tfs.Piecewise([fit_share(0.5)], [0.5, 0.1])

    def endless() -> Iterator[Any]:
        for _ in range(4):
            yield from batches()

    rates = fit(driven(late), x=endless(), steps_per_epoch=6, epochs=4)
    np.testing.assert_allclose(rates, [0.5] * 12 + [0.1] * 12)
    model = softmax_regression(keras.optimizers.SGD(0.1))
    early = Cosine(0.5, 0.1, fit_share(0.5))
    with pytest.raises(ValueError, match=r"shares of the fit.*Give steps_per_epoch="):
        fit(driven(early), model=model, x=batches(), epochs=4)


@pytest.mark.parametrize("count", [0, -1])
def test_a_fit_of_no_epochs(count: int) -> None:
    rates = fit(driven(Cosine(0.5, 0.1, fit_share(0.5))), epochs=count)
    assert len(rates) == 0


def test_a_loop_that_does_not_tell_its_epochs() -> None:
    model = softmax_regression(keras.optimizers.SGD(0.1))
    callbacks = keras.callbacks.CallbackList(
        [driven(Cosine(0.5, 0.1, fit_share(0.5)))], model=model, steps=6
    )
    with pytest.raises(ValueError, match=r"whose epochs are not known.*CallbackList"):
        callbacks.on_train_begin()


# The factor -------------------------------------------------------------------


def test_one_factor_for_all_lengths() -> None:
    schedule = tfs.warmup(tfs.warm_restarts(0.1, 10, cycle_mult=2), 5) + 0.01
    twice = tfs.warmup(tfs.warm_restarts(0.1, 20, cycle_mult=2), 10) + 0.01
    np.testing.assert_allclose(
        schedule.stretch(2).values(200), twice.values(200), rtol=1e-12
    )
    assert schedule.stretch(2).cycles(33) == twice.cycles(33) == (1, 70)
    half = tfs.cyclical(0.1, 0.5, 10).stretch(0.5)
    assert half.cycles(12) == tfs.cyclical(0.1, 0.5, 5).cycles(12) == (1, 20)
    growing = tfs.Repeat(Linear(1, 0, 7), 7, 2).stretch(1.5)
    assert growing.cycles(11) == (1, 32)  # 10.5 and 31.5
    assert Cosine(0.1, 0, 100).stretch(1.25).length == 125
    assert tfs.warm_restarts(0.1, 10).stretch(2).length is None


def test_a_stretched_schedule_in_epochs_and_in_a_fit() -> None:
    schedule = Linear(0.5, 0.1, epochs(2)).stretch(1.5)
    assert schedule.resolve(6) == Linear(0.5, 0.1, 12).stretch(1.5)
    expected = Linear(0.5, 0.1, 18).values(18)
    np.testing.assert_allclose(fit(driven(schedule), epochs=3), expected, rtol=2e-6)


@pytest.mark.parametrize("factor", [0, -1, 1e-7, 1e7, float("nan"), "2", None, True])
def test_what_is_no_factor(factor: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="`factor` must be"):
        Linear(0, 1, 10).stretch(factor)
