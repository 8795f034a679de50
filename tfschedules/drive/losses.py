"""Every batch's own loss, also inside execution blocks, and the update it led to.

`logs["loss"]` is the running mean since the epoch began. Undoing the mean loses up to
41 % of the value where the loss has fallen far, so the values are kept as they come
in: by a metric in place of the model's loss tracker, in a ring of the last `CAPACITY`.

A train step of the user's own may keep its loss elsewhere, and all other metrics are
running means, too. `StepReader.of_logs` resets them before each step, and so the logs
are that step's alone: for a range test, whose fit is nobody's training.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfschedules.drive.chosen import Chosen
from tfschedules.drive.loan import Loan
from tfschedules.drive.own_functions import refuse_own_step
from tfschedules.drive.replicas import replicas_of, scope_of, share
from tfschedules.drive.state import read
from tfschedules.drive.step_logs import Alone

CAPACITY = 1024
_KEPT = "The loss of each batch is kept"


def block_of(model: keras.Model) -> int:
    """The most batches that one call of the train function goes through."""
    block = model.steps_per_execution
    return block if isinstance(block, int) else 1  # "auto" is not larger, so far


class KeptLoss(keras.metrics.Metric):
    """The model's loss tracker, which also keeps each value that it is given.

    Each of several replicas keeps what it adds to the batch's sum, and its samples: the
    rings are summed when they are read, and a step is not held up.
    """

    def __init__(
        self,
        mean: keras.metrics.Metric,
        capacity: int,
        replicas: int = 1,
        keeps: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(name=mean.name, dtype=mean.dtype)
        self.keeps = keeps  # whether the step that is made, or traced, is the fit's
        self.mean = mean
        self.capacity = capacity
        self.recording = True
        self.seen = False  # whether the step that is traced has given its loss
        self.lacks_loss = False  # whether another metric stands for the loss
        self.ring = self.add_variable((capacity,), "zeros", "float32", name="ring")
        self.count = self.add_variable(
            (), "zeros", "int32", aggregation="only_first_replica", name="count"
        )
        self.samples: keras.Variable | None = None
        if replicas > 1:
            self.samples = self.add_variable(
                (capacity,), "zeros", "float32", name="samples"
            )
        self.other: keras.Variable | None = None  # the ring of another metric
        self.made: keras.Variable | None = None  # of an optimizer's count of batches

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add a batch's loss, weighted as the stock tracker does."""
        self.mean.update_state(values, sample_weight=sample_weight)
        if self.recording and self.keeps():  # asked when a step is traced
            self.keep(values, sample_weight)

    def keep_other_too(self) -> None:
        """Make a ring for another metric, too."""
        self.other = self.add_variable(
            (self.capacity,), "zeros", "float32",
            aggregation="only_first_replica", name="other",
        )  # fmt: skip

    def keep_counts_too(self, chosen: Chosen) -> None:
        """Make a ring for the count of an optimizer, as it is after each step."""
        self.made = self.add_variable(
            (self.capacity,), "zeros", chosen.inner._iterations.dtype,
            aggregation="only_first_replica", name="made",
        )  # fmt: skip

    def keep(self, loss: Any, samples: Any = None) -> None:
        """Put a batch's loss, or the part of it that this replica has, into the ring.

        Args:
            loss: The mean over the samples.
            samples: How many those are; of no meaning on one device.
        """
        self.seen = True
        if self.samples is not None:
            ops = keras.ops
            samples = ops.sum(samples) if samples is not None else ops.size(loss)
            samples = ops.cast(samples, "float32")
            loss = share(loss, samples)
            self._put(self.samples, samples, self.count)
        self._put(self.ring, loss, self.count)
        self.count.assign(self.count + 1)

    def keep_other(self, value: Any) -> None:
        """Put another metric of the last batch into a ring beside it."""
        self._put(self.other, value, self.count - 1)

    def keep_count(self, made: Any) -> None:
        """Put the optimizer's count after the last batch into a ring beside it."""
        if self.made is not None:
            self._put_number(self.made, made, self.count - 1)

    def _put(self, ring: Any, value: Any, count: Any) -> None:
        self._put_number(ring, keras.ops.mean(value), count)

    def _put_number(self, ring: Any, number: Any, count: Any) -> None:
        ops = keras.ops
        slot = ops.arange(self.capacity) == count % self.capacity
        ring.assign(ops.where(slot, ops.cast(number, ring.dtype), ring.value))

    def result(self) -> Any:
        """The running mean, as before."""
        return self.mean.result()

    def reset_state(self) -> None:
        """Begin the mean anew; the ring and its count go on."""
        self.mean.reset_state()


