"""What a sweep is to be: its rates, its stop and its rule, checked where it is made."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfschedules._support import checks
from tfschedules.finding.result import RangeTestResult
from tfschedules.finding.suggestions import RULES
from tfschedules.finding.sweep_notes import SweepNotes
from tfschedules.schedules import Exponential, Linear, Schedule

_SWEEPS = {"exponential": Exponential, "linear": Linear}


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """A sweep of the rate over so many updates.

    Attributes:
        schedule: The rate of each update, from step 0 on.
        steps: How many updates.
        mode: "exponential" or "linear".
        stop_factor: When the sweep stops, see `RangeTest`; `None`: at its end.
        rule: The rule of the result's suggestion.
    """

    schedule: Schedule
    steps: int
    mode: str
    stop_factor: float | None
    rule: str

    @classmethod
    def checked(
        cls,
        min_lr: float,
        max_lr: float,
        steps: int,
        mode: str,
        stop_factor: float | None,
        rule: str,
    ) -> SweepPlan:
        """Make it of a user's arguments.

        Raises:
            TypeError: If one is of another kind.
            ValueError: If one is out of range.
        """
        low = checks.single("min_lr", min_lr, above=0)
        high = checks.single("max_lr", max_lr, above=0)
        if low >= high:
            raise ValueError(
                "Argument `min_lr` must be < `max_lr`. Received: "
                f"min_lr={low!r}, max_lr={high!r}. Swap them?"
            )
        steps = checks.whole(
            "steps",
            steps,
            at_least=2,
            at_most=2**31 - 1,
            hint="They are optimizer updates.",
        )
        mode = checks.choice("mode", mode, list(_SWEEPS))
        rule = checks.choice("rule", rule, list(RULES))
        if stop_factor is not None:
            stop_factor = checks.real(
                "stop_factor", stop_factor, above=1, hint="None sweeps to the end."
            )
        schedule = _SWEEPS[mode](low, high, steps - 1)
        if not _rates_increase(schedule, steps):
            raise ValueError(
                "Arguments `min_lr` and `max_lr` must leave room for as many rates as "
                f"`steps`. Received: min_lr={low!r}, max_lr={high!r}, "
                f"steps={steps!r}"
            )
        return cls(schedule, steps, mode, stop_factor, rule)

    def notes(self) -> SweepNotes:
        """What is noted of one sweep, with nothing in it yet."""
        return SweepNotes(self.steps - 1, self.stop_factor)

    def result(self, notes: SweepNotes, **of_what: Any) -> RangeTestResult:
        """Read the suggestions off what was noted.

        Args:
            notes: Of a sweep that is over.
            **of_what: Other arguments of `RangeTestResult.from_sweep`: the metric that
                is read, the group whose rate was swept.
        """
        return RangeTestResult.from_sweep(
            self.schedule.values(np.array(notes.steps, np.int64)),
            notes.losses,
            steps=self.steps,
            stop_reason=notes.stop_reason,
            mode=self.mode,
            rule=self.rule,
            **of_what,
        )


def _rates_increase(schedule: Schedule, steps: int) -> bool:
    """Whether every rate of a sweep is greater than the one before, in float64.

    Numbers are furthest apart, for their size, just above a power of two. A line's
    neighbours are closest there at its upper end, and those of an exponential have one
    ratio: some thousand pairs tell, of as many steps as there may be.
    """
    some = np.unique(np.linspace(0, steps - 2, 2048).astype(np.int64))
    pairs = np.stack([some, np.minimum(some + 1, steps - 1)])
    before, after = schedule.values(pairs)
    return bool((before < after).all())
