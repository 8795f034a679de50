"""A range test of a loop of the user's own, whose steps change variables."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tfschedules._support.arguments import Named
from tfschedules._support.paths import log_path
from tfschedules.drive import (
    AtTheEnd,
    Loop,
    Steps,
    Uninterrupted,
    check_optimizer,
    check_variables,
    is_first_process,
)
from tfschedules.finding.loop_losses import no_loss, number_of
from tfschedules.finding.reports import log_range_test, new_range_test_run
from tfschedules.finding.result import RangeTestResult
from tfschedules.finding.sweep_notes import RUNNING
from tfschedules.finding.sweep_plan import SweepPlan

_NO_UPDATE = (
    "The step made no update of the optimizer that was given to Sweep: its count of "
    "updates is what it was. Give the optimizer that the step updates with, and make "
    "one update in each round of the loop. On JAX an update by stateless_apply is none "
    "of the optimizer's: for that there is tfs.sweep(step, state, batches)."
)


class Sweep(Named):
    """A range test of a loop of your own, for steps that change variables.

    It is gone through by the loop, and hands out one round for each batch:

        test = tfs.Sweep(optimizer, model.variables)
        for _ in test:
            test.record(train_step(next(batches)))
        print(test.result)

    Before each round it sets the optimizer's rate: `steps` rates from `min_lr` to
    `max_lr`, one for each update. The step may be compiled, also before: it reads the
    rate from the optimizer's variable. A round is one update and one recorded loss, in
    any order. With gradient accumulation it is one batch, and the rate goes on when
    the update is made. A round whose update a `LossScaleOptimizer` skips is made again.

    The loop ends by itself: after the last rate, or where the loss diverges or is not
    finite. However it is left, also by `break`, by an exception or by Ctrl-C, all is
    then as before: the variables, the optimizer's count, slots and rate, and the
    random generators. `.result` holds the curve. Where the loop's iterator is kept
    somewhere, that is when it is gone; `restore()`, or a `with` around the loop, puts
    all back at once.

    What it hands out is the round's rate. The loop may be run once more, for another
    sweep from the same state.

    Args:
        optimizer: An optimizer of Keras, with a number as its rate. It is built on the
            trainable variables if it is not built.
        variables: All that the steps change besides the optimizer's own: give
            `model.variables` and not `model.trainable_variables`, which lack the
            statistics of BatchNormalization and the states of Dropout.
        min_lr: The first rate, > 0.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in updates, >= 2.
        mode: "exponential" or "linear".
        stop_factor: See `RangeTest`.
        rule: See `RangeTest`.
        log_dir: Where to write a TensorBoard run `range_test`; not written if `None`.

    Attributes:
        result: A `RangeTestResult` after the loop, or `None`.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If one is out of range; when the loop begins, if the optimizer's
            rate is a schedule, or if it trains what is not in `variables`.
        RuntimeError: When the loop begins, if the optimizer is in a fit, or in another
            sweep or `driven`; in the loop, if a round has no update, or several, or no
            loss, or if somebody else sets the rate.

    Example:
        >>> import keras, numpy as np, tfschedules as tfs
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(), "mse")
        >>> x = np.random.default_rng(0).normal(size=(100, 32, 8)).astype("float32")
        >>> test = tfs.Sweep(model.optimizer, model.variables)
        >>> batches = iter(x)
        >>> for _ in test:  # any step that makes one update will do
        ...     batch = next(batches)
        ...     model.reset_metrics()
        ...     test.record(model.train_on_batch(batch, batch.sum(1)))
        >>> 1e-3 < test.result.suggestion < 1
        True
    """

    def __init__(
        self,
        optimizer: Any,
        variables: Sequence[Any],
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        steps: int = 100,
        mode: str = "exponential",
        stop_factor: float | None = 4.0,
        rule: str = "descent",
        *,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the arguments; nothing is changed before the loop begins."""
        self._optimizer = check_optimizer(optimizer)
        self._variables = check_variables(variables)
        self._plan = SweepPlan.checked(min_lr, max_lr, steps, mode, stop_factor, rule)
        self._log_dir = None if log_dir is None else log_path("log_dir", log_dir)
        self._course: _Course | None = None
        self._loop: Loop | None = None  # kept where it could not be put back
        self.result: RangeTestResult | None = None

    def __len__(self) -> int:
        """How many rounds there are at most, but for updates that are skipped."""
        return self._plan.steps * (self._optimizer.gradient_accumulation_steps or 1)

    def __iter__(self) -> Iterator[float]:
        """Begin the sweep with the first round."""
        if self._course is not None:
            raise RuntimeError(
                "This Sweep is in a loop that is not over. Call its restore(), which "
                "ends that, or make another Sweep."
            )
        self.restore()
        made: list[_Course] = []

        def end() -> None:
            if made:
                self._end(made[0])

        with AtTheEnd(end), AtTheEnd(end):
            with Uninterrupted():
                made.append(
                    _Course(self._plan, self._optimizer, self._variables, self._log_dir)
                )
                self.result, (self._course,) = None, made
                self._loop = made[0].loop
            yield from made[0].rounds()

    def record(self, loss: Any) -> None:
        """Record the loss of this round's batch.

        Args:
            loss: A scalar of any kind: the loss from before the update, not scaled.

        Raises:
            TypeError: If it is no scalar.
            RuntimeError: If there is no round, or it has its loss.
        """
        if self._course is None:
            raise RuntimeError(
                "Sweep.record was called outside of the loop of the sweep: before it "
                "began, or after it was over. Call it once in each round of "
                "`for _ in sweep:`."
            )
        self._course.record(loss)

    def restore(self) -> None:
        """End the sweep and put all back; at other times, do nothing.

        What was swept until then is in `.result`.

        Raises:
            OSError: If something cannot be put back. All the rest is; call it again
                when the cause is gone.
        """
        if self._course is not None:
            self._course.interrupt()
            self._end(self._course)
        elif self._loop is not None:
            self._loop.end()
            self._loop = None

    def __enter__(self) -> Sweep:
        """A block at whose end all is put back."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put all back."""
        self.restore()

    def _end(self, course: _Course) -> None:
        if self._course is not course:
            return  # it has ended
        try:
            course.loop.end()
            self._loop = None
        finally:
            self._course = None
            self.result = course.conclude()


