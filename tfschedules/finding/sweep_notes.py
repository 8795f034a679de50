"""What is noted of a sweep while it runs, and when it is to stop."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from tfschedules.drive import Steps
from tfschedules.finding.divergence import diverged

# Updates that a loss scale may skip in a row: it is halved each time, from 2**15.
_SKIPS = 40
RUNNING = "out of data"  # the reason to stop, as long as there is no other


class _Row(NamedTuple):
    step: int
    loss: float
    metric: float
    time: float


class SweepNotes:
    """The steps of a sweep, as long as there is no reason to stop.

    Attributes:
        looks: Values of validation data, by step.
        stop_reason: Why the sweep ends, or `RUNNING`.
        grows: Whether what stands for the losses grows where training goes well.
    """

    def __init__(self, last: int, stop_factor: float | None) -> None:
        """Begin a sweep whose last step is `last`; see `RangeTest` for the factor."""
        self._last, self._stop_factor = last, stop_factor
        self._rows: list[_Row] = []  # Ctrl-C leaves whole ones
        self.looks: dict[int, float] = {}
        self.stop_reason = RUNNING
        self.grows = False
        self._skips = 0  # updates in a row that a loss scale has skipped

    @property
    def steps(self) -> list[int]:
        """Of the sweep, as many as losses."""
        return [row.step for row in self._rows]

    @property
    def losses(self) -> list[float]:
        """Each step's loss."""
        return [row.loss for row in self._rows]

    @property
    def metrics(self) -> list[float]:
        """The metric of each step's batch."""
        return [row.metric for row in self._rows]

    @property
    def times(self) -> list[float]:
        """When each step was noted, in seconds since the epoch."""
        return [row.time for row in self._rows]

    def take(self, done: Steps, start: int) -> None:
        """Note the updates that have been made.

        Args:
            done: The updates since the last time.
            start: The optimizer's count at step 0.
        """
        # Not always one after the other: where data of unknown length end, TensorFlow
        # counts an update that is not made.
        for step, loss, metric in zip(
            done.steps - start, done.losses, done.others, strict=True
        ):
            self.note(int(step), float(loss), float(metric))
        # Without an update the sweep does not go on, and with lost weights no update
        # comes any more: the loss that a loss scale has skipped ends it, too.
        self._skips = 0 if len(done.losses) else self._skips + len(done.skipped)
        lost = done.skipped[~np.isfinite(done.skipped)]
        if self._skips > _SKIPS:  # losses are finite and gradients are not
            lost = np.array([np.nan])
        for loss in lost[:1]:
            self.note(self._rows[-1].step + 1 if self._rows else 0, float(loss))

    def note(self, step: int, loss: float, metric: float = np.nan) -> None:
        """Note one update, unless there was reason to stop before it.

        Args:
            step: Of the sweep.
            loss: Its batch's own.
            metric: What else its batch has, if it is asked for.
        """
        if self.stop_reason != RUNNING:
            return
        self._rows.append(_Row(step, loss, metric, time.time()))
        self.stop_reason = self._reason_to_stop()

    def _reason_to_stop(self) -> str:
        last = self._rows[-1]
        if not np.isfinite(last.loss):
            return "non-finite loss"
        if self._stop_factor is not None:
            losses = [-loss for loss in self.losses] if self.grows else self.losses
            if diverged(losses, self._stop_factor):
                return "diverged"
        if last.step >= self._last:
            return "finished"
        return RUNNING
