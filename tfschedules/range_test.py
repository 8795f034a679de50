"""The learning-rate range test: sweep the rate, stop at divergence, put all back.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186),
section 3.3. The sweep is a schedule that drives the optimizer, so each loss belongs to
its rate exactly; losses are the batches' own and not Keras's running mean.
"""

from __future__ import annotations

import os
import time
import warnings
from typing import Any

import keras
import numpy as np

from tfschedules import checks
from tfschedules.drive import (
    Drive,
    Loan,
    Snapshot,
    StepReader,
    updates,
)
from tfschedules.position import updates_in
from tfschedules.records import RangeTestResult
from tfschedules.reports import new_range_test_run, write_range_test
from tfschedules.schedules import Exponential, Linear, Schedule
from tfschedules.suggestions import RULES

_SWEEPS = {"exponential": Exponential, "linear": Linear}


class RangeTest(keras.callbacks.Callback):
    """Sweeps the learning rate over one fit, and puts the model back afterwards.

    The rate goes from `min_lr` at step 0 to `max_lr` at step `steps` - 1. The fit ends
    when the sweep does, or when the loss diverges or is not finite; then weights,
    optimizer, metrics and random generators are what they were, and `.result` holds the
    curve. If `fit` raises, call `restore()`; or use `find_learning_rate`, which does.
    Put the test last among the callbacks: one that writes weights when the fit ends, as
    `EarlyStopping(restore_best_weights=True)`, would write them after it.

    Args:
        min_lr: The first rate, > 0.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in optimizer updates, >= 2.
        mode: "exponential", or "linear" as in Smith's paper.
        stop_factor: The sweep stops where the loss (the median of three) is greater
            than this times the least so far; for losses that may be negative, that many
            falls above it. > 1, or `None` to sweep to the end.
        rule: The rule of `.result.suggestion`: "descent", "steepest", "valley" or
            "minimum".
        log_dir: Where to write a TensorBoard run `range_test`; not written if `None`.

    Attributes:
        result: A `RangeTestResult` after the fit, or `None`.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range; when `fit` begins, if the data are empty or
            the optimizer's rate is a schedule already.

    Example:
        >>> import tfschedules as tfs
        >>> test = tfs.RangeTest(min_lr=1e-6, max_lr=1.0, steps=200)
        >>> # model.fit(x, y, epochs=5, callbacks=[test]); print(test.result)
    """

    def __init__(
        self,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        steps: int = 100,
        mode: str = "exponential",
        stop_factor: float | None = 4.0,
        *,
        rule: str = "descent",
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the arguments and make the sweep."""
        super().__init__()
        low = checks.real("min_lr", min_lr, above=0)
        high = checks.real("max_lr", max_lr, above=0)
        if low >= high:
            raise ValueError(
                "Argument `min_lr` must be < `max_lr`. Received: "
                f"min_lr={min_lr!r}, max_lr={max_lr!r}. Swap them?"
            )
        self.steps = checks.whole("steps", steps, at_least=2)
        self.mode = checks.choice("mode", mode, list(_SWEEPS))
        self.rule = checks.choice("rule", rule, list(RULES))
        if stop_factor is not None:
            stop_factor = checks.real(
                "stop_factor", stop_factor, above=1, hint="None sweeps to the end."
            )
        self.stop_factor = stop_factor
        self.schedule: Schedule = _SWEEPS[mode](low, high, self.steps - 1)
        if (np.diff(self.schedule.values(self.steps)) <= 0).any():
            raise ValueError(
                "Arguments `min_lr` and `max_lr` must leave room for as many rates as "
                f"`steps`. Received: min_lr={min_lr!r}, max_lr={max_lr!r}, "
                f"steps={steps!r}"
            )
        self.result: RangeTestResult | None = None
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        self._run_dirs: dict[str, str] = {}
        self.keep_snapshot = False  # after the fit, until `restore` is called
        self._snapshot: Snapshot | None = None
        self._loan: Loan | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Copy the state and take the rate over."""
        self.restore()
        length = updates_in(self, self.params["epochs"])
        if length == 0:
            raise ValueError(
                "A range test needs data to sweep over. Received: an empty data set "
                f"(epochs={self.params['epochs']}, steps={self.params['steps']})."
            )
        if not self.model.built:
            raise ValueError(
                "A range test puts weights back, and this model has none before its "
                "first step. Give it an Input layer or call model.build(shape); "
                "find_learning_rate does it for you."
            )
        self.result, self._stop_reason = None, "out of data"
        self._losses: list[float] = []
        self._times: list[float] = []
        self._run_dirs = {}
        if self._log_dir is not None:
            self.also_log_to(self._log_dir)
        self._loan = Loan(self.model, borrower=self)
        with self._loan.closed_on_error():
            sweep = {"learning_rate": self.schedule}
            (self._drive,) = Drive.attach(self.model, self._loan, sweep)
            snapshot = Snapshot(self.model)
            self._reader = StepReader(self.model, self._loan)
        self._snapshot = snapshot
        if length is not None and length < self.steps:
            per_epoch = max(1, updates_in(self, 1) or 1)
            warnings.warn(
                f"The range test is {self.steps} steps long and this fit only {length}:"
                f" it needs epochs={-(-self.steps // per_epoch)} of this data (now "
                f"{self.params['epochs']}), or steps={length}. The sweep will end at a "
                f"rate of {self.schedule.values([length - 1])[0]:.2g}.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the sweep at the optimizer's count, and look for the end of data."""
        self._reader.skip()
        if not self._losses:
            self._drive.start = updates(self.model)
            self._drive.show()
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the losses of the updates since, and stop where there is reason to."""
        self._batches += 1
        done = self._reader.read()
        if len(done.losses) and np.isnan(done.losses).all():
            done.losses[:] = self._reported(logs or {})
        for loss in done.losses:
            if self._stop_reason != "out of data":
                break
            self._losses.append(float(loss))
            self._times.append(time.time())
            self._stop_reason = self._reason_to_stop()
        if self._stop_reason != "out of data":
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End the fit if an epoch brought no batch: a generator cannot be rewound."""
        if not self._batches:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Put the model back and read the curve."""
        self._finish()

    def also_log_to(self, log_dir: str) -> None:
        """Write the result to another folder, too: a logger stands beside the test."""
        if log_dir not in self._run_dirs:  # made now: an error must come before a sweep
            self._run_dirs[log_dir] = new_range_test_run(log_dir)

    def restore(self) -> None:
        """Put the model back after a fit that raised; at other times, do nothing.

        What was swept until then is in `.result`.
        """
        if self._loan is not None:
            self._stop_reason = "interrupted"
            self._finish()
        if self._snapshot is not None:  # kept for what callbacks write at the very end
            self._snapshot.restore()
            self._snapshot = None

    def _finish(self) -> None:
        if self._loan is not None:
            self._loan.close()
        if self._snapshot is not None:
            self._snapshot.restore()
        self._loan = None
        if not self.keep_snapshot:
            self._snapshot = None
        self.result = RangeTestResult.from_sweep(
            self.schedule.values(len(self._losses)),
            self._losses,
            steps=self.steps,
            stop_reason=self._stop_reason,
            mode=self.mode,
            rule=self.rule,
        )
        for run_dir in self._run_dirs.values():
            write_range_test(self.result, run_dir, self._times)

    def _reported(self, logs: dict[str, Any]) -> float:
        """The loss that a train step of the user's own reports."""
        means = [
            metric
            for metric in self.model.metrics
            if metric.name == "loss" and isinstance(metric, keras.metrics.Mean)
        ]
        if means and not self._losses:
            warnings.warn(
                "This model's train_step keeps its loss in a keras.metrics.Mean of its "
                "own: the range test sees running means, which lag behind. Return the "
                "batch's loss, or let the compiled loss do.",
                stacklevel=2,
            )
        return logs.get("loss", np.nan)

    def _reason_to_stop(self) -> str:
        if not np.isfinite(self._losses[-1]):
            return "non-finite loss"
        if self.stop_factor is not None and _diverged(self._losses, self.stop_factor):
            return "diverged"
        if len(self._losses) == self.steps:
            return "finished"
        return "out of data"


def _diverged(losses: list[float], stop_factor: float) -> bool:
    """Whether the loss has left its least value behind for good.

    Medians of three, so that one odd batch does not stop a sweep. A multiple of the
    least loss means nothing where losses can be negative; there the fall from the first
    loss to the least is the measure.
    """
    if len(losses) < 4:
        return False
    recent = np.lib.stride_tricks.sliding_window_view(np.array(losses), 3)
    medians = np.median(recent, axis=1)
    least, first, now = medians.min(), medians[0], medians[-1]
    if min(losses) > 0:
        return bool(now > stop_factor * least)
    return bool(now - least > stop_factor * max(first - least, abs(least)))
