"""Any schedule of any arguments: it is refused in words, or it keeps the laws.

Arguments are drawn from what people give, from the ends of floats and integers, and
from what is no number; lengths in steps, and in epochs. The laws: `values` are what
`registry.exact` finds with Fractions, the graph has them in float32, compiled, too, and
algebra, files, cycles and lengths agree. `TFSCHEDULES_FUZZ_EXAMPLES=100000` draws so
many schedules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import itertools
import json
import math
import os
import types
from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from registry import compiled, exact

import tfschedules as tfs
from tfschedules import schedules as namespace
from tfschedules.schedules import (
    Clip,
    Constant,
    Cosine,
    Difference,
    Exponential,
    InverseCycle,
    InverseSqrt,
    Join,
    PerCycle,
    Polynomial,
    Product,
    Quotient,
    Ramp,
    Repeat,
    ScaleFunction,
    Schedule,
    SquareRoot,
    Stretch,
    cycles as cycles_of,
    moments,
)
from tfschedules.schedules.arithmetic import Pair
from tfschedules.schedules.spans import fraction_of

ASKED = os.environ.get("TFSCHEDULES_FUZZ_EXAMPLES")
LAST = 2**31 - 1  # of JAX's steps; what is beyond, NumPy computes for it
COUNT = 16  # steps of each schedule; one shape, for JAX
RTOL = 5e-5  # docs/schedules.md: float32, with exponents up to 128
FLOOR = 1e-37  # smaller numbers are 0 in float32
MOST = 1e37  # and greater ones may be held
RARELY = 100  # of so many schedules one is compiled


@keras.saving.register_keras_serializable("tfschedules_tests", "fuzz_inverse")
def inverse(x):
    return 1.0 / (1.0 + x)


# Arguments --------------------------------------------------------------------

EXTREMES = [0, 0.0, -0.0, 5e-324, 1e-320, 1e-60, 9e-38, 1e-37, 1e-30, 1, 2**24 + 1]
EXTREMES += [1e30, 1e37, 1e38, 1.1e38, 3.4e38, 1e39, 1e300, -1e-60, -1.0, -1e38, -1e300]
LENGTHS = [5e-324, 1e-320, 1e-30, 0.25, 0.999, 1 - 2**-53, 1 + 2**-52, 1.5, 2.7, 33.3]
LENGTHS += [100 / 3, 33.123456, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**31 + 1, 10**10]
LENGTHS += [2**31 - 0.5, 2**40, 2**53 + 1, 2**63 - 1, 2**63, 1e19, 1e30, 1e300, 10**300]
HOSTILE = [math.nan, math.inf, -math.inf, True, None, "0.1", 1j, [0.1], 10**400, {}]
HOSTILE += [np.float32(0.1), np.int8(3), np.array(0.5), np.array([0.5]), Fraction(1, 3)]
HOSTILE += [decimal.Decimal("0.1"), np.bool_(True), b"1", np.float64(math.nan), -1, 0]
HOSTILE += [tfs.epochs, Constant, keras.optimizers.schedules.ExponentialDecay]


@dataclasses.dataclass(frozen=True)
class Length:
    """A length or a boundary, in the unit that is `used` when the schedule is made."""

    number: object

    unit = staticmethod(lambda number: number)


@contextlib.contextmanager
def used(unit):
    """Make schedules with lengths in this unit."""
    before, Length.unit = Length.unit, staticmethod(unit)
    try:
        yield
    finally:
        Length.unit = before


def mostly(normal, extreme):
    """Nine in ten are normal ones."""
    kinds = st.integers(0, 39)
    odd, hostile = st.sampled_from(extreme), st.sampled_from(HOSTILE)
    return kinds.flatmap(lambda k: hostile if k == 39 else odd if k >= 34 else normal)


sizes = st.floats(1e-6, 10.0) | st.sampled_from([0.1, 0.5, 1.0, 1e-3])
numbers = mostly(sizes, EXTREMES)
lengths = mostly(
    st.integers(1, 60)
    | st.floats(0.5, 100)
    | st.integers(1, 400).map(lambda tenths: tenths / 10),
    LENGTHS,
).map(Length)
wholes = mostly(st.integers(1, 60), LENGTHS).map(Length)
growths = mostly(st.sampled_from([1, 1.1, 1.5, 2, 3, math.pi]), EXTREMES)
ramp_kinds = st.sampled_from(
    [tfs.Linear, tfs.Cosine, tfs.Exponential, tfs.SquareRoot, tfs.Linear]
)


factors = mostly(st.sampled_from([0.5, 1, 1.1, 1.5, 2, 1 / 3, 30]), EXTREMES)
powers = mostly(st.sampled_from([0.01, 0.3, 1, 1.0, 1.5, 3, 100]), EXTREMES)


def call(function, *positional, **named):
    """The call, to be made later: most that are drawn are to be refused there."""
    return st.builds(
        lambda p, n: (
            lambda: function(*map(ready, p), **{key: ready(n[key]) for key in n})
        ),
        st.tuples(*positional),
        st.fixed_dictionaries(named),
    )


def ready(drawn):
    """An argument: calls are made, and lengths are in the unit of now."""
    if isinstance(drawn, list):
        return [ready(each) for each in drawn]
    if isinstance(drawn, Length):
        return Length.unit(drawn.number)
    return drawn() if isinstance(drawn, types.FunctionType) else drawn


def then(make, *others):
    """`make` with what other drawn calls return, and with plain arguments."""
    return st.tuples(*others).map(lambda drawn: lambda: make(*map(ready, drawn)))


ramps = st.one_of(
    then(lambda kind, *rest: kind(*rest), ramp_kinds, numbers, numbers, lengths),
    call(tfs.Polynomial, numbers, numbers, lengths, numbers, k_decay=powers),
    call(tfs.Cosine, numbers, numbers, lengths, exponent=powers, k_decay=powers),
)
leaves = st.one_of(
    ramps,
    ramps,
    call(Constant, numbers),
    call(InverseSqrt, numbers, lengths),
    call(PerCycle, numbers, lengths, growths),
    then(lambda steps: ScaleFunction(inverse, steps), st.none() | wholes),
    call(InverseCycle, powers, lengths, growths),
    call(
        tfs.Noise,
        mostly(st.floats(0.01, 0.99), EXTREMES),
        lengths,
        mostly(st.integers(0, 2**64 - 1), EXTREMES),
        st.sampled_from(["uniform", "normal", "uniform", "gauss"]),
    ),
    then(
        lambda kind, start, end, steps, growth: Repeat(
            kind(start, end, steps), steps, growth
        ),
        ramp_kinds,
        numbers,
        numbers,
        lengths,
        growths,
    ),
)
edges = mostly(
    st.integers(-40, 200).map(lambda quarters: quarters / 4) | st.integers(0, 99),
    [*LENGTHS, *(-each for each in LENGTHS)],
)


def in_order(drawn):
    """Boundaries as they are, or sorted: most that are drawn would be refused."""
    try:
        return [Length(edge) for edge in sorted(set(drawn))]
    except (TypeError, ValueError, ArithmeticError, RuntimeWarning):  # NaN, 10**400
        return [Length(edge) for edge in drawn]


def joined(parts, given_edges):
    between = ready(in_order(given_edges)[: len(parts) - 1])
    return Join([part() for part in parts][: len(between) + 1], between)


def grown(inside):
    return st.one_of(
        then(lambda a, b: a + b, inside, inside | numbers),
        then(lambda a, b: a * b, inside, inside | numbers),
        then(lambda a, b: a - b, inside | numbers, inside),
        then(lambda a, b: a / b, inside, numbers),
        then(lambda a: -a, inside),
        then(lambda a, low, high: a.clip(low, high), inside, numbers, numbers),
        then(lambda a, factor: a.stretch(factor), inside, factors),
        then(Repeat, inside, wholes),
        then(Repeat, inside, lengths, growths),
        then(tfs.warmup, inside, lengths, numbers, st.booleans()),
        then(tfs.swa, inside, wholes, numbers, wholes),
        st.builds(
            lambda parts, between: lambda: joined(parts, between),
            st.lists(inside, min_size=1, max_size=4),
            st.lists(edges, max_size=3),
        ),
    )


compositions = st.recursive(leaves, grown, max_leaves=5)
shares = mostly(st.floats(0.0, 1.0), EXTREMES)
words = st.sampled_from(
    ["cosine", "linear", "welch", "hann", "triangular", "1-sqrt", 3]
)
recipes = st.one_of(
    call(tfs.Piecewise, st.lists(edges, max_size=12).map(in_order), st.lists(numbers)),
    st.lists(edges, min_size=9, max_size=14)
    .map(in_order)
    .flatmap(
        lambda drawn: call(
            tfs.Piecewise,
            st.just(drawn),
            st.lists(numbers, min_size=len(drawn) + 1, max_size=len(drawn) + 1),
        )
    ),
    call(
        tfs.cyclical,
        numbers,
        numbers,
        wholes,
        mode=st.sampled_from(["triangular", "triangular2", "exp_range", "up"]),
        gamma=mostly(st.sampled_from([1.0, 0.9994, 0.5, 1.5]), EXTREMES),
        window=st.sampled_from(["triangular", "welch", "hann", None]),
        step_size_down=st.none() | st.integers(1, 60),
    ),
    call(
        tfs.polynomial_restarts, numbers, wholes, st.sampled_from([0.0, 1e-6]), powers
    ),
    call(
        tfs.warm_restarts,
        numbers,
        lengths,
        numbers | st.just(0.0),
        growths,
        mostly(st.sampled_from([1.0, 0.5, 0.8, 4.0]), EXTREMES),
    ),
    then(
        lambda key, *rest: tfs.one_cycle(*rest)[key],
        st.sampled_from(["learning_rate", "momentum"]),
        numbers,
        wholes,
        shares,
        numbers,
        numbers,
        st.booleans(),
        st.sampled_from(["cosine", "linear", "cosine", "hat"]),
        shares,
        shares,
    ),
    call(tfs.flat_cosine, numbers, wholes, shares, numbers | st.just(0.0)),
    call(
        tfs.warmup_stable_decay,
        numbers,
        wholes | st.just(Length(0)),
        wholes | st.just(Length(0)),
        wholes,
        numbers | st.just(0.0),
        words,
    ),
)
# Many parts of few kinds: these are looked up in tables.
plain = st.builds(
    lambda kind, start, end, steps: kind(start, end, steps),
    ramp_kinds,
    sizes,
    sizes,
    st.integers(1, 30) | st.integers(2, 99).map(lambda quarters: quarters / 4),
)
simple = st.one_of(
    plain,
    st.builds(Constant, sizes),
    st.builds(lambda a, x: a * x + 0.1, plain, sizes),
    st.builds(lambda a, x: (a / x - 0.25).clip(0.1, 2.0), plain, sizes),
    st.builds(Repeat, plain, st.integers(1, 9)),
)
many = st.builds(
    lambda parts, first, gaps: (
        lambda: Join(parts, np.cumsum([first, *gaps])[: len(parts) - 1].tolist())
    ),
    st.lists(simple, min_size=9, max_size=14),
    st.sampled_from([-20.5, -1, 0, 1, 2.25, 2**24, 2**31 - 20, 1e10]),
    st.lists(st.sampled_from([0.25, 1, 2, 3.5, 8, 1e9]), min_size=13, max_size=13),
)
FAMILIES = {
    "shapes": (leaves, 3),
    "compositions": (compositions, 4),
    "recipes": (recipes, 4),
    "many parts": (many, 1),
}


# Laws -------------------------------------------------------------------------


def made(make):
    """The schedule; or None, if it is refused as it should be."""
    try:
        return make()
    except (TypeError, ValueError) as error:  # and nothing else
        message = str(error)
    assert len(message) > 20
    return None


def parts_of(schedule):
    yield schedule
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Schedule):
                yield from parts_of(item)


def check_exact(schedule, steps, values, bound):
    """What NumPy finds is what Fractions find, or a rounding error before or after."""
    parts = list(parts_of(schedule))
    edges = [abs(edge) for part in parts for edge in getattr(part, "boundaries", ())]
    grows = any(getattr(part, "growth", 1) != 1 for part in parts)
    greatest = max(np.abs(values), default=0.0)
    for step, value, size_now in zip(steps.tolist(), values, bound, strict=True):
        if step > 2**53 or (grows and max(edges, default=0) > 2**53):
            continue  # no float64, or not tabulated
        # Of what has left its last digits a cosine shows the square.
        allowed = 1e-9 * size_now + 1e-29 * greatest
        expected = exactly(schedule, step)
        if abs(value - expected) <= allowed:
            continue
        ulp = Fraction(math.ulp(max(step, *edges, 1.0)))
        around = [k * ulp for k in (1, 2, 4, 8, 16, 32)] + [Fraction(1, 10**8)]
        around += [Fraction(edge) for edge in edges if 0 < edge < ulp]  # rounded away
        near = [
            exactly(schedule, step + sign * error)
            for error in around
            for sign in (-1, 1)
        ] + [expected]
        # And between the nearest of them, where it jumps: as far as it goes on a side.
        allowed += max(abs(near[0] - near[2]), abs(near[1] - near[3]))
        assert min(near) - allowed <= value <= max(near) + allowed, (step, value, near)


def exactly(schedule, moment):
    try:
        with decimal.localcontext(prec=60):
            return exact(schedule, moment)
    except OverflowError:
        return math.inf


def counted(evaluate):
    """What is evaluated; or None, if integers are too small to count its time in."""
    try:
        return evaluate()
    except ValueError as error:
        message = str(error)
    assert "cannot be counted" in message
    return None


def moments_in(schedule):
    """Steps at and around what lengths and boundaries there are."""
    found = [0.0]
    for part in parts_of(schedule):
        if isinstance(part, Join):
            found += part.boundaries
        elif getattr(part, "steps", None) is not None:
            found += [part.steps, 2 * part.steps, found[-1] + part.steps]
        elif isinstance(part, InverseSqrt):
            found.append(part.warmup_steps)
    for part in found[:6]:
        found.append(min(part + found[-1], 1e300))
    around = {math.floor(min(at, 2**62)) + i for at in found for i in (-1, 0, 1)}
    return sorted(step for step in around if step >= 0)


def size(schedule, time):
    """A bound of the terms that make the value up, and where all of them are float32's.

    The error of float32 is relative to it, as terms may cancel.
    """
    now = np.zeros(np.shape(time.whole))
    match schedule:
        case Constant(value):
            found, fine = now + abs(value), now == 0
        case Ramp():
            return _ramp(schedule, *time.over(schedule.steps))
        case Join(parts, between):
            found, fine = size(parts[0], time)
            for part, edge in zip(parts[1:], between, strict=True):
                later, well = size(part, time.since(edge))
                begun = time.reached(edge)
                found = np.where(begun, later, found)
                fine = np.where(begun, well, fine)
            return found, fine
        case Repeat(part, steps, growth):
            return size(part, cycles_of.in_cycle(time, steps, growth))
        case Pair(first, second):
            (a, fine), (b, well) = size(first, time), size(second, time)
            fine = fine & well
            if isinstance(schedule, Product):
                found = a * b
            elif isinstance(schedule, Quotient):
                found = a / abs(second.value)
            else:
                found = a + b
        case Stretch(part, factor):
            return size(part, time.stretched(fraction_of(factor)))
        case Clip(part):
            found, fine = size(part, time)
            found = np.maximum(found, np.abs(schedule.equation(time)))
        case _:
            found, fine = np.abs(schedule.equation(time)), now == 0
    found = np.minimum(found + FLOOR / RTOL, 1e200)
    return found, fine & (found < MOST)


def _ramp(ramp, done, left):
    numbers = {name: abs(getattr(ramp, name)) for name in ("start", "end")}
    if isinstance(ramp, Exponential):
        numbers["ratio"] = ramp.ratio
    if isinstance(ramp, Polynomial):
        numbers |= {"power": ramp.power, "k_decay": ramp.k_decay}
    if isinstance(ramp, Cosine):
        numbers |= {"exponent": ramp.exponent, "k_decay": ramp.k_decay}
    numbers["has_table"] = ramp.has_table
    found = type(ramp).blend(types.SimpleNamespace(**numbers), done, left, np)
    if isinstance(ramp, (Polynomial, Cosine)):  # a power may be 0, its product not
        found = found + FLOOR / RTOL * max(abs(ramp.start), abs(ramp.end))
    if isinstance(ramp, (Polynomial, Cosine)):  # 1 - (1 - t)^p of a small p
        found = found + 2.0**-23 / RTOL * abs(ramp.end)
    # A share that is 0 in float32 has a giant multiple, and a root; or its square has.
    found = found + (done < FLOOR) * FLOOR / RTOL * abs(ramp.end)
    if isinstance(ramp, SquareRoot):
        found = found + (done < FLOOR) * math.sqrt(FLOOR) / RTOL * abs(ramp.end)
    if isinstance(ramp, Cosine):
        found = found + (done < math.sqrt(FLOOR)) * FLOOR / RTOL * abs(ramp.end)
    found = found + FLOOR / RTOL
    fine = found < MOST
    if isinstance(ramp, (Polynomial, Cosine)):  # a small power of 0 is another thing
        tiny = np.minimum(done, left)
        fine &= (tiny == 0) | (tiny > FLOOR)
    return found, fine


SEEN = itertools.count()
QUICKLY = {"autograph": False} if keras.backend.backend() == "tensorflow" else {}


def check(schedule):
    steps = [*moments_in(schedule), 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**40, 2]
    far = [step for step in steps if step > LAST]
    near = [step for step in steps if step <= LAST]
    chosen = near if len(near) <= COUNT else [*near[: COUNT // 2], *near[-COUNT // 2 :]]
    chosen = (chosen + [0] * COUNT)[:COUNT]
    if keras.backend.backend() != "jax":
        chosen = [*chosen[:-4], *far[:2], *far[-2:]]
    chosen = np.array(chosen, np.int64)
    values = counted(lambda: schedule.values(chosen))
    if values is None:
        return
    assert np.isfinite(values).all()
    with np.errstate(over="ignore"):
        bound, fine = size(schedule, moments.in_numpy(chosen))
    check_exact(schedule, chosen[fine], values[fine], bound[fine])
    found = counted(lambda: keras.ops.convert_to_numpy(schedule(chosen)))
    if found is not None:
        assert found.dtype == np.float32
        assert found.shape == values.shape
        # What a function of another's own returns is taken as it is.
        own = any(isinstance(part, ScaleFunction) for part in parts_of(schedule))
        assert np.isfinite(found[fine] if own else found).all()
        wrong = fine & ~(np.abs(found - values) <= RTOL * bound)
        assert not wrong.any(), (chosen[wrong], found[wrong], values[wrong])
        if next(SEEN) % RARELY == 0 and keras.backend.backend() != "torch":
            run = compiled(schedule, **QUICKLY)
            again = run(chosen)
            wrong = fine & ~(np.abs(again - values) <= RTOL * bound)
            assert not wrong.any(), (chosen[wrong], again[wrong], values[wrong])
            one = run(chosen[3])
            assert one.shape == ()
            assert abs(one - again[3]) <= RTOL * bound[3] or not fine[3]
    if far and keras.backend.backend() == "jax":
        beyond = float(keras.ops.convert_to_numpy(schedule(far[-1])))
        expected = np.clip(schedule.values(far[-1:])[0], -3.4028235e38, 3.4028235e38)
        assert beyond == np.float32(expected)
    if ASKED is None or int(chosen.sum()) % 4 == 0:  # of very many one in four
        check_algebra(schedule, chosen, values)
    check_cycles(schedule)
    if schedule.length is not None and schedule.length < 2**62:
        end = math.ceil(schedule.length)
        assert schedule.length >= 0
        # One more, as lengths that are added up may be rounded down.
        later = schedule.values([end + 1, end + 2, 2 * end + 2, 2**62])
        assert len(set(later.tolist())) == 1
        last = schedule.schedules[-1] if isinstance(schedule, Join) else schedule
        if isinstance(last, Ramp):
            assert later[0] == last.end
    if isinstance(schedule, Join) and len(schedule.boundaries):
        edge, last = schedule.boundaries[-1], schedule.schedules[-1]
        if edge == int(edge) and 0 <= edge < 2**62:
            assert schedule.values([edge])[0] == last.values([0])[0]


def check_algebra(schedule, steps, values):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    again = keras.saving.deserialize_keras_object(config)
    assert again == schedule
    assert hash(again) == hash(schedule)
    text = repr(schedule)
    if "<function" not in text:
        assert eval(text, dict(vars(namespace))) == schedule
    small = np.abs(values) < 1e300
    for same in (schedule * 2 / 2, -(0 - schedule), schedule - 0, 1 * schedule):
        np.testing.assert_array_equal(same.values(steps)[small], values[small])
    zero = (schedule - schedule).values(steps)
    np.testing.assert_array_equal(zero, np.zeros(len(steps)))
    assert (schedule / 4).length == schedule.length


def check_cycles(schedule):
    for step in (0, 7, 2**31):
        ended, next_end = schedule.cycles(step)
        assert ended >= 0
        if next_end is None or next_end >= 2**62:
            continue
        assert next_end > step
        if isinstance(schedule, Repeat):
            assert schedule.cycles(next_end - 1).ended == ended
            assert schedule.cycles(next_end).ended == ended + 1


def make_in_epochs(make):
    with used(tfs.epochs):
        return make()


def check_epochs(make, per_epoch):
    """A schedule with lengths in epochs; what it is in steps, if it is any."""
    waiting = made(lambda: make_in_epochs(make))
    with used(lambda number: floored(tfs.epochs(number).count * per_epoch)):
        expected = made(make)
    if waiting is None or not waiting.in_epochs:
        return waiting and expected
    for use in (waiting, waiting.values, waiting.cycles):
        with pytest.raises(ValueError, match="resolve"):
            use(3)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(waiting)))
    assert keras.saving.deserialize_keras_object(config) == waiting
    assert hash(waiting) == hash(made(lambda: make_in_epochs(make)))
    text = repr(waiting)
    if "<function" not in text:
        assert eval(text, dict(vars(namespace))) == waiting
    assert made(lambda: waiting.resolve(per_epoch)) == expected
    return expected


def floored(steps):
    return max(1, math.floor(Fraction(steps) + Fraction(1, 10**9)))


TOTAL = sum(weight for _, weight in FAMILIES.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_any_schedule_is_refused_or_keeps_the_laws(family, request):
    strategy, weight = FAMILIES[family]
    seen = {"refused": 0, "kept": 0}

    @settings(
        max_examples=int(ASKED or 360) * weight // TOTAL,
        deadline=None,
        database=None,
        derandomize=ASKED is None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*HealthCheck],
        print_blob=True,
    )
    @given(strategy)
    def laws(make):
        schedule = made(make)
        seen["refused" if schedule is None else "kept"] += 1
        if schedule is not None:
            check(schedule)

    laws()
    # A test that only sees refusals would see nothing.
    assert seen["kept"] > seen["refused"] / 2, seen
    print(family, seen)  # noqa: T201


in_epochs = st.one_of(leaves, recipes, compositions)
updates = st.integers(1, 500) | st.floats(1.0, 500.0)


@settings(
    max_examples=int(ASKED or 500) // 10,
    deadline=None,
    database=None,
    derandomize=ASKED is None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[*HealthCheck],
    print_blob=True,
)
@given(in_epochs, updates)
def _epochs_are_steps(make, per_epoch):
    schedule = check_epochs(make, per_epoch)
    EPOCHS["refused" if schedule is None else "kept"] += 1
    if schedule is not None:
        check(schedule)


EPOCHS = {"refused": 0, "kept": 0}


def test_lengths_in_epochs_are_those_in_steps():
    _epochs_are_steps()
    assert EPOCHS["kept"] > EPOCHS["refused"] / 2, EPOCHS
    print("in epochs", EPOCHS)  # noqa: T201


cycles = st.floats(0, 1), st.floats(1e-6, 10), st.integers(1, 3000)


@settings(max_examples=int(ASKED or 400) // 20, deadline=None, derandomize=not ASKED)
@given(
    *cycles,
    st.sampled_from(["triangular", "triangular2", "exp_range"]),
    st.sampled_from([1.0, 0.999, 0.5]),
    st.sampled_from(["triangular", "welch", "hann"]),
    st.integers(0, LAST - 20_000),
)
def test_cycles_stay_between_their_rates(low, height, half, mode, gamma, window, age):
    high = low + height
    schedule = tfs.cyclical(low, high, half, mode, gamma, window=window)
    begin = age // (2 * half) * 2 * half  # a cycle begins
    steps = begin + np.array([0, 1, half - 1, half, half + 1, 2 * half - 1, 2 * half])
    for found in (
        schedule.values(steps),
        keras.ops.convert_to_numpy(schedule(steps.astype(np.int64))),
    ):
        assert (found >= low * (1 - 2e-7) - FLOOR).all()
        assert (found <= high * (1 + 2e-7)).all()
        np.testing.assert_allclose(found[[0, -1]], low, rtol=2e-7, atol=FLOOR)


def test_a_difference_is_none_of_itself():
    """What the laws lean on: of one schedule both terms are the same to the bit."""
    line = tfs.Linear(0.1, 0.7, 3.3)
    assert isinstance(line - line, Difference)
    assert (line - line).values(9).tolist() == [0.0] * 9
