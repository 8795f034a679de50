"""Noise on a rate, as a function of the step."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import Any

import numpy as np

from tfschedules._support import checks
from tfschedules.schedules import units
from tfschedules.schedules.base import Schedule, register, set_checked
from tfschedules.schedules.steps import Count, Time
from tfschedules.schedules.units import FitLength

# Twice its square, and some more, is an int32, which is all that JAX has.
_PRIME = 32_749
_ROUNDS = 3
_DIGITS = 4
_PIECES = 256  # of the distribution's inverse, each a line
_DISTRIBUTIONS = ["uniform", "normal"]


@register
@dataclasses.dataclass(frozen=True)
class Noise(Schedule):
    """A factor at random, around 1: f(t) = 1 + n, with an n of its own every `steps`.

    It is no random number but a function of the seed and the step: the same in the
    graph and in `values`, on every backend, in every fit and after every resumption.
    Multiply a schedule by it. timm calls it `noise_range_t`, `noise_pct`.

    Args:
        amount: The greatest |n|, > 0 and < 1.
        steps: For how many steps n stays the same, >= 1; or `tfs.epochs(…)`.
        seed: Which noise; a whole number >= 0.
        distribution: "uniform" between -amount and amount; or "normal", of mean 0 and
            standard deviation 1 but none beyond `amount`, as timm's by default.

    Example:
        >>> noise = Noise(0.5, steps=2, seed=1)
        >>> noise.values(6).round(4).tolist()
        [0.5, 0.5, 0.9045, 0.9045, 0.6622, 0.6622]
        >>> noisy = Linear(1.0, 0.0, 100) * Noise(0.1)
    """

    amount: float
    steps: float | FitLength = 1
    seed: int = 0
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        amount = checks.single("amount", self.amount, above=0)
        if amount >= 1:
            raise ValueError(
                "Argument `amount` must be < 1, for the factor to stay above 0. "
                f"Received: amount={checks.shown(self.amount)}"
            )
        set_checked(
            self,
            amount=amount,
            steps=units.length("steps", self.steps, at_least=1),
            seed=checks.whole("seed", self.seed, at_least=0, at_most=2**64 - 1),
            distribution=checks.choice(
                "distribution", self.distribution, _DISTRIBUTIONS
            ),
        )

    def equation(self, time: Time) -> Any:
        steps: Any = self.steps
        first, second = _mixed(time.cycle_index(steps), self.seed, time)
        # (first + second/prime)/prime is the share of the numbers below it: the first
        # says which piece of the inverse it is in, and both how far.
        prime, pieces = time.integer(_PRIME), time.integer(_PIECES)
        more = time.ops.floor_divide(second * pieces, prime)
        whole = first * pieces + more
        piece = time.ops.floor_divide(whole, prime)
        rest = time.as_float(whole - piece * prime)
        part = time.as_float(second * pieces - more * prime) / _PRIME
        within = (rest + part) / _PRIME
        edges = _inverse(self.amount, self.distribution)
        low = time.looked_up(time.constants(edges[:-1]), piece)
        width = time.looked_up(time.constants(np.diff(edges)), piece)
        return low + width * within

    @property
    def greatest(self) -> float | None:
        return 1.0 + self.amount


def _mixed(count: Count, seed: int, time: Time) -> tuple[Any, Any]:
    """Two remainders in which every digit of a number has a say, and the seed."""
    ops, prime = time.ops, time.integer(_PRIME)
    first, second, third, fourth = _digits(count, time)
    for i, (key, other) in enumerate(_keys(seed)):  # a Feistel network
        if i == 1:
            first, second = first + third, second + fourth
            first = ops.mod(first, prime)
        second = ops.mod(second + first * (first + time.integer(key)), prime)
        first = ops.mod(first + second * (second + time.integer(other)), prime)
    return first, second


def _digits(count: Count, time: Time) -> list[Any]:
    """The last digits of a number, up to 10^18.

    It may be greater than the backend's integers: it is multiplied and added digit by
    digit.
    """
    ops, prime = time.ops, time.integer(_PRIME)
    few, before, many, times = count
    digits, factors, some = [], [], []
    carried = time.integer(0)
    for _ in range(_DIGITS):
        total = carried + ops.mod(few, prime) + time.integer(before % _PRIME)
        carried = time.integer(0)
        few, before = ops.floor_divide(few, prime), before // _PRIME
        if count.times:
            some.append(ops.mod(many, prime))
            factors.append(times % _PRIME)
            many, times = ops.floor_divide(many, prime), times // _PRIME
        for digit, factor in zip(some, reversed(factors), strict=True):
            product = digit * time.integer(factor)
            total = total + ops.mod(product, prime)
            carried = carried + ops.floor_divide(product, prime)
        digits.append(ops.mod(total, prime))
        carried = carried + ops.floor_divide(total, prime)
    return digits


@functools.lru_cache(maxsize=64)
def _keys(seed: int) -> list[tuple[int, int]]:
    state = np.random.SeedSequence(seed).generate_state(2 * _ROUNDS)
    keys = [int(word) % _PRIME for word in state]
    return list(zip(keys[::2], keys[1::2], strict=True))


@functools.lru_cache(maxsize=64)
def _inverse(amount: float, distribution: str) -> np.ndarray:
    """The factors that so many of `_PIECES` shares of all numbers are below."""
    shares = np.linspace(0.0, 1.0, _PIECES + 1)
    if distribution == "uniform":
        return 1.0 - amount + 2 * amount * shares
    normal = statistics.NormalDist()
    low, high = normal.cdf(-amount), normal.cdf(amount)
    inside = [normal.inv_cdf(low + (high - low) * share) for share in shares]
    return 1.0 + np.clip(inside, -amount, amount)
