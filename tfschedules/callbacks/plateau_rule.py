"""The plateau rule: when a rate is reduced, and what its schedule is then.

`plateau` is the callback.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfschedules.drive import Clock, Floor
from tfschedules.schedules import Constant, Join, Linear, Piecewise, Schedule


@dataclasses.dataclass(frozen=True)
class State:
    """What the rule remembers from one epoch to the next.

    Attributes:
        best: The best value of the metric; `None` before the first.
        waited: Epochs without an improvement.
        cooling: Epochs of the cooldown that are left.
        steps: The schedule's steps at which the rate was reduced, increasing.
        factors: What the schedule is multiplied by from each of `steps` on.
        own: The optimizer's own rate, where nothing else drives it.
    """

    best: float | None = None
    waited: int = 0
    cooling: int = 0
    steps: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    own: float | None = None

    @property
    def factor(self) -> float:
        """What the schedule is multiplied by now."""
        return self.factors[-1] if self.factors else 1.0

    def reduced(self, step: int, factor: float) -> State:
        """The state in which the schedule is multiplied by `factor` from `step` on."""
        before = [pair for pair in self.pairs if pair[0] < step]
        steps, factors = zip(*before, (step, factor), strict=True)
        return dataclasses.replace(self, steps=steps, factors=factors)

    def moved_before(self, step: int) -> State:
        """The state where the schedule goes on at `step`, with nothing left to come.

        The schedule may have another position than before: of `start_step`, or of an
        optimizer that is new.
        """
        if not self.steps or self.steps[-1] <= step:
            return self
        return self.reduced(step, self.factor)

    @property
    def pairs(self) -> list[tuple[int, float]]:
        """The steps and the factors."""
        return list(zip(self.steps, self.factors, strict=True))

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> State:
        """A state from what JSON has of it.

        Raises:
            KeyError, TypeError, ValueError: If it is none.
        """
        best, own = (
            None if plain[name] is None else float(plain[name])
            for name in ("best", "own")
        )
        steps = tuple(int(step) for step in plain["steps"])
        factors = tuple(float(factor) for factor in plain["factors"])
        if len(steps) != len(factors):
            raise ValueError("there are more steps than factors, or fewer")
        counts = int(plain["waited"]), int(plain["cooling"])
        return cls(best, *counts, steps, factors, own)


@dataclasses.dataclass(frozen=True)
class Rule:
    """When the rate is reduced, and how far.

    Attributes:
        factor: What the rate is multiplied by.
        patience: After so many epochs without an improvement.
        threshold: What an improvement has to be more than.
        relative: Whether `threshold` is a share of the best value's size.
        cooldown: Epochs after a reduction that are not counted.
        min_lr: A reduction does not take the rate below it; by group, for groups of
            layers, where those that are left out have none.
        warmup_steps: Steps in which the rate climbs from 0 after a reduction.
    """

    factor: float
    patience: int
    threshold: float
    relative: bool
    cooldown: int
    min_lr: float | Mapping[str, float]
    warmup_steps: int

    def is_better(self, value: float, best: float | None, grows: bool) -> bool:
        """Whether a value of the metric is an improvement."""
        if math.isnan(value) or best is None:
            return not math.isnan(value)
        least = self.threshold * (abs(best) if self.relative else 1.0)
        return value - least > best if grows else value + least < best

    def after_epoch(
        self,
        state: State,
        value: float,
        grows: bool,
        schedule: Schedule,
        step: int,
        multiples: Mapping[str, np.ndarray],
    ) -> State:
        """The state after an epoch, as Keras's `ReduceLROnPlateau` goes about it.

        Args:
            state: The state before.
            value: The metric.
            grows: Whether the metric grows where training goes well.
            schedule: The schedule that is multiplied.
            step: The schedule's step in the next update.
            multiples: Of groups of layers: what the rate is multiplied by for each, in
                the last update and in the next.
        """
        cooling, waited = max(state.cooling - 1, 0), state.waited
        if state.cooling:
            waited = 0
        best = state.best
        if self.is_better(value, best, grows):
            best, waited = value, 0
        elif not cooling:
            waited += 1
        state = dataclasses.replace(state, best=best, waited=waited, cooling=cooling)
        if waited < max(self.patience, 1):
            return state
        if self._is_low(state, schedule, step, multiples):
            return state
        state = state.reduced(step, state.factor * self.factor)
        return dataclasses.replace(state, waited=0, cooling=self.cooldown)

    def _is_low(
        self,
        state: State,
        schedule: Schedule,
        step: int,
        multiples: Mapping[str, np.ndarray],
    ) -> bool:
        """Whether there is nothing to take off: the rate, without a warm-up's share."""
        if self.min_lr == 0:
            return False
        height = dataclasses.replace(self, warmup_steps=0).applied(schedule, state)
        rates = height.values([max(step - 1, 0), step])
        if isinstance(self.min_lr, Mapping):
            return state.factor * self.factor < _LEAST_FACTOR or all(
                bool((rates * times <= self.min_lr.get(name, 0.0) * (1 + 1e-6)).all())
                for name, times in multiples.items()
            )
        return bool((rates <= self.min_lr * (1 + 1e-6)).all())

    def floors(
        self, schedule: Schedule, state: State, clock: Clock
    ) -> dict[str, Floor]:
        """What holds up the rate of groups of layers, by name."""
        if not isinstance(self.min_lr, Mapping) or not state.steps:
            return {}
        factor = Piecewise(state.steps, [1.0, *state.factors])
        return {
            name: Floor(least, factor, schedule * factor, clock)
            for name, least in self.min_lr.items()
            if least > 0
        }

    def applied(self, schedule: Schedule, state: State) -> Schedule:
        """What is left of a schedule: W(t) max(F(t) s(t), min(s(t), min_lr)).

        F is the factor at each step, and W the warm-up, from 0 to 1.
        """
        if not state.steps:
            return schedule
        reduced = schedule * Piecewise(state.steps, [1.0, *state.factors])
        if not isinstance(self.min_lr, Mapping) and self.min_lr > 0:
            floor = schedule.clip(0.0, self.min_lr)
            reduced = (reduced - floor).clip(0.0, _HIGHEST) + floor
        if self.warmup_steps:
            climbs = [Linear(0.0, 1.0, self.warmup_steps)] * len(state.steps)
            reduced = reduced * Join([Constant(1.0), *climbs], state.steps)
        return reduced


_HIGHEST = 1e38  # of a rate, in float32
_LEAST_FACTOR = 1e-30  # of the optimizer's rate, which groups are held above
