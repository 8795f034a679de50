"""Schedules at the ends of integers and floats, in thousands of parts, and in algebra.

The oracles are Fractions, decimals and NumPy's float64, written here.
"""

from __future__ import annotations

import decimal
import json
import math
import tracemalloc
from fractions import Fraction

import keras
import numpy as np
import pytest
from helpers import BACKEND, Rates, softmax_regression
from registry import compiled, exact

import tfschedules as tfs
from tfschedules import schedules as namespace
from tfschedules.schedules import Join, PerCycle, Repeat, ScaleFunction, combine

LAST = 2**31 - 1  # of JAX's steps
GIANT = 10**10
NUMPY = keras.ops.convert_to_numpy


def graph(schedule, steps):
    return np.asarray(NUMPY(schedule(np.asarray(steps))))


def both(schedule, steps):
    """In the graph, and in a compiled one where there are such."""
    eager = graph(schedule, steps)
    return [eager] if BACKEND == "torch" else [eager, compiled(schedule)(steps)]


# Lengths and steps past 32 bits -----------------------------------------------

GIANTS = {
    # What each is at a step of the first 2^31, by hand.
    "linear": (tfs.Linear(1.0, 0.0, 2**31), lambda t: 1 - t / 2**31),
    "linear, shorter": (tfs.Linear(1.0, 0.0, LAST), lambda t: 1 - t / LAST),
    "linear, of floats": (tfs.Linear(1.0, 0.0, 1e10), lambda t: 1 - t / 1e10),
    "linear, endless": (tfs.Linear(0.25, 0.5, 1e300), lambda t: 0.25),
    "linear, 2^63": (tfs.Linear(0.25, 0.5, 2**63), lambda t: 0.25 + t / 2**65),
    "cosine": (
        tfs.Cosine(1000.0, 0.0, GIANT),
        lambda t: 500 * (1 + math.cos(math.pi * t / GIANT)),
    ),
    "exponential": (
        tfs.Exponential(1.0, 0.01, GIANT),
        lambda t: 0.01 ** (t / GIANT),
    ),
    "join": (
        Join([tfs.Constant(1.0), tfs.Constant(2.0)], [GIANT]),
        lambda t: 1.0,
    ),
    "join, at the last step": (
        Join([tfs.Constant(1.0), tfs.Constant(2.0)], [LAST]),
        lambda t: 2.0 if t == LAST else 1.0,
    ),
    "join, after the last step": (
        Join([tfs.Constant(1.0), tfs.Constant(2.0)], [2**31]),
        lambda t: 1.0,
    ),
    "piecewise": (
        tfs.Piecewise([3, 3 * 10**9], [1.0, 2.0, 3.0]),
        lambda t: 1.0 if t < 3 else 2.0,
    ),
    "piecewise, of many": (
        tfs.Piecewise([10**9 * i for i in range(1, 20)], [*range(20)]),
        lambda t: t // 10**9,
    ),
    "per cycle": (PerCycle(0.5, 3 * 10**9), lambda t: 1.0),
    "per cycle, at the last step": (
        PerCycle(0.5, LAST),
        lambda t: 0.5 if t == LAST else 1.0,
    ),
    "repeat": (
        Repeat(tfs.Linear(1.0, 0.0, 3 * 10**9), 3 * 10**9),
        lambda t: 1 - t / 3e9,
    ),
    "restarts": (
        tfs.warm_restarts(1.0, 3 * 10**9, cycle_mult=2),
        lambda t: (1 + math.cos(math.pi * t / 3e9)) / 2,
    ),
    "cyclical": (tfs.cyclical(0.0, 1.0, 2 * 10**9), lambda t: 1 - abs(t / 2e9 - 1)),
    "inverse root": (tfs.InverseSqrt(1.0, GIANT), lambda t: t / GIANT),
    "stable": (
        tfs.warmup_stable_decay(1.0, 10, GIANT, 10),
        lambda t: min(t / 10, 1.0),
    ),
    "flat": (tfs.flat_cosine(0.5, GIANT), lambda t: 0.5),
    "hidden long ago": (
        Join(
            [tfs.Constant(9.0), tfs.cyclical(0.1, 1.0, 3), tfs.Linear(0.0, 0.5, 10**9)],
            [-3e9, -(10**9)],
        ),
        lambda t: 0.5,
    ),
}


