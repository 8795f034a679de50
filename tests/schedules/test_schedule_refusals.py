"""What schedules refuse: bad arguments, parts, steps and numbers."""

from __future__ import annotations

import dataclasses
import functools
import operator
import re

import keras
import numpy as np
import pytest
from helpers import naming
from registry import harmonic

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
)

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
