"""Algebra of schedules: any composition is its equation, whatever it is made of."""

from __future__ import annotations

import dataclasses
import functools
import json

import keras
import numpy as np
from hypothesis import given, settings, strategies as st
from registry import exact

from tfschedules import schedules as namespace
from tfschedules.schedules import (
    Constant,
    Cosine,
    Exponential,
    Join,
    Linear,
    PerCycle,
    Product,
    Repeat,
    Sum,
)

BILLION = 10**9
LEAST = 1e-37  # float32 has no smaller numbers at full precision
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
