"""Every kind of schedule, once: the shared tests run over this table.

`SCHEDULES` maps a name to a `Case`. `exact` evaluates any schedule at a step in
rational numbers, written from the equations in the docstrings and sharing nothing with
the package's arithmetic: positions are `Fraction`s, only the curve itself is a float.
"""

from __future__ import annotations

import bisect
import dataclasses
import decimal
import functools
import math
import statistics
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import keras
import numpy as np

from tfschedules.schedules import (
    Clip,
    Constant,
    Cosine,
    Difference,
    Exponential,
    InverseCycle,
    InverseSqrt,
    Join,
    Linear,
    Noise,
    PerCycle,
    Piecewise,
    Polynomial,
    Product,
    Quotient,
    Ramp,
    Repeat,
    ScaleFunction,
    Schedule,
    SquareRoot,
    Stretch,
    Sum,
    cyclical,
    flat_cosine,
    one_cycle,
    polynomial_restarts,
    swa,
    warm_restarts,
    warmup,
    warmup_stable_decay,
)


@keras.saving.register_keras_serializable("tfschedules_tests", "harmonic")
def harmonic(x):
    """A scale that works on floats, arrays and tensors alike."""
    return 1.0 / (1.0 + 0.25 * x)


@dataclasses.dataclass(frozen=True)
class Case:
    """A schedule and the moments at which it may go wrong, in steps.

    Attributes:
        schedule: The schedule.
        edges: Where a part or a cycle begins or ends; may lie between two steps.
        end: From when on its value stays the same; None if it never does.
    """

    schedule: Schedule
    edges: tuple[float, ...] = ()
    end: float | None = None


_WARM = Join([Linear(0.0, 0.1, 20), Cosine(0.1, 1e-3, 180)], [20])
_BETWEEN = Join(
    [Linear(0.01, 1.0, 4.5), Constant(1.0), Exponential(1.0, 1e-3, 20.75)],
    [4.5, 10.25],
)
_RESTARTS = Repeat(Cosine(0.1, 1e-3, 10), 10, 2)
_MANY: list[Callable[[float], Schedule]] = [  # what Joins of many parts are made of
    lambda x: Linear(x, 0.5, 15),
    lambda x: Constant(x),
    lambda x: Cosine(0.1, x, 8.5) * Constant(x) + 1.0,
    lambda x: Exponential(x, 2.0, 6),
    lambda x: (Linear(0.0, x, 5) / (1 + x)).clip(0.25 * x, 0.5),
    lambda x: Polynomial(x, 0.2, 12, 1 + x) - 0.01,
    lambda x: InverseSqrt(x, 3).clip(0.0, 1.0) if x < 0.5 else SquareRoot(x, 0.1, 0.5),
]
_TRIANGLE = Repeat(Join([Linear(0.1, 1.0, 7), Linear(1.0, 0.1, 7)], [7]), 14)

