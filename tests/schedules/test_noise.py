"""Noise on a rate: any run of it looks random, and is a function of the step."""

from __future__ import annotations

import statistics
from typing import Any

import keras
import numpy as np
import pytest
from helpers import Rates, digits, softmax_regression

import tfschedules as tfs
from tfschedules import Noise

MANY = 1_000_000
seeds = pytest.mark.parametrize("seed", [0, 1, 12345, 2**64 - 1])


@seeds
def test_uniform_noise_is_uniform(seed: int) -> None:
    values = Noise(0.67, seed=seed).values(MANY)
    low, high = 1 - 0.67, 1 + 0.67
    assert low <= values.min() < low + 1e-5
    assert high - 1e-5 < values.max() <= high
    counts, _ = np.histogram(values, 100, (low, high))
    chi = ((counts - MANY / 100) ** 2 / (MANY / 100)).sum()
    assert 50 < chi < 165  # of 99 degrees of freedom, with a chance of 1e-4 beyond
    assert abs(values.mean() - 1) < 5 * 0.67 / np.sqrt(3 * MANY)
    assert len(np.unique(values)) == MANY


def test_normal_noise_is_normal_between_its_ends() -> None:
    amount = 0.67
    values = np.sort(Noise(amount, distribution="normal").values(MANY) - 1)
    assert -amount <= values[0]
    assert values[-1] <= amount
    normal = statistics.NormalDist()
    low, high = normal.cdf(-amount), normal.cdf(amount)
    at = np.linspace(-amount, amount, 201)
    expected = [(normal.cdf(x) - low) / (high - low) for x in at]
    found = np.searchsorted(values, at) / MANY
    np.testing.assert_allclose(found, expected, atol=2.5 / np.sqrt(MANY))


@seeds
@pytest.mark.parametrize("lag", [1, 2, 3, 10, 32_749, 65_498])
def test_steps_say_nothing_of_one_another(seed: int, lag: int) -> None:
    noise = Noise(0.5, seed=seed).values(MANY)
    pairs, _, _ = np.histogram2d(noise[:-lag], noise[lag:], 16)
    expected = (MANY - lag) / 256
    assert ((pairs - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(510)


def test_seeds_and_ages_say_nothing_of_one_another() -> None:
    one = Noise(0.5).values(MANY)
    late = np.arange(10**15, 10**15 + MANY)
    for other in (Noise(0.5, seed=1).values(MANY), Noise(0.5).values(late)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(MANY)


def test_the_graph_has_the_same_noise() -> None:
    """On every backend: integers of 32 bits are enough for it."""
    steps = np.array([0, 1, 2, 46_340, 46_341, 10**6 + 7, 2**31 - 2, 2**31 - 1])
    for distribution in ("uniform", "normal"):
        noise = Noise(0.999, seed=5, distribution=distribution)
        found = keras.ops.convert_to_numpy(noise(steps))
        np.testing.assert_allclose(found, noise.values(steps), rtol=2e-6)
        far = float(keras.ops.convert_to_numpy(noise(10**12)))
        assert far == pytest.approx(noise.values([10**12])[0], rel=2e-6)


def test_noise_stays_for_its_steps() -> None:
    values = Noise(0.5, steps=7, seed=3).values(70).reshape(10, 7)
    assert (values == values[:, :1]).all()
    assert len(np.unique(values)) == 10
    np.testing.assert_array_equal(values[:, 0], Noise(0.5, seed=3).values(10))


def test_a_fit_has_it_and_a_resumed_one_has_the_same() -> None:
    x, y = digits(48)
    schedule = tfs.Cosine(0.5, 0.1, 18) * Noise(0.3, steps=2, seed=1)

    def rates(**arguments: Any) -> list[float]:
        model = softmax_regression(keras.optimizers.SGD(0.1))
        callbacks = [tfs.HyperparameterScheduler(schedule), reader := Rates()]
        model.fit(x, y, 8, verbose=0, shuffle=False, callbacks=callbacks, **arguments)
        return reader.rates

    expected = schedule.values(18)
    np.testing.assert_allclose(rates(epochs=3), expected, rtol=2e-6)
    np.testing.assert_allclose(rates(epochs=3, initial_epoch=2), expected[12:], 2e-6)


@pytest.mark.parametrize(
    ("named", "rule"),
    [
        ({"amount": 0}, "`amount` must be > 0"),
        ({"amount": 1}, "`amount` must be < 1, for the factor to stay above 0"),
        ({"amount": "0.1"}, "`amount` must be a number"),
        ({"steps": 0.5}, "`steps` must be >= 1.*epochs"),
        ({"seed": -1}, "`seed` must be >= 0"),
        ({"seed": 2**64}, "`seed` must be <= "),
        ({"seed": 0.5}, "`seed` must be a whole number"),
        ({"seed": None}, "`seed` must be a number"),
        ({"distribution": "gauss"}, "`distribution` must be one of 'uniform', 'norm"),
    ],
)
def test_what_is_no_noise(named: dict[str, Any], rule: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rule):
        Noise(**{"amount": 0.1} | named)
