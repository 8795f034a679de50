"""The three schedules that have a callback of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tfschedules._support import checks
from tfschedules.callbacks.position import epochs_of
from tfschedules.callbacks.scheduler import HyperparameterScheduler
from tfschedules.drive import hyperparameters_of
from tfschedules.schedules import (
    FitLength,
    Schedule,
    cyclical,
    epochs,
    low_and_high_momentum,
    one_cycle,
    warm_restarts,
)


class CyclicalLearningRate(HyperparameterScheduler):
    """A rate that climbs and falls again and again (Smith 2015): see `tfs.cyclical`.

    Args:
        base_lr: The rate at the bottom.
        max_lr: The rate at the top.
        step_size: Half a cycle, in steps or `tfs.epochs(…)`.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: The factor of a step, for "exp_range".
        scale_fn: Your own scale, a function of the cycle or of the step.
        scale_mode: "cycle" or "iterations": what `scale_fn` is given.
        window: "triangular", "welch" or "hann": the shape of a cycle.
        step_size_down: The way down, if it is not as long as the way up.
        cycle_momentum: Whether momentum (`beta_1` in Adam and its kin) goes against the
            rate, from `max_momentum` to `base_momentum` and back, in the same mode.
        base_momentum: Momentum at the peak of the rate, in [0, 1).
        max_momentum: Momentum at the bottom, in [base_momentum, 1).
        start_step: See `HyperparameterScheduler`.
        optimizer: Which of the model's optimizers: see `HyperparameterScheduler`.

    Example:
        >>> import tfschedules as tfs
        >>> callback = tfs.CyclicalLearningRate(1e-3, 6e-3, step_size=2000)
        >>> # model.fit(x, y, callbacks=[callback])
    """

    def __init__(
        self,
        base_lr: float,
        max_lr: float,
        step_size: int | FitLength,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[Any], Any] | None = None,
        scale_mode: str = "cycle",
        window: str = "triangular",
        step_size_down: int | FitLength | None = None,
        cycle_momentum: bool = False,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        *,
        start_step: int | None = None,
        optimizer: Any = None,
    ) -> None:
        """Make the schedules, which check the arguments."""
        cycle = functools.partial(
            cyclical,
            step_size=step_size,
            mode=mode,
            gamma=gamma,
            scale_fn=scale_fn,
            scale_mode=scale_mode,
            window=window,
            step_size_down=step_size_down,
        )
        schedules = {"learning_rate": cycle(base_lr, max_lr)}
        low, high = low_and_high_momentum(base_momentum, max_momentum)
        if checks.flag("cycle_momentum", cycle_momentum):
            schedules["momentum"] = cycle(0.0, 1.0) * (low - high) + high
        super().__init__(start_step=start_step, optimizer=optimizer, **schedules)


class WarmRestarts(HyperparameterScheduler):
    """A cosine that restarts (Loshchilov & Hutter 2016): see `tfs.warm_restarts`.

    Args:
        max_lr: The rate at the first restart.
        first_cycle: The length of the first cycle, in steps or `tfs.epochs(…)`.
        min_lr: The rate at the end of each cycle.
        cycle_mult: How much longer each cycle is than the one before.
        peak_decay: What the height is multiplied by at each restart.
        start_step: See `HyperparameterScheduler`.
        optimizer: Which of the model's optimizers: see `HyperparameterScheduler`.

    Example:
        >>> import tfschedules as tfs
        >>> callback = tfs.WarmRestarts(0.05, first_cycle=1000, cycle_mult=2)
        >>> # model.fit(x, y, callbacks=[callback])
    """

    def __init__(
        self,
        max_lr: float,
        first_cycle: float | FitLength,
        min_lr: float = 0.0,
        cycle_mult: float = 1,
        peak_decay: float = 1.0,
        *,
        start_step: int | None = None,
        optimizer: Any = None,
    ) -> None:
        """Make the schedule, which checks the arguments."""
        schedule = warm_restarts(max_lr, first_cycle, min_lr, cycle_mult, peak_decay)
        super().__init__(schedule, start_step=start_step, optimizer=optimizer)


class OneCycle(HyperparameterScheduler):
    """One cycle of the rate, and of momentum against it: see `tfs.one_cycle`.

    Momentum (`beta_1` in Adam and its kin) is cycled where the optimizer has one; where
    it has none the rate is driven alone.

    Args:
        max_lr: The peak.
        total_steps: The length of the cycle, in steps or `tfs.epochs(…)`; by default
            that of the fit, which needs data of known length.
        pct_start: The share of the steps spent going up.
        div_factor: The first rate is max_lr/div_factor.
        final_div_factor: The last rate is the first one divided by this.
        three_phase: Whether to come down symmetrically before a last phase.
        anneal: "cosine" or "linear".
        base_momentum: Momentum at the peak of the rate.
        max_momentum: Momentum at the ends.
        start_step: See `HyperparameterScheduler`.
        optimizer: Which of the model's optimizers: see `HyperparameterScheduler`.

    Example:
        >>> import tfschedules as tfs
        >>> callback = tfs.OneCycle(max_lr=0.1)
        >>> # model.fit(x, y, epochs=10, callbacks=[callback])
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int | FitLength | None = None,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        anneal: str = "cosine",
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        *,
        start_step: int | None = None,
        optimizer: Any = None,
    ) -> None:
        """Check the arguments; a default length is found when `fit` begins."""
        self._total_steps = total_steps
        self._arguments = {
            "max_lr": max_lr,
            "pct_start": pct_start,
            "div_factor": div_factor,
            "final_div_factor": final_div_factor,
            "three_phase": three_phase,
            "anneal": anneal,
            "base_momentum": base_momentum,
            "max_momentum": max_momentum,
        }
        known = 1 if total_steps is None else total_steps
        schedules = one_cycle(total_steps=known, **self._arguments)  # type: ignore[arg-type]
        super().__init__(
            start_step=start_step,
            optimizer=optimizer,
            **({} if total_steps is None else schedules),
        )

    @property
    def driven_names(self) -> list[str]:
        """The rate, and momentum where there is one, also before the fit is known."""
        return ["learning_rate", "momentum"]

    def schedules_for_fit(self) -> dict[str, Schedule]:
        """The cycle over the fit's length, with momentum where there is one."""
        schedules = self._schedules
        if self._total_steps is None:
            count = epochs_of(self)
            if count is None:
                raise ValueError(
                    "OneCycle has the length of its fit, and this loop does not tell "
                    "it. Give OneCycle(max_lr, total_steps=…), or "
                    "keras.callbacks.CallbackList(callbacks, model=model, epochs=…, "
                    "steps=…), with the steps in an epoch."
                )
            # A fit of no epochs makes no step, and any length will do.
            total = epochs(count) if count > 0 else 1
            schedules = one_cycle(total_steps=total, **self._arguments)  # type: ignore[arg-type]
        drivable = hyperparameters_of(self.chosen.optimizer)
        if "momentum" not in drivable and "beta_1" not in drivable:
            return {"learning_rate": schedules["learning_rate"]}
        return schedules
