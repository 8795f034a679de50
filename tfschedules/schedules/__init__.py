"""Schedules: pure functions from the step to a value.

Each class is one equation. It stands once and is evaluated twice: by `values` in
float64 NumPy and by a call in `keras.ops`, inside a compiled training step. `shapes`
has the curves, `noise` one without a shape, `combine` and `arithmetic` what is made of
others, `steps`, `moments` and `cycles` the time, and `units` and `waiting` lengths of
the fit; `picture` draws. What papers call a schedule is a composition of these; see
`recipes` and `restarts`.

May import `_support`. All of it is loaded at once: then Keras knows what may be saved.
"""

from tfschedules.schedules.arithmetic import (
    Clip as Clip,
    Difference as Difference,
    Product as Product,
    Quotient as Quotient,
    Stretch as Stretch,
    Sum as Sum,
)
from tfschedules.schedules.base import (
    Constant as Constant,
    Schedule as Schedule,
    as_schedule as as_schedule,
)
from tfschedules.schedules.combine import (
    InverseCycle as InverseCycle,
    Join as Join,
    PerCycle as PerCycle,
    Piecewise as Piecewise,
    Repeat as Repeat,
    ScaleFunction as ScaleFunction,
    schedule_given as schedule_given,
)
from tfschedules.schedules.noise import Noise as Noise
from tfschedules.schedules.rates import low_and_high_momentum as low_and_high_momentum
from tfschedules.schedules.recipes import (
    flat_cosine as flat_cosine,
    one_cycle as one_cycle,
    swa as swa,
    warmup as warmup,
    warmup_stable_decay as warmup_stable_decay,
)
from tfschedules.schedules.restarts import (
    cyclical as cyclical,
    polynomial_restarts as polynomial_restarts,
    warm_restarts as warm_restarts,
)
from tfschedules.schedules.shapes import (
    Cosine as Cosine,
    Exponential as Exponential,
    InverseSqrt as InverseSqrt,
    Linear as Linear,
    Polynomial as Polynomial,
    Ramp as Ramp,
    SquareRoot as SquareRoot,
)
from tfschedules.schedules.units import (
    Epochs as Epochs,
    FitLength as FitLength,
    FitShare as FitShare,
    epochs as epochs,
    fit_share as fit_share,
)
from tfschedules.schedules.waiting import Waiting as Waiting
