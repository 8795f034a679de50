"""Schedules: pure functions from the step to a value.

Each class is one equation. It stands once and is evaluated twice: by `values` in
float64 NumPy and by a call in `keras.ops`, inside a compiled training step. What
papers call a schedule is a composition of these; see `tfschedules.recipes`.
"""

from tfschedules.schedules.base import (
    Clip,
    Constant,
    Difference,
    Product,
    Quotient,
    Schedule,
    Sum,
)
from tfschedules.schedules.combine import (
    Join,
    PerCycle,
    Piecewise,
    Repeat,
    ScaleFunction,
    schedule_given,
)
from tfschedules.schedules.shapes import (
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    Polynomial,
    Ramp,
    SquareRoot,
)
from tfschedules.schedules.waiting import Waiting

__all__ = [
    "Clip",
    "Constant",
    "Cosine",
    "Difference",
    "Exponential",
    "InverseSqrt",
    "Join",
    "Linear",
    "PerCycle",
    "Piecewise",
    "Polynomial",
    "Product",
    "Quotient",
    "Ramp",
    "Repeat",
    "ScaleFunction",
    "Schedule",
    "SquareRoot",
    "Sum",
    "Waiting",
    "schedule_given",
]