@pytest.mark.parametrize("name", GIANTS)
def test_lengths_past_32_bits(name):
    schedule, by_hand = GIANTS[name]
    steps = [0, 5, 10**9, 2 * 10**9, LAST - 1, LAST]
    expected = [by_hand(t) for t in steps]
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-12, atol=1e-9)
    for found in both(schedule, steps):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-9)


def test_giant_lengths_in_a_fit():
    callback = tfs.HyperparameterScheduler(tfs.Linear(0.1, 0.01, 2**31))
    model = softmax_regression(keras.optimizers.SGD(0.5))
    rates = Rates()
    if BACKEND == "torch":
        pytest.skip("tests/drive/test_torch.py has its fits")
    data = np.zeros((8, 64), np.float32), np.zeros(8, np.int64)
    with pytest.warns(UserWarning, match="will not be finished"):
        model.fit(*data, batch_size=4, verbose=0, callbacks=[callback, rates])
    assert rates.rates == [np.float32(0.1)] * 2


@pytest.mark.parametrize("step", [2**31, 2**40 + 1, 2**63 - 1, 2**63, 2**70])
def test_steps_past_the_backends_integers(step):
    # Of a cycle of three the step's own phase; past 64 bits that of the last step.
    cycle = Join([tfs.Constant(0.0), tfs.Constant(1.0), tfs.Constant(2.0)], [1, 2])
    expected = min(step, 2**63 - 1) % 3
    assert float(NUMPY(Repeat(cycle, 3)(step))) == expected
    assert float(NUMPY(Repeat(cycle, 3)(np.uint64(min(step, 2**64 - 1))))) == expected


@pytest.mark.filterwarnings("ignore:The schedule of learning_rate reaches its end")
def test_the_drive_does_not_begin_where_it_cannot_count():
    schedule, far = tfs.Linear(0.1, 0.0, 10), 2**53
    if BACKEND != "tensorflow":  # its count of updates is an int32
        with pytest.raises(ValueError, match="`start_step` must be <= "):
            tfs.HyperparameterScheduler(schedule, start_step=far)
        far = 2**30 - 1
    callback = tfs.HyperparameterScheduler(schedule, start_step=far)
    model = softmax_regression(keras.optimizers.SGD(0.5))
    data = np.zeros((8, 64), np.float32), np.zeros(8, np.int64)
    model.fit(*data, batch_size=8, verbose=0, callbacks=[callback])
    assert float(NUMPY(model.optimizer.learning_rate)) == 0.0


def test_a_picture_of_any_length():
    ax = tfs.Linear(1.0, 0.0, GIANT).plot(GIANT + 1)
    (line,) = ax.lines
    assert len(line.get_xdata()) < 10**6
    assert line.get_xdata()[[0, -1]].tolist() == [0, GIANT]
    assert line.get_ydata()[[0, -1]].tolist() == [1.0, 0.0]


# No NaN, no infinity, no 0 for a number ---------------------------------------


def test_growing_cycles_stay_finite():
    schedule = tfs.cyclical(0.0, 1.0, 1, mode="exp_range", gamma=1.5)
    steps = np.array([0, 1, 3, 99, 217, 218, 219, 220, 1001, 10**9, 10**9 + 1])
    found = graph(schedule, steps)
    greatest = np.finfo(np.float32).max
    # Up in odd steps, to 1.5^t; 0 in even ones.
    expected = [
        min(Fraction(3, 2) ** int(min(t, 300)), Fraction(float(greatest)))
        if t % 2
        else 0
        for t in steps
    ]
    np.testing.assert_allclose(found, [float(e) for e in expected], rtol=2e-5)
    values = schedule.values([1750, 1751, 1752, 2001])
    assert values[[0, 2]].tolist() == [0.0, 0.0]
    assert np.isfinite(values).all()


