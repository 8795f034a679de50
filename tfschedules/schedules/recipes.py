"""Papers as compositions of schedules, of trainings that end.

Smith, A Disciplined Approach to Neural Network Hyper-Parameters, 2018
(arXiv:1803.09820); Hu et al., MiniCPM, 2024 (arXiv:2404.06395) and Hägele et al. 2024
(arXiv:2405.18392); Izmailov et al., Averaging Weights, 2018 (arXiv:1803.05407). Each
recipe is a function that returns a composition; none is a class. Every length is in
steps or `tfs.epochs(…)`. Those that go on and on are in `restarts`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from tfschedules._support import checks
from tfschedules.schedules.base import Constant, Schedule, as_schedule
from tfschedules.schedules.combine import Join
from tfschedules.schedules.rates import high_and_low, low_and_high_momentum, peak
from tfschedules.schedules.shapes import Cosine, Exponential, Linear, Ramp, SquareRoot
from tfschedules.schedules.units import EPOCHS_HINT, FitLength
from tfschedules.schedules.waiting import recipe

_ANNEALS: dict[str, type[Ramp]] = {"cosine": Cosine, "linear": Linear}
_DECAYS: dict[str, type[Ramp]] = {
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "1-sqrt": SquareRoot,
}


@recipe
def one_cycle(
    max_lr: float,
    total_steps: int | FitLength,
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
    top = peak("max_lr", max_lr)
    total = checks.whole("total_steps", total_steps, hint=EPOCHS_HINT)
    pct = checks.real("pct_start", pct_start, at_least=0, at_most=1)
    first = _divided(top, "max_lr", "div_factor", div_factor)
    last = _divided(first, "max_lr/div_factor", "final_div_factor", final_div_factor)
    three_phase = checks.flag("three_phase", three_phase)
    if three_phase and pct > 0.5:
        raise ValueError(
            "Argument `pct_start` must be <= 0.5 with `three_phase`, whose way down "
            f"is as long as its way up. Received: pct_start={pct!r}"
        )
    shape = _ANNEALS[checks.choice("anneal", anneal, sorted(_ANNEALS))]
    low, high = low_and_high_momentum(base_momentum, max_momentum)

    moments = [0.0, pct * total - 1, total - 1]
    rates, momenta = [first, top, last], [high, low, high]
    if three_phase:
        moments = [0.0, pct * total - 1, 2 * pct * total - 2, total - 1]
        rates, momenta = [first, top, first, last], [high, low, high, high]
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
def warmup(
    schedule: Schedule,
    steps: float | FitLength,
    start: float = 0.0,
    overlap: bool = False,
) -> Schedule:
    """A line from `start` to where a schedule begins, then the schedule.

    Goyal et al. 2017 (arXiv:1706.02677), section 2.2. The schedule begins at its own
    step 0 after `steps` steps, so that nothing of it is lost and there is no jump.

    Args:
        schedule: Any schedule.
        steps: The length of the warm-up, > 0.
        start: The value at step 0.
        overlap: Whether the schedule begins with the warm-up, which then hides its
            first `steps` steps: after the line to its first value it goes on where it
            is by then. So do timm's schedulers by default.

    Raises:
        TypeError: If `schedule` is not a schedule, or an argument not a number.
        ValueError: If an argument is out of range.

    Example:
        >>> warmup(Constant(1.0), steps=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
        >>> down = Linear(1.0, 0.0, steps=5)
        >>> warmup(down, steps=2, overlap=True).values(6).round(6).tolist()
        [0.0, 0.5, 0.6, 0.4, 0.2, 0.0]
    """
    as_schedule("schedule", schedule)
    overlap = checks.flag("overlap", overlap)
    first = checks.real("start", start)
    begin = _value_at(0, schedule, "its step 0, to which the warm-up leads")
    rise = Linear(first, begin, steps)
    length: Any = rise.steps
    # What begins before step 0 of a Join is as old as it is.
    then = Join((rise, schedule), (-length,)) if overlap else schedule
    return Join((rise, then), (length,))


def _value_at(step: int, schedule: Schedule, when: str) -> float:
    """The value of a schedule at a step, if it is finite."""
    value = float(schedule.values([step])[0])
    if not math.isfinite(value):
        raise ValueError(
            f"Argument `schedule` must be finite at {when}. Received: "
            f"schedule={checks.shown(schedule)}, which is {value} there"
        )
    return value


@recipe
def flat_cosine(
    max_lr: float,
    total_steps: int | FitLength,
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
    high, low = high_and_low(max_lr, min_lr)
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
    warmup_steps: int | FitLength,
    stable_steps: int | FitLength,
    decay_steps: int | FitLength,
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
    high, low = high_and_low(max_lr, min_lr)
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


@recipe
def swa(
    schedule: Schedule,
    swa_start: int | FitLength,
    swa_lr: float,
    anneal_steps: int | FitLength,
    anneal: str = "cosine",
) -> Schedule:
    """A schedule, then from wherever it is down, or up, to a rate that stays.

    Izmailov et al. 2018 (arXiv:1803.05407), section 3.1, average the weights of steps
    with a constant rate. Keras does that with `use_ema=True` of the optimizer. As
    torch's `SWALR`.

    Args:
        schedule: The schedule of the steps before.
        swa_start: When it is left, in steps, >= 1.
        swa_lr: The rate that stays, >= 0.
        anneal_steps: How long the way to it is, >= 1.
        anneal: "cosine" or "linear".

    Raises:
        TypeError: If `schedule` is not a schedule, or an argument not a number.
        ValueError: If an argument is out of range.

    Example:
        >>> swa(Linear(1.0, 0.0, 10), 6, swa_lr=0.2, anneal_steps=2).values(
        ...     [0, 5, 6, 7, 8, 9]
        ... ).round(6).tolist()
        [1.0, 0.5, 0.4, 0.3, 0.2, 0.2]
    """
    as_schedule("schedule", schedule)
    start = checks.whole("swa_start", swa_start, hint=EPOCHS_HINT)
    rate = checks.single("swa_lr", swa_lr, at_least=0)
    length = checks.whole("anneal_steps", anneal_steps, hint=EPOCHS_HINT)
    shape = _ANNEALS[checks.choice("anneal", anneal, sorted(_ANNEALS))]
    at = _value_at(start, schedule, f"step {start}, at which it is left")
    way = shape(at, rate, length)
    return Join((schedule, way, Constant(rate)), (start, start + length))
