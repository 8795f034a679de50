"""What schedules are computed with, and steps of any size; as the fuzz suite found."""

from __future__ import annotations

import decimal
import json
import math
import operator
from fractions import Fraction

import keras
import numpy as np
import pytest

import tfschedules as tfs
from tfschedules.schedules import Repeat

LINE = tfs.Linear(0.1, 0.9, 10)
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]


def graph(schedule, step):
    return keras.ops.convert_to_numpy(schedule(step)).tolist()


# Numbers beside schedules -----------------------------------------------------


@pytest.mark.parametrize("apply", OPERATORS)
@pytest.mark.parametrize(
    "number", [np.array(0.25), np.float64(0.25), np.float16(0.25), Fraction(1, 4)]
)
def test_any_real_number_is_one(apply, number):
    expected = apply(LINE, 0.25)
    assert apply(LINE, number) == expected
    assert repr(apply(LINE, number)) == repr(expected)
    if apply is not operator.truediv:
        assert apply(number, LINE) == apply(0.25, LINE)


@pytest.mark.parametrize("apply", OPERATORS)
@pytest.mark.parametrize(
    "other",
    [
        np.array([0.5]),  # of which NumPy would make an array of schedules
        np.array([[0.5, 0.1]]),
        np.array([LINE]),
        np.array([]),
        np.ma.masked,
        np.bool_(True),
        np.complex64(1),
    ],
)
def test_arrays_are_no_numbers(apply, other):
    message = r"(?s)computed with schedules and with numbers.*Received.*float\(…\)"
    with pytest.raises(TypeError, match=message):
        apply(LINE, other)
    if apply is operator.truediv:
        message = "unsupported operand"
    with pytest.raises(TypeError, match=message):
        apply(other, LINE)


@pytest.mark.parametrize("apply", OPERATORS)
@pytest.mark.parametrize("other", [True, None, "0.5", 1j, [0.5], decimal.Decimal(1)])
def test_what_is_no_number_is_none(apply, other):
    for first, second in ((LINE, other), (other, LINE)):
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            apply(first, second)


def test_tensors_beside_schedules():
    tensor = keras.ops.convert_to_tensor([0.5])
    with pytest.raises(TypeError, match="computed with schedules and with numbers"):
        LINE * tensor
    with pytest.raises((TypeError, ValueError)):  # the backend's own
        tensor * LINE


def test_an_array_is_no_schedule():
    assert (np.array([0.5]) == LINE) is False
    assert LINE in [np.array([0.5]), LINE]


@pytest.mark.parametrize("number", [np.array(0.25), np.float32(0.25), Fraction(1, 4)])
def test_recipes_that_wait_keep_plain_numbers(number):
    waiting = tfs.flat_cosine(number, tfs.epochs(2), min_lr=np.array(0))
    expected = tfs.flat_cosine(0.25, tfs.epochs(2), min_lr=0)
    assert waiting == expected
    assert hash(waiting) == hash(expected)
    assert repr(waiting) == repr(expected)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(waiting)))
    assert keras.saving.deserialize_keras_object(config) == expected


# Lengths of any size ----------------------------------------------------------


def test_epochs_without_end_are_refused_in_words():
    for make in (
        lambda: tfs.Linear(1.0, 0.0, tfs.epochs(1e300)).resolve(1e10),
        lambda: tfs.one_cycle(1.0, tfs.epochs(1e300))["momentum"].resolve(1e10),
        lambda: tfs.warmup(LINE, tfs.epochs(1e307)).resolve(1e9),
    ):
        with pytest.raises(
            ValueError, match=r"`\w+` must be finite.*int of 10\d\d bits"
        ):
            make()


@pytest.mark.parametrize("share", [0.3, 1e-6, 0.1, 0.123, 0.7, 0.75])
def test_the_last_value_is_the_end_to_the_bit(share):
    for total in range(2, 60):
        schedule = tfs.flat_cosine(1.0, total, share)
        assert schedule.values([total, total + 1, 10**9]).tolist()[1:] == [0.0, 0.0]
        assert schedule.values([total])[0] < 1e-30


@pytest.mark.parametrize("begin", [0.5, 1.5, 2.0, 2**53 + 1])
def test_the_last_steps_of_a_length_past_the_floats(begin):
    steps = 2**53 + 1
    falling = tfs.Polynomial(1.0, 0.0, steps, 0.5)
    joined = tfs.Join([tfs.Constant(1.0), falling], [begin])
    assert abs(Fraction(joined.length) - Fraction(begin) - steps) <= Fraction(1, 2)
    first = math.ceil(Fraction(begin) + steps)
    at = [first - 3, first - 2, first - 1, first, first + 1]
    left = [max(Fraction(begin) + steps - step, 0) / steps for step in at]
    expected = [math.sqrt(each) for each in left]
    np.testing.assert_allclose(joined.values(at), expected, rtol=1e-12)
    whole = tfs.Join([tfs.Constant(1.0), LINE], [2**60 + 1])
    assert whole.length == 2**60 + 11


# Steps of any size ------------------------------------------------------------

SAW = Repeat(tfs.Linear(1.0, 0.0, 4), 4)
LATEST = 1 - (2**63 - 1) % 4 / 4  # later steps are this one


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([2**63 - 1], [LATEST]),
        ([2**63], [LATEST]),  # a uint64
        ([2**64, 3], [LATEST, 0.25]),  # objects
        ([2**63, -1], [LATEST, 1.0]),  # floats, in NumPy
        ([2**63, 2**62 + 1, 0], [LATEST, 0.75, 1.0]),
        ([10**400, -(10**400)], [LATEST, 1.0]),
        (np.array([[1, 2**70]], object), [[0.75, LATEST]]),
    ],
)
def test_integers_have_no_end(steps, expected):
    assert SAW.values(steps).tolist() == expected
    if isinstance(steps, np.ndarray):
        assert graph(SAW, steps) == expected
    else:
        for step, value in zip(steps, expected, strict=True):
            assert graph(SAW, step) == value


@pytest.mark.parametrize(
    "step",
    [-1, -(2**31) - 1, -(2**40) + 3, -(2**63) - 1, -(10**30), np.int64(-(2**62))],
)
def test_before_step_0_it_is_step_0(step):
    line = tfs.Linear(1.0, 0.0, 4)
    assert graph(line, step) == graph(line, np.asarray([step]))[0] == 1.0
    assert line.values([step]).tolist() == [1.0]


def test_int64_steps_do_not_wrap_in_int32():
    # -2^40 + 3 is 3 in the last 32 bits.
    assert graph(SAW, np.array([-(2**40) + 3, 3])) == [1.0, 0.25]


@pytest.mark.parametrize(
    "steps", [[True], [0.5], [2**63, 0.5], ["a"], [None], [2**64, 1.0], [2**64, True]]
)
def test_steps_are_integers(steps):
    with pytest.raises(TypeError, match=r"must be a count or an array of integers"):
        SAW.values(steps)