def test_rising_restarts_stay_finite():
    # Keras's own test of CosineDecayRestarts has m_mul=4.
    schedule = tfs.warm_restarts(0.5, 10, peak_decay=4.0)
    assert schedule.values([0, 10, 20, 30]).tolist() == [0.5, 2.0, 8.0, 32.0]
    late = graph(schedule, [10 * 70, 10 * 5000 + 5, 10**9])
    assert np.isfinite(late).all()
    assert (late > 1e37).all()
    assert np.isfinite(schedule.values([10 * 5000 + 5, 10**9])).all()
    assert np.isfinite(schedule.values(np.arange(10 * 500, 10 * 600))).all()


def test_sums_of_the_greatest_stay_finite():
    most = tfs.Constant(1e38)
    for schedule in (
        most + most + most + most,
        (most - most * -3) * 2,
        most * most * 0,
        most / 1e-30 * 0.5,
        Join(
            [tfs.Constant(float(i)) * 1e30 * 1e30 for i in range(12)], [*range(1, 12)]
        ),
    ):
        assert np.isfinite(graph(schedule, [0, 3])).all()
        assert np.isfinite(schedule.values([0, 3])).all()


@pytest.mark.parametrize("kind", [tfs.Linear, tfs.Cosine, tfs.Exponential])
@pytest.mark.parametrize("steps", [0.999, 0.25, 1e-12, 1e-20, 1e-45, 1e-320])
def test_ramps_shorter_than_a_step(kind, steps):
    ramp = kind(0.25, 0.75, steps)
    for found in (ramp.values(3), *both(ramp, range(3))):
        np.testing.assert_allclose(found, [0.25, 0.75, 0.75], rtol=1e-6)
    warm = tfs.warmup(tfs.Constant(0.5), steps, start=0.125)
    for found in (warm.values(3), graph(warm, range(3))):
        assert found.tolist() == [0.125, 0.5, 0.5]
    root = tfs.InverseSqrt(1e10, steps)
    expected = [0.0, 1e10 * math.sqrt(steps), 1e10 * math.sqrt(steps / 2)]
    np.testing.assert_allclose(root.values(3), expected, rtol=1e-3)
    np.testing.assert_allclose(graph(root, range(3)), expected, rtol=2e-6, atol=1e-37)


def test_a_part_shorter_than_a_step_between_steps():
    parts = [
        tfs.Constant(1.0),
        tfs.Linear(0.25, 0.75, 1e-20),
        tfs.Linear(2.0, 4.0, 0.5),
    ]
    joined = Join(parts, [1.5, 2.0])
    # Between two steps the second part has come and gone.
    assert joined.values(4).tolist() == [1.0, 1.0, 2.0, 4.0]
    assert graph(joined, range(4)).tolist() == [1.0, 1.0, 2.0, 4.0]


def test_powers_that_float32_does_not_have():
    for power in (1e-37, 1e37, 1e38):
        falling = tfs.Polynomial(1.0, 0.25, 4, power)
        expected = [1.0] + [0.25 + 0.75 * (1 - t / 4) ** power for t in (1, 2, 3, 4)]
        assert falling.values(5).tolist() == expected
        np.testing.assert_allclose(graph(falling, range(5)), expected, rtol=2e-6)


def test_exponentials_over_all_of_float32():
    ramp = tfs.Exponential(1e-37, 1e38, 150)
    found = graph(ramp, range(151))
    with decimal.localcontext():
        expected = [float(decimal.Decimal(10) ** (t - 37) / 1) for t in range(0, 76)]
    np.testing.assert_allclose(found[:151:2], expected, rtol=3e-5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: tfs.Constant(x), "value"),
        (lambda x: tfs.Linear(x, 0.0, 3), "start"),
        (lambda x: tfs.Cosine(0.0, x, 3), "end"),
        (lambda x: tfs.InverseSqrt(x, 3), "peak"),
        (lambda x: tfs.Constant(0.1) * x, "value"),
        (lambda x: tfs.warm_restarts(x, 3), "max_lr"),
        (lambda x: tfs.RangeTest(1e-3, x), "max_lr"),
    ],
)
def test_no_number_greater_than_float32(make, name):
    make(1e38)
    for number in (1.1e38, 1e39, 1e300):
        with pytest.raises(ValueError, match=rf"`{name}` must be <= 1e\+38.*float32"):
            make(number)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: tfs.Exponential(x, 1.0, 3), "start"),
        (lambda x: tfs.Exponential(1.0, x, 3), "end"),
        (lambda x: tfs.Polynomial(1.0, 0.0, 3, x), "power"),
        (lambda x: tfs.warmup_stable_decay(1.0, 1, 1, 3, x, "exponential"), "min_lr"),
        (lambda x: tfs.RangeTest(x, 1.0), "min_lr"),
        (lambda x: tfs.RangeTest(x, 1.0, mode="linear"), "min_lr"),
    ],
)
def test_nothing_above_0_that_is_0_in_float32(make, name):
    make(1e-37)
    for number in (9e-38, 1e-60, 1e-320):
        with pytest.raises(ValueError, match=f"`{name}` must be >= 1e-37.*float32"):
            make(number)