def grows(model: keras.Model, name: str) -> bool:
    """Whether a metric grows where training goes well; Keras's own know it.

    Args:
        model: A compiled model.
        name: The metric's name as in the logs, with the output's before it, if any.

    Raises:
        ValueError: If that cannot be told.
    """
    if name.endswith("loss"):
        return False
    held = [m for outer in model.metrics for m in [outer, *_inside(outer)]]
    fitting = [m for m in held if name == m.name or name.endswith(f"_{m.name}")]
    for metric in sorted(fitting, key=lambda m: -len(m.name)):
        direction = getattr(metric, "_direction", None)
        if direction is not None:
            return direction == "up"
    raise ValueError(
        f"The metric {name!r} does not say whether it grows or falls where training "
        "goes well. Give higher_is_better=True or higher_is_better=False."
    )


def _inside(metric: Any) -> list[Any]:
    """The metrics that were compiled, in Keras's container of them."""
    return list(getattr(metric, "metrics", []))


@dataclasses.dataclass
class Steps:
    """Optimizer updates that have been made, in order.

    Attributes:
        steps: The optimizer's count before each update, int64 `(n,)`.
        losses: Each update's batch loss, the mean of its micro-batches, float64
            `(n,)`; NaN where the model's train step does not report its loss.
        others: The same of the metric that was asked for, or of the loss.
        skipped: Losses of batches that led to no update: a `LossScaleOptimizer` skips
            those whose gradients are not finite.
        lost: Whether there are none because the count was put back meanwhile, by
            something that `around_put_back` does not see.
    """

    steps: np.ndarray
    losses: np.ndarray
    others: np.ndarray
    skipped: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    lost: bool = False


