"""What recipes refuse: each argument of each of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers import naming
from registry import harmonic

from tfschedules.schedules import (
    Constant,
    InverseSqrt,
    Polynomial,
    SquareRoot,
    cyclical,
    flat_cosine,
    one_cycle,
    warm_restarts,
    warmup,
    warmup_stable_decay,
)

pytestmark = pytest.mark.any_backend

VALID = {
    cyclical: {"base_lr": 0.1, "max_lr": 0.5, "step_size": 10, "gamma": 0.9},
    warm_restarts: {
        "max_lr": 0.5,
        "first_cycle": 10,
        "min_lr": 0.1,
        "cycle_mult": 2,
        "peak_decay": 0.5,
    },
    one_cycle: {
        "max_lr": 0.5,
        "total_steps": 100,
        "pct_start": 0.3,
        "div_factor": 25.0,
        "final_div_factor": 1e4,
        "base_momentum": 0.85,
        "max_momentum": 0.95,
    },
    flat_cosine: {"max_lr": 0.5, "total_steps": 100, "pct_flat": 0.5, "min_lr": 0.1},
    warmup_stable_decay: {
        "max_lr": 0.5,
        "warmup_steps": 10,
        "stable_steps": 10,
        "decay_steps": 10,
        "min_lr": 0.1,
    },
    Polynomial: {"start": 0.1, "end": 0.9, "steps": 10, "power": 2},
    SquareRoot: {"start": 0.1, "end": 0.9, "steps": 10},
    InverseSqrt: {"peak": 0.5, "warmup_steps": 10},
}


NAN, INF = float("nan"), float("inf")

NO_NUMBERS = ["0.1", True, None, [0.1], 1j]
BAD = {  # beside those that are no numbers, or not finite
    cyclical: {
        "base_lr": [-0.1],
        "max_lr": [0, -1, 0.01],
        "step_size": [0, -3, 2.5],
        "gamma": [0, -0.5],
    },
    warm_restarts: {
        "max_lr": [0, -1, 0.01],
        "first_cycle": [0, -3, 0.5],
        "min_lr": [-0.1, 0.6],
        "cycle_mult": [0, -2, 0.5, 0.999, 1.0000001],
        "peak_decay": [0, -0.5],
    },
    one_cycle: {
        "max_lr": [0, -1],
        "total_steps": [0, -3, 2.5],
        "pct_start": [-0.1, 1.1],
        "div_factor": [0, -25],
        "final_div_factor": [0, -1],
        "base_momentum": [-0.1, 0.96, 1],
        "max_momentum": [-0.1, 0.5, 1, 1.5],
    },
    flat_cosine: {
        "max_lr": [0, -1, 0.01],
        "total_steps": [0, -3, 2.5],
        "pct_flat": [-0.1, 1, 1.5],
        "min_lr": [-0.1, 0.6],
    },
    warmup_stable_decay: {
        "max_lr": [0, -1, 0.01],
        "warmup_steps": [-1, 2.5],
        "stable_steps": [-1, 2.5],
        "decay_steps": [0, -3, 2.5],
        "min_lr": [-0.1, 0.6],
    },
    Polynomial: {"start": [], "end": [], "steps": [0, -1], "power": [0, -2]},
    SquareRoot: {"start": [], "end": [], "steps": [0, -1]},
    InverseSqrt: {"peak": [0, -0.1], "warmup_steps": [0, -1]},
}


@pytest.mark.parametrize(
    ("recipe", "argument", "value", "error"),
    [
        pytest.param(recipe, name, value, error, id=f"{recipe.__name__}-{name}-{value}")
        for recipe, valid in VALID.items()
        for name in valid
        for error, values in (
            (TypeError, NO_NUMBERS),
            (ValueError, [NAN, INF, -INF, *BAD[recipe][name]]),
        )
        for value in values
    ],
)
def test_bad_number_is_refused(recipe, argument, value, error):
    recipe(**VALID[recipe])  # it is the one argument that is wrong
    with pytest.raises(error, match=naming(argument, value)):
        recipe(**{**VALID[recipe], argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        *[("steps", value, TypeError) for value in NO_NUMBERS],
        *[("start", value, TypeError) for value in NO_NUMBERS],
        *[("steps", value, ValueError) for value in (0, -1, NAN, INF)],
        *[("start", value, ValueError) for value in (NAN, INF, -INF)],
    ],
)
def test_bad_number_is_refused_by_warmup(argument, value, error):
    with pytest.raises(error, match=naming(argument, value)):
        warmup(Constant(0.1), **{"steps": 10, argument: value})


@pytest.mark.parametrize("value", ["Triangular", "saw", "", None, 1, True, ["linear"]])
@pytest.mark.parametrize(
    ("recipe", "argument", "choices"),
    [
        (cyclical, "mode", "'triangular', 'triangular2', 'exp_range'"),
        (cyclical, "scale_mode", "'cycle', 'iterations'"),
        (one_cycle, "anneal", "'cosine', 'linear'"),
        (cyclical, "window", "'triangular', 'welch', 'hann'"),
        (warmup_stable_decay, "decay", "'linear', 'cosine', 'exponential', '1-sqrt'"),
    ],
)
def test_unknown_choice_is_refused(recipe, argument, choices, value):
    rule = f"`{argument}` must be one of {choices}. Received: {argument}={value!r}"
    with pytest.raises(ValueError, match=re.escape(rule)):
        recipe(**VALID[recipe], **{argument: value})


@pytest.mark.parametrize("value", ["scale", 3, 0.5, [harmonic]])
def test_scale_function_must_be_callable(value):
    with pytest.raises(TypeError, match=naming("scale_fn", value)):
        cyclical(0.1, 0.5, 10, scale_fn=value)


@pytest.mark.parametrize("mode", ["triangular2", "exp_range"])
def test_scale_function_and_a_scaling_mode_are_refused(mode):
    with pytest.raises(ValueError, match=f"(?s)`mode` and `scale_fn`.*mode={mode!r}"):
        cyclical(0.1, 0.5, 10, mode=mode, scale_fn=harmonic)


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.array([True])])
def test_three_phase_must_be_a_truth_value(value):
    with pytest.raises(TypeError, match=naming("three_phase", value)):
        one_cycle(0.1, 100, three_phase=value)


def test_three_phases_do_not_fit_after_half_the_steps():
    one_cycle(0.1, 100, pct_start=0.5, three_phase=True)
    with pytest.raises(ValueError, match=naming("pct_start", 0.51)):
        one_cycle(0.1, 100, pct_start=0.51, three_phase=True)


@pytest.mark.parametrize(
    ("recipe", "low", "high"),
    [
        (cyclical, "base_lr", "max_lr"),
        (warm_restarts, "min_lr", "max_lr"),
        (one_cycle, "base_momentum", "max_momentum"),
        (flat_cosine, "min_lr", "max_lr"),
        (warmup_stable_decay, "min_lr", "max_lr"),
    ],
)
def test_bounds_the_wrong_way_round_name_both(recipe, low, high):
    rule = f"(?s)`{low}` must be <= `{high}`.*{low}=0.7, {high}=0.6"
    with pytest.raises(ValueError, match=rule):
        recipe(**{**VALID[recipe], low: 0.7, high: 0.6})


def test_numbers_of_numpy_are_numbers():
    expected = warm_restarts(0.5, 10, min_lr=0.25, cycle_mult=2)
    half, quarter = np.float32(0.5), np.array(0.25)
    assert warm_restarts(half, np.int64(10), quarter, np.float64(2.0)) == expected
    assert warm_restarts(0.5, 10.0, 0.25, 2.0) == expected
