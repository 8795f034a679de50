"""Laws that every schedule of the registry keeps, and what each kind adds."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
import operator
import pickle
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from registry import SCHEDULES, compiled, exact, harmonic, moments_of

import tfschedules as tfs
from tfschedules import schedules as namespace
from tfschedules.schedules import (
    Clip,
    Constant,
    Cosine,
    Exponential,
    Join,
    Linear,
    PerCycle,
    Product,
    Repeat,
    ScaleFunction,
    Schedule,
    Sum,
    Waiting,
)

BILLION = 10**9
LEAST = 1e-37  # float32 has no smaller numbers at full precision
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


# The shared laws --------------------------------------------------------------


@every_schedule
def test_values_are_the_equation(name):
    case = SCHEDULES[name]
    steps = moments_of(case)
    expected = [exact(case.schedule, t) for t in steps]
    values = case.schedule.values(steps)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-300)


@every_schedule
def test_eager_and_compiled_are_the_values(name):
    case = SCHEDULES[name]
    steps = moments_of(case)
    values = case.schedule.values(steps)
    at = compiled(case.schedule)
    scalars = [at(t) for t in steps]
    assert {(value.shape, value.dtype) for value in scalars} == {((), np.dtype("f4"))}
    np.testing.assert_allclose(scalars, values, rtol=2e-6, atol=LEAST)

    eager = case.schedule(np.array(steps))
    assert keras.backend.standardize_dtype(eager.dtype) == "float32"
    eager = keras.ops.convert_to_numpy(eager)
    np.testing.assert_allclose(eager, values, rtol=2e-6, atol=LEAST)


@every_schedule
def test_kinds_of_step(name):
    # The optimizer's count is a variable; people call with a Python integer.
    schedule = SCHEDULES[name].schedule
    expected = np.float32(schedule.values([3])[0])
    for step in (
        3,
        np.int64(3),
        keras.ops.convert_to_tensor(3, "int32"),
        keras.Variable(3, dtype="int32", trainable=False),
    ):
        value = schedule(step)
        assert tuple(value.shape) == ()
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == pytest.approx(expected, rel=2e-6)


@every_schedule
def test_before_the_beginning_the_first_value_holds(name):
    schedule = SCHEDULES[name].schedule
    first, *others = schedule.values([0, -1, -1000, -BILLION])
    assert set(others) == {first}
    assert float(schedule(-1)) == float(schedule(0))


@pytest.mark.parametrize(
    "name", [name for name, case in SCHEDULES.items() if case.end is not None]
)
def test_past_its_end_the_last_value_holds(name):
    case = SCHEDULES[name]
    end = int(np.ceil(case.end))
    later = [end, end + 1, end + 2, 2 * end + 1, 2**31 - 1]
    values = case.schedule.values([*later, 10**12])
    assert set(values) == {values[0]}
    assert len(set(compiled(case.schedule)(later).tolist())) == 1


@pytest.mark.tensorflow
@every_schedule
def test_a_trillion_steps_are_no_error(name):
    schedule = SCHEDULES[name].schedule
    expected = schedule.values([10**12])[0]
    assert float(schedule(10**12)) == pytest.approx(expected, rel=2e-6, abs=LEAST)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "name",
    [
        "join, of joins",
        "join, then restarts between steps",
        "cyclical, triangular2",
        "warm_restarts, decaying",
        "one_cycle, cosine, 2 phases, learning_rate",
        "clip, of an expression",
        "growing, of cycles",
        "stretch, of restarts",
        "noise, normal",
    ],
)
def test_xla_gives_the_values(name):
    case = SCHEDULES[name]
    steps = moments_of(case)
    np.testing.assert_allclose(
        compiled(case.schedule, jit_compile=True)(steps),
        case.schedule.values(steps),
        rtol=2e-6,
        atol=LEAST,
    )


@every_schedule
def test_values_take_a_count_or_an_array(name):
    schedule = SCHEDULES[name].schedule
    values = schedule.values(12)
    assert values.shape == (12,)
    for count in (np.int32(12), np.array(12), np.uint8(12)):
        np.testing.assert_array_equal(schedule.values(count), values)
    for dtype in (np.int8, np.uint16, np.int64):
        steps = np.arange(12, dtype=dtype).reshape(3, 1, 4)
        reshaped = schedule.values(steps)
        assert reshaped.shape == (3, 1, 4)
        np.testing.assert_array_equal(reshaped.ravel(), values)
    np.testing.assert_array_equal(schedule.values([5, 0, 5]), values[[5, 0, 5]])
    np.testing.assert_array_equal(schedule.values(range(2, 5)), values[2:5])
    empties = (0, [], (), np.zeros((0,), int), np.zeros((2, 0), int))
    for empty, shape in zip(empties, [(0,)] * 4 + [(2, 0)], strict=True):
        assert schedule.values(empty).shape == shape
        assert schedule.values(empty).dtype == np.float64


@every_schedule
def test_values_belong_to_the_caller(name):
    schedule = SCHEDULES[name].schedule
    before = schedule.values(8)
    schedule.values(8)[:] = -1.0  # writable, and no window into the schedule
    np.testing.assert_array_equal(schedule.values(8), before)


@every_schedule
def test_configuration_goes_around(name):
    case = SCHEDULES[name]
    schedule, steps = case.schedule, moments_of(case)
    plain = json.loads(json.dumps(schedule.get_config()))
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    copies = [
        type(schedule).from_config(plain),
        keras.saving.deserialize_keras_object(serialized),
        keras.optimizers.schedules.deserialize(
            keras.optimizers.schedules.serialize(schedule)
        ),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ]
    for other in copies:
        assert type(other) is type(schedule)
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == repr(schedule)
        np.testing.assert_array_equal(other.values(steps), schedule.values(steps))


@every_schedule
def test_configuration_says_where_it_is_registered(name):
    serialized = keras.saving.serialize_keras_object(SCHEDULES[name].schedule)
    assert serialized["module"] == "tfschedules.schedules"
    assert serialized["registered_name"] == f"tfschedules>{serialized['class_name']}"


@every_schedule
def test_representation_evaluates_back(name):
    schedule = SCHEDULES[name].schedule
    text = repr(schedule)
    if "function" in text:
        # A function's address is no Python; its name is.
        text = re.sub(r"<function harmonic at \w+>", "harmonic", text)
    again = eval(text, {**vars(namespace), "harmonic": harmonic})
    assert again == schedule
    assert repr(again) == repr(schedule)


@every_schedule
def test_schedules_are_frozen(name):
    schedule = SCHEDULES[name].schedule
    before = hash(schedule)
    for field in dataclasses.fields(schedule):
        with pytest.raises(dataclasses.FrozenInstanceError, match=field.name):
            setattr(schedule, field.name, 0.5)
        with pytest.raises(dataclasses.FrozenInstanceError, match=field.name):
            delattr(schedule, field.name)
    with pytest.raises(dataclasses.FrozenInstanceError, match="anything"):
        schedule.anything = 1
    assert hash(schedule) == before


def test_schedules_differ_from_one_another():
    schedules = [case.schedule for case in SCHEDULES.values()]
    for i, one in enumerate(schedules):
        assert [one == other for other in schedules].index(True) <= i
        assert one != 0.3
    assert len(set(schedules)) == len(schedules)
    assert Linear(1, 2, 3) != Cosine(1, 2, 3)
    assert Linear(1, 2, 3) == Linear(1.0, 2.0, np.float64(3))
    assert Join([Constant(1), Constant(2)], np.array([3])) == Join(
        (Constant(1), Constant(2)), (3.0,)
    )


@pytest.mark.parametrize(
    "name",
    [
        "constant",
        "join, of joins",
        "clip, of an expression",
        "cyclical, scale_fn of the cycle",
        "warm_restarts, decaying",
        "one_cycle, cosine, 3 phases, learning_rate",
    ],
)
def test_saved_with_a_model(name, tmp_path):
    schedule = SCHEDULES[name].schedule
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), loss="mse")
    for _ in range(3):
        model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    config = loaded.optimizer.get_config()["learning_rate"]
    assert keras.saving.deserialize_keras_object(config) == schedule
    rate = float(keras.ops.convert_to_numpy(loaded.optimizer.learning_rate))
    assert rate == pytest.approx(schedule.values([3])[0], rel=2e-6)


def test_registry_has_every_kind():
    def kinds(schedule):
        yield type(schedule)
        for field in dataclasses.fields(schedule):
            value = getattr(schedule, field.name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Schedule):
                    yield from kinds(part)

    final = {
        value
        for value in vars(namespace).values()
        if isinstance(value, type)
        and issubclass(value, Schedule)
        and not value.__abstractmethods__
    } - {Waiting}  # stands in for others: tests/schedules/test_units.py
    assert final == {
        kind for case in SCHEDULES.values() for kind in kinds(case.schedule)
    }


def test_every_kind_and_recipe_is_public():
    """But for those that operators, methods and recipes make."""
    made = {"Sum", "Difference", "Product", "Quotient", "Clip", "Stretch", "Waiting"}
    inner = {"Ramp", "InverseCycle", "as_schedule", "schedule_given"}
    own = {
        name
        for name, value in vars(namespace).items()
        if inspect.isfunction(value)
        or (inspect.isclass(value) and issubclass(value, Schedule))
    }
    assert own - {*tfs.__all__} == made | inner | {"low_and_high_momentum"}


# What each kind says ----------------------------------------------------------


def test_ramps_meet_their_ends_exactly():
    for kind in (Linear, Cosine, Exponential):
        ramp = kind(0.3, 0.7, 7)
        values = ramp.values([0, 7, 8])
        assert values[0] == 0.3
        assert values[1] == values[2] == 0.7
        assert (np.diff(ramp.values(8)) > 0).all()


def test_closed_forms():
    t = np.arange(11) / 10
    np.testing.assert_allclose(Linear(0.2, 1.2, 10).values(11), 0.2 + t, rtol=1e-14)
    np.testing.assert_allclose(
        Cosine(0.2, 1.2, 10).values(11), 0.7 - 0.5 * np.cos(np.pi * t), rtol=1e-14
    )
    np.testing.assert_allclose(
        Exponential(1e-7, 10, 10).values(11), np.geomspace(1e-7, 10, 11), rtol=1e-13
    )


def test_part_that_begins_between_steps_is_as_old_as_it_is():
    joined = Join([Constant(9.0), Linear(0.0, 1.0, 2)], [2.5])
    assert joined.values(6).tolist() == [9.0, 9.0, 9.0, 0.25, 0.75, 1.0]


def test_boundary_belongs_to_the_part_that_begins():
    joined = Join([Constant(1.0), Constant(2.0), Constant(3.0)], [3, 4])
    assert joined.values(6).tolist() == [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]


def test_parts_hidden_before_the_beginning():
    parts = [Constant(1.0), Constant(2.0), Linear(0.0, 1.0, 4)]
    assert Join(parts, [-2, -1]).values(3).tolist() == [0.25, 0.5, 0.75]
    assert Join(parts, [-1, 0]).values(3).tolist() == [0.0, 0.25, 0.5]


def test_parts_hidden_long_before_the_beginning():
    for long_ago in (-3e9, -1e19):
        joined = Join([Constant(1.0), Linear(0.25, 0.75, 4)], [long_ago])
        steps = [0, 1, 2**31 - 1]
        assert joined.values(steps).tolist() == [0.75] * 3
        assert compiled(joined)(steps).tolist() == [0.75] * 3


def test_boundary_beyond_every_integer():
    joined = Join([Constant(1.0), Constant(2.0)], [1e30])
    steps = [0, 1, 10**9]
    assert (
        joined.values(steps).tolist() == compiled(joined)(steps).tolist() == [1.0] * 3
    )


def test_function_may_return_a_plain_number():
    schedule = ScaleFunction(lambda x: 0.75).clip(0.25, 0.5)
    assert schedule.values(2).tolist() == [0.5, 0.5]
    assert float(schedule(1)) == 0.5


def test_functions_of_cycle_and_step():
    seen = []

    def note(x):
        seen.extend(np.ravel(x).tolist())
        return x

    ScaleFunction(note, 3).values(7)
    assert seen == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]
    seen.clear()
    ScaleFunction(note).values(4)
    assert seen == [0.0, 1.0, 2.0, 3.0]


def test_function_of_a_position_in_the_second_part():
    joined = Join([Constant(9.0), ScaleFunction(harmonic)], [2.5])
    assert joined.values([3])[0] == pytest.approx(harmonic(0.5))


def test_every_step_counts_beyond_float32():
    # float32 skips every other integer from 2^24 on.
    steps = np.arange(2**24 - 3, 2**24 + 4)
    flips = Repeat(Join([Constant(0.25), Constant(0.75)], [1]), 2)
    expected = np.where(steps % 2 == 0, 0.25, 0.75)
    np.testing.assert_array_equal(flips.values(steps), expected)
    np.testing.assert_array_equal(compiled(flips)(steps), expected)
    late = Join([Constant(0.25), Constant(0.75)], [2**24 + 1])
    expected = np.where(steps < 2**24 + 1, 0.25, 0.75)
    np.testing.assert_array_equal(compiled(late)(steps), expected)


@pytest.mark.parametrize("floatx", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize(
    "name", ["join, of constants", "clip, of a constant", "warm_restarts, decaying"]
)
def test_precision_is_not_the_layers(name, floatx):
    schedule = SCHEDULES[name].schedule
    standard = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        value = schedule(6)
    finally:
        keras.config.set_floatx(standard)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(schedule.values([6])[0], rel=2e-6)


# Algebra ----------------------------------------------------------------------

STEPS = [*range(-1, 40), 10**6, BILLION, 10**12]
values = st.floats(0.0625, 16.0)
lengths = st.integers(1, 20)
# Quarters add up without rounding, so that two ways to one moment are one moment.
edges = st.integers(1, 60).map(lambda quarters: quarters / 4)
ramps = st.builds(
    lambda kind, start, end, steps: kind(start, end, steps),
    st.sampled_from([Linear, Cosine, Exponential]),
    values,
    values,
    lengths | edges,
)
leaves = st.one_of(
    st.builds(Constant, values),
    ramps,
    st.builds(
        PerCycle, st.sampled_from([0.5, 0.9, 1.0]), lengths, st.sampled_from([1, 2])
    ),
    st.builds(
        lambda ramp, steps, growth: Repeat(
            dataclasses.replace(ramp, steps=steps), steps, growth
        ),
        ramps,
        lengths,
        st.sampled_from([1, 1.1, 1.5, 2, 3]),
    ),
)


def grown(parts):
    return st.one_of(
        st.builds(Sum, parts, parts),
        st.builds(Product, parts, parts),
        st.builds(Repeat, parts, lengths),
        st.builds(
            lambda part, low, more: part.clip(low, low + more), parts, values, values
        ),
        st.builds(lambda a, b, edge: Join([a, b], [edge]), parts, parts, edges),
    )


schedules = st.recursive(leaves, grown, max_leaves=5)
law = functools.partial(settings, deadline=None)


def same(one, other, rtol=0.0):
    np.testing.assert_allclose(
        one.values(STEPS), other.values(STEPS), rtol=rtol, atol=1e-300
    )


@given(schedules)
@law(max_examples=150)
def test_any_composition_is_its_equation(schedule):
    expected = [exact(schedule, t) for t in STEPS]
    np.testing.assert_allclose(
        schedule.values(STEPS), expected, rtol=1e-10, atol=1e-300
    )


@given(schedules)
@law(max_examples=25)
def test_any_composition_in_the_graph_is_its_values(schedule):
    steps = [t for t in STEPS if t < 2**31]
    value = keras.ops.convert_to_numpy(schedule(np.array(steps)))
    np.testing.assert_allclose(value, schedule.values(steps), rtol=1e-5, atol=LEAST)


@given(schedules)
@law(max_examples=40)
def test_any_composition_goes_around(schedule):
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    assert keras.saving.deserialize_keras_object(serialized) == schedule
    assert eval(repr(schedule), dict(vars(namespace))) == schedule


@given(schedules)
@law(max_examples=50)
def test_join_of_one_is_that_one(schedule):
    same(Join([schedule], []), schedule)


@given(schedules, schedules, schedules, edges, edges)
@law(max_examples=100)
def test_joining_associates(a, b, c, first, second):
    flat = Join([a, b, c], [first, first + second])
    same(Join([a, Join([b, c], [second])], [first]), flat, rtol=1e-12)
    same(Join([Join([a, b], [first]), c], [first + second]), flat, rtol=1e-12)


@given(schedules, schedules, schedules)
@law(max_examples=50)
def test_multiplication_distributes(a, b, c):
    same(a * (b + c), a * b + a * c, rtol=1e-12)


@given(schedules, schedules, schedules)
@law(max_examples=50)
def test_addition_and_multiplication_commute_and_associate(a, b, c):
    same(a + b, b + a)
    same(a * b, b * a)
    same(a + (b + c), (a + b) + c, rtol=1e-12)
    same(a * (b * c), (a * b) * c, rtol=1e-12)


@given(schedules, values)
@law(max_examples=50)
def test_numbers_are_constants(schedule, number):
    assert schedule * number == schedule * Constant(number) == number * schedule
    assert schedule + number == schedule + Constant(number) == number + schedule
    assert np.float64(number) * schedule == schedule * number
    np.testing.assert_array_equal(
        (schedule * number).values(STEPS), schedule.values(STEPS) * number
    )
    np.testing.assert_array_equal(
        (schedule + number).values(STEPS), schedule.values(STEPS) + number
    )
    same(schedule * 1, schedule)
    same(schedule + 0, schedule)


@given(schedules, values, values)
@law(max_examples=50)
def test_clip_is_idempotent_and_holds_its_bounds(schedule, one, other):
    lower, upper = sorted([one, other])
    clipped = schedule.clip(lower, upper)
    same(clipped.clip(lower, upper), clipped)
    expected = np.clip(schedule.values(STEPS), lower, upper)
    np.testing.assert_array_equal(clipped.values(STEPS), expected)


# Bad input --------------------------------------------------------------------

LINE = Linear(0.1, 0.9, 10)
VALID = {
    Constant: {"value": 0.1},
    Linear: {"start": 0.1, "end": 0.9, "steps": 10},
    Cosine: {"start": 0.1, "end": 0.9, "steps": 10},
    Exponential: {"start": 0.1, "end": 0.9, "steps": 10},
    Repeat: {"schedule": LINE, "steps": 10, "growth": 2.0},
    PerCycle: {"factor": 0.5, "steps": 10, "growth": 2.0},
    ScaleFunction: {"function": harmonic, "steps": 10},
    Clip: {"schedule": LINE, "lower": 0.2, "upper": 0.5},
    Sum: {"first": LINE, "second": LINE},
    Product: {"first": LINE, "second": LINE},
}
NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = {  # beside those that are not finite
    ("Linear", "steps"): [0, -1, -0.5],
    ("Cosine", "steps"): [0, -1],
    ("Exponential", "start"): [0, -0.1],
    ("Exponential", "end"): [0, -0.1],
    ("Exponential", "steps"): [0, -1],
    ("Repeat", "steps"): [0, -1, 0.5],
    ("Repeat", "growth"): [0, -2, 0.5, 0.999, 1.0000001],
    ("PerCycle", "factor"): [0, -0.5],
    ("PerCycle", "steps"): [0, -1, 0.5],
    ("PerCycle", "growth"): [0, -2, 0.5, 1.0000001],
    ("ScaleFunction", "steps"): [0, -1, 2.5],
    ("Clip", "lower"): [0.6],
    ("Clip", "upper"): [0.1],
}
TEXTS = ["0.1", True, [0.1], 1j, None]


def naming(argument, received):
    """A pattern for "… `argument` … Received: … received"."""
    return f"(?s)`{argument}`.*Received: .*{re.escape(repr(received))}"


def bad_arguments():
    for kind, valid in VALID.items():
        for name, good in valid.items():
            if isinstance(good, Schedule):
                cases = {TypeError: [0.1, "linear", None, Linear]}
            elif callable(good):
                cases = {TypeError: [0.1, "harmonic", None]}
            else:
                out = OUT_OF_RANGE.get((kind.__name__, name), [])
                cases = {TypeError: TEXTS, ValueError: [NAN, INF, -INF, *out]}
            if kind is ScaleFunction and name == "steps":
                cases[TypeError] = [bad for bad in TEXTS if bad is not None]
            for error, bad_values in cases.items():
                for bad in bad_values:
                    title = f"{kind.__name__}-{name}-{bad}"
                    yield pytest.param(kind, name, bad, error, id=title)


@pytest.mark.parametrize(("kind", "argument", "value", "error"), [*bad_arguments()])
def test_bad_argument_is_refused(kind, argument, value, error):
    kind(**VALID[kind])  # it is the one argument that is wrong
    with pytest.raises(error, match=naming(argument, value)):
        kind(**{**VALID[kind], argument: value})


def test_geometric_sweep_to_nothing_says_what_to_use():
    with pytest.raises(ValueError, match=r"(?s)`end` must be > 0.*Linear or Cosine"):
        Exponential(0.1, 0.0, 10)


@pytest.mark.parametrize(
    ("parts", "boundaries", "error", "message"),
    [
        ([], [], ValueError, "`boundaries`.*Received: 0 schedules and 0 boundaries"),
        ([LINE], [3], ValueError, r"Received: 1 schedules and 1 .*\[3(\.0)?\]"),
        ([LINE] * 2, [], ValueError, "Received: 2 schedules and 0 boundaries"),
        (
            [LINE] * 2,
            [3, 4],
            ValueError,
            r"2 schedules and 2 .*\[3(\.0)?, 4(\.0)?\]",
        ),
        ([LINE] * 3, [4, 3], ValueError, r"increase.*boundaries=\[4(\.0)?, 3(\.0)?\]"),
        ([LINE] * 3, [3, 3], ValueError, r"increase.*boundaries=\[3(\.0)?, 3(\.0)?\]"),
        ([LINE] * 2, [NAN], ValueError, "`boundaries` must be finite.*=nan"),
        ([LINE] * 2, [INF], ValueError, "`boundaries` must be finite.*=inf"),
        ([LINE] * 2, ["3"], TypeError, "`boundaries` must be a number.*='3'"),
        ([LINE] * 2, [True], TypeError, "`boundaries` must be a number.*=True"),
        ([LINE] * 2, [None], TypeError, "`boundaries` must be a number.*=None"),
        ([LINE] * 2, 3, TypeError, "`boundaries` must be a list.*=3"),
        ([LINE] * 2, "3", TypeError, "`boundaries` must be a list.*='3'"),
        ([LINE] * 2, None, TypeError, "`boundaries` must be a list.*=None"),
        ([LINE] * 2, {3: 4}, TypeError, "`boundaries` must be a list.*={3: 4}"),
        (LINE, [], TypeError, "`schedules` must be a list.*=Linear"),
        ({"a": LINE}, [], TypeError, "`schedules` must be a list.*={'a': Linear"),
        ([LINE, 0.1], [3], TypeError, r"(?s)`schedules`.*=0.1\..*tfs.Constant"),
        ([LINE, "b"], [3], TypeError, "`schedules` must be a tfschedules.Sch.*='b'"),
    ],
)
def test_bad_join_is_refused(parts, boundaries, error, message):
    with pytest.raises(error, match=message):
        Join(parts, boundaries)


@pytest.mark.parametrize("boundaries", [3, "3", None, {3: 4}])
def test_bad_boundaries_of_piecewise_are_refused(boundaries):
    rule = f"`boundaries` must be a list.*boundaries={boundaries!r}"
    with pytest.raises(TypeError, match=rule):
        tfs.Piecewise(boundaries, [1.0, 0.1])


@dataclasses.dataclass(frozen=True)
class Broken(Schedule):
    """Where a property looks for something that is not there."""

    def equation(self, time):
        return time.step

    @property
    def start(self):
        return self.beginning


def test_missing_attributes_are_told_as_python_tells_them():
    """Though a schedule has words of its own for what makes a callback."""
    assert not hasattr(LINE, "set_model")
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'len'"):
        LINE.len  # noqa: B018
    with pytest.raises(AttributeError, match=r"'Broken' .* no attribute 'beginning'"):
        Broken().start  # noqa: B018


@pytest.mark.parametrize(
    ("steps", "error", "rule"),
    [
        (2.0, TypeError, "a count or an array of integers"),
        (NAN, TypeError, "a count or an array of integers"),
        (True, TypeError, "a count or an array of integers"),
        (np.True_, TypeError, "a count or an array of integers"),
        (None, TypeError, "a count or an array of integers"),
        ("3", TypeError, "a count or an array of integers"),
        ([0.0, 1.0], TypeError, "a count or an array of integers"),
        ([True, False], TypeError, "a count or an array of integers"),
        (["3"], TypeError, "a count or an array of integers"),
        ([None], TypeError, "a count or an array of integers"),
        (np.array(2.5), TypeError, "a count or an array of integers"),
        (-1, ValueError, ">= 0"),
        (np.int64(-7), ValueError, ">= 0"),
    ],
)
def test_values_at_what_are_no_steps(steps, error, rule):
    pattern = f"`steps` must be {rule}.*steps={re.escape(repr(steps))}"
    with pytest.raises(error, match=pattern):
        LINE.values(steps)


@pytest.mark.parametrize("other", ["2", None, True, [2.0], 1j, {}])
def test_no_arithmetic_with_what_is_no_number(other):
    for operate in (operator.add, operator.sub, operator.mul, operator.truediv):
        for pair in ((LINE, other), (other, LINE)):
            with pytest.raises(TypeError, match=r"Linear|concatenate|unsupported"):
                operate(*pair)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_no_arithmetic_with_what_is_not_finite(number):
    with pytest.raises(ValueError, match=f"`value` must be finite.*value={number}"):
        LINE * number
    with pytest.raises(ValueError, match=f"`value` must be finite.*value={number}"):
        number + LINE


class _Callable:
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x, "<lambda>"),
        (functools.partial(pow, 2.0), "functools.partial"),
        (_Callable(), "_Callable"),
    ],
    ids=["lambda", "partial", "object"],
)
def test_unregistered_function_works_but_is_not_saved(function, named, tmp_path):
    schedule = ScaleFunction(function, 10)
    assert schedule.values([25])[0] == function(3.0)
    message = f"(?s){re.escape(named)}.*not registered.*register_keras_serializable"
    nested = Join([LINE, 0.1 * schedule], [10])
    for part in (schedule, nested):
        with pytest.raises(ValueError, match=message):
            part.get_config()
        with pytest.raises(ValueError, match=message):
            keras.saving.serialize_keras_object(part)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(nested), loss="mse")
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "model.keras")


def test_schedule_without_an_equation_is_not_made():
    with pytest.raises(TypeError, match="equation"):
        tfs.Schedule()
    with pytest.raises(TypeError, match="blend"):
        namespace.Ramp()
