"""Schedules: pure functions from the step to a value.

Each class is one equation. It stands once and is evaluated twice: by `values` in
float64 NumPy and by a call in `keras.ops`, inside a compiled training step. What
papers call a schedule is a composition of these; see `tfschedules.recipes`.
"""

from tfschedules.schedules.base import Clip, Constant, Product, Schedule, Sum
from tfschedules.schedules.combine import Join, PerCycle, Repeat, ScaleFunction
from tfschedules.schedules.shapes import Cosine, Exponential, Linear, Ramp

__all__ = [
    "Clip",
    "Constant",
    "Cosine",
    "Exponential",
    "Join",
    "Linear",
    "PerCycle",
    "Product",
    "Ramp",
    "Repeat",
    "ScaleFunction",
    "Schedule",
    "Sum",
]
