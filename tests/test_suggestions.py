"""Curves with a known answer, curves without one, and laws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tfschedules.suggestions import RULES, Bounds, Suggestion, smooth, suggest

RATES = np.geomspace(1e-6, 10.0, 100)
CENTRE, EDGE = 1e-2, 0.5
NOISE = {
    "normal": lambda rng: rng.normal(size=100),
    "exponential": lambda rng: rng.exponential(size=100),
    "heavy tails": lambda rng: rng.standard_t(3, size=100),
}


def curve(rates=RATES, noise=0.0, seed=0, centre=CENTRE, edge=EDGE):
    """From 2.3 to 0.3, half way at `centre`; explodes above `edge`."""
    descent = 2.3 - 2.0 / (1.0 + (centre / rates) ** 2)
    explosion = np.where(rates > edge, (rates / edge) ** 3 - 1.0, 0.0)
    noisy = np.random.default_rng(seed).normal(0.0, noise, len(rates))
    return descent + explosion + noisy


def test_default_rule_wins_three_quarters_of_a_known_descent():
    # The fall is 2 / (1 + (c/r)^2): three quarters at r = sqrt(3) c.
    rate = suggest(RATES, curve()).learning_rate
    assert rate == pytest.approx(np.sqrt(3) * CENTRE, rel=0.15)


def test_every_rule_on_a_known_curve():
    found = suggest(RATES, curve()).suggestions
    assert list(found) == list(RULES) == ["descent", "steepest", "valley", "minimum"]
    # dL/d ln r of this sigmoid is lowest at its centre; the minimum is at the edge.
    assert found["steepest"] == pytest.approx(CENTRE, rel=0.2)
    assert EDGE / 12 < found["minimum"] < EDGE / 2
    assert RATES[0] < found["valley"] < EDGE


@pytest.mark.parametrize("rule", RULES)
def test_rule_is_the_one_asked_for(rule):
    suggestion = suggest(RATES, curve(), rule=rule)
    assert suggestion.learning_rate == suggestion.suggestions[rule]
    assert f'"{rule}"' in suggestion.reason
    assert isinstance(suggestion.learning_rate, float)


def test_bounds_enclose_a_cycle_below_divergence():
    bounds = suggest(RATES, curve()).bounds
    assert isinstance(bounds, Bounds)
    assert bounds.max_lr == pytest.approx(4.0 * bounds.base_lr)
    assert CENTRE < bounds.max_lr < EDGE


def test_minimum_follows_its_definition():
    losses = np.array([3.0, 2.0, 1.0, 2.0])
    rates = np.array([0.1, 0.2, 0.3, 0.4])
    assert RULES["minimum"](rates, losses, losses) == pytest.approx(0.1)


def test_valley_is_the_middle_of_the_longest_decreasing_subsequence():
    losses = np.array([5.0, 9.0, 8.0, 6.0, 7.0, 4.0, 3.0, 8.0])
    rates = np.arange(1.0, 9.0)  # 8 6 4 3, or 8 7 4 3: steps 2 to 6
    assert RULES["valley"](rates, losses, losses) == 5.0


def test_noisy_descent_is_still_found():
    # Noise of a third of the descent: every seed gets a number, within a factor of 5.
    rates = [suggest(RATES, curve(noise=0.7, seed=s)).learning_rate for s in range(20)]
    assert None not in rates
    assert CENTRE / 5 < min(rates) <= max(rates) < np.sqrt(3) * CENTRE * 5


@pytest.mark.parametrize("draw", NOISE.values(), ids=NOISE)
def test_plain_noise_is_refused(draw):
    rng = np.random.default_rng(7)
    suggestions = [suggest(RATES, draw(rng)) for _ in range(100)]
    accepted = [s for s in suggestions if s.learning_rate is not None]
    assert len(accepted) <= 2  # 2 %
    refused = next(s for s in suggestions if s.learning_rate is None)
    assert "The curve is noise" in refused.reason
    assert "larger batches" in refused.reason


def refusals():
    rng = np.random.default_rng(3)
    noise = 0.05 * rng.normal(size=100)
    yield "flat", np.full(100, 2.3), "The curve is flat", "trainable variables"
    ulp = 2.3 + 2e-7 * rng.integers(-1, 2, 100)
    yield "flat in float32", ulp, "The curve is flat", "raise `max_lr`"
    explodes = 2.3 + noise + np.linspace(0, 5, 100) ** 3
    yield "rises from the start", explodes, "diverges at once", "Lower `min_lr`"
    late = 2.3 + noise + np.where(RATES > 1e-2, 100 * RATES, 0.0)
    yield "rises late", late, "never descends", "more `steps`"
    early_nan = np.where(np.arange(100) < 4, 2.3, np.nan)
    yield "NaN at once", early_nan, "diverges at once", "Lower `min_lr`"
    yield "all NaN", np.full(100, np.nan), "All losses are non-finite", "the data"
    yield "all infinite", np.full(100, np.inf), "All losses are non-finite", "`min_lr`"


@pytest.mark.parametrize(
    ("losses", "seen", "cure"),
    [pytest.param(*row[1:], id=row[0]) for row in refusals()],
)
def test_refusals_say_what_was_seen_and_what_to_try(losses, seen, cure):
    suggestion = suggest(RATES, losses)
    assert suggestion.learning_rate is None
    assert suggestion.bounds is None
    assert suggestion.suggestions == dict.fromkeys(RULES)
    assert seen in suggestion.reason
    assert cure in suggestion.reason


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_too_few_points(n):
    suggestion = suggest(RATES[:n], np.linspace(3.0, 1.0, n))
    assert suggestion.learning_rate is None
    assert f"Too few points: {n}" in suggestion.reason
    assert "more `steps`" in suggestion.reason


def test_five_falling_points_are_enough():
    assert suggest([1e-3, 1e-2, 1e-1, 1, 10], [5, 4, 3, 2, 1]).learning_rate > 1e-3


@pytest.mark.parametrize("n", [8, 12, 20])
def test_short_clean_sweep(n):
    rates = np.geomspace(1e-4, 0.3, n)
    rate = suggest(rates, curve(rates)).learning_rate
    assert rate == pytest.approx(np.sqrt(3) * CENTRE, rel=0.7)


def test_tail_after_the_first_non_finite_loss_is_not_read():
    losses = curve(noise=0.05)
    losses[90] = np.nan
    other = losses.copy()
    other[91:] = -1e6  # would be the minimum
    assert suggest(RATES, losses) == suggest(RATES, other)
    assert "not finite at rate" in suggest(RATES, losses).reason


def test_infinity_ends_the_curve_like_nan():
    losses = curve(noise=0.05)
    nan, inf = losses.copy(), losses.copy()
    nan[90:], inf[90:] = np.nan, np.inf
    assert suggest(RATES, nan) == suggest(RATES, inf)


@pytest.mark.parametrize("height", [-50.0, 50.0, 1e6])
@pytest.mark.parametrize("place", [0, 1, 30, 55, 60, 70, 80])
def test_a_single_spike_moves_nothing_far(place, height):
    losses = curve(noise=0.02)
    before = suggest(RATES, losses).learning_rate
    losses[place] += height
    after = suggest(RATES, losses).learning_rate
    assert 1 / 1.3 < after / before < 1.3


def test_height_of_the_explosion_does_not_matter():
    losses = curve(noise=0.02)
    worse = np.where(RATES > EDGE, losses**4, losses)
    rates = [suggest(RATES, ls).learning_rate for ls in (losses, worse)]
    assert rates[0] == pytest.approx(rates[1], rel=0.05)


def test_negative_losses_are_ordinary():
    suggestion = suggest(RATES, curve() - 1000.0)
    assert suggestion.learning_rate == pytest.approx(
        suggest(RATES, curve()).learning_rate
    )


def test_descent_that_has_not_ended_says_so():
    rates = RATES[RATES < CENTRE]
    suggestion = suggest(rates, curve(rates))
    assert suggestion.learning_rate < CENTRE
    assert "still falling at the end of the sweep" in suggestion.reason


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_linear_sweep(noise):
    rates = np.linspace(1e-6, 1.0, 300)
    losses = curve(rates, noise, centre=0.1)
    rate = suggest(rates, losses).learning_rate
    assert rate == pytest.approx(np.sqrt(3) * 0.1, rel=0.3)
    assert suggest(rates, losses, rule="steepest").learning_rate < 0.5


@pytest.mark.parametrize("n", [20, 50, 400, 2000])
def test_number_of_steps_hardly_matters(n):
    rates = np.geomspace(1e-6, 10.0, n)
    rate = suggest(rates, curve(rates, noise=0.05)).learning_rate
    assert rate == pytest.approx(np.sqrt(3) * CENTRE, rel=0.5)


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3), seed=st.integers(0, 10))
@settings(max_examples=15, deadline=None)
def test_scale_and_shift_of_the_loss_change_nothing(scale, shift, seed):
    losses = curve(noise=0.2, seed=seed)
    before = suggest(RATES, losses).suggestions
    after = suggest(RATES, scale * losses + shift).suggestions
    assert after == pytest.approx(before, rel=1e-3)


@given(factor=st.floats(1e-6, 1e6), seed=st.integers(0, 10))
@settings(max_examples=15, deadline=None)
def test_suggestion_scales_with_the_rates(factor, seed):
    losses = curve(noise=0.2, seed=seed)
    before, after = suggest(RATES, losses), suggest(factor * RATES, losses)
    scaled = {name: factor * rate for name, rate in before.suggestions.items()}
    assert after.suggestions == pytest.approx(scaled)
    assert after.bounds == pytest.approx([factor * bound for bound in before.bounds])


def test_suggesting_twice_gives_the_same():
    assert suggest(RATES, curve(noise=0.5)) == suggest(RATES, curve(noise=0.5))


def test_arguments_are_left_alone():
    rates, losses = RATES.copy(), curve(noise=0.1)
    kept = losses.copy()
    suggest(rates, losses)
    smooth(rates, losses)
    np.testing.assert_array_equal(rates, RATES)
    np.testing.assert_array_equal(losses, kept)


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
        ([1, 2], [[1, 2]], ValueError, r"`losses` must be one-dim.* shape \(1, 2\)"),
        (0.1, 1.0, ValueError, r"`learning_rates` must .* shape \(\)"),
        ([0, 1], [1, 2], ValueError, r"must be positive.*Received: \[0.0\]"),
        ([-1, 1], [1, 2], ValueError, r"must be positive.*Received: \[-1.0\]"),
        ([1, np.nan], [1, 2], ValueError, "must be positive, finite"),
        ([1, 2, 2], [1, 2, 3], ValueError, r"increasing.*\[2.0, 2.0\] .* position 2"),
        ([2, 1], [1, 2], ValueError, r"sort both.*Received: \[2.0, 1.0\]"),
        (["a", "b"], [1, 2], TypeError, "`learning_rates` must be .* numbers"),
        ([1, 2], [1, [2, 3]], TypeError, "`losses` must be .* numbers"),
        ([1, 2], ["x", "y"], TypeError, r"`losses` must .*Received: \['x', 'y'\]"),
    ],
)
def test_bad_curves(function, rates, losses, error, match):
    with pytest.raises(error, match=match):
        function(rates, losses)


def test_bad_rule():
    with pytest.raises(
        ValueError, match=r"`rule` must be one of \['descent', .*Received: 'fastest'"
    ):
        suggest(RATES, curve(), rule="fastest")
    with pytest.raises(TypeError, match=r"`rule` must be a string.*Received: 3"):
        suggest(RATES, curve(), rule=3)


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf"), "wide"])
def test_bad_width(width):
    with pytest.raises(ValueError, match=r"`width` must be a positive.*Received: "):
        smooth(RATES, curve(), width=width)


def test_suggestion_is_immutable():
    with pytest.raises(AttributeError, match="cannot assign"):
        Suggestion(0.1, "", {}, None).learning_rate = 1.0


def test_module_needs_neither_keras_nor_tensorflow():
    code = (
        "import sys, tfschedules.suggestions;"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
