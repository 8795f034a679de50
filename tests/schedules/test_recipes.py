"""Recipes against recorded numbers of their peers, and against their papers."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
from fractions import Fraction

import numpy as np
import pytest
from helpers import naming
from hypothesis import assume, given, settings, strategies as st
from registry import compiled, cycle_of, harmonic

import tfschedules as tfs
from tfschedules.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Piecewise,
    Polynomial,
    SquareRoot,
    cyclical,
    flat_cosine,
    one_cycle,
    warm_restarts,
    warmup,
    warmup_stable_decay,
)

DATA = pathlib.Path(__file__).parents[1] / "data"
BILLION = 10**9


# Conformance ------------------------------------------------------------------


def from_cyclical(config):
    momentum = {
        name: config.pop(name, None) for name in ("base_momentum", "max_momentum")
    }
    schedules = {"learning_rate": cyclical(**config)}
    if momentum["max_momentum"] is not None:
        # Momentum cycles against the rate, scaled by the mode as the rate is.
        height = momentum["max_momentum"] - momentum["base_momentum"]
        cycle = cyclical(**{**config, "base_lr": 0.0, "max_lr": height})
        schedules["momentum"] = cycle * -1.0 + momentum["max_momentum"]
    return schedules


def from_keras_restarts(config):
    alpha = config.pop("alpha")
    return {"learning_rate": warm_restarts(**config, min_lr=alpha * config["max_lr"])}


def from_optax_warmup(config):
    # optax counts the warm-up in `total`.
    steps = config["total"] - config["warmup"]
    cosine = tfs.Cosine(config["peak"], config["end"], steps)
    warmed = warmup(cosine, config["warmup"], start=config["init"])
    return {"learning_rate": warmed}


def from_keras_warmup(config):
    end = config["alpha"] * config["target"]
    cosine = tfs.Cosine(config["target"], end, config["decay"])
    warmed = warmup(cosine, config["warmup"], start=config["initial"])
    return {"learning_rate": warmed}


BUILDERS = {
    "cyclical": from_cyclical,
    "warm_restarts": lambda config: {"learning_rate": warm_restarts(**config)},
    "warm_restarts_peak_decay": from_keras_restarts,
    "one_cycle": lambda config: one_cycle(**config),
    "polynomial": lambda config: {"learning_rate": Polynomial(**config)},
    "warmup_cosine": from_optax_warmup,
    "warmup_cosine_keras": from_keras_warmup,
}


def recorded():
    for file in ("torch", "keras", "addons", "optax"):
        for record in json.loads((DATA / f"{file}.json").read_text(encoding="utf-8")):
            kind, config = record["schedule"], record["config"]
            for name, series in record["series"].items():
                title = "-".join([file, kind, name, *map(str, config.values())])
                yield pytest.param(file, kind, dict(config), name, series, id=title)


@pytest.mark.parametrize(("file", "kind", "config", "name", "series"), [*recorded()])
def test_equals_recorded_numbers(file, kind, config, name, series):
    schedule = BUILDERS[kind](dict(config))[name]
    steps = np.arange(len(series))
    # Keras computes 1 + cos in float32, which is off by 1e-7 of the peak near the end.
    rtol, atol = (2e-5, 1e-7 * max(series)) if file == "keras" else (2e-6, 0.0)
    np.testing.assert_allclose(schedule.values(steps), series, rtol=rtol, atol=atol)
    rtol = max(rtol, 1e-5)
    np.testing.assert_allclose(compiled(schedule)(steps), series, rtol=rtol, atol=atol)


def test_every_recording_is_compared():
    kinds = [param.values[1] for param in recorded()]
    # torch: 5 cyclical and 4 one_cycle with momentum, 4 restarts; Keras 3; Addons 5;
    # optax 3.
    assert len(kinds) == 2 * 5 + 2 * 4 + 4 + 3 + 5 + 3
    everything = [
        series
        for file in DATA.glob("*.json")
        for record in json.loads(file.read_text(encoding="utf-8"))
        for series in record["series"]
    ]
    assert len(kinds) == len(everything)
    assert set(kinds) == set(BUILDERS)


# cyclical ---------------------------------------------------------------------


def smith(t, base, top, s, scale):
    """Smith 2015: c = floor(1 + t/2s); x = |t/s - 2c + 1|; lr from max(0, 1 - x)."""
    c = math.floor(1 + Fraction(t, 2 * s))
    x = abs(Fraction(t, s) - 2 * c + 1)
    return base + (top - base) * float(max(0, 1 - x)) * scale(c, t)


SCALES = {
    "triangular": lambda c, t: 1.0,
    "triangular2": lambda c, t: 0.5 ** (c - 1),
    "exp_range": lambda c, t: 0.9994**t,
}

AGES = [0, 1, BILLION, 10**12]


@pytest.mark.parametrize("mode", SCALES)
@given(
    base=st.floats(0, 1),
    height=st.floats(1e-6, 10),
    step_size=st.integers(1, 3000),
    age=st.integers(0, 100_000) | st.sampled_from(AGES),
)
@settings(max_examples=60, deadline=None)
def test_cyclical_is_smiths_formula(mode, base, height, step_size, age):
    top = base + height
    # Anywhere, and around the corners of the cycle that holds `age`.
    corner = age // step_size * step_size
    steps = [age, age + 1, max(corner - 1, 0), corner, corner + 1, corner + step_size]
    schedule = cyclical(base, top, step_size, mode, gamma=0.9994)
    expected = [smith(t, base, top, step_size, SCALES[mode]) for t in steps]
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-9, atol=1e-200)


@pytest.mark.parametrize("scale_mode", ["cycle", "iterations"])
def test_cyclical_with_a_scale_function(scale_mode):
    def scale(c, t):
        # "iterations" gives the global step, not the step in the cycle.
        return harmonic(c if scale_mode == "cycle" else t)

    schedule = cyclical(0.1, 0.5, 3, scale_fn=harmonic, scale_mode=scale_mode)
    expected = [smith(t, 0.1, 0.5, 3, scale) for t in range(40)]
    np.testing.assert_allclose(schedule.values(40), expected, rtol=1e-12)
    np.testing.assert_allclose(compiled(schedule)(range(40)), expected, rtol=2e-6)


def test_cyclical_phase_in_the_graph_at_a_billion_steps():
    size = 7  # no power of two: a float32 step would be off by up to 32
    schedule = cyclical(0.1, 0.8, size)
    steps = np.arange(BILLION - 2 * size, BILLION + 2 * size)
    expected = [smith(int(t), 0.1, 0.8, size, SCALES["triangular"]) for t in steps]
    np.testing.assert_allclose(compiled(schedule)(steps), expected, rtol=2e-6)


def test_cyclical_top_and_bottom_are_exact():
    values = cyclical(0.1, 0.7, 11).values(np.arange(100) * 11)
    assert set(values[::2]) == {0.1}
    assert set(values[1::2]) == {0.7}


# warm_restarts ----------------------------------------------------------------


def restarts(first, growth, until):
    """Where cycles begin and how long they are, up to `until` steps, in rationals."""
    begin, length = Fraction(0), Fraction(first)
    while begin <= until:
        yield begin, length
        begin, length = begin + length, length * Fraction(str(growth))


def sgdr(t, high, low, first, growth=1, decay=1.0):
    """Loshchilov & Hutter 2016, equation 5; heights decay as in Keras."""
    i, since, length = cycle_of(Fraction(t), first, growth)
    # (1 + cos x)/2 = cos²(x/2), without cancellation near the end of a cycle.
    wave = math.sin(math.pi / 2 * float(1 - since / length)) ** 2
    return low + (high - low) * decay**i * wave


@pytest.mark.parametrize("growth", [2, 3, 4, 7])
def test_restarts_are_exact_up_to_a_hundred_million_steps(growth):
    for first in range(1, 51):
        cycles = list(restarts(first, growth, 10**8))
        begins = np.array([int(begin) for begin, _ in cycles])
        lengths = np.array([int(length) for _, length in cycles])
        schedule = warm_restarts(0.3, first, cycle_mult=growth)
        assert (schedule.values(begins) == 0.3).all(), first
        before = schedule.values(begins[1:] - 1)
        assert ((before == 0.3) == (lengths[:-1] == 1)).all(), first
        # A step into a cycle of 10^8 is 1 - 2e-16 of the way: not to be told apart.
        into = begins[(lengths > 1) & (lengths < 10**7)] + 1
        assert (schedule.values(into) < 0.3).all(), first


@pytest.mark.parametrize("first", [1, 2, 7, 10, 50])
def test_equal_restarts_are_exact(first):
    begins = np.arange(10**8 // first - 1000, 10**8 // first) * first
    schedule = warm_restarts(0.3, first)
    assert (schedule.values(begins) == 0.3).all()
    assert ((schedule.values(begins - 1) == 0.3) == (first == 1)).all()


@pytest.mark.parametrize(
    ("first", "growth", "step"),
    [(10, 2, 81910), (10, 3, 1210), (1, 2, 2**20 - 1), (7, 3, 7 * (3**12 - 1) // 2)],
)
def test_restarts_that_logarithms_miss(first, growth, step):
    # Keras has 0 at (10, 2, 81910), torch at (10, 3, 1210).
    schedule = warm_restarts(0.3, first, min_lr=0.01, cycle_mult=growth)
    steps = [step - 1, step, step + 1]
    values, graph = schedule.values(steps), compiled(schedule)(steps)
    assert values[1] == 0.3
    assert graph[1] == np.float32(0.3)
    expected = [sgdr(t, 0.3, 0.01, first, growth) for t in steps]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(graph, expected, rtol=2e-6)


@pytest.mark.parametrize("growth", [1.5, 1.1, 2.5])
def test_fractional_restarts_are_not_rounded(growth):
    schedule = warm_restarts(0.3, 10, min_lr=0.01, cycle_mult=growth)
    steps, expected = [], []
    cycles = list(restarts(10, growth, 10**8))
    for (begin, length), (following, longer) in itertools.pairwise(cycles):
        for t in range(math.ceil(following) - 2, math.ceil(following) + 2):
            old = t < following
            share = (t - begin) / length if old else (t - following) / longer
            wave = math.sin(math.pi / 2 * float(1 - share)) ** 2
            steps.append(t)
            expected.append(0.01 + (0.3 - 0.01) * wave)
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-12)
    np.testing.assert_allclose(compiled(schedule)(steps), expected, rtol=2e-6)


def test_a_typed_factor_is_the_decimal_that_was_typed():
    # 10 + 11 = 21 exactly, though the float 1.1 is a little more than eleven tenths.
    assert warm_restarts(0.3, 10, cycle_mult=1.1).values([21])[0] == 0.3


@pytest.mark.parametrize("growth", [1, 1.5, 2])
def test_restarts_in_the_graph_at_a_billion_steps(growth):
    schedule = warm_restarts(1.0, 11, min_lr=0.01, cycle_mult=growth, peak_decay=0.9)
    steps = list(range(BILLION - 12, BILLION + 12))
    expected = [sgdr(t, 1.0, 0.01, 11, growth, 0.9) for t in steps]
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-12)
    np.testing.assert_allclose(compiled(schedule)(steps), expected, rtol=2e-6)


@given(
    first=st.integers(1, 200),
    growth=st.sampled_from([1, 1.25, 1.5, 1.7, 2, 3, 10]),
    decay=st.sampled_from([1.0, 0.8, 0.5]),
    low=st.floats(1e-6, 0.1),
    step=st.integers(0, 10**6) | st.integers(10**8, 10**12),
)
@settings(max_examples=150, deadline=None)
def test_warm_restarts_are_the_papers_formula(first, growth, decay, low, step):
    schedule = warm_restarts(0.1, first, low, growth, decay)
    expected = sgdr(step, 0.1, low, first, growth, decay)
    assert schedule.values([step])[0] == pytest.approx(expected, rel=1e-9)


# one_cycle --------------------------------------------------------------------


def phases(t, ends, points, anneal):
    """The phases of torch's `OneCycleLR`, as its documentation tells them.

    A phase goes through the step `ends[i]`, real as it is; the next begins there.
    """
    begin = 0.0
    for i, end in enumerate(ends):
        if t <= end or i == len(ends) - 1:
            start, stop = points[i], points[i + 1]
            share = 1.0 if end == begin else (t - begin) / (end - begin)
            if anneal == "linear":
                return start + (stop - start) * share
            return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))
        begin = end
    raise AssertionError


def torch_one_cycle(t, n, pct, three, anneal, top, div, final_div, base, high):
    t = min(t, n - 1)  # torch climbs back and then raises; here the end is held
    first, last = top / div, top / div / final_div
    ends = [float(pct * n) - 1, n - 1]
    rates, momenta = [first, top, last], [high, base, high]
    if three:
        ends.insert(1, float(2 * pct * n) - 2)
        rates, momenta = [first, top, first, last], [high, base, high, high]
    return phases(t, ends, rates, anneal), phases(t, ends, momenta, anneal)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("three", [False, True], ids=["two phases", "three phases"])
@given(
    n=st.sampled_from([1, 2, 3]) | st.integers(1, 120),
    pct=st.sampled_from([0.0, 0.25, 0.29, 0.3, 0.45, 0.5, 1.0]) | st.floats(0, 1),
    div=st.floats(0.5, 100),
    final_div=st.floats(0.5, 1e5),
    momenta=st.tuples(*[st.just(0.0) | st.floats(1e-3, 0.99)] * 2),
)
@settings(max_examples=60, deadline=None)
def test_one_cycle_is_torchs(three, anneal, n, pct, div, final_div, momenta):
    pct = pct / 2 if three else pct
    # Peak, foot and end cannot all be at one step; torch divides by zero there.
    assume((n, pct) != (1, 1.0) and not (three and pct * n == 1))
    base, high = sorted(momenta)
    cycle = one_cycle(0.1, n, pct, div, final_div, three, anneal, base, high)
    steps = [*range(n + 3), 10**6, 10**12]
    expected = [
        torch_one_cycle(t, n, pct, three, anneal, 0.1, div, final_div, base, high)
        for t in steps
    ]
    for schedule, column in zip(cycle.values(), np.transpose(expected), strict=True):
        # 1 + cos in the formula cancels near the end: there it is right to the scale.
        values, atol = schedule.values(steps), 1e-12 * column.max()
        np.testing.assert_allclose(values, column, rtol=1e-9, atol=atol)


@given(
    peak_step=st.integers(1, 500),
    after=st.integers(1, 500),
    div=st.floats(1.5, 100),
    final_div=st.floats(1.5, 1e6),
)
@settings(max_examples=80, deadline=None)
def test_one_cycle_has_its_ends_and_its_peak(peak_step, after, div, final_div):
    n = peak_step + 1 + after
    cycle = one_cycle(0.1, n, (peak_step + 1) / n, div, final_div)
    rates, momenta = (s.values(n + 5) for s in cycle.values())
    tight = {"rtol": 1e-12}
    # (peak_step + 1)/n·n may miss the whole step by a rounding, which costs its square.
    np.testing.assert_allclose(rates[[0, peak_step]], [0.1 / div, 0.1], **tight)
    np.testing.assert_allclose(rates[n - 1 :], 0.1 / div / final_div, **tight)
    np.testing.assert_allclose(momenta[[0, peak_step]], [0.95, 0.85], **tight)
    np.testing.assert_allclose(momenta[n - 1 :], 0.95, **tight)
    assert (np.diff(rates[: peak_step + 1]) > 0).all()
    assert (np.diff(rates[peak_step:n]) < 0).all()
    assert (np.diff(momenta[: peak_step + 1]) < 0).all()
    assert (np.diff(momenta[peak_step:n]) > 0).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_cycle_of_hardly_any_steps(n):
    # With pct_start·n < 1 the way up is over before step 0: the way down began before.
    begin = 0.3 * n - 1
    shares = [(t - begin) / (n - 1 - begin) for t in range(n)]
    rates = [4e-7 + (0.1 - 4e-7) * (1 + math.cos(math.pi * s)) / 2 for s in shares]
    cycle = one_cycle(0.1, n, pct_start=0.3)["learning_rate"]
    np.testing.assert_allclose(cycle.values(n), rates, rtol=1e-9)
    np.testing.assert_allclose(compiled(cycle)(range(n)), rates, rtol=2e-6)
    assert cycle.values([n, n + 1, BILLION]) == pytest.approx(4e-7, rel=1e-12)


def test_one_cycle_holds_its_end_in_the_graph():
    cycle = one_cycle(0.1, 100)
    steps = [99, 100, 101, 10**6, 2**31 - 1]
    np.testing.assert_allclose(compiled(cycle["learning_rate"])(steps), 4e-7, rtol=2e-6)
    np.testing.assert_allclose(compiled(cycle["momentum"])(steps), 0.95, rtol=2e-6)


def test_one_cycle_gives_what_the_scheduler_takes():
    cycle = one_cycle(0.1, 100)
    assert list(cycle) == ["learning_rate", "momentum"]
    assert all(isinstance(schedule, tfs.Schedule) for schedule in cycle.values())


# Windows, flat_cosine, warmup, warmup_stable_decay, Piecewise --------------------

WINDOWS = {
    # Of the share s of a cycle, as the docstring and Smith 2015 have them.
    "triangular": lambda s: 1 - abs(2 * s - 1),
    "welch": lambda s: 1 - (2 * s - 1) ** 2,
    "hann": lambda s: math.sin(math.pi * min(s, 1 - s)) ** 2,
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("mode", SCALES)
def test_windows_are_the_papers(window, mode):
    base, top, half = 0.1, 0.9, 7
    schedule = cyclical(base, top, half, mode, gamma=0.9994, window=window)
    steps = [*range(4 * half + 2), BILLION - 3, BILLION]
    expected = []
    for t in steps:
        c, since = 1 + t // (2 * half), t % (2 * half)
        height = float(WINDOWS[window](Fraction(since, 2 * half)))
        expected.append(base + (top - base) * height * SCALES[mode](c, t))
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-9)
    np.testing.assert_allclose(compiled(schedule)(steps), expected, rtol=4e-6)


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_meet_bottom_and_top(window):
    values = cyclical(0.1, 0.7, 11, window=window).values(np.arange(20) * 11)
    np.testing.assert_allclose(values[::2], 0.1, rtol=1e-12)
    np.testing.assert_allclose(values[1::2], 0.7, rtol=1e-12)


@given(
    n=st.integers(1, 200),
    pct=st.sampled_from([0.0, 0.25, 0.75, 0.72]) | st.floats(1e-6, 0.99),
    low=st.sampled_from([0.0, 0.01, 0.1]),
)
@settings(max_examples=60, deadline=None)
def test_flat_cosine_is_fastais(n, pct, low):
    schedule = flat_cosine(0.1, n, pct, low)

    def value(t):
        if t < pct * n:
            return 0.1
        share = min((t - pct * n) / (n - pct * n), 1.0)
        # cos²(x/2) = (1 + cos x)/2, without cancellation.
        return low + (0.1 - low) * math.sin(math.pi / 2 * (1 - share)) ** 2

    steps = [*range(n + 3), 10**9]
    expected = [value(t) for t in steps]
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-9, atol=1e-16)


DECAYS = {  # of the share of the decay that is done, from high to low
    "linear": lambda high, low, s: high + (low - high) * s,
    "cosine": lambda high, low, s: low + (high - low) * (1 + math.cos(math.pi * s)) / 2,
    "exponential": lambda high, low, s: high * (low / high) ** s,
    "1-sqrt": lambda high, low, s: low + (high - low) * (1 - math.sqrt(s)),
}


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(("up", "level"), [(4, 6), (0, 6), (4, 0), (0, 0)])
@pytest.mark.parametrize("fall", [1, 8])
def test_warmup_stable_decay_is_up_level_down(decay, up, level, fall):
    high, low = 0.3, 0.01
    schedule = warmup_stable_decay(high, up, level, fall, low, decay)

    def value(t):
        if t < up:
            return high * t / up
        if t < up + level:
            return high
        return DECAYS[decay](high, low, min((t - up - level) / fall, 1.0))

    steps = [*range(up + level + fall + 3), BILLION]
    expected = [value(t) for t in steps]
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-9)
    np.testing.assert_allclose(compiled(schedule)(steps), expected, rtol=2e-6)
    assert schedule.length == up + level + fall


@pytest.mark.parametrize("decay", ["linear", "cosine", "1-sqrt"])
def test_warmup_stable_decay_ends_in_nothing(decay):
    values = warmup_stable_decay(0.3, 2, 3, 5, decay=decay).values(12)
    assert values[0] == 0.0
    assert (values[2:6] == 0.3).all()
    assert (np.diff(values[5:11]) < 0).all()
    assert (values[10:] == 0.0).all()


def test_an_exponential_decay_to_nothing_says_why_not():
    with pytest.raises(ValueError, match=r"`min_lr` must be > 0.*never reaches 0"):
        warmup_stable_decay(0.3, 2, 3, 5, decay="exponential")


@pytest.mark.parametrize("steps", [1, 5, 2.5])
@pytest.mark.parametrize("start", [0.0, 0.01, 2.0])
def test_warmup_is_a_line_and_then_the_whole_schedule(steps, start):
    inner = _RICH
    schedule = warmup(inner, steps, start)
    edge = math.ceil(steps)
    first = inner.values([0])[0]
    expected = [start + (first - start) * t / steps for t in range(edge)]
    np.testing.assert_allclose(schedule.values(edge), expected, rtol=1e-12)
    if steps == int(steps):
        np.testing.assert_array_equal(
            schedule.values(edge + 300)[edge:], inner.values(300)
        )


_RICH = (
    tfs.Join([Cosine(0.3, 0.1, 10), warm_restarts(0.2, 7, cycle_mult=2)], [10]) + 0.01
)


def test_a_boundary_belongs_to_the_value_that_begins():
    schedule = Piecewise([2, 5, 5.5], [0.1, 0.2, 0.3, 0.4])
    assert schedule.values(8).tolist() == [0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.4, 0.4]
    assert schedule.length is None  # its last piece never ends
    assert Piecewise([], [0.1]).values([0, BILLION]).tolist() == [0.1, 0.1]
    arrays = Piecewise(np.array([2, 5]), np.array([0.1, 0.2, 0.3]))
    assert arrays == Piecewise((2, 5), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("boundaries", "values", "error", "message"),
    [
        ([2], [0.1], ValueError, "one entry more.*1 values and 1 boundaries"),
        ([], [], ValueError, "one entry more.*0 values and 0 boundaries"),
        ([2], [0.1, 0.2, 0.3], ValueError, "3 values and 1 boundaries"),
        ([3, 2], [0.1, 0.2, 0.3], ValueError, r"must increase.*=\[3, 2\]"),
        ([2], 0.1, TypeError, "`values` must be a list.*=0.1"),
        ([2], [0.1, "0.2"], TypeError, "`values` must be a number.*='0.2'"),
        ([2], [0.1, math.nan], ValueError, "`values` must be finite.*=nan"),
        (["2"], [0.1, 0.2], TypeError, "`boundaries` must be a number.*='2'"),
        ([True], [0.1, 0.2], TypeError, "`boundaries` must be a number.*=True"),
    ],
)
def test_bad_pieces_are_refused(boundaries, values, error, message):
    with pytest.raises(error, match=message):
        Piecewise(boundaries, values)


def test_inverse_sqrt_is_vaswanis():
    # lrate = d^-0.5 * min(t^-0.5, t * w^-1.5), its peak (d * w)^-0.5.
    d, w = 512, 4000
    t = np.array([1, 100, 3999, 4000, 4001, 10**5, BILLION])
    expected = d**-0.5 * np.minimum(t**-0.5, t * w**-1.5)
    schedule = InverseSqrt((d * w) ** -0.5, w)
    np.testing.assert_allclose(schedule.values(t), expected, rtol=1e-12)
    np.testing.assert_allclose(compiled(schedule)(t), expected, rtol=2e-6)


def test_polynomials_are_their_closed_forms():
    t = np.arange(11) / 10
    for power in (0.5, 1, 2, 3.7):
        values = Polynomial(0.2, 1.2, 10, power).values(11)
        np.testing.assert_allclose(values, 1.2 - (1 - t) ** power, rtol=1e-12)
    line = Linear(0.2, 1.2, 10).values(11)
    np.testing.assert_allclose(Polynomial(0.2, 1.2, 10, 1).values(11), line, rtol=1e-14)
    root = SquareRoot(0.2, 1.2, 10).values(11)
    np.testing.assert_allclose(root, 0.2 + np.sqrt(t), rtol=1e-14)


@pytest.mark.parametrize("value", [0.1, "cosine", None, Constant, {"a": Constant(1)}])
def test_warmup_of_what_is_no_schedule(value):
    with pytest.raises(TypeError, match=naming("schedule", value)):
        warmup(value, 10)
