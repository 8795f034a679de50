"""Checks of the rates that recipes are given."""

from __future__ import annotations

from typing import Any

from tfschedules._support import checks


def peak(name: str, rate: Any) -> float:
    """Check a peak, which often comes from a range test."""
    hint = ""
    if rate is None:
        hint = "A range test that suggests no rate tells in result.reason what to try."
    return checks.single(name, rate, above=0, hint=hint)


def high_and_low(max_lr: float, min_lr: float) -> tuple[float, float]:
    """Check a peak and the rate at the end, which is no higher."""
    high = peak("max_lr", max_lr)
    low = checks.real("min_lr", min_lr, at_least=0)
    checks.ordered("min_lr", low, "max_lr", high)
    return high, low


def low_and_high_momentum(
    base_momentum: float, max_momentum: float
) -> tuple[float, float]:
    """Check the momentum at the peak of the rate and that at the ends."""
    low = checks.real("base_momentum", base_momentum, at_least=0)
    high = checks.real("max_momentum", max_momentum, at_least=0)
    checks.ordered("base_momentum", low, "max_momentum", high)
    if high >= 1:
        raise ValueError(
            f"Argument `max_momentum` must be < 1. Received: max_momentum={high!r}"
        )
    return low, high
