"""The learning-rate range test: sweep the rate, stop at divergence, put all back.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (arXiv:1506.01186),
section 3.3. The sweep is a schedule that drives the optimizer, so each loss belongs to
its rate exactly; losses are the batches' own and not Keras's running mean.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfschedules._support import checks
from tfschedules._support.paths import local_path, log_path
from tfschedules.callbacks import epochs_of, updates_in
from tfschedules.drive import (
    Borrower,
    Functions,
    Loan,
    NotRestoredError,
    Proof,
    Snapshot,
    StepReader,
    Stops,
    Uninterrupted,
    do_all,
    grows,
    has_weights,
    is_first_process,
    optimizer_given,
    sweep,
)
from tfschedules.finding.held_out import bounded, evaluated
from tfschedules.finding.reports import log_range_test, new_range_test_run
from tfschedules.finding.result import RangeTestResult
from tfschedules.finding.sweep_notes import RUNNING
from tfschedules.finding.sweep_plan import SweepPlan
from tfschedules.finding.unswept import unswept
from tfschedules.tensorboard import absolute_path

_LOOKS = 25  # at validation data in a sweep, if not told
_UNSEEN = (
    "RangeTest does not see the updates that are made: they come from a loop that does "
    "not call model.train_on_batch or model.fit, or from a function that was compiled "
    "before the test began. The model is as it was. Train by one of these two, or use "
    "find_learning_rate."
)


class RangeTest(Borrower):
    """Sweeps the learning rate over one fit, and puts the model back afterwards.

    The rate goes from `min_lr` at step 0 to `max_lr` at step `steps` - 1. The fit ends
    when the sweep does, or when the loss diverges or is not finite; then weights,
    optimizer, metrics and random generators are what they were, and `.result` holds the
    curve. If `fit` raises, call `restore()`; or use `find_learning_rate`, which does.
    Put the test last among the callbacks: one that writes weights when the fit ends, as
    `EarlyStopping(restore_best_weights=True)`, would write them after it.

    The loss of a step is its batch's own. Where a `metric` is asked for, or the model
    has a `train_step` of its own, all metrics are reset before each step, so that what
    the step reports is its own, too.

    Args:
        min_lr: The first rate, > 0; at least 1.2e-38, as a rate is a float32.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in optimizer updates, >= 2.
        mode: "exponential", or "linear" as in Smith's paper.
        stop_factor: The sweep stops where the loss (the median of three) is greater
            than this times the least so far, and further above it than batches differ;
            for losses that may be negative, that many falls above it. > 1, or `None`
            to sweep to the end.
        rule: The rule of `.result.suggestion`: "descent", "steepest", "valley" or
            "minimum".
        metric: What the suggestion is read off: "loss", or the name of a metric as in
            the logs of `fit`: any scalar that the model's `train_step` reports. If that
            reports no loss, the stop is by the metric, too. Smith's own reading is
            `metric="accuracy"` with `mode="linear"`.
        higher_is_better: Whether the metric grows where training goes well; Keras's own
            metrics know.
        validation_data: Read the metric, or the loss, of these data instead of the
            training batches: `(x, y)`, `(x, y, sample_weight)` or a dataset. The stop
            is still by the training loss.
        validation_size: How many samples of them at most; the same in every look.
        validation_every: After how many updates to look; a 25th of `steps` if `None`.
        group: The name of a group of the model's `LayerwiseOptimizer`: sweep its rate
            only.
        others: What the other groups do meanwhile: "still", they are not trained, or
            "training", with the rates that they have.
        hyperparameters: Values for the sweep of what is not swept, by name:
            `{"weight_decay": 1e-3}`.
        log_dir: Where to write a TensorBoard run `range_test`; not written if `None`.
            A relative one is that of the folder in which `fit` begins.
        snapshot_dir: The folder in which to keep the copy of the model's state, on
            disk, for a model that does not fit into memory twice; in memory if `None`.
            It has to exist, with room for the weights and the optimizer's state.
        optimizer: Which of the model's optimizers is swept: see
            `HyperparameterScheduler`. The others go on with the rates that they have,
            and are put back, too. `steps` are updates of this one. A batch with which
            it makes several has its loss at the last, one with which it makes none has
            none.

    Attributes:
        result: A `RangeTestResult` after the fit, or `None`.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If one is out of range; when `fit` begins, if the data are empty,
            the optimizer's rate is a schedule already, or there is no such metric,
            group or hyperparameter.
        OSError: When `fit` begins, if the copy cannot be written to `snapshot_dir`:
            nothing has changed then. When it ends, if the copy cannot be read: all the
            rest is put back, and the error says what is not.
        RuntimeError: In a loop that calls neither `fit` nor `train_on_batch`, after
            its first update.

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
        metric: str = "loss",
        higher_is_better: bool | None = None,
        validation_data: Any = None,
        validation_size: int = 512,
        validation_every: int | None = None,
        group: str | None = None,
        others: str = "still",
        hyperparameters: Mapping[str, float] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        snapshot_dir: str | os.PathLike[str] | None = None,
        optimizer: Any = None,
    ) -> None:
        """Check the arguments and make the sweep."""
        super().__init__()
        self._optimizer = optimizer_given(optimizer)
        self._plan = SweepPlan.checked(min_lr, max_lr, steps, mode, stop_factor, rule)
        self.schedule, self.steps = self._plan.schedule, self._plan.steps
        self.mode, self.rule = self._plan.mode, self._plan.rule
        self.stop_factor = self._plan.stop_factor
        self.metric = checks.text("metric", metric)
        self.group = None if group is None else checks.text("group", group)
        if higher_is_better is not None:
            higher_is_better = checks.flag("higher_is_better", higher_is_better)
        self.higher_is_better = higher_is_better
        self.others = checks.choice("others", others, ["still", "training"])
        self.hyperparameters = checks.held_values(hyperparameters)
        checks.whole("validation_size", validation_size)
        self._validation = None
        if validation_data is not None:
            self._validation = bounded(validation_data, validation_size)
        self.validation_every = max(self.steps // _LOOKS, 1)
        if validation_every is not None:
            self.validation_every = checks.whole("validation_every", validation_every)
        self.result: RangeTestResult | None = None
        self._log_dir = None if log_dir is None else log_path("log_dir", log_dir)
        self._snapshot_dir: str | None = None
        if snapshot_dir is not None:
            self._snapshot_dir = str(local_path("snapshot_dir", snapshot_dir))
        self._run_dirs: dict[str, str] = {}
        self.keep_snapshot = False  # after the fit, until `restore` is called
        self._snapshot: Snapshot | None = None
        self._to_put_back: list[Callable[[], None]] = []  # the last first

    writes_records = True
    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "_snapshot": None,
        "_reader": None,
        "_drive": None,
        "_to_put_back": [],
    }

    def on_train_begin(self, logs: Any = None) -> None:
        """Copy the state and take the rate over."""
        if self._loan is not None and self._loan.in_progress:
            raise RuntimeError(
                "This RangeTest is in use: a fit of the model "
                f"{self._loan.model.name!r} has it. Make another one for each fit."
            )
        self.restore()
        length = updates_in(self, epochs_of(self))
        if length is not None and length <= 0:
            epochs, batches = self.params["epochs"], self.params["steps"]
            what = "an empty data set" if epochs > 0 else "a fit without an epoch"
            raise ValueError(
                "A range test needs data to sweep over. "
                f"Received: {what} (epochs={epochs}, steps={batches})."
            )
        if not has_weights(self.model):
            raise ValueError(
                "A range test puts weights back, and this model has none before its "
                "first step. Give it an Input layer or call model.build(shape); "
                "find_learning_rate does it for you."
            )
        self.result = None
        self._notes = self._plan.notes()
        self._grows = bool(self.higher_is_better)
        self._batches: int | None = None  # of this epoch
        self._run_dirs = {}
        if self._log_dir is not None:
            self.also_log_to(self._log_dir)
        # Where others have borrowed something, these functions see it and are no good.
        alone = not Loan.borrowers(self.model)
        functions = Functions(self.model) if alone else None
        loan = self._borrow()
        with loan.closed_on_error():
            self._snapshot = self._copied()
        self._to_put_back = [self._leave, self._put_back, loan.close]
        try:
            if functions is not None:
                self._to_put_back.insert(1, functions.restore)
            self._take_over(loan)
        except BaseException:
            do_all(self._to_put_back)
            raise
        self._to_put_back.insert(0, self._conclude)
        known = loan.chosen.is_compiled  # of others nobody knows the updates in a batch
        if known and length is not None and length < self.steps:
            per_epoch = max(1, updates_in(self, 1) or 1)
            warnings.warn(
                f"The range test is {self.steps} steps long and this fit only {length}:"
                f" it needs epochs={-(-self.steps // per_epoch)} of this data (now "
                f"{self.params['epochs']}), or steps={length}. The sweep will end at a "
                f"rate of {self.schedule.values([length - 1])[0]:.2g}.",
                stacklevel=2,
            )

    def _take_over(self, loan: Loan) -> None:
        """Drive the rate, and see to it that losses and metrics are kept."""
        self._drive = sweep(
            self.model,
            loan,
            self.schedule,
            self.group,
            others_still=self.others == "still",
            constants=self.hyperparameters,
        )
        of_batches = self.metric if self._validation is None else "loss"
        self._reader = StepReader.of_logs(
            self.model,
            loan,
            None if of_batches == "loss" else of_batches,
            self._check_metric,
        )
        if self._validation is not None:
            self._look(self.chosen.updates())  # errors in it come now
            self._check_metric()
            self._notes.looks.clear()
            Stops.attach(self.model, loan, self._next_look, self._see)
        loan.around_others(self._read, lambda batches: None)
        drive = self._drive
        self._prove(lambda: loan.stepped and drive.entered, _UNSEEN)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the sweep at the optimizer's count, and look for the end of data."""
        if self._check_on_loan():
            self._new_epoch()
            self._begin()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Begin with the first batch, in a loop of the user's without epochs."""
        if self._check_on_loan():
            self._look_at_updates()
            if self._batches is None:
                self._begin()

    def _begin(self) -> None:
        self._reader.skip()
        if not self._notes.losses:
            self._drive.start = self.chosen.updates()
            self._drive.show()
        if self._validation is not None:
            assert self._loan is not None
            Stops.plan(self._loan)
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the losses of the updates since, and stop where there is reason to."""
        if self._loan is None:
            return
        self._batches = (self._batches or 0) + 1
        self._check_updates()
        self._check_swept(over=False)
        self._read()
        if self._notes.stop_reason != RUNNING:
            self.model.stop_training = True

    def _tell_if_unused(self, loan: Loan) -> None:
        """It is refused."""

    def _check_swept(self, *, over: bool) -> None:
        """Refuse a training step that does not update with the optimizer.

        Raises:
            ValueError: If it does not; all is put back.
        """
        wrong = unswept(self.chosen, self._drive, over=over)
        if wrong is not None:
            self.restore()
            raise ValueError(wrong)

    def _read(self) -> None:
        """Note the losses of the updates since."""
        self._notes.grows = self._grows and self._reader.lacks_loss
        self._notes.take(self._reader.read(), self._drive.start)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End the fit if an epoch brought no batch: a generator cannot be rewound."""
        if not self._batches:
            self.model.stop_training = True
        elif self._loan is not None:
            self._check_swept(over=True)

    def on_train_end(self, logs: Any = None) -> None:
        """Put the model back and read the curve."""
        if self._to_put_back:
            self._conclude_updates()
            self._finish()

    def _ask(self, question: Callable[[Proof], None]) -> None:
        try:
            super()._ask(question)
        except RuntimeError:
            self.restore()
            raise

    def also_log_to(self, log_dir: str) -> None:
        """Write the result to another folder, too: a logger stands beside the test.

        Args:
            log_dir: The folder, in which a run `range_test` is made at once.
        """
        log_dir = absolute_path("log_dir", log_dir)
        if log_dir not in self._run_dirs and is_first_process():
            # Made now: an error must come before a sweep.
            self._run_dirs[log_dir] = new_range_test_run(log_dir)

    def restore(self) -> None:
        """Put the model back after a fit that raised; at other times, do nothing.

        What was swept until then is in `.result`.

        Raises:
            OSError: If something cannot be put back, as the copy on disk cannot be
                read. All the rest is put back; call it again when the cause is gone.
        """
        with Uninterrupted():
            if self._to_put_back:
                self._notes.stop_reason = "interrupted"
                self._finish()
            if self._snapshot is not None:  # over what callbacks do at the very end
                self._snapshot.restore_and_remove()
                self._snapshot = None

    def _copied(self) -> Snapshot:
        """A copy of the model's state; without one, nothing is left of this test."""
        try:
            return Snapshot(self.model, self._snapshot_dir, chosen=self.chosen)
        except BaseException:
            for run_dir in self._run_dirs.values():
                with contextlib.suppress(OSError):
                    Path(run_dir).rmdir()
            raise

    def _put_back(self) -> None:
        """Put the state back; what is kept is put back once more by `restore`."""
        assert self._snapshot is not None
        try:
            self._snapshot.restore()
        except NotRestoredError:
            if not self.keep_snapshot:
                raise

    def _finish(self) -> None:
        """Put the model back, and conclude; after an interruption, do the rest."""
        with Uninterrupted():
            do_all(self._to_put_back)

    def _leave(self) -> None:
        """Keep nothing of the model's."""
        self._loan = self._proof = None
        for borrowed in ("_reader", "_drive"):
            self.__dict__.pop(borrowed, None)
        if self._snapshot is not None and not self.keep_snapshot:
            if self._snapshot.restored:  # else it is kept, to be tried again
                self._snapshot.remove()
                self._snapshot = None

    def _conclude(self) -> None:
        """Read the curve, and write it."""
        self.result = self._plan.result(
            self._notes, group=self.group, **self._read_off()
        )
        for run_dir in self._run_dirs.values():
            log_range_test(self.result, run_dir, self._notes.times)

    def _read_off(self) -> dict[str, Any]:
        """What the result is read off, if that is not the loss of the batches."""
        if self._validation is not None:
            name = f"val_{self.metric}"
            looks = [self._notes.looks.get(step, np.nan) for step in self._notes.steps]
            return {"metric": name, "values": looks, "higher_is_better": self._grows}
        if self.metric == "loss":
            return {}
        return {
            "metric": self.metric,
            "values": self._notes.metrics,
            "higher_is_better": self._grows,
        }

    def _next_look(self, made: int) -> int | None:
        """The update after which to look at validation data next."""
        done = made - self._drive.start
        if done >= self.steps:
            return None
        every = self.validation_every
        return self._drive.start + min((done // every + 1) * every, self.steps)

    def _see(self, wanted: int, made: int) -> None:
        self._look(made)

    def _look(self, made: int) -> None:
        """Evaluate the model, after so many updates."""
        assert self._validation is not None
        found = evaluated(self.model, self._validation, self.metric)
        self._notes.looks[made - self._drive.start - 1] = found

    def _check_metric(self) -> None:
        """Find out whether the metric is to grow or to fall."""
        # Not `self.model`, which on JAX writes the state back, here within a step.
        if self.higher_is_better is None:
            self._grows = grows(self._model, self.metric)
