"""Papers as compositions of schedules.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186);
Loshchilov & Hutter, SGDR, 2016 (arXiv:1608.03983); Smith, A Disciplined Approach to
Neural Network Hyper-Parameters, 2018 (arXiv:1803.09820). Each recipe is a function that
returns a composition; none is a class.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tfschedules import checks
from tfschedules.schedules import (
    Constant,
    Cosine,
    Join,
    Linear,
    PerCycle,
    Ramp,
    Repeat,
    ScaleFunction,
    Schedule,
)

_ANNEALS: dict[str, type[Ramp]] = {"cosine": Cosine, "linear": Linear}


def cyclical(
    base_lr: float,
    max_lr: float,
    step_size: int,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
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

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range, a mode is unknown, or both a `scale_fn` and
            a `mode` that scales are given.

    Example:
        >>> cyclical(0.1, 0.5, step_size=2).values(5).round(6).tolist()
        [0.1, 0.3, 0.5, 0.3, 0.1]
    """
    low = checks.real("base_lr", base_lr, at_least=0)
    high = checks.real("max_lr", max_lr, above=0)
    checks.ordered("base_lr", low, "max_lr", high)
    half = checks.whole("step_size", step_size)
    checks.choice("mode", mode, ["triangular", "triangular2", "exp_range"])
    checks.choice("scale_mode", scale_mode, ["cycle", "iterations"])
    checks.real("gamma", gamma, above=0)
    if scale_fn is not None and mode != "triangular":
        raise ValueError(
            "Arguments `mode` and `scale_fn` both scale the cycles: give one of them. "
            f"Received: mode={mode!r}, scale_fn={scale_fn!r}"
        )

    def triangle(bottom: float, top: float) -> Schedule:
        rise, fall = Linear(bottom, top, half), Linear(top, bottom, half)
        return Repeat(Join((rise, fall), (half,)), 2 * half)

    if scale_fn is not None:
        steps = 2 * half if scale_mode == "cycle" else None
        return triangle(0.0, high - low) * ScaleFunction(scale_fn, steps) + low
    if mode == "triangular2":
        return triangle(0.0, high - low) * PerCycle(0.5, 2 * half) + low
    if mode == "exp_range":
        return triangle(0.0, high - low) * PerCycle(gamma, 1) + low
    return triangle(low, high)


def warm_restarts(
    max_lr: float,
    first_cycle: int,
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
        first_cycle: The length of the first cycle, in steps.
        min_lr: The rate at the end of each cycle, >= 0.
        cycle_mult: How much longer each cycle is than the one before, >= 1. It may be
            fractional: boundaries are real numbers then, and not rounded.
        peak_decay: What the height above `min_lr` is multiplied by at each restart, in
            (0, 1], as `m_mul` in Keras's `CosineDecayRestarts`.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Example:
        >>> warm_restarts(1.0, first_cycle=2).values(5).round(6).tolist()
        [1.0, 0.5, 1.0, 0.5, 1.0]
    """
    high = checks.real("max_lr", max_lr, above=0)
    low = checks.real("min_lr", min_lr, at_least=0)
    checks.ordered("min_lr", low, "max_lr", high)
    steps = checks.whole("first_cycle", first_cycle)
    growth = checks.real("cycle_mult", cycle_mult, at_least=1)
    decay = checks.real("peak_decay", peak_decay, above=0, at_most=1)
    if decay == 1:
        return Repeat(Cosine(high, low, steps), steps, growth)
    cycles = Repeat(Cosine(high - low, 0.0, steps), steps, growth)
    return cycles * PerCycle(decay, steps, growth) + low


def one_cycle(
    max_lr: float,
    total_steps: int,
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
    peak = checks.real("max_lr", max_lr, above=0)
    total = checks.whole("total_steps", total_steps)
    pct = checks.real("pct_start", pct_start, at_least=0, at_most=1)
    first = peak / checks.real("div_factor", div_factor, above=0)
    last = first / checks.real("final_div_factor", final_div_factor, above=0)
    if not isinstance(three_phase, bool):
        raise TypeError(
            "Argument `three_phase` must be True or False. "
            f"Received: three_phase={three_phase!r}"
        )
    if three_phase and pct > 0.5:
        raise ValueError(
            "Argument `pct_start` must be <= 0.5 with `three_phase`, whose way down "
            f"is as long as its way up. Received: pct_start={pct_start!r}"
        )
    shape = _ANNEALS[checks.choice("anneal", anneal, sorted(_ANNEALS))]
    low = checks.real("base_momentum", base_momentum, at_least=0)
    high = checks.real("max_momentum", max_momentum, at_least=0)
    checks.ordered("base_momentum", low, "max_momentum", high)
    if high >= 1:
        raise ValueError(
            f"Argument `max_momentum` must be < 1. Received: {max_momentum!r}"
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
