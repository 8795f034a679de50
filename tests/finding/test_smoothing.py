"""Smoothing, and what it and the rules refuse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sweep_curves import RATES, curve, sweeps

from tfschedules.finding.suggestions import (
    Suggestion,
    smooth,
    suggest,
)

pytestmark = pytest.mark.any_backend


def test_smoothing_keeps_straight_lines_to_their_ends():
    line = np.linspace(5.0, -3.0, 100)
    np.testing.assert_allclose(smooth(RATES, line), line, atol=1e-12)


def test_smoothing_equals_weighted_least_squares():
    width = 4.0
    offset = np.arange(60) - 57  # near the end
    root = np.exp(-0.25 * (offset / width) ** 2)
    design = np.stack([np.ones(60), offset], axis=1)
    losses = np.random.default_rng(0).uniform(size=60)  # without spikes
    found = smooth(RATES[:60], losses, width=width)
    solution = np.linalg.lstsq(design * root[:, None], losses * root, rcond=None)[0]
    assert found[57] == pytest.approx(solution[0], rel=1e-4)


def test_smoothing_has_no_lag():
    bump = np.exp(-0.5 * ((np.arange(100) - 50) / 6.0) ** 2)
    assert np.argmax(smooth(RATES, bump)) == 50
    mirrored = smooth(RATES, bump)[:0:-1]
    np.testing.assert_allclose(smooth(RATES, bump)[1:], mirrored, atol=1e-8)


def test_smoothing_reduces_noise():
    noise = np.random.default_rng(0).normal(size=100)
    assert smooth(RATES, noise).std() < 0.5 * noise.std()


def test_smoothing_ends_at_the_first_non_finite_loss():
    losses = curve()
    losses[40], losses[60] = np.inf, np.nan
    smoothed = smooth(RATES, losses)
    assert smoothed.shape == (100,)
    assert np.isfinite(smoothed[:40]).all()
    assert np.isnan(smoothed[40:]).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_smoothing_short_curves(n):
    np.testing.assert_allclose(smooth(RATES[:n], np.arange(n)), np.arange(n))


@pytest.mark.parametrize("function", [smooth, suggest])
@pytest.mark.parametrize(
    ("rates", "losses", "error", "match"),
    [
        ([1, 2], [1, 2, 3], ValueError, r"`losses` must .* 3 losses and 2 learning"),
        ([[1, 2]], [1, 2], ValueError, r"`learning_rates` must .* shape \(1, 2\)"),
        ([1, 2], [[[1, 2]]], ValueError, r"`losses` must .* shape \(1, 1, 2\)"),
        ([1, 2], [[1, 2, 3]], ValueError, r"`losses` must .*"),
        (0.1, 1.0, ValueError, r"`learning_rates` must .* shape \(\)"),
        ([0, 1], [1, 2], ValueError, r"must be positive.*Received: \[0.0\]"),
        ([-1, 1], [1, 2], ValueError, r"must be positive.*Received: \[-1.0\]"),
        ([1, np.nan], [1, 2], ValueError, "must be positive, finite"),
        ([1, 2, 2], [1, 2, 3], ValueError, r"increasing.*\[2.0, 2.0\] .* position 2"),
        ([2, 1], [1, 2], ValueError, r"sort both.*Received: \[2.0, 1.0\]"),
        (["a", "b"], [1, 2], TypeError, "`learning_rates` must be .* numbers"),
        ([1, 2], [1, [2, 3]], TypeError, "`losses` must be .* numbers"),
        ([1, 2], ["x", "y"], TypeError, r"`losses` must .*=\['x', 'y'\]"),
    ],
)
def test_bad_curves(function, rates, losses, error, match):
    with pytest.raises(error, match=match):
        function(rates, losses)


def test_smoothing_wants_one_sweep():
    with pytest.raises(
        ValueError, match=r"`losses` must be one-dim.* shape \(2, 100\)"
    ):
        smooth(RATES, sweeps(2, 0.1))


def test_bad_sweeps():
    with pytest.raises(ValueError, match=r"one value for each.* 99 losses and 100"):
        suggest(RATES, sweeps(3, 0.1)[:, :99])
    with pytest.raises(ValueError, match=r"\(repeats, steps\).* shape \(0, 100\)"):
        suggest(RATES, np.zeros((0, 100)))


def test_bad_rule():
    with pytest.raises(
        ValueError, match=r"`rule` must be one of 'descent', .*Received: rule='fastest'"
    ):
        suggest(RATES, curve(), rule="fastest")
    with pytest.raises(ValueError, match=r"`rule` must be one of .*Received: rule=3"):
        suggest(RATES, curve(), rule=3)


@pytest.mark.parametrize(
    "losses",
    [["0.1"] * 100, np.ma.masked_greater(curve(), 2.0), [True] * 100, [1j] * 100],
    ids=["texts", "masked", "truths", "complex"],
)
def test_what_numpy_would_make_numbers_of_is_refused(losses):
    with pytest.raises(TypeError, match=r"`losses` must be a sequence of numbers"):
        suggest(RATES, losses)


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf"), "wide"])
def test_bad_width(width):
    with pytest.raises(ValueError, match=r"`width` must be a positive.*Received: "):
        smooth(RATES, curve(), width=width)


def test_suggestion_is_immutable():
    with pytest.raises(AttributeError, match="cannot assign"):
        Suggestion(0.1, "", {}, None).learning_rate = 1.0


def test_module_needs_neither_keras_nor_tensorflow():
    code = (
        "import sys, tfschedules.finding.suggestions;"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
