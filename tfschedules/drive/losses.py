"""Every batch's own loss, also inside execution blocks, and the update it led to.

`logs["loss"]` is the running mean since the epoch began. Undoing the mean loses up to
41 % of the value where the loss has fallen far, so the values are kept as they come
in: by a metric in place of the model's loss tracker, in a ring of the last `CAPACITY`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from tfschedules.drive.loan import Loan, _set
from tfschedules.drive.state import batches_made, innermost, read

CAPACITY = 1024


def block_of(model: keras.Model) -> int:
    """The most batches that one call of the train function goes through."""
    block = model.steps_per_execution
    return block if isinstance(block, int) else 1  # "auto" is not larger, so far


class KeptLoss(keras.metrics.Metric):
    """The model's loss tracker, which also keeps each value that it is given."""

    def __init__(self, mean: keras.metrics.Metric, capacity: int) -> None:
        super().__init__(name=mean.name, dtype=mean.dtype)
        self.mean = mean
        self.capacity = capacity
        self.recording = True
        self.ring = self.add_variable((capacity,), "zeros", "float32", name="ring")
        self.count = self.add_variable((), "zeros", "int32", name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add a batch's loss, weighted as the stock tracker does."""
        self.mean.update_state(values, sample_weight=sample_weight)
        if not self.recording:  # asked when a step is traced
            return
        ops = keras.ops
        slot = ops.arange(self.capacity) == self.count % self.capacity
        value = ops.cast(ops.mean(values), "float32")
        self.ring.assign(ops.where(slot, value, self.ring.value))
        self.count.assign(self.count + 1)

    def result(self) -> Any:
        """The running mean, as before."""
        return self.mean.result()

    def reset_state(self) -> None:
        """Begin the mean anew; the ring and its count go on."""
        self.mean.reset_state()


@dataclasses.dataclass
class Steps:
    """Optimizer updates that have been made, in order.

    Attributes:
        steps: The optimizer's count before each update, int64 `(n,)`.
        losses: Each update's batch loss, the mean of its micro-batches, float64
            `(n,)`; NaN where the model's train step does not report its loss.
    """

    steps: np.ndarray
    losses: np.ndarray


class StepReader:
    """Reads the updates made since it was last asked, and their losses.

    Several readers may read one model, each at its own pace, as long as none falls
    more than `CAPACITY` batches behind.
    """

    def __init__(self, model: keras.Model, loan: Loan) -> None:
        """Begin to keep the model's batch losses, until `loan` is closed."""
        self._model = model
        kept = model._loss_tracker
        if not isinstance(kept, KeptLoss):
            kept = self._keep(model, loan)
        self._kept: KeptLoss = kept
        self._micro: list[float] = []
        self.skip()

    @staticmethod
    def _keep(model: keras.Model, loan: Loan) -> KeptLoss:
        tracker, test_step = model._loss_tracker, model.test_step
        own_test_step = vars(model).get("test_step")
        kept = KeptLoss(tracker, max(CAPACITY, 2 * block_of(model)))

        def without_keeping(*args: Any) -> Any:
            kept.recording = False
            try:
                return test_step(*args)
            finally:
                kept.recording = True

        def give_back() -> None:
            _set(model, "_loss_tracker", tracker)
            if own_test_step is None:
                object.__delattr__(model, "test_step")
            else:
                _set(model, "test_step", own_test_step)

        _set(model, "_loss_tracker", kept)
        _set(model, "test_step", without_keeping)
        loan.undo_with(give_back)
        loan.retrace()
        return kept

    @property
    def capacity(self) -> int:
        """How many batches may pass between two reads."""
        return self._kept.capacity

    def skip(self) -> None:
        """Begin to read here: what came before was validation, or is of no interest."""
        self._count = int(read(self._model, self._kept.count))
        self._batches = batches_made(self._model)

    def read(self) -> Steps:
        """The updates since the last read or skip.

        A batch whose update a `LossScaleOptimizer` skipped led to no update and is left
        out: non-finite losses first, then the earliest.
        """
        count = int(read(self._model, self._kept.count))
        batches = batches_made(self._model)
        new, applied = count - self._count, batches - self._batches
        if applied < 0:  # put back to an earlier state: what came before is not known
            self.skip()
            return Steps(np.empty(0, np.int64), np.empty(0))
        if new <= 0:  # a train step of the user's own, which reports no loss
            losses = np.full(applied, np.nan)
        else:
            ring = read(self._model, self._kept.ring).astype(np.float64)
            losses = ring[np.arange(self._count, count) % self._kept.capacity]
            losses = _without(losses, new - applied)
        self._count, first, self._batches = count, self._batches, batches
        return self._by_update(first, losses)

    def _by_update(self, first: int, losses: np.ndarray) -> Steps:
        every = innermost(self._model.optimizer).gradient_accumulation_steps or 1
        if every == 1:
            return Steps(first + np.arange(len(losses)), losses)
        steps, means = [], []
        for batch, loss in enumerate(losses, start=first):
            self._micro.append(loss)
            if batch % every == every - 1:
                steps.append(batch // every)
                means.append(float(np.mean(self._micro)))
                self._micro.clear()
        return Steps(np.array(steps, np.int64), np.array(means, np.float64))


def _without(losses: np.ndarray, surplus: int) -> np.ndarray:
    """Leave out `surplus` losses of batches that led to no update."""
    if surplus <= 0:
        return losses
    blamed = np.argsort(np.isfinite(losses), kind="stable")[:surplus]
    return np.delete(losses, blamed)