SCHEDULES: dict[str, Case] = {
    "constant": Case(Constant(0.3), end=0),
    "linear": Case(Linear(0.1, 0.9, 50), (50,), 50),
    "linear, down to 0": Case(Linear(0.1, 0.0, 50), (50,), 50),
    "linear, fraction of a step": Case(Linear(0.1, 0.9, 12.5), (12.5,), 12.5),
    "linear, less than a step": Case(Linear(0.1, 0.9, 0.25), (0.25,), 0.25),
    "linear, past every 32-bit step": Case(Linear(0.1, 0.9, 10**10)),
    "linear, a billion steps": Case(Linear(0.1, 0.9, 10**9), (10**9,), 10**9),
    "cosine": Case(Cosine(1.0, 1e-3, 50), (50,), 50),
    "cosine, up from 0": Case(Cosine(0.0, 1.0, 7), (7,), 7),
    "exponential": Case(Exponential(1e-7, 10.0, 99), (99,), 99),
    "exponential, down": Case(Exponential(1.0, 1e-4, 30.5), (30.5,), 30.5),
    "cosine, with an exponent": Case(Cosine(1.0, 1e-3, 50, exponent=2.5), (50,), 50),
    "cosine, up with an exponent": Case(Cosine(0.0, 1.0, 50.5, 3.0), (50.5,), 50.5),
    "cosine, with a root": Case(Cosine(1.0, 0.0, 50, exponent=0.5), (50,), 50),
    "cosine, k-decay": Case(Cosine(1.0, 1e-3, 50, k_decay=1.5), (50,), 50),
    "cosine, k-decay below 1": Case(Cosine(0.3, 0.0, 50.5, 1.0, 0.3), (50.5,), 50.5),
    "cosine, both powers": Case(Cosine(0.01, 1.0, 50, 1.7, 2.5), (50,), 50),
    "polynomial, k-decay": Case(Polynomial(1.0, 1e-3, 50, 0.5, k_decay=1.5), (50,), 50),
    "polynomial, up with k-decay": Case(Polynomial(0.0, 1.0, 50, 3, 0.5), (50,), 50),
    "polynomial": Case(Polynomial(1.0, 1e-3, 50, 2), (50,), 50),
    "polynomial, up from 0": Case(Polynomial(0.0, 1.0, 50, 3.5), (50,), 50),
    "polynomial, down to 0": Case(Polynomial(0.3, 0.0, 12.5, 0.5), (12.5,), 12.5),
    "square root": Case(SquareRoot(1.0, 1e-3, 50), (50,), 50),
    "square root, up from 0": Case(SquareRoot(0.0, 1.0, 30.5), (30.5,), 30.5),
    "square root, down to 0": Case(SquareRoot(0.3, 0.0, 1000), (1000,), 1000),
    "inverse square root": Case(InverseSqrt(0.3, 40), (40,)),
    "inverse square root, between steps": Case(InverseSqrt(0.3, 4.5), (4.5,)),
    "inverse square root, less than a step": Case(InverseSqrt(0.3, 0.25), (0.25,)),
    "join": Case(_WARM, (20, 200), 200),
    "join, between steps": Case(_BETWEEN, (4.5, 10.25, 31.0), 31),
    "join, of one": Case(Join([Linear(0.1, 0.9, 5)], []), (5,), 5),
    "join, part hidden": Case(
        Join([Constant(9.0), Linear(0.1, 0.9, 10)], [-2.5]), (7.5,), 7.5
    ),
    "join, of constants": Case(
        Join([Constant(0.1), Constant(0.01), Constant(0.001)], [5, 9]), (5, 9), 9
    ),
    "piecewise": Case(Piecewise([5, 9.5, 40], [0.1, 0.02, 0.3, 0.0]), (5, 9.5, 40), 40),
    "join, of many": Case(
        Join(
            [_MANY[i % 7](1.0 / (i + 1)) for i in range(50)], [*range(9, 450, 9)][:49]
        ),
        (9, 18, 27, 36, 45, 54, 63, 432, 441),
        456,
    ),
    "join, of many between steps": Case(
        Join(
            [_MANY[i % 7](1.0 / (i + 1)) for i in range(28)],
            [-9.5, *(i * 7.25 for i in range(26))],
        ),
        (7.25, 14.5, 21.75, 29, 36.25, 181.25),
    ),
    "piecewise, of many": Case(
        Piecewise([1.5 * i for i in range(1, 40)], [1.0 / i for i in range(1, 41)]),
        (1.5, 3, 4.5, 57, 58.5),
        58.5,
    ),
    "join, of joins": Case(
        Join([Constant(0.5), _BETWEEN, _WARM], [3.25, 40.5]),
        (3.25, 7.75, 13.5, 34.25, 40.5, 60.5, 240.5),
        240.5,
    ),
    "join, then restarts": Case(
        Join([Linear(0.0, 0.1, 5), _RESTARTS], [5]), (5, 15, 35, 75)
    ),
    "join, then restarts between steps": Case(
        Join([Linear(0.0, 0.1, 4.5), Repeat(Cosine(1.0, 0.1, 10), 10, 1.5)], [4.5]),
        (4.5, 14.5, 29.5, 52.0, 85.75),
    ),
    "repeat": Case(Repeat(Linear(0.9, 0.1, 10), 10), (10, 20, 30)),
    "repeat, every step": Case(Repeat(Linear(0.9, 0.1, 10), 1), (1, 2)),
    "repeat, triangle": Case(_TRIANGLE, (7, 14, 21, 28)),
    "repeat, twice as long": Case(_RESTARTS, (10, 30, 70, 150, 81910)),
    "repeat, 1.5 times as long": Case(
        Repeat(Linear(1.0, 0.25, 10), 10, 1.5), (10, 25, 47.5, 81.25)
    ),
    "repeat, 1.1 times as long": Case(
        Repeat(Exponential(1.0, 0.01, 10), 10, 1.1), (10, 21, 33.1, 46.41)
    ),
    "per cycle": Case(PerCycle(0.8, 10), (10, 20)),
    "per cycle, of a fraction of steps": Case(PerCycle(0.8, 10.5), (10.5, 21)),
    "per cycle, every step": Case(PerCycle(0.9999, 1), (1, 2)),
    "per cycle, growing": Case(PerCycle(0.8, 10, 2.0), (10, 30, 70)),
    "inverse cycle": Case(InverseCycle(1.5, 10), (10, 20)),
    "inverse cycle, growing": Case(InverseCycle(0.5, 10.5, 1.5), (10.5, 26.25)),
    "noise": Case(Noise(0.67), (1, 2, 32749, 65498, 32749**2)),
    "noise, of some steps": Case(Noise(0.5, 10, seed=7), (10, 20)),
    "noise, of a fraction of steps": Case(Noise(0.999, 2.5, 2**63), (2.5, 5)),
    "noise, normal": Case(Noise(0.67, 3, 1, "normal"), (3, 6)),
    "noise, on a rate, for a while": Case(
        Cosine(0.1, 0.0, 100)
        * Join([Constant(1.0), Noise(0.67), Constant(1.0)], [40.5, 90]),
        (40.5, 90, 100),
    ),
    "noise, in growing cycles": Case(
        Repeat(Linear(1.0, 0.1, 10) * Noise(0.5, 2), 10, 1.5), (2, 10, 13, 25)
    ),
    "function of the cycle": Case(ScaleFunction(harmonic, 10), (10, 20)),
    "function of the step": Case(ScaleFunction(harmonic)),
    "sum": Case(_WARM + _TRIANGLE, (7, 14, 20, 200)),
    "sum with a number": Case(0.5 + _WARM, (20, 200), 200),
    "difference": Case(_WARM - _TRIANGLE, (7, 14, 20, 200)),
    "difference from a number": Case(1 - _WARM, (20, 200), 200),
    "negative": Case(-_WARM, (20, 200), 200),
    "quotient": Case(_TRIANGLE / 3, (7, 14)),
    "product": Case(_WARM * _RESTARTS, (10, 20, 30, 200)),
    "product with a number": Case(0.5 * _RESTARTS, (10, 30)),
    "clip": Case(_TRIANGLE.clip(0.25, 0.75), (7, 14)),
    "clip, of a constant": Case(Constant(0.3).clip(0.4, 0.5), end=0),
    "clip, of an expression": Case(
        (_WARM * 2 + _TRIANGLE * 0.5).clip(0.1, 0.6), (7, 14, 20, 200)
    ),
    "cyclical": Case(cyclical(1e-3, 6e-3, 2000), (2000, 4000)),
    "cyclical, every step": Case(cyclical(0.1, 1.0, 1), (1, 2)),
    "cyclical, triangular2": Case(
        cyclical(0.1, 1.0, 40, "triangular2"), (40, 80, 120, 160)
    ),
    "cyclical, exp_range": Case(
        cyclical(0.1, 1.0, 40, "exp_range", gamma=0.9994), (40, 80, 120)
    ),
    "cyclical, scale_fn of the cycle": Case(
        cyclical(0.1, 1.0, 40, scale_fn=harmonic), (40, 80, 120)
    ),
    "cyclical, scale_fn of the step": Case(
        cyclical(0.1, 1.0, 40, scale_fn=harmonic, scale_mode="iterations"),
        (40, 80, 120),
    ),
    "cyclical, welch": Case(cyclical(0.1, 1.0, 40, window="welch"), (40, 80, 120)),
    "cyclical, welch from 0, triangular2": Case(
        cyclical(0.0, 1.0, 7, "triangular2", window="welch"), (7, 14, 21, 28)
    ),
    "cyclical, hann": Case(cyclical(0.1, 1.0, 40, window="hann"), (40, 80, 120)),
    "cyclical, hann, exp_range": Case(
        cyclical(0.0, 1.0, 7, "exp_range", gamma=0.999, window="hann"), (7, 14, 21)
    ),
    "cyclical, hann, scale_fn": Case(
        cyclical(0.1, 1.0, 7, scale_fn=harmonic, window="hann"), (7, 14, 21)
    ),
    "cyclical, down more slowly": Case(
        cyclical(0.1, 1.0, 7, step_size_down=12), (7, 19, 26, 38)
    ),
    "cyclical, down faster, triangular2": Case(
        cyclical(0.1, 1.0, 12, "triangular2", step_size_down=3), (12, 15, 27, 30)
    ),
    "cyclical, down faster, welch": Case(
        cyclical(0.1, 1.0, 12, window="welch", step_size_down=3), (12, 15, 27, 30)
    ),
    "cyclical, down more slowly, hann, scale_fn": Case(
        cyclical(0.1, 1.0, 3, scale_fn=harmonic, window="hann", step_size_down=9),
        (3, 12, 15, 24),
    ),
    "polynomial_restarts": Case(polynomial_restarts(0.1, 20), (1, 20, 21, 40, 41)),
    "polynomial_restarts, of a square": Case(
        polynomial_restarts(0.1, 20, min_lr=0.01, power=2), (1, 20, 21, 40, 41)
    ),
    "polynomial_restarts, every step": Case(polynomial_restarts(0.1, 1, 0.01), (1, 2)),
    "warm_restarts": Case(warm_restarts(0.05, 10), (10, 20)),
    "warm_restarts, growing": Case(
        warm_restarts(0.1, 10, min_lr=1e-4, cycle_mult=2), (10, 30, 70, 81910)
    ),
    "warm_restarts, fractional": Case(
        warm_restarts(0.1, 10, min_lr=1e-4, cycle_mult=1.5), (10, 25, 47.5)
    ),
    "warm_restarts, of a fraction of steps": Case(
        warm_restarts(0.1, 33.3, min_lr=1e-3), (33.3, 66.6, 99.9, 333)
    ),
    "warm_restarts, of a third": Case(
        warm_restarts(0.1, 100 / 3, min_lr=1e-3, peak_decay=0.9), (33.3, 66.7, 100, 200)
    ),
    "warm_restarts, growing from a fraction": Case(
        warm_restarts(0.1, 2.5, min_lr=1e-3, cycle_mult=1.5), (2.5, 6.25, 11.875)
    ),
    "warm_restarts, rising": Case(
        warm_restarts(0.1, 10**8, min_lr=1e-3, peak_decay=1.001), (10**8, 2 * 10**8)
    ),
    "join, then restarts of a fraction between steps": Case(
        Join([Linear(0.0, 0.1, 4.2), Repeat(Linear(1.0, 0.1, 2.7), 2.7)], [4.2]),
        (4.2, 6.9, 9.6, 31.2),
    ),
    "warm_restarts, decaying": Case(
        warm_restarts(0.1, 10, min_lr=1e-3, cycle_mult=2, peak_decay=0.8), (10, 30)
    ),
    "warm_restarts, decaying, equal": Case(
        warm_restarts(0.1, 20, min_lr=0.01, peak_decay=0.5), (20, 40)
    ),
}
SCHEDULES |= {
    "flat_cosine": Case(flat_cosine(0.3, 100), (75, 100), 100),
    "flat_cosine, between steps": Case(
        flat_cosine(0.3, 99, pct_flat=0.123, min_lr=0.01), (12.177, 99), 99
    ),
    "flat_cosine, never flat": Case(flat_cosine(0.3, 50, pct_flat=0), (50,), 50),
    "warmup, of a cosine": Case(warmup(Cosine(0.1, 1e-3, 80), 20), (20, 100), 100),
    "warmup, between steps": Case(
        warmup(InverseSqrt(0.3, 4) + 0.1, 2.5, start=0.01), (2.5, 6.5)
    ),
    "warmup, of restarts": Case(
        warmup(warm_restarts(0.1, 10, cycle_mult=2), 5), (5, 15, 35, 75)
    ),
    "warmup, of a cycle": Case(
        warmup(cyclical(0.1, 1.0, 7, "triangular2"), 4), (4, 11, 18, 25)
    ),
    "warmup, overlapping": Case(
        warmup(Cosine(0.1, 1e-3, 80), 20, start=0.01, overlap=True), (20, 80), 80
    ),
    "warmup, overlapping between steps": Case(
        warmup(InverseSqrt(0.3, 4) + 0.1, 2.5, overlap=True), (2.5, 4)
    ),
    "warmup, overlapping restarts": Case(
        warmup(warm_restarts(0.1, 10, cycle_mult=2), 15, overlap=True), (15, 30, 70)
    ),
    "swa": Case(swa(Cosine(0.1, 0.0, 100), 60, 0.05, 10), (60, 70)),
    "swa, of restarts": Case(
        swa(warm_restarts(0.1, 10), 35, 0.01, 5, anneal="linear"), (10, 35, 40)
    ),
    "warmup, of a warmup": Case(
        warmup(warmup(Constant(0.5), 4, start=0.1), 3), (3, 7), 7
    ),
}
# Whatever is made of others is stretched where cycles grow or begin between steps.
_WARMED = Join([Linear(0.0, 0.1, 2), Cosine(0.1, 1e-3, 8)], [2])
_WARMED_BETWEEN = Join([Linear(0.1, 1.0, 2.5), Exponential(1.0, 0.1, 7.3)], [2.5])
_EXP_RANGE = cyclical(0.1, 1.0, 40, "exp_range", gamma=0.9994)
_NINE = Join([_MANY[i % 7](1.0 / (i + 1)) for i in range(12)], [*range(2, 24, 2)])
SCHEDULES |= {
    "growing, a warm-up in each": Case(Repeat(_WARMED, 10, 2), (2, 10, 14, 30, 38, 70)),
    "growing, a warm-up between steps in each": Case(
        Repeat(_WARMED_BETWEEN, 10, 1.5), (2.5, 9.8, 10, 13.75, 24.7, 25, 30.625, 47.5)
    ),
    "growing, from a fraction of a step": Case(
        Repeat(_WARMED_BETWEEN * 2 - 0.05, 10.25, 1.1), (2.5, 9.8, 10.25, 13.0, 21.525)
    ),
    "growing, shorter than a step": Case(
        Repeat(Join([Linear(0.0, 1.0, 0.25), Linear(1.0, 0.5, 0.75)], [0.25]), 1, 1.5),
        (1, 1.375, 2.5, 3.0625, 4.75, 8.125),
    ),
    "growing, parts hidden": Case(
        Repeat(Join([Constant(9.0), _WARMED, Constant(0.5)], [-3.5, 4.25]), 8, 2),
        (4.25, 8, 16.5, 24, 41),
    ),
    "growing, of many parts": Case(Repeat(_NINE, 24, 2), (2, 4, 22, 24, 28, 68, 72)),
    "growing, of cycles": Case(
        Repeat(Repeat(Linear(0.9, 0.1, 3), 3) * PerCycle(0.8, 3), 10, 2),
        (3, 6, 9, 10, 16, 22, 28, 30, 42),
    ),
    "growing, of growing cycles": Case(
        Repeat(Repeat(Cosine(1.0, 0.1, 2), 2, 2), 14, 1.5), (2, 6, 14, 17, 23, 35, 39.5)
    ),
    "growing, of cycles that began before": Case(
        Repeat(Join([Constant(9.0), Repeat(Linear(0.9, 0.1, 4), 4)], [-5.5]), 9, 1.5),
        (2.5, 6.5, 9, 12.75, 18.75, 22.5),
    ),
    "growing, of cycles that begin between steps": Case(
        Repeat(Join([Constant(0.5), Repeat(Cosine(0.9, 0.1, 2.5), 2.5)], [1.25]), 9, 2),
        (1.25, 3.75, 6.25, 8.75, 9, 11.5, 16.5),
    ),
    "growing, with roots": Case(
        Repeat(InverseSqrt(0.3, 3.5) + SquareRoot(1.0, 0.1, 7), 10, 2), (3.5, 10, 17)
    ),
    "growing, with functions": Case(
        Repeat(ScaleFunction(harmonic) + ScaleFunction(harmonic, 3), 10, 1.5),
        (3, 6, 9, 10, 14.5, 25),
    ),
    "growing, hidden in the first cycle alone": Case(
        Join(
            [
                Constant(2.0),
                Repeat(Join([Linear(0.0, 1.0, 0.25), Constant(0.5)], [0.25]), 1, 1.5),
            ],
            [4.3],
        ),
        (4.3, 5.3, 6.8, 7.3625, 9.05),
    ),
    "growing, after a warm-up between steps": Case(
        Join([Linear(0.0, 0.1, 4.5), Repeat(_WARMED, 10, 1.5)], [4.5]),
        (4.5, 6.5, 14.5, 17.5, 29.5),
    ),
    "stretch": Case(_WARM.stretch(2), (40, 400), 400),
    "stretch, to a fraction": Case(_WARM.stretch(1.1), (22, 220), 220),
    "stretch, shorter": Case(_BETWEEN.stretch(0.3), (1.35, 3.075, 9.3), 9.3),
    "stretch, of restarts": Case(_RESTARTS.stretch(1.25), (12.5, 37.5, 87.5)),
    "stretch, of cycles": Case(_TRIANGLE.stretch(1.3), (9.1, 18.2, 27.3, 36.4)),
    "stretch, to cycles below a step": Case(_TRIANGLE.stretch(0.05), (0.35, 0.7, 7)),
    "stretch, of cycles scaled": Case(_EXP_RANGE.stretch(3), (3, 120, 240)),
    "stretch, of many parts": Case(_NINE.stretch(0.75), (1.5, 3, 16.5)),
    "stretch, of roots and functions": Case(
        (
            InverseSqrt(0.3, 4) + ScaleFunction(harmonic) * ScaleFunction(harmonic, 3)
        ).stretch(1.5),
        (4.5, 6, 9),
    ),
    "stretch, of a stretch": Case(
        (_WARM + 0.1).stretch(3).stretch(0.5), (30, 300), 300
    ),
    "stretch, of growing cycles inside growing cycles": Case(
        Repeat(Repeat(_WARMED.stretch(0.5), 5, 2).stretch(2), 40, 1.5),
        (2, 10, 14, 30, 40, 43, 55, 85, 100),
    ),
    "stretch, after a warm-up between steps": Case(
        Join([Linear(0.0, 0.1, 4.5), _RESTARTS.stretch(1.5)], [4.5]), (4.5, 19.5, 49.5)
    ),
    "repeat, of a join between steps": Case(
        Repeat(_WARMED_BETWEEN, 9.7), (2.5, 9.7, 12.2, 19.4)
    ),
    "repeat, of cycles between steps": Case(
        Repeat(Repeat(Linear(0.9, 0.1, 2.5), 2.5) + _WARMED, 33.3, 1.0),
        (2, 2.5, 33.3, 35.3, 66.6),
    ),
    "repeat, of growing cycles between steps": Case(
        Join([Constant(1.0), Repeat(Repeat(_WARMED, 4, 2), 33.3)], [1.5]),
        (1.5, 5.5, 13.5, 29.5, 34.8),
    ),
    "repeat, of many between steps": Case(Repeat(_NINE, 24.5), (2, 24.5, 46.5, 49)),
}
for _decay in ("linear", "cosine", "exponential", "1-sqrt"):
    for _up, _level in ((10, 30), (0, 30), (10, 0), (0, 0)):
        _stable = _up + _level
        SCHEDULES[f"warmup_stable_decay, {_decay}, {_up} and {_level}"] = Case(
            warmup_stable_decay(0.3, _up, _level, 20, min_lr=1e-3, decay=_decay),
            (_up, _stable, _stable + 20),
            _stable + 20,
        )
