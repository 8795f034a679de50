"""Papers as compositions of schedules.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186);
Loshchilov & Hutter, SGDR, 2016 (arXiv:1608.03983); Smith, A Disciplined Approach to
Neural Network Hyper-Parameters, 2018 (arXiv:1803.09820); Hu et al., MiniCPM, 2024
(arXiv:2404.06395) and Hägele et al. 2024 (arXiv:2405.18392). Each recipe is a function
that returns a composition; none is a class. Every length is in steps or
`tfs.epochs(…)`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from tfschedules._support import checks
from tfschedules.schedules.base import Constant, Schedule, as_schedule
from tfschedules.schedules.combine import Join, PerCycle, Repeat, ScaleFunction
from tfschedules.schedules.shapes import Cosine, Exponential, Linear, Ramp, SquareRoot
from tfschedules.schedules.units import EPOCHS_HINT, Epochs
from tfschedules.schedules.waiting import recipe

_ANNEALS: dict[str, type[Ramp]] = {"cosine": Cosine, "linear": Linear}
_DECAYS: dict[str, type[Ramp]] = {
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "1-sqrt": SquareRoot,
}
_WINDOWS = ["triangular", "welch", "hann"]


@recipe
def cyclical(
    base_lr: float,
    max_lr: float,
    step_size: int | Epochs,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
    window: str = "triangular",
) -> Schedule:
    """A rate that climbs and falls again and again (Smith 2015, section 3.1).

    With cycle c = 1 + floor(t / (2·step_size)) and a triangle Δ that goes from 0 to 1
    in `step_size` steps and back:

        f(t) = base_lr + (max_lr - base_lr)·Δ(t)·scale

    where scale is 1 ("triangular"), 1/2^(c-1) ("triangular2") or gamma^t ("exp_range").
    Equal to torch's `CyclicLR`.

    Args:
        base_lr: The rate at the bottom, >= 0.
        max_lr: The rate at the top, >= `base_lr`.
        step_size: Half a cycle, in steps. Smith advises 2 to 10 epochs' worth.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: The factor of a step, for "exp_range".
        scale_fn: Your own scale in place of the mode's: a function of c, or of t.
        scale_mode: "cycle" or "iterations": what `scale_fn` is given.
        window: The shape of a cycle: "triangular", or the paper's other two, "welch"
            (a parabola, 1 - (2t/T - 1)²) and "hann" (a sine, sin²(π·t/T)), over a cycle
            of T steps. Smith found them equivalent in result.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range, a mode is unknown, or both a `scale_fn` and
            a `mode` that scales are given.

    Example:
        >>> cyclical(0.1, 0.5, step_size=2).values(5).round(6).tolist()
        [0.1, 0.3, 0.5, 0.3, 0.1]
    """
    low = checks.real("base_lr", base_lr, at_least=0)
    high = _peak(max_lr)
    checks.ordered("base_lr", low, "max_lr", high)
    half = checks.whole("step_size", step_size, hint=EPOCHS_HINT)
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
        if window == "welch":  # 4·t/T·(1 - t/T)
            arch = Linear(0.0, 2.0, 2 * half) * Linear(2.0, 0.0, 2 * half)
            return Repeat(arch * (top - bottom) + bottom, 2 * half)
        shape = Linear if window == "triangular" else Cosine
        rise, fall = shape(bottom, top, half), shape(top, bottom, half)
        return Repeat(Join((rise, fall), (half,)), 2 * half)

    if scale_fn is not None:
        steps = 2 * half if scale_mode == "cycle" else None
        return cycle(0.0, high - low) * ScaleFunction(scale_fn, steps) + low
    if mode == "triangular2":
        return cycle(0.0, high - low) * PerCycle(0.5, 2 * half) + low
    if mode == "exp_range":
        return cycle(0.0, high - low) * PerCycle(gamma, 1) + low
    return cycle(low, high)


@recipe
def warm_restarts(
    max_lr: float,
    first_cycle: float | Epochs,
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
    high, low = _high_and_low(max_lr, min_lr)
    steps = checks.real("first_cycle", first_cycle, at_least=1, hint=EPOCHS_HINT)
    growth = checks.real("cycle_mult", cycle_mult, at_least=1)
    decay = checks.real("peak_decay", peak_decay, above=0)
    if decay == 1:
        return Repeat(Cosine(high, low, steps), steps, growth)
    cycles = Repeat(Cosine(high - low, 0.0, steps), steps, growth)
    return cycles * PerCycle(decay, steps, growth) + low


@recipe
def one_cycle(
    max_lr: float,
    total_steps: int | Epochs,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
    anneal: str = "cosine",
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
) -> dict[str, Schedule]:
    """One cycle of the rate, and of momentum against it (Smith 2018, sections 3 and 4).

    The rate goes from max_lr/div_factor up to `max_lr` at step
    pct_start·total_steps - 1, then down to max_lr/(div_factor·final_div_factor) at step
    total_steps - 1, and stays there. Momentum goes from `max_momentum` to
    `base_momentum` and back. With `three_phase` the rate comes down as it went up, and
    is annihilated in a third phase. Equal to torch's `OneCycleLR` on its steps.

    Args:
        max_lr: The peak, > 0.
        total_steps: The length of the whole cycle, in steps.
        pct_start: The share of the steps spent going up, in [0, 1]; at most 0.5 with
            `three_phase`.
        div_factor: The first rate is max_lr/div_factor; > 0.
        final_div_factor: The last rate is the first one divided by this; > 0.
        three_phase: Whether to come down symmetrically before the last phase.
        anneal: "cosine" or "linear".
        base_momentum: Momentum at the peak of the rate, in [0, 1).
        max_momentum: Momentum at the ends, in [base_momentum, 1).

    Returns:
        The schedules `{"learning_rate": …, "momentum": …}`, to be given to
        `HyperparameterScheduler(**one_cycle(…))`.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Example:
        >>> cycle = one_cycle(1.0, total_steps=10)
        >>> cycle["learning_rate"].values([0, 2, 9]).round(6).tolist()
        [0.04, 1.0, 4e-06]
        >>> cycle["momentum"].values([0, 2, 9]).round(6).tolist()
        [0.95, 0.85, 0.95]
    """
    peak = _peak(max_lr)
    total = checks.whole("total_steps", total_steps, hint=EPOCHS_HINT)
    pct = checks.real("pct_start", pct_start, at_least=0, at_most=1)
    first = _divided(peak, "max_lr", "div_factor", div_factor)
    last = _divided(first, "max_lr/div_factor", "final_div_factor", final_div_factor)
    three_phase = checks.flag("three_phase", three_phase)
    if three_phase and pct > 0.5:
        raise ValueError(
            "Argument `pct_start` must be <= 0.5 with `three_phase`, whose way down "
            f"is as long as its way up. Received: pct_start={pct!r}"
        )
    shape = _ANNEALS[checks.choice("anneal", anneal, sorted(_ANNEALS))]
    low = checks.real("base_momentum", base_momentum, at_least=0)
    high = checks.real("max_momentum", max_momentum, at_least=0)
    checks.ordered("base_momentum", low, "max_momentum", high)
    if high >= 1:
        raise ValueError(
            f"Argument `max_momentum` must be < 1. Received: max_momentum={high!r}"
        )

    moments = [0.0, pct * total - 1, total - 1]
    rates, momenta = [first, peak, last], [high, low, high]
    if three_phase:
        moments = [0.0, pct * total - 1, 2 * pct * total - 2, total - 1]
        rates, momenta = [first, peak, first, last], [high, low, high, high]
    return {
        "learning_rate": _through(shape, moments, rates),
        "momentum": _through(shape, moments, momenta),
    }


def _divided(value: float, of: str, name: str, divisor: Any) -> float:
    """`value` divided by the argument `name`, which must leave it a float32."""
    by = checks.real(name, divisor, above=0)
    rate = value / by
    if rate > checks.GREATEST:
        raise ValueError(
            f"Argument `{name}` must be so large that {of} divided by it is "
            f"<= {checks.GREATEST:g}: a schedule is computed in float32. "
            f"Received: {name}={by!r}, and {value!r} divided by it is {rate}."
        )
    return rate


def _through(shape: type[Ramp], moments: list[float], values: list[float]) -> Schedule:
    """Ramps through `values` at `moments`; those that leave no time are left out."""
    parts: list[Schedule] = []
    edges: list[float] = []
    for i, (begin, end) in enumerate(itertools.pairwise(moments)):
        if end > begin:
            parts.append(shape(values[i], values[i + 1], end - begin))
            edges.append(begin)
    if not parts:
        return Constant(values[-1])
    if edges[0] == 0:
        return Join(parts, edges[1:]) if len(parts) > 1 else parts[0]
    return Join([Constant(values[0]), *parts], edges)


@recipe
def warmup(schedule: Schedule, steps: float | Epochs, start: float = 0.0) -> Schedule:
    """A line from `start` to where a schedule begins, then the schedule.

    Goyal et al. 2017 (arXiv:1706.02677), section 2.2. The schedule begins at its own
    step 0 after `steps` steps, so that nothing of it is lost and there is no jump.

    Args:
        schedule: Any schedule.
        steps: The length of the warm-up, > 0.
        start: The value at step 0.

    Raises:
        TypeError: If `schedule` is not a schedule, or an argument not a number.
        ValueError: If an argument is out of range.

    Example:
        >>> warmup(Constant(1.0), steps=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    as_schedule("schedule", schedule)
    first = checks.real("start", start)
    begin = float(schedule.values([0])[0])
    if not math.isfinite(begin):
        raise ValueError(
            "Argument `schedule` must be finite at its step 0, to which the warm-up "
            f"leads. Received: schedule={checks.shown(schedule)}, which is {begin} "
            "there"
        )
    rise = Linear(first, begin, steps)
    return Join((rise, schedule), (rise.steps,))


@recipe
def flat_cosine(
    max_lr: float,
    total_steps: int | Epochs,
    pct_flat: float = 0.75,
    min_lr: float = 0.0,
) -> Schedule:
    """Flat, then half a cosine down, as fastai's `fit_flat_cos`.

    f(t) = max_lr up to pct_flat·total_steps, then a cosine to `min_lr` at step
    `total_steps`.

    Args:
        max_lr: The rate of the flat part, > 0.
        total_steps: The length of the whole, in steps.
        pct_flat: The share of the steps before the descent, in [0, 1).
        min_lr: The rate at the end, in [0, max_lr].

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Example:
        >>> flat_cosine(1.0, total_steps=8, pct_flat=0.5).values(9).round(3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    high, low = _high_and_low(max_lr, min_lr)
    total = checks.whole("total_steps", total_steps, hint=EPOCHS_HINT)
    share = checks.real("pct_flat", pct_flat, at_least=0)
    if share >= 1:
        raise ValueError(
            "Argument `pct_flat` must be < 1, to leave steps for the descent. "
            f"Received: pct_flat={share!r}"
        )
    return _through(Cosine, [0.0, share * total, total], [high, high, low])


@recipe
def warmup_stable_decay(
    max_lr: float,
    warmup_steps: int | Epochs,
    stable_steps: int | Epochs,
    decay_steps: int | Epochs,
    min_lr: float = 0.0,
    decay: str = "linear",
) -> Schedule:
    """Up, level, down: a schedule that need not know its length in advance.

    Hu et al. 2024 (MiniCPM), section 4; Hägele et al. 2024, section 4: train at the
    stable rate for as long as you like, and decay when you want a model.

    Args:
        max_lr: The stable rate, > 0.
        warmup_steps: The length of the line from 0 to it, >= 0.
        stable_steps: How long it stays, >= 0.
        decay_steps: The length of the way down, >= 1.
        min_lr: The rate at the end, in [0, max_lr]; > 0 for an exponential decay.
        decay: "linear", "cosine", "exponential" or "1-sqrt".

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Example:
        >>> warmup_stable_decay(1.0, 2, 2, 4).values(9).tolist()
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    high, low = _high_and_low(max_lr, min_lr)
    rise = checks.whole("warmup_steps", warmup_steps, at_least=0, hint=EPOCHS_HINT)
    level = checks.whole("stable_steps", stable_steps, at_least=0, hint=EPOCHS_HINT)
    fall = checks.whole("decay_steps", decay_steps, hint=EPOCHS_HINT)
    shape = _DECAYS[checks.choice("decay", decay, list(_DECAYS))]
    if shape is Exponential:
        hint = "An exponential decay never reaches 0."
        checks.single("min_lr", min_lr, above=0, hint=hint)
    parts: list[Schedule] = []
    edges: list[float] = []
    if rise:
        parts.append(Linear(0.0, high, rise))
        edges.append(rise)
    if level:
        parts.append(Constant(high))
        edges.append(rise + level)
    parts.append(shape(high, low, fall))
    return Join(parts, edges) if edges else parts[0]


def _peak(max_lr: Any) -> float:
    """Check `max_lr`, which often comes from a range test."""
    hint = ""
    if max_lr is None:
        hint = "A range test that suggests no rate tells in result.reason what to try."
    return checks.single("max_lr", max_lr, above=0, hint=hint)


def _high_and_low(max_lr: float, min_lr: float) -> tuple[float, float]:
    high = _peak(max_lr)
    low = checks.real("min_lr", min_lr, at_least=0)
    checks.ordered("min_lr", low, "max_lr", high)
    return high, low