def test_a_sweep_of_rates_that_the_optimizer_has_not():
    standard = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        optimizer = keras.optimizers.SGD(0.5)
    finally:
        keras.config.set_floatx(standard)
    model = softmax_regression(optimizer)
    before = [np.array(weight) for weight in model.get_weights()]
    data = np.zeros((8, 64), np.float32), np.zeros(8, np.int64)
    for low, high, bad in ((1e-9, 1.0, "1e-09"), (1e-3, 1e6, r"1e\+06")):
        test = tfs.RangeTest(low, high, steps=2)
        with pytest.raises(ValueError, match=f"(?s)rate of {bad}.*float16.*`min_lr`"):
            model.fit(*data, batch_size=4, verbose=0, callbacks=[test])
    for weight, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, then)


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "schedule",
    [
        tfs.Linear(1.0, 0.0, 10).clip(0.1, 0.7001),
        tfs.Polynomial(1.0, 0.1, 10, 3.3),
        tfs.InverseSqrt(0.3, 4.3),
        tfs.InverseSqrt(0.3, 2_000_003.7),
        Join([ScaleFunction(lambda x: 0.3), tfs.Constant(0.1)], [3]),
        tfs.Linear(0.1, 0.9, 0.3),
        tfs.Constant(70000.0).clip(66000.0, 80000.0),
        PerCycle(1.001, 3),
        1 - tfs.Linear(0.1, 0.7, 7) / 3,
        tfs.warm_restarts(0.3, 33.3, peak_decay=1.001),
        tfs.Piecewise([1.5 * i for i in range(1, 20)], [1.0 / i for i in range(1, 21)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_of_another_precision_change_nothing(schedule, floatx):
    steps = [0, 1, 2, 3, 6, 9, 40, 70000]
    plain = graph(schedule, steps)
    np.testing.assert_allclose(plain, schedule.values(steps), rtol=2e-6)
    standard = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        found = schedule(np.asarray(steps))
    finally:
        keras.config.set_floatx(standard)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(NUMPY(found), plain)


# Memory and tracing -----------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        tfs.one_cycle(0.1, 10**6)["learning_rate"],
        tfs.cyclical(0.001, 0.006, 2000, "exp_range", gamma=0.9999),
        Repeat(
            Join([tfs.Linear(0.0, 1.0, i + 1) for i in range(20)], [*range(1, 20)]), 99
        ),
    ],
    ids=["one_cycle", "cyclical", "join"],
)
def test_values_need_little_more_than_their_result(schedule):
    count = 10**6
    schedule.values(10)
    tracemalloc.start()
    values = schedule.values(count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * values.nbytes
    # Blocks have no seams.
    some = np.array([0, 2**14 - 1, 2**14, 2**14 + 1, 2**15, count - 1])
    np.testing.assert_array_equal(values[some], [schedule.values([t])[0] for t in some])
    reshaped = schedule.values(np.arange(count).reshape(-1, 10))
    np.testing.assert_array_equal(reshaped.ravel(), values)


def many(count):
    parts = [
        tfs.Linear(1 / (i + 1), 1 / (i + 2), 7.5)
        if i % 3
        else (tfs.Cosine(1 / (i + 1), 0.1, 9) * 0.5 + 0.01).clip(0.02, 0.4)
        for i in range(count)
    ]
    return Join(parts, [8.25 * i for i in range(1, count)])


def operations(schedule):
    if BACKEND == "jax":
        import jax

        return len(jax.make_jaxpr(lambda step: schedule(step))(np.int32(1)).eqns)
    import tensorflow as tf

    function = tf.function(lambda step: schedule(step), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((), tf.int64))
    return len(concrete.graph.get_operations())


@pytest.mark.skipif(BACKEND == "torch", reason="traces nothing")
def test_many_parts_make_no_greater_graph():
    assert operations(many(10)) == operations(many(300))
    few, more = (
        tfs.Piecewise([*range(1, n)], [1 / (i + 1) for i in range(n)]) for n in (9, 900)
    )
    assert operations(few) == operations(more)


def test_many_parts_are_the_parts_one_by_one(monkeypatch):
    schedule = many(40)
    edges = [math.ceil(8.25 * i) for i in range(1, 40)]
    steps = sorted({max(edge + i, 0) for edge in edges for i in (-2, -1, 0, 1, 7, 8)})
    together = schedule.values(steps), graph(schedule, steps)
    monkeypatch.setattr(combine, "_FEW", 10**9)
    np.testing.assert_array_equal(together[0], schedule.values(steps))
    # JAX multiplies by the inverse of a constant, and divides by what is looked up.
    rtol = 2e-7 if BACKEND == "jax" else 0
    np.testing.assert_allclose(together[1], graph(schedule, steps), rtol=rtol)
    expected = [exact(schedule, t) for t in steps]
    np.testing.assert_allclose(together[0], expected, rtol=1e-12)


# Algebra ----------------------------------------------------------------------

LINE = tfs.Linear(0.1, 0.9, 10)
WAVE = tfs.warm_restarts(0.5, 4, min_lr=0.1)
ALGEBRA = {
    "/": (LINE / 2, lambda a, b: a / 2),
    "/ 3": (LINE / 3, lambda a, b: a / 3),
    "- number": (LINE - 0.01, lambda a, b: a - 0.01),
    "number -": (1 - LINE, lambda a, b: 1 - a),
    "NumPy's number -": (np.float32(1) - LINE, lambda a, b: 1 - a),
    "-": (LINE - WAVE, lambda a, b: a - b),
    "negative": (-LINE, lambda a, b: -a),
    "twice negative": (0 - -LINE, lambda a, b: a),
    "all": (2 - (-WAVE + 1) / 4 - LINE, lambda a, b: 2 - (1 - b) / 4 - a),
}


@pytest.mark.parametrize("name", ALGEBRA)
def test_differences_and_quotients(name):
    schedule, by_hand = ALGEBRA[name]
    steps = [0, 1, 3, 4, 5, 9, 10, 11]
    a = np.interp(steps, [0, 10], [0.1, 0.9])
    b = [0.3 + 0.2 * math.cos(math.pi * (t % 4) / 4) for t in steps]
    expected = by_hand(a, np.array(b))
    np.testing.assert_allclose(schedule.values(steps), expected, rtol=1e-14)
    np.testing.assert_allclose(graph(schedule, steps), expected, rtol=2e-6)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    assert keras.saving.deserialize_keras_object(config) == schedule
    assert eval(repr(schedule), dict(vars(namespace))) == schedule


def test_algebra_prints_as_it_is_written():
    assert repr(LINE / 2) == f"({LINE!r} / 2.0)"
    assert repr(LINE - 0.01) == f"({LINE!r} - 0.01)"
    assert repr(1 - LINE) == f"(1.0 - {LINE!r})"
    assert repr(-LINE) == f"(-{LINE!r})"
    assert repr(LINE * 0.5 + 1) == f"(({LINE!r} * 0.5) + 1.0)"


def test_algebra_keeps_lengths_cycles_and_epochs():
    assert (1 - LINE / 2).length == 10
    assert (-WAVE - 0.1).cycles(5) == WAVE.cycles(5) == (1, 8)
    waiting = 1 - tfs.Linear(0.0, 1.0, tfs.epochs(2)) / 2
    assert waiting.in_epochs
    assert waiting.resolve(5) == 1 - tfs.Linear(0.0, 1.0, 10) / 2


@pytest.mark.parametrize("divisor", [0, 0.0, -0.0, 1e-60, -1e-320])
def test_no_division_by_nothing(divisor):
    with pytest.raises(ValueError, match="divisor of a schedule must be >= 1e-37"):
        LINE / divisor


def test_no_division_by_schedules():
    for divide in (lambda: LINE / WAVE, lambda: 1 / LINE):
        with pytest.raises(TypeError, match="unsupported operand"):
            divide()
    with pytest.raises(TypeError, match="`second` must be a Constant"):
        namespace.Quotient(LINE, WAVE)


# Restarts of a fraction of steps ----------------------------------------------


@pytest.mark.parametrize("first", [Fraction(333, 10), Fraction(100, 3), Fraction(7, 2)])
def test_first_cycles_of_a_fraction(first):
    schedule = tfs.warm_restarts(1.0, float(first), min_lr=0.1)
    t = [*range(0, 340), 10**6, 10**9 - 1, 10**9, LAST]
    share = [float(Fraction(s) % first / first) for s in t]
    expected = [0.1 + 0.45 * (1 + math.cos(math.pi * s)) for s in share]
    np.testing.assert_allclose(schedule.values(t), expected, rtol=1e-9)
    np.testing.assert_allclose(graph(schedule, t), expected, rtol=2e-6)
    # A third of a hundred steps restarts at a hundred, though the float says later.
    whole = first.numerator
    assert schedule.values([whole])[0] == 1.0
    for step in (0, 1, 33, 34, 99, 100, 101, 332, 333, 334):
        ended = math.floor(step / first)
        assert schedule.cycles(step) == (ended, math.ceil((ended + 1) * first))


def test_restarts_are_as_keras_has_them():
    peer = keras.optimizers.schedules.CosineDecayRestarts(
        0.5, 33.3, t_mul=1.0, m_mul=4.0, alpha=0.0
    )
    ours = tfs.warm_restarts(0.5, 33.3, peak_decay=4.0)
    steps = [0, 1, 20, 33, 34, 50, 66, 67, 80, 120]
    expected = [float(peer(step)) for step in steps]
    np.testing.assert_allclose(ours.values(steps), expected, rtol=2e-5, atol=1e-6)


def test_cycles_too_fine_for_32_bits_are_refused():
    schedule = tfs.warm_restarts(1.0, 33.1234567890123)
    assert schedule.values([34])[0] < 1.0
    if BACKEND == "tensorflow":
        expected = schedule.values([34, 10**9])
        np.testing.assert_allclose(graph(schedule, [34, 10**9]), expected, rtol=2e-6)
        return
    with pytest.raises(ValueError, match=r"fewer decimals, or a whole number.*33"):
        schedule(34)


def test_no_cycle_is_shorter_than_a_step():
    with pytest.raises(ValueError, match="`steps` must be >= 1"):
        Repeat(tfs.Linear(1.0, 0.0, 0.5), 0.5)


def test_cycles_that_grow_are_counted_with_those_inside():
    inside = tfs.PerCycle(0.999, steps=1)
    assert Repeat(inside, 1000, 2).values([2999])[0] == pytest.approx(0.999**999)
    for many in (
        lambda: Repeat(inside, 3000, 2),
        lambda: Repeat(Repeat(tfs.Linear(1.0, 0.5, 1), 1), 10**7, 2),
    ):
        with pytest.raises(ValueError, match=r"(?s)`growth` is tabul.*Give longer cyc"):
            many()
    waits = Repeat(inside, tfs.epochs(3000), 2)  # how many, is not known yet
    with pytest.raises(ValueError, match="Give longer cycles inside it"):
        waits.resolve(1)


# What the fuzz suite has found ------------------------------------------------


@pytest.mark.parametrize("growth", [1e16, 1e30, 1e38, 1e300])
def test_cycles_that_grow_out_of_sight(growth):
    schedule = Repeat(tfs.Linear(1.0, 0.5, 4), 4, growth)
    assert schedule.cycles(3) == (0, 4)
    assert schedule.cycles(2**60) == (1, None)
    for found in (schedule.values([3, 4, 5, 10**9]), graph(schedule, [3, 4, 5, 10**9])):
        np.testing.assert_allclose(found, [0.625, 1.0, 1.0, 1.0], rtol=1e-6)
    tfs.warm_restarts(1.0, LAST, cycle_mult=growth).values(3)


def test_a_cycle_that_begins_with_the_last_step():
    steps = [2**30 - 2, 2**30 - 1, LAST - 1, LAST]
    powers = PerCycle(2.0, 1, growth=2)  # cycle i begins at 2^i - 1
    expected = [2.0**29, 2.0**30, 2.0**30, 2.0**31]
    assert powers.values(steps).tolist() == graph(powers, steps).tolist() == expected


def test_steep_powers_have_their_digits():
    # (1 - t/n)^n is e^-t: 1 - t/n has none of its digits in float32.
    n = 2**24 + 1
    for steep in (tfs.Polynomial(1.0, 0.25, n, n), tfs.Polynomial(1.0, 1.0, n, n)):
        expected = [steep.end + (1 - steep.end) * math.exp(-t) for t in range(9)]
        np.testing.assert_allclose(graph(steep, range(9)), expected, rtol=2e-6)
        np.testing.assert_allclose(steep.values(9), expected, rtol=1e-6)


@pytest.mark.parametrize("rest", [1e-3, 1e-6, 1e-9, 2**-40])
def test_a_little_less_than_a_step_is_left(rest):
    # At step 10 only `rest` is left: a root shows its digits.
    falling = tfs.Polynomial(1.0, 0.0, 10 + rest, 0.5)
    in_many = Join([tfs.Constant(1.0)] + [falling] * 9, [20 * i for i in range(9)])
    growing = Repeat(falling, 10 + rest, 1.5)
    expected = math.sqrt(Fraction(10 + rest) - 10) / math.sqrt(10 + rest)
    for schedule, step in ((falling, 10), (in_many, 50), (growing, 10)):
        assert schedule.values([step])[0] == pytest.approx(expected, rel=1e-4)
        assert float(NUMPY(schedule(step))) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("moment", [LAST - 0.75, LAST - 0.25, LAST - 1.5, LAST - 30])
def test_a_table_whose_ramps_end_after_the_last_step(moment):
    line = tfs.Linear(1.0, 0.5, 2)
    parts, edges = [line] * 9, [moment - 9 + i for i in range(8)]
    at = [*range(LAST - 40, LAST + 1)]
    expected = [exact(Join(parts, edges), step) for step in at]
    np.testing.assert_allclose(graph(Join(parts, edges), at), expected, rtol=1e-6)
    edges = [moment - 8 + i for i in range(8)] + [moment + 1]
    expected = [exact(Join([*parts, line], edges), step) for step in at]
    found = graph(Join([*parts, line], edges), at)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_roots_that_have_not_begun():
    parts = [tfs.SquareRoot(1.0, 0.5, 2 + i) for i in range(9)]
    joined = Join(parts, [9 * i for i in range(1, 9)])
    with np.errstate(all="raise"):
        values = joined.values(100)
    expected = [exact(joined, t) for t in range(100)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(graph(joined, range(100)), expected, rtol=2e-6)


@pytest.mark.parametrize("steps", [1e31, 1e38, 1e39, 1e300])
def test_ramps_that_hardly_begin(steps):
    for schedule in (
        tfs.Linear(0.0, 1.0, steps),
        tfs.InverseSqrt(1.0, steps),
        Repeat(tfs.Linear(0.0, 1.0, steps), steps, 1.1),
        Join([tfs.Linear(0.0, 1.0, steps)] * 9, [1e10 + i for i in range(8)]),
    ):
        at = [0, 1, 2**24, LAST]
        np.testing.assert_allclose(
            graph(schedule, at), np.divide(at, steps), rtol=1e-6, atol=2e-38
        )


def test_functions_times_what_grows():
    schedule = ScaleFunction(lambda x: 1 / (1 + x)) * PerCycle(1.5, 1) * 2
    steps = [0, 100, 250, 3000, 10**9]
    assert np.isfinite(schedule.values(steps)).all()
    assert np.isfinite(graph(schedule, steps)).all()
    assert float(NUMPY(schedule(2))) == pytest.approx(1.5)
