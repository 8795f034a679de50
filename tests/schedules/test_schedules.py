"""Laws that every schedule of the registry keeps, and what each kind adds."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import re

import keras
import numpy as np
import pytest
from registry import SCHEDULES, compiled, exact, harmonic, moments_of

import tfschedules as tfs
from tfschedules import schedules as namespace
from tfschedules.schedules import (
    Constant,
    Cosine,
    Exponential,
    Join,
    Linear,
    Repeat,
    ScaleFunction,
    Schedule,
    Waiting,
)

every_schedule = pytest.mark.parametrize("name", SCHEDULES)

BILLION = 10**9
LEAST = 1e-37  # float32 has no smaller numbers at full precision


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
