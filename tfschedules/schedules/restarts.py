"""Papers as compositions of schedules that go on and on, cycle by cycle.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186);
Loshchilov & Hutter, SGDR, 2016 (arXiv:1608.03983).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfschedules._support import checks
from tfschedules.schedules.base import Constant, Schedule
from tfschedules.schedules.combine import (
    InverseCycle,
    Join,
    PerCycle,
    Repeat,
    ScaleFunction,
)
from tfschedules.schedules.rates import high_and_low, peak
from tfschedules.schedules.shapes import GREATEST_POWER, Cosine, Linear, Polynomial
from tfschedules.schedules.units import EPOCHS_HINT, FitLength
from tfschedules.schedules.waiting import recipe

_WINDOWS = ["triangular", "welch", "hann"]


@recipe
def cyclical(
    base_lr: float,
    max_lr: float,
    step_size: int | FitLength,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
    window: str = "triangular",
    step_size_down: int | FitLength | None = None,
) -> Schedule:
    """A rate that climbs and falls again and again (Smith 2015, section 3.1).

    With T = step_size + step_size_down, cycle c = 1 + floor(t/T) and a triangle Δ that
    goes from 0 to 1 in `step_size` steps and back in `step_size_down`:

        f(t) = base_lr + (max_lr - base_lr)·Δ(t)·scale

    where scale is 1 ("triangular"), 1/2^(c-1) ("triangular2") or gamma^t ("exp_range").
    Equal to torch's `CyclicLR`. Momentum against it, as torch cycles it between 0.9 and
    0.8, is `0.9 - cyclical(0.0, 0.1, step_size, …)`.

    Args:
        base_lr: The rate at the bottom, >= 0.
        max_lr: The rate at the top, >= `base_lr`.
        step_size: The way up, half a cycle by default, in steps. Smith advises 2 to 10
            epochs' worth.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: The factor of a step, for "exp_range".
        scale_fn: Your own scale in place of the mode's: a function of c, or of t.
        scale_mode: "cycle" or "iterations": what `scale_fn` is given.
        window: The shape of a cycle: "triangular", or the paper's other two, "welch"
            (a parabola, 1 - (2t/T - 1)²) and "hann" (a sine, sin²(π·t/T)). Smith found
            them equivalent in result.
        step_size_down: The way down, in steps; `step_size` if not given. Each way has
            its half of the window then.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range, a mode is unknown, or both a `scale_fn` and
            a `mode` that scales are given.

    Example:
        >>> cyclical(0.1, 0.5, step_size=2).values(5).round(6).tolist()
        [0.1, 0.3, 0.5, 0.3, 0.1]
        >>> cyclical(0.1, 0.5, 1, step_size_down=4).values(6).round(6).tolist()
        [0.1, 0.5, 0.4, 0.3, 0.2, 0.1]
    """
    low = checks.real("base_lr", base_lr, at_least=0)
    high = peak("max_lr", max_lr)
    checks.ordered("base_lr", low, "max_lr", high)
    up = checks.whole("step_size", step_size, hint=EPOCHS_HINT)
    down = up
    if step_size_down is not None:
        down = checks.whole("step_size_down", step_size_down, hint=EPOCHS_HINT)
    checks.choice("mode", mode, ["triangular", "triangular2", "exp_range"])
    checks.choice("scale_mode", scale_mode, ["cycle", "iterations"])
    checks.real("gamma", gamma, above=0)
    if scale_fn is not None and not callable(scale_fn):
        raise TypeError(
            "Argument `scale_fn` must be a function of one number. "
            f"Received: scale_fn={checks.shown(scale_fn)}"
        )
    if scale_fn is not None and mode != "triangular":
        raise ValueError(
            "Arguments `mode` and `scale_fn` both scale the cycles: give one of them. "
            f"Received: mode={mode!r}, scale_fn={checks.shown(scale_fn)}"
        )
    checks.choice("window", window, _WINDOWS)

    def cycle(bottom: float, top: float) -> Schedule:
        if window == "welch":
            arch = _arch(up, down) * (top - bottom) + bottom
            return Repeat(arch, up + down)
        shape = Linear if window == "triangular" else Cosine
        rise, fall = shape(bottom, top, up), shape(top, bottom, down)
        return Repeat(Join((rise, fall), (up,)), up + down)

    if scale_fn is not None:
        steps = up + down if scale_mode == "cycle" else None
        return cycle(0.0, high - low) * ScaleFunction(scale_fn, steps) + low
    if mode == "triangular2":
        return cycle(0.0, high - low) * PerCycle(0.5, up + down) + low
    if mode == "exp_range":
        return cycle(0.0, high - low) * PerCycle(gamma, 1) + low
    return cycle(low, high)


def _arch(up: int, down: int) -> Schedule:
    """A parabola from 0 to 1 and back: 1 - x² on each way, with x = 0 at the top."""
    if up == down:  # 4·t/T·(1 - t/T)
        return Linear(0.0, 2.0, 2 * up) * Linear(2.0, 0.0, 2 * up)
    rise = Linear(0.0, 1.0, up) * Linear(2.0, 1.0, up)
    fall = Linear(1.0, 0.0, down) * Linear(1.0, 2.0, down)
    return Join((rise, fall), (up,))


@recipe
def warm_restarts(
    max_lr: float,
    first_cycle: float | FitLength,
    min_lr: float = 0.0,
    cycle_mult: float = 1,
    peak_decay: float = 1.0,
) -> Schedule:
    """A cosine that restarts (SGDR, Loshchilov & Hutter 2016, section 3, equation 5).

    In cycle i, which lasts T = first_cycle·cycle_mult^i steps, at t steps since its
    restart:

        f = min_lr + (max_lr - min_lr)·peak_decay^i·(1 + cos(π·t/T))/2

    The rate is `max_lr` at a restart itself and `min_lr` just before it. Equal to
    torch's `CosineAnnealingWarmRestarts`, but right at every boundary and age.

    Args:
        max_lr: The rate at the first restart, > 0.
        first_cycle: The length of the first cycle, in steps, >= 1. It may be
            fractional: boundaries are real numbers then, and not rounded. Cycles of one
            step that do not grow restart before they fall: a constant.
        min_lr: The rate at the end of each cycle, >= 0.
        cycle_mult: How much longer each cycle is than the one before, >= 1. It may be
            fractional: boundaries are real numbers then, and not rounded.
        peak_decay: What the height above `min_lr` is multiplied by at each restart,
            > 0, as `m_mul` in Keras's `CosineDecayRestarts`. Above 1 the peaks rise.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Example:
        >>> warm_restarts(1.0, first_cycle=2).values(5).round(6).tolist()
        [1.0, 0.5, 1.0, 0.5, 1.0]
    """
    high, low = high_and_low(max_lr, min_lr)
    steps = checks.real("first_cycle", first_cycle, at_least=1, hint=EPOCHS_HINT)
    growth = checks.real("cycle_mult", cycle_mult, at_least=1)
    decay = checks.real("peak_decay", peak_decay, above=0)
    if decay == 1:
        return Repeat(Cosine(high, low, steps), steps, growth)
    cycles = Repeat(Cosine(high - low, 0.0, steps), steps, growth)
    return cycles * PerCycle(decay, steps, growth) + low


@recipe
def polynomial_restarts(
    max_lr: float,
    steps: int | FitLength,
    min_lr: float = 0.0,
    power: float = 1.0,
) -> Schedule:
    """A power of what is left up to an end that is put off when it is reached.

    In cycle i = 1, 2 …, which lasts from step (i-1)·steps + 1 to step i·steps:

        f(t) = min_lr + (max_lr - min_lr)·(1 - t/(i·steps))^power

    and f(0) = max_lr. The rate is `min_lr` at the end of each cycle, and the peaks
    after it become lower: 1/2, 1/3 … of the way for a `power` of 1. Equal to Keras's
    and PaddlePaddle's `PolynomialDecay(cycle=True)`.

    Args:
        max_lr: The rate at step 0, > 0.
        steps: The length of a cycle, in steps.
        min_lr: The rate at the end of each cycle, >= 0.
        power: The exponent, > 0 and <= 100; 1 is a line.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Example:
        >>> polynomial_restarts(1.0, steps=4).values(9).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.375, 0.25, 0.125, 0.0]
    """
    high, low = high_and_low(max_lr, min_lr)
    length = checks.whole("steps", steps, hint=EPOCHS_HINT)
    exponent = checks.real("power", power, above=0, at_most=GREATEST_POWER)
    if length == 1:
        return Join((Constant(high), Constant(low)), (1,))
    begin = (high - low) * ((length - 1) / length) ** exponent
    cycle = Repeat(Polynomial(begin, 0.0, length - 1, exponent), length)
    return Join((Constant(high), cycle * InverseCycle(exponent, length) + low), (1,))
