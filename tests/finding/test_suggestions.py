"""Curves with a known answer, curves without one, and laws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sweep_curves import CENTRE, EDGE, RATES, curve, sweeps

from tfschedules.finding.suggestions import (
    RULES,
    Bounds,
    curves,
    descents,
    smooth,
    suggest,
)
from tfschedules.finding.suggestions.curves import Curve
from tfschedules.finding.suggestions.descents import Descent

pytestmark = pytest.mark.any_backend

NOISE = {
    "normal": lambda rng, size: rng.normal(size=size),
    "uniform": lambda rng, size: rng.uniform(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "heavy tails": lambda rng, size: rng.standard_t(3, size=size),
    "very heavy tails": lambda rng, size: rng.standard_cauchy(size=size),
    "two values": lambda rng, size: rng.integers(0, 2, size).astype(float),
}


def rates_of(cases):
    return [suggest(RATES, losses).learning_rate for losses in cases]


# The default rule.


@pytest.mark.parametrize(("begin", "end"), [(40, 70), (12, 25), (60, 90), (30, 95)])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_default_rule_is_the_middle_of_a_box(begin, end, noise):
    losses = 2.0 + noise * np.random.default_rng(0).normal(size=100)
    losses[begin:end] -= 1.0
    losses[end:] += 5.0
    rate = suggest(RATES, losses).learning_rate
    # Noise may move an end by a step or two, and so may the place of the explosion.
    middle = np.sqrt(RATES[begin] * RATES[end - 1])
    assert abs(np.log(rate / middle)) < (0.45 if noise else 0.18)


def test_default_rule_is_the_middle_of_a_known_descent():
    # 5 % of the fall are won at c sqrt(.05 / .95), half of it at c; it is half lost at
    # 2^(1/3) e, and all but 5 % at 2.9^(1/3) e.
    middle = np.sqrt(CENTRE * EDGE)
    lowest = middle * np.sqrt(np.sqrt(0.05 / 0.95) * 2 ** (1 / 3))
    highest = middle * np.sqrt(2.9 ** (1 / 3))
    assert lowest < suggest(RATES, curve()).learning_rate < highest


def test_default_rule_is_the_mean_of_the_middles_of_all_stretches():
    ranks = np.random.default_rng(5).permutation(40) / 40.0
    ranks[20:33] -= 0.3
    rates = np.geomspace(1e-4, 1.0, 45)
    seen = shown(np.zeros(45), rates, 1.0)
    seen = dataclasses.replace(seen, ranks=ranks, drawn_ranks=ranks)
    calm = dataclasses.replace(seen, exploded=False)
    for shown_, last in ((seen, rates[39]), (calm, None)):
        weights, middles = [], []
        for a in range(2, 39):
            for b in range(a + 2, 41):
                fall = ranks[:a].mean() - ranks[a:b].mean()
                z = fall / np.sqrt(1 / a + 1 / (b - a)) / ranks.std()
                middle = (np.log(rates[a]) + np.log(rates[b - 1])) / 2
                below = np.log(last / 30.0) - middle if last else 0.0
                weights.append(np.exp((max(z, 0.0) ** 2 - below**2) / 2))
                middles.append(middle)
        expected = np.exp(np.average(middles, weights=weights))
        found, middle = descents.weigh(shown_)
        assert np.exp(middle) == pytest.approx(expected)
        assert RULES["descent"](shown_, found) == pytest.approx(expected)


def test_the_place_of_the_explosion_decides_where_the_losses_do_not():
    # Noise far larger than the descent: the rate follows the explosion.
    for last in (60, 75, 90):
        rng, logs = np.random.default_rng(last), []
        for _ in range(10):
            losses = 1.0 + rng.normal(0.0, 0.3, last + 5)
            losses[last:] += 50.0
            rate = suggest(RATES[: last + 5], losses).learning_rate
            logs += [np.log(RATES[last] / rate)] if rate else []
        assert len(logs) >= 8
        assert np.log(30.0) - 0.7 < np.mean(logs) < np.log(30.0) + 0.7


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_losses_that_come_back_in_part_have_turned(noise):
    # As of a dead network: above 0.3 the loss stays between its plateau and its least.
    rng = np.random.default_rng(1)
    losses = np.where(RATES < 3e-3, 2.0, np.where(RATES < 0.3, 0.5, 1.3))
    losses = losses + noise * rng.normal(size=100)
    rate = suggest(RATES, losses).learning_rate
    assert 0.006 < rate < 0.04
    # Where they stay low, higher rates are as good.
    assert (
        suggest(RATES, np.minimum(losses, 2.0 - 1.5 * (RATES > 3e-3))).learning_rate
        > 0.1
    )


def test_the_stretch_found_has_the_largest_z():
    ranks = np.random.default_rng(5).permutation(40).astype(float)
    ranks[20:33] -= 15.0

    def z(a, b):
        fall = ranks[:a].mean() - ranks[a:b].mean()
        return fall / np.sqrt(1 / a + 1 / (b - a))

    every = [(z(a, b), a, b) for a in range(2, 39) for b in range(a + 2, 41)]
    best, begin, end = max(every)
    found = descents.find(ranks)
    assert (found.begin, found.end) == (begin, end)
    assert found.z == pytest.approx(best)


def test_equal_losses_share_the_mean_of_their_ranks():
    np.testing.assert_array_equal(
        curves.ranks(np.array([7, 2, 7, 7, 1])), [3, 1, 3, 3, 0]
    )


def test_a_plateau_that_sinks_a_little_is_still_a_plateau():
    sinking = curve() - 0.02 * np.log10(RATES / RATES[0])  # by 7 % of the descent
    rates = rates_of([curve(), sinking])
    assert 1 / 1.6 < rates[1] / rates[0] < 1.6


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


def shown(losses, rates, plateau):
    """A curve as the rules are given it."""
    losses = np.array(losses)
    return Curve(rates, losses, losses, losses, losses, True, True, plateau)


def test_minimum_follows_its_definition():
    seen = shown([3.0, 2.0, 1.0, 2.0], np.array([0.1, 0.2, 0.3, 0.4]), 3.0)
    assert RULES["minimum"](seen, Descent(1, 4, 1.0)) == pytest.approx(0.1)


def test_valley_is_the_middle_of_the_longest_decreasing_subsequence():
    losses = [5.0, 9.0, 8.0, 6.0, 7.0, 4.0, 3.0, 8.0]
    seen = shown(losses, np.arange(1.0, 9.0), 9.0)
    # 8 6 4 3, or 8 7 4 3, after the 9: steps 1 to 6
    assert RULES["valley"](seen, Descent(2, 7, 1.0)) == 4.0


# Bounds of a cycle.


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_bounds_enclose_the_suggestion_below_divergence(noise):
    for seed in range(10):
        suggestion = suggest(RATES, curve(noise=noise, seed=seed))
        bounds = suggestion.bounds
        assert isinstance(bounds, Bounds)
        assert bounds.max_lr == pytest.approx(4.0 * bounds.base_lr)
        assert CENTRE / 5 < bounds.base_lr < suggestion.learning_rate < bounds.max_lr
        assert bounds.max_lr <= 2.0 * suggestion.learning_rate * (1 + 1e-12)
        assert bounds.max_lr < EDGE


@pytest.mark.parametrize("low", [1e-6, 5e-4, 1e-3])
@pytest.mark.parametrize("seed", range(5))
def test_bounds_of_an_accuracy_over_a_linear_sweep(low, seed):
    # As in Smith's figure 3: accuracy rises from the first rates on, and from 0.006 on
    # gets ragged and falls. He reads 0.001 and 0.006.
    rates = np.linspace(low, 0.02, 200)
    late = rates > 0.006
    noise = np.random.default_rng(seed).normal(0.0, np.where(late, 0.04, 0.01))
    accuracy = 0.1 + 0.5 * (1 - np.exp(-rates / 0.002)) - 20 * late * (rates - 0.006)
    suggestion = suggest(rates, -(accuracy + noise))
    base_lr, max_lr = suggestion.bounds
    assert 0.004 < max_lr < 0.009
    assert low <= base_lr < suggestion.learning_rate < max_lr
    assert base_lr == pytest.approx(max(max_lr / 4.0, low))


def test_bounds_stay_in_a_short_sweep():
    rates = np.linspace(0.5, 1.0, 50)
    suggestion = suggest(rates, np.where(rates > 0.9, 5.0, 1.5 - rates))
    assert suggestion.bounds.base_lr == 0.5 < suggestion.learning_rate
    assert suggestion.learning_rate < suggestion.bounds.max_lr <= 0.9


# Noise.


@pytest.mark.parametrize("seed", range(5))
def test_noisy_descent_is_still_found(seed):
    # Noise of a third of the descent: every sweep gets a number, the middle of some
    # stretch between a fifth of the centre and twice the edge.
    cases = [curve(noise=0.7, seed=10 * seed + s) for s in range(10)]
    rates = rates_of(cases)
    assert None not in rates
    assert np.sqrt(CENTRE * EDGE / 10) < min(rates)
    assert max(rates) < np.sqrt(CENTRE * EDGE * 3)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("draw", NOISE.values(), ids=NOISE)
def test_plain_noise_is_refused(draw, count):
    rng = np.random.default_rng(7)
    suggestions = [suggest(RATES, draw(rng, (count, 100))) for _ in range(200)]
    accepted = [s for s in suggestions if s.learning_rate is not None]
    assert len(accepted) <= 4  # 2 %
    refused = next(s for s in suggestions if s.learning_rate is None)
    assert "The curve is noise" in refused.reason
    assert "larger batches" in refused.reason


def exploding(name, level, count=100):
    """Noise with deviations of about one, at a level, that ends in an explosion."""
    rng = np.random.default_rng(11)
    explosion = np.where(RATES > 0.1, 20.0 * (RATES / 0.1 - 1.0), 0.0)[:91]
    for i in range(count):
        n = 84 + i % 6
        losses = level + NOISE[name](rng, 100)[:91] + explosion
        yield suggest(RATES[:n], losses[:n])


@pytest.mark.parametrize("name", ["normal", "exponential", "heavy tails"])
def test_a_plateau_of_little_noise_that_explodes_is_refused(name):
    # Below an explosion less is asked for: one in twenty passes.
    found = list(exploding(name, level=30.0))
    assert sum(s.learning_rate is not None for s in found) <= 12
    assert "never descends" in next(s.reason for s in found if "never" in s.reason)


@pytest.mark.parametrize("name", ["normal", "exponential", "heavy tails"])
def test_noise_that_could_hide_a_descent_gets_a_rate_below_the_explosion(name):
    found = list(exploding(name, level=3.0))
    rates = np.array([s.learning_rate or np.nan for s in found])
    assert np.isnan(rates).mean() < 0.1
    assert np.nanmax(rates) < 0.05  # half of where they explode
    faint = [s for s in found if "not beyond chance" in s.reason]
    assert len(faint) > 60
    for suggestion in faint:
        assert "mostly from where the loss rises for good" in suggestion.reason
        assert "More `repeats`" in suggestion.reason
        base_lr, max_lr = suggestion.bounds
        assert RATES[0] < base_lr < suggestion.learning_rate < max_lr < 0.3


def test_noise_that_rises_before_it_explodes_is_refused():
    losses = 3.0 + np.random.default_rng(0).normal(size=88) + (np.arange(88) > 45)
    losses[-3:] += 40.0
    assert suggest(RATES[:88], losses).learning_rate is None


def test_a_descent_below_an_explosion_needs_less():
    # The same faint descent, with the explosion behind it and without.
    found = {"explodes": 0, "does not": 0}
    for seed in range(40):
        losses = 30.0 + np.random.default_rng(seed).normal(size=85)
        losses[52:76] -= 0.75
        calm = losses.copy()
        losses[80:] += 10.0
        found["explodes"] += suggest(RATES[:85], losses).learning_rate is not None
        found["does not"] += suggest(RATES[:85], calm).learning_rate is not None
    assert found["explodes"] > 1.2 * found["does not"] > 0


# Several sweeps.


def test_a_sweep_alone_is_a_curve():
    assert suggest(RATES, sweeps(1, 0.3)) == suggest(RATES, sweeps(1, 0.3)[0])


@given(count=st.integers(2, 5), noise=st.floats(0.0, 0.8), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_repeating_the_same_changes_nothing(count, noise, seed):
    losses = curve(noise=noise, seed=seed)
    once, often = suggest(RATES, losses), suggest(RATES, np.tile(losses, (count, 1)))
    assert often.suggestions == pytest.approx(once.suggestions)
    assert often.bounds == pytest.approx(once.bounds)


@given(order=st.permutations(range(4)), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_order_of_the_sweeps_does_not_matter(order, seed):
    losses = sweeps(4, 0.5, seed)
    losses[1, 70:] = np.nan
    before, after = suggest(RATES, losses), suggest(RATES, losses[order])
    assert after.suggestions == pytest.approx(before.suggestions)


def test_repeats_help():
    alone = [rate for s in range(20) for rate in rates_of(sweeps(3, 1.8, s))]
    together = rates_of(sweeps(3, 1.8, s) for s in range(20))
    assert None not in together
    assert None not in alone  # but for most of them the explosion has to do
    spread = [np.std(np.log(rates)) for rates in (alone, together)]
    assert spread[1] < 0.8 * spread[0]


@pytest.mark.parametrize("where", [0, 3, 30, 60, 85])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_one_of_three_sweeps_that_dies_is_outvoted(where, what):
    losses = sweeps(3, 0.3)
    others = suggest(RATES, losses[:2]).learning_rate
    losses[2, where:] = what
    rate = suggest(RATES, losses).learning_rate
    assert 1 / 1.6 < rate / others < 1.6


def test_the_curve_ends_where_half_of_the_sweeps_have():
    losses = sweeps(4, 0.1)
    losses[0, 50:] = losses[1, 89:] = np.nan
    other = losses.copy()
    other[:, 89:] = -1e6  # would be the minimum
    assert suggest(RATES, losses) == suggest(
        RATES, np.where(losses == losses, other, np.nan)
    )
    assert f"not finite at rate {RATES[89]:.2g}" in suggest(RATES, losses).reason


# Refusals.


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
    yield "all NaN, twice", np.full((2, 100), np.nan), "All losses are", "the data"
    yield "two flat", np.full((2, 100), 2.3), "The curve is flat", "trainable"
    yield "rises late, thrice", np.tile(late, (3, 1)), "never descends", "`repeats`"
    two_of_three = np.where([[1]] * 3, early_nan, 2.3)
    yield "two of three", two_of_three, "diverges at once", "Lower `min_lr`"


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


def test_reasons_speak_of_the_metric():
    accuracy = dict(name="accuracy", higher_is_better=True)
    said = suggest(RATES, 0.4 * curve() - 1.0, **accuracy).reason
    assert "the accuracy rose from 0.08" in said
    assert "to 0.8" in said
    assert "is high from rate" in said
    flat = suggest(RATES, np.full(100, -0.1), **accuracy).reason
    assert "every accuracy is 0.1," in flat
    noise = -0.5 + 0.1 * np.random.default_rng(0).normal(size=100)
    said = suggest(RATES, noise, **accuracy).reason
    assert "the accuracy keeps around 0.49" in said
    assert "no rise stands out" in said
    falls = np.maximum(RATES - 0.01, 0.0)
    said = suggest(RATES, noise + falls, **accuracy).reason
    assert "the accuracy falls for good, above rate" in said
    assert "its rise below is not beyond chance" in said
    noise = -0.49 + 0.02 * np.random.default_rng(0).normal(size=100)
    falls = suggest(RATES, noise + falls, **accuracy).reason
    assert "The accuracy never rises: it stays at about 0.488 and falls from" in falls


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
    assert CENTRE / 2 < suggest(rates, curve(rates)).learning_rate < 0.1


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
@pytest.mark.parametrize("place", [0, 1, 30, 50, 55, 60, 70, 80, 83, 84])
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
    assert rates[0] == pytest.approx(rates[1], rel=0.1)  # a step


def test_negative_losses_are_ordinary():
    suggestion = suggest(RATES, curve() - 1000.0)
    assert suggestion.learning_rate == pytest.approx(
        suggest(RATES, curve()).learning_rate
    )


def test_descent_that_has_not_ended_says_so():
    rates = RATES[RATES < CENTRE]
    suggestion = suggest(rates, curve(rates))
    assert suggestion.learning_rate < CENTRE
    assert "still low at the end of the sweep" in suggestion.reason
    assert "raise `max_lr`" in suggestion.reason


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_linear_sweep(noise):
    rates = np.linspace(1e-6, 1.0, 300)
    losses = curve(rates, noise, centre=0.1)
    assert 0.1 < suggest(rates, losses).learning_rate < EDGE
    assert suggest(rates, losses, rule="steepest").learning_rate < EDGE


@pytest.mark.parametrize("n", [20, 50, 400, 2000])
def test_number_of_steps_hardly_matters(n):
    rates = np.geomspace(1e-6, 10.0, n)
    rate = suggest(rates, curve(rates, noise=0.05)).learning_rate
    usual = suggest(RATES, curve(noise=0.05)).learning_rate
    assert 1 / 2.3 < rate / usual < 2.3  # with 20 steps, one is a factor of 2.3


@given(
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 10),
    count=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_scale_and_shift_of_the_loss_change_nothing(scale, shift, seed, count):
    losses = sweeps(count, 0.2, seed)
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