for _anneal in ("cosine", "linear"):
    for _three in (False, True):
        _edges = (29, 58, 99) if _three else (29, 99)
        _cycle = one_cycle(0.1, 100, three_phase=_three, anneal=_anneal)
        for _name, _schedule in _cycle.items():
            SCHEDULES[f"one_cycle, {_anneal}, {len(_edges)} phases, {_name}"] = Case(
                _schedule, _edges, 99
            )


def exact(schedule: Schedule, t: Fraction | float) -> float:
    """The value of `schedule` at `t` steps, from the equations in the docstrings."""
    t = max(Fraction(t), Fraction(0))
    match schedule:
        case Constant(value):
            return value
        case Ramp():
            return _ramp(schedule, min(t / Fraction(schedule.steps), Fraction(1)))
        case Join(parts, edges):
            begun = [i for i, edge in enumerate(edges, 1) if t >= Fraction(edge)]
            if not begun:
                return exact(parts[0], t)
            return exact(parts[begun[-1]], t - Fraction(edges[begun[-1] - 1]))
        case InverseSqrt(peak, warmup_steps):
            rise = t / Fraction(warmup_steps)
            return peak * float(rise if rise <= 1 else _root(1 / rise))
        case Repeat(part, steps, growth):
            _, since, length = cycle_of(t, steps, growth)
            own = cycle_of(Fraction(0), steps, growth)[2]  # the fraction that is meant
            return exact(part, since * own / length)
        case PerCycle(factor, steps, growth):
            return factor ** cycle_of(t, steps, growth)[0]
        case InverseCycle(power, steps, growth):
            return (1 + cycle_of(t, steps, growth)[0]) ** -power
        case Noise(amount, steps, seed, distribution):
            share = _mixed(cycle_of(t, steps, 1)[0], seed)
            if distribution == "uniform":
                return float(1 - Fraction(amount) + 2 * Fraction(amount) * share)
            piece, within = divmod(256 * share, 1)
            low, high = (_normal(amount, (piece + i) / Fraction(256)) for i in (0, 1))
            return 1 + low + (high - low) * float(within)
        case ScaleFunction(function, None):
            return function(float(t))
        case ScaleFunction(function, steps):
            return function(float(1 + t // steps))
        case Sum(first, second):
            return exact(first, t) + exact(second, t)
        case Difference(first, second):
            return exact(first, t) - exact(second, t)
        case Quotient(first, Constant(divisor)):
            return exact(first, t) / divisor
        case Product(first, second):
            return exact(first, t) * exact(second, t)
        case Stretch(part, factor):
            return exact(part, t / Fraction(str(factor)).limit_denominator(10**6))
        case Clip(part, lower, upper):
            return min(max(exact(part, t), lower), upper)
    raise NotImplementedError(schedule)


def _mixed(index: int, seed: int) -> Fraction:
    """A number in [0, 1): three rounds of a Feistel network on remainders."""
    prime = 32_749
    a, b, c, d = (index // prime**i % prime for i in range(4))
    keys = [int(x) for x in np.random.SeedSequence(seed).generate_state(6)]
    for i in range(3):
        if i == 1:
            a, b = a + c, b + d
        b += a % prime * (a % prime + keys[2 * i] % prime)
        a += b % prime * (b % prime + keys[2 * i + 1] % prime)
    return (a % prime + Fraction(b % prime, prime)) / prime


def _normal(amount: float, share: Fraction) -> float:
    """What this share of a normal distribution within ±`amount` is below."""
    low, high = (statistics.NormalDist().cdf(edge) for edge in (-amount, amount))
    below = low + (high - low) * float(share)
    return statistics.NormalDist().inv_cdf(below)


def _ramp(ramp: Schedule, share: Fraction) -> float:
    done, left = float(share), float(1 - share)
    match ramp:
        case Linear(start, end):
            return start * left + end * done
        case Cosine(start, end, _, exponent, k_decay):
            # (1 + cos x)/2 = cos²(x/2), and cos²(π/2·done) = sin²(π/2·left).
            if k_decay != 1:
                share = Fraction(_power(share, k_decay))
                done, left = float(share), float(1 - share)
            falling = math.sin(math.pi / 2 * left) ** 2
            rising = math.sin(math.pi / 2 * done) ** 2
            if exponent == 1:
                return start * falling + end * rising
            if rising > 0.1:
                return float(_blend(start, end, _power(falling, exponent)))
            # In decimals: 1 - (1 - x)^p cancels at the beginning.
            height = _power(1 - decimal.Decimal(rising), exponent)
            return float(_blend(start, end, height))
        case Exponential(start, end):
            return start**left * end**done
        case Polynomial(start, end, _, power, k_decay):
            # In decimals: 1 - left^power cancels at the beginning.
            done = _power(share, k_decay) if k_decay != 1 else share
            return float(_blend(start, end, _power(1 - Fraction(done), power)))
        case SquareRoot(start, end):
            return float(_blend(start, end, 1 - _root(share)))
    raise NotImplementedError(ramp)


def _power(number: Any, exponent: float) -> decimal.Decimal:
    exact = Fraction(number)
    base = exact.numerator / decimal.Decimal(exact.denominator)
    return base ** decimal.Decimal(exponent) if base else decimal.Decimal(0)


def _root(number: Fraction) -> decimal.Decimal:
    return (number.numerator / decimal.Decimal(number.denominator)).sqrt()


def _blend(start: float, end: float, height: decimal.Decimal) -> decimal.Decimal:
    """`start` at height 1, `end` at height 0, in 28 digits."""
    return (
        decimal.Decimal(end) + (decimal.Decimal(start) - decimal.Decimal(end)) * height
    )


def cycle_of(t, steps, growth) -> tuple[int, Fraction, Fraction]:
    """Which cycle of `steps`·`growth`^i steps holds `t`, the time in it, its length.

    Both are what was typed: 1.1 is eleven tenths, not the float nearest to it.
    """
    if growth == 1:
        steps = typed(steps)
        return int(t // steps), t % steps, steps
    begins = _begins(steps, growth)
    while t >= begins[-1]:
        length = begins[-1] - begins[-2]
        begins.append(begins[-1] + length * Fraction(str(growth)))
    i = bisect.bisect_right(begins, t) - 1
    return i, t - begins[i], begins[i + 1] - begins[i]


@functools.cache
def _begins(steps, growth) -> list[Fraction]:
    """Where cycles begin; as many as have been asked for."""
    return [Fraction(0), typed(steps)]


@functools.cache
def typed(number: float) -> Fraction:
    """The fraction with the least denominator that is rounded to `number`."""
    low, high = 0, Fraction(number).denominator
    while high - low > 1:  # the nearest one comes nearer with its denominator
        middle = (low + high) // 2
        fits = float(Fraction(number).limit_denominator(middle)) == number
        low, high = (low, middle) if fits else (middle, high)
    return Fraction(number).limit_denominator(high)


def moments_of(case: Case) -> list[int]:
    """Whole steps at and around every edge, and far beyond the last."""
    steps = {-1, 0, 1, 2, 10**6, 10**6 + 1, 10**9 - 1, 10**9}
    for edge in case.edges:
        steps |= {math.floor(edge) + i for i in (-1, 0, 1, 2)}
    return sorted(steps)


def compiled(schedule: Schedule, **options: Any) -> Callable[[Any], np.ndarray]:
    """The schedule inside a compiled function of this backend, for whole steps."""
    if keras.backend.backend() == "jax":
        import jax

        jitted = jax.jit(lambda steps: schedule(steps))
        return lambda steps: np.asarray(jitted(np.asarray(steps, np.int32)))

    import tensorflow as tf

    function = tf.function(lambda steps: schedule(steps), **options)
    return lambda steps: function(tf.constant(steps, tf.int64)).numpy()