class _Course:
    """One sweep, from its first round to its last."""

    def __init__(
        self, plan: SweepPlan, optimizer: Any, variables: list[Any], log_dir: str | None
    ) -> None:
        """Take the optimizer."""
        self._plan, self._notes = plan, plan.notes()
        self._run_dir: str | None = None
        self._over = self._in_round = False
        self._step = 0
        self._loss: float | None = None
        self._micro: list[tuple[float, int]] = []  # losses of the update, and batches
        self.loop = Loop(optimizer, variables, "tfs.Sweep", plan.schedule)
        try:
            if log_dir is not None and is_first_process():
                self._run_dir = new_range_test_run(log_dir)
        except BaseException:
            self.loop.end()
            raise

    def rounds(self) -> Iterator[float]:
        """Set each rate, and look after each round at what was done."""
        rates = self._plan.schedule.values(self._plan.steps)
        try:
            while self._notes.stop_reason == RUNNING:
                rate = float(rates[self._step])
                self._begin_round(rate)
                yield rate
                if self._over:
                    return
                self._end_round()
        except BaseException:
            self.interrupt()
            raise

    def _begin_round(self, rate: float) -> None:
        self.loop.set_rate(rate)
        self._loss = None
        self._before = self.loop.batches
        self._scale = self.loop.scale
        self._in_round = True

    def record(self, loss: Any) -> None:
        """Keep the loss of the round."""
        number = number_of(loss)
        if number is None:
            raise TypeError(f"Argument `loss` of Sweep.record must be {no_loss(loss)}")
        if self._loss is not None:
            raise RuntimeError(
                "Sweep.record was called twice in one round of the loop. A round is "
                "one update and one loss: record the mean where there are several."
            )
        self._loss = number

    def _end_round(self) -> None:
        """Note what was done.

        Raises:
            RuntimeError: If it is not one update and one loss.
        """
        self._in_round = False
        made = self.loop.batches - self._before
        loss, scale = self._loss, self.loop.scale
        skipped = made == 0 and scale < self._scale
        left = self.loop.every - self._before % self.loop.every
        if loss is None:
            raise RuntimeError(
                "Sweep.record(loss) was not called in this round of the loop: the "
                "sweep needs the loss of each. Call it once in each round."
            )
        if made < 0 or made > left:
            raise RuntimeError(
                f"The optimizer's count went on by {made} in this round of the loop, "
                f"and {left} is the most that belongs to one rate. Make one update in "
                "each round: the loop is around batches, not around epochs."
            )
        if made == 0 and not skipped:
            raise RuntimeError(_NO_UPDATE)
        if not self.loop.keeps_rate:
            raise RuntimeError(
                "Somebody else has set the optimizer's rate in this round of the "
                "sweep: another schedule, or a step that writes a state of its own "
                "into the optimizer's variables. Leave that out for the sweep; of "
                "steps from state to state make it by tfs.sweep(step, state, batches)."
            )
        if skipped:
            self._take([], [loss])
            return
        self._micro.append((loss, made))
        if made == left:
            losses, batches = np.transpose(self._micro)
            self._micro.clear()
            self._take([np.average(losses, weights=batches)], [])

    def _take(self, losses: list[float], skipped: list[float]) -> None:
        steps = np.full(len(losses), self._step, np.int64)
        kept, lost = np.array(losses, np.float64), np.array(skipped, np.float64)
        self._notes.take(Steps(steps, kept, kept, lost), 0)
        self._step += len(losses)

    def interrupt(self) -> None:
        """End it before its time; a round that is done counts."""
        if self._over:
            return
        self._over = True
        if self._notes.stop_reason == RUNNING:
            if self._in_round:
                with contextlib.suppress(RuntimeError):
                    self._end_round()
            if self._notes.stop_reason == RUNNING:
                self._notes.stop_reason = "interrupted"

    def conclude(self) -> RangeTestResult:
        """Read the curve, and write it; of a sweep without a step nothing is left."""
        self._over = True
        result = self._plan.result(self._notes)
        if self._run_dir is not None and self._notes.steps:
            log_range_test(result, self._run_dir, self._notes.times)
        elif self._run_dir is not None:
            with contextlib.suppress(OSError):
                Path(self._run_dir).rmdir()
        return result