class StepReader:
    """Reads the updates made since it was last asked, and their losses.

    Several readers may read one model, each at its own pace, as long as none falls
    more than `CAPACITY` batches behind.
    """

    def __init__(self, model: keras.Model, loan: Loan, *, losses: bool = True) -> None:
        """Begin to keep the model's batch losses, until `loan` is closed.

        Args:
            model: The model.
            loan: What ends it, and whose optimizer's updates are read.
            losses: Whether their losses are read, too; else they are NaN.
        """
        self._model, self._chosen, self._losses = model, loan.chosen, losses
        kept = model._loss_tracker
        if not isinstance(kept, KeptLoss):
            kept = self._keep(model, loan)
        self._kept: KeptLoss = kept
        self._micro: list[np.ndarray] = []
        loan.around_others(lambda: None, self._pass_over)
        scaled = keras.optimizers.LossScaleOptimizer
        self._is_scaled = isinstance(loan.chosen.optimizer, scaled)
        # Then every batch has one loss, and one update.
        self._is_exact = _is_stock(model) and not self._is_scaled
        self.skip()

    @classmethod
    def of_logs(
        cls,
        model: keras.Model,
        loan: Loan,
        metric: str | None = None,
        on_trace: Callable[[], None] = lambda: None,
    ) -> StepReader:
        """Read what each training step reports, with no memory of those before it.

        The loss is what the stock loss tracker is given, or else "loss" in the logs of
        a train step of the user's own. All metrics of the model are reset before each
        step until `loan` is closed, where that is needed.

        Args:
            model: The model.
            loan: What ends it.
            metric: The name in the logs of what else is to be read.
            on_trace: Called when the step's logs are known, before it is run.

        Raises:
            ValueError: If the model's metrics leave out the loss tracker, on JAX; when
                the first step is traced, if its logs lack what is to be read.
        """
        reader = cls(model, loan)
        kept = reader._kept
        if metric is not None:
            with scope_of(model):
                kept.keep_other_too()
        if not _is_stock(model):
            # It may make several updates with a batch, or with some batches none.
            with scope_of(model):
                kept.keep_counts_too(loan.chosen)
        if metric is not None or not _is_stock(model):
            keeps = functools.partial(loan.keeps, _KEPT)
            step = Alone(loan.chosen, kept, metric, on_trace, keeps)
            loan.borrow(model, "train_step", step.on_this_backend())
            loan.retrace()
        return reader

    @staticmethod
    def _keep(model: keras.Model, loan: Loan) -> KeptLoss:
        refuse_own_step(model, _KEPT)
        tracker, test_step = model._loss_tracker, model.test_step
        capacity = max(CAPACITY, 2 * block_of(model))
        with scope_of(model):
            kept = KeptLoss(
                tracker,
                capacity,
                replicas_of(model),
                lambda: loan.keeps(_KEPT),
            )

        def without_keeping(*args: Any) -> Any:
            try:
                kept.recording = False
                return test_step(*args)
            finally:
                kept.recording = True

        loan.borrow(model, "_loss_tracker", kept)
        loan.borrow(model, "test_step", without_keeping)
        loan.set_tests_aside()  # a function that is there has the step of before
        loan.retrace()
        return kept

    def _pass_over(self, batches: int) -> None:
        """Steps of others have been made, whose losses are not kept.

        All steps before them have been read.
        """
        self._batches += batches

    @property
    def capacity(self) -> int:
        """How many batches may pass between two reads."""
        return self._kept.capacity

    @property
    def seen(self) -> bool:
        """Whether the training step, once traced, gives the loss tracker its loss."""
        return self._kept.seen

    @property
    def next_step(self) -> int:
        """The update with which the next read begins."""
        every = self._chosen.every
        return self._batches // every

    @property
    def lacks_loss(self) -> bool:
        """Whether the step reports no loss, and the metric is read in its place."""
        return self._kept.lacks_loss

    @property
    def waiting(self) -> int:
        """How many batches the optimizer has seen that were not read yet."""
        return self._chosen.batches() - self._batches

    def skip(self) -> None:
        """Begin to read here: what came before was validation, or is of no interest."""
        self._count = int(read(self._model, self._kept.count))
        self._batches = self._chosen.batches()

    def read(self) -> Steps:
        """The updates since the last read or skip.

        A batch whose update a `LossScaleOptimizer` skipped led to no update and is left
        out: non-finite losses first, then the earliest.
        """
        count = int(read(self._model, self._kept.count))
        batches = self._chosen.batches()
        new, applied = count - self._count, batches - self._batches
        # Put back to an earlier state, and nobody has seen it: how many of the steps
        # were made since is not known.
        if applied < 0 or (new > applied and self._is_exact):
            self.skip()
            return dataclasses.replace(_in_columns([], np.empty((0, 2))), lost=True)
        skipped = np.empty(0)
        made = self._batches + 1 + np.arange(applied)
        if (
            new <= 0 or not self._losses
        ):  # a train step of the user's own, which reports no loss
            rows = np.full((applied, 2), np.nan)
        else:
            kept = self._kept
            slots = np.arange(self._count, count) % kept.capacity
            losses = read(self._model, kept.ring)[slots]
            if kept.samples is not None:
                losses = losses / read(self._model, kept.samples)[slots]
            others = losses
            if kept.other is not None:
                others = read(self._model, kept.other)[slots]
            rows = np.stack([losses, others], axis=1).astype(np.float64)
            if kept.made is not None:
                made = read(self._model, kept.made)[slots].astype(np.int64)
                updated = np.diff(made, prepend=self._batches) > 0
                skipped = rows[~updated, 0][: None if self._is_scaled else 0]
                made, rows = made[updated], rows[updated]
            else:
                rows, skipped = _without(rows, new - applied)
                if len(rows) < applied:  # several updates with a batch
                    rows = rows[np.arange(applied) * len(rows) // applied]
        self._count, before, self._batches = count, self._batches, batches
        done = self._by_update(before, made, rows)
        return dataclasses.replace(done, skipped=skipped)

    def _by_update(self, before: int, made: np.ndarray, rows: np.ndarray) -> Steps:
        """Each update's loss.

        Args:
            before: How many batches the optimizer had seen.
            made: The same after each row.
            rows: What was kept of each batch.
        """
        every = self._chosen.every
        if every == 1:
            return _in_columns(made - 1, rows)
        steps, means, last = [], [], before // every
        for update, row in zip(made // every, rows, strict=True):
            self._micro.append(row)
            if update > last:
                last = update
                steps.append(update - 1)
                means.append(np.mean(self._micro, axis=0))
                self._micro.clear()
        return _in_columns(steps, np.reshape(means, (-1, 2)))


def _is_stock(model: keras.Model) -> bool:
    """Whether a model's train step is Keras's own."""
    own = "train_step" in vars(model)
    return type(model).train_step is keras.Model.train_step and not own


def _in_columns(steps: Any, rows: np.ndarray) -> Steps:
    return Steps(np.asarray(steps, np.int64), rows[:, 0], rows[:, 1])


def _without(rows: np.ndarray, surplus: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave out `surplus` batches that led to no update; these, and their losses."""
    if surplus <= 0:
        return rows, np.empty(0)
    blamed = np.argsort(np.isfinite(rows[:, 0]), kind="stable")[:surplus]
    return np.delete(rows, blamed, axis=0), rows[blamed, 0]
