"""Every step of a fit, for TensorBoard, nearly free.

A driven rate is a function of the step and is computed in bulk when it is written;
losses are read back from the ring that keeps them, a thousand at a time or every other
second. Nothing is read and nothing is written in a step itself.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfschedules.drive import (
    Loan,
    StepReader,
    block_of,
    drive_of,
    hyperparameters_of,
    innermost,
    is_first_process,
    parts_of,
    rate_of,
    read,
    updates,
)
from tfschedules.range_test import RangeTest
from tfschedules.schedules import Schedule
from tfschedules.tensorboard import EventWriter, next_run

_SECONDS_BETWEEN_WRITES = 2.0


class TensorBoardLogger(keras.callbacks.Callback):
    """Writes rate, momentum, weight decay and true batch loss of every step.

    They go to `<log_dir>/schedules`, under the tags `schedule/learning_rate` (with a
    `LayerwiseOptimizer` also `schedule/learning_rate/<group>`), `schedule/momentum`
    (also where it is Adam's `beta_1`), `schedule/weight_decay`,
    `schedule/<hyperparameter>` for others that are driven, and `schedule/loss`. Steps
    are the optimizer's updates. A second fit goes on in the same run; where the count
    was reset, a new run folder begins. Beside a `RangeTest` its result is written
    instead, to `<log_dir>/range_test`. Put it last among the callbacks: a rate that
    another one assigns from Python is recorded if that has been done by then.

    Of several processes that train one model together, the first writes.

    A killed process loses at most the last seconds. If the disk fails during training,
    there is a warning and training goes on unrecorded.

    Args:
        log_dir: The folder that `tensorboard --logdir` is started on.

    Raises:
        TypeError: If `log_dir` is not a path.
        OSError: When `fit` begins, if the folder cannot be written to.

    Example:
        >>> import tfschedules as tfs
        >>> callbacks = [tfs.OneCycle(max_lr=0.1), tfs.TensorBoardLogger("logs")]
        >>> # model.fit(x, y, epochs=10, callbacks=callbacks)
        >>> # tensorboard --logdir logs
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        """Check the path; files are made when `fit` begins."""
        super().__init__()
        if not isinstance(log_dir, (str, os.PathLike)) or not os.fspath(log_dir):
            raise TypeError(
                "Argument `log_dir` must be the path of a folder. "
                f"Received: log_dir={log_dir!r}"
            )
        self.log_dir = os.fspath(log_dir)
        self._loan: Loan | None = None
        self._reader: StepReader | None = None
        self._recorder: _Recorder | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to keep losses."""
        self.on_train_end()
        self._loan = Loan(self.model)
        self._loan.undo_with(self._close)  # after an interrupted fit, too
        with self._loan.closed_on_error():
            self._reader = StepReader(self.model, self._loan)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Open the run at the optimizer's count: a resumed state is loaded by now."""
        if self._reader is not None and self._recorder is None:
            reader, self._reader = self._reader, None
            tests = [o for o in Loan.borrowers(self.model) if isinstance(o, RangeTest)]
            for test in tests:
                test.also_log_to(self.log_dir)
            if tests or not is_first_process():
                return
            step = updates(self.model)
            writer = EventWriter(next_run(self.log_dir, "schedules", step))
            self._recorder = _Recorder(self.model, reader, writer, self.log_dir)
        self._record(_Recorder.begin)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time, and write now and then.

        This is called in the main thread between two steps; `on_train_batch_end` would
        take Keras's asynchronous dispatch away, or be called beside a running step.
        """
        self._record(_Recorder.start if batch == 0 else _Recorder.tick)

    def on_test_begin(self, logs: Any = None) -> None:
        """Write before validation, whose losses are not the training's."""
        self._record(_Recorder.end)

    def on_test_end(self, logs: Any = None) -> None:
        """Go on after validation."""
        self._record(_Recorder.begin)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write what the epoch has left."""
        self._record(_Recorder.end)

    def on_train_end(self, logs: Any = None) -> None:
        """Close the run."""
        if self._loan is not None:
            self._loan.close()
        self._loan = self._reader = None

    def _record(self, action: Callable[[_Recorder], None]) -> None:
        if self._recorder is None:
            return
        try:
            action(self._recorder)
        except OSError as error:
            warnings.warn(
                f"TensorBoardLogger no longer records to {self.log_dir!r}: {error}. "
                "Training goes on.",
                stacklevel=2,
            )
            self._close()

    def _close(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            with contextlib.suppress(OSError):
                recorder.writer.close()


class _Recorder:
    """The steps of one fit, from the optimizer to the writer."""

    def __init__(
        self, model: keras.Model, reader: StepReader, writer: EventWriter, log_dir: str
    ) -> None:
        self.model, self.reader, self.writer = model, reader, writer
        self.log_dir, self.last = log_dir, -1
        self.optimizer = innermost(model.optimizer)
        self.hyperparameters = hyperparameters_of(self.optimizer)[1:]
        # A scaled loss may skip updates; which, is known from one read to the next.
        scaled = keras.optimizers.LossScaleOptimizer
        self.every_step = isinstance(model.optimizer, scaled)

    def begin(self) -> None:
        """Record from here on: an epoch begins, or validation is over."""
        self.reader.skip()
        self.times: list[float] = []
        self.rates: list[float] = []
        self.written_at = time.time()

    def start(self) -> None:
        """The first batch begins, and callbacks have set what they set by the epoch."""
        self.reader.skip()
        self.rates = self._rate_now()

    def tick(self) -> None:
        """A batch, or a block of them, is done."""
        self.times.append(time.time())
        # JAX would be held up by the reading, and loses what callbacks assign anyway.
        if keras.backend.backend() != "jax":
            self.rates += self._rate_now()
        block = block_of(self.model)
        if (
            (len(self.times) + 1) * block > self.reader.capacity // 2
            or self.times[-1] - self.written_at > _SECONDS_BETWEEN_WRITES
            or self.every_step
        ):
            self.write()

    def end(self) -> None:
        """The epoch's batches are done."""
        self.times.append(time.time())
        self.write()

    def write(self) -> None:
        """Write the steps since the last time."""
        done = self.reader.read()
        count = len(done.steps)
        if count:
            columns = self._hyperparameters(done.steps)
            if not np.isnan(done.losses).all():
                columns["schedule/loss"] = done.losses
            if done.steps[0] <= self.last:  # something has put the model back
                self.writer.close()
                folder = next_run(self.log_dir, "schedules", int(done.steps[0]))
                self.writer = EventWriter(folder)
            self.last = int(done.steps[-1])
            self.writer.scalars(done.steps, _spread(self.times, count), columns)
            self.writer.flush()
        self.times, self.rates = [], self.rates[-1:]
        self.written_at = time.time()

    def _rate_now(self) -> list[float]:
        """A rate that nothing drives, and callbacks may set between two steps."""
        rate = rate_of(self.model)
        if drive_of(self.optimizer, "learning_rate") is not None:
            return []
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return []
        if isinstance(rate, keras.Variable):
            return [float(read(self.model, rate))]
        return [float(self.optimizer.learning_rate)]

    def _hyperparameters(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        rates = self._learning_rates(steps)
        columns = {"schedule/learning_rate": rates}
        for part in parts_of(self.optimizer):
            columns[f"schedule/learning_rate/{part.name}"] = rates * part.values(steps)
        for attribute in self.hyperparameters:
            drive = drive_of(self.optimizer, attribute)
            name = attribute
            if attribute == "beta_1" and not hasattr(self.optimizer, "momentum"):
                name = "momentum"
            if drive is not None:
                values = drive.schedule.values(steps - drive.start)
                columns[f"schedule/{name}"] = values
            elif name in ("momentum", "weight_decay"):
                value = float(getattr(self.optimizer, attribute))
                columns[f"schedule/{name}"] = np.full(len(steps), value)
        return columns

    def _learning_rates(self, steps: np.ndarray) -> np.ndarray:
        drive = drive_of(self.optimizer, "learning_rate")
        if drive is not None:
            return drive.schedule.values(steps - drive.start)
        if self.rates:  # noted before each block, and after the last
            used = self.rates[: len(self.times)] or self.rates
            return _spread(used, len(steps))
        schedule = rate_of(self.model)
        if isinstance(schedule, Schedule):
            return schedule.values(steps)
        return np.array([float(schedule(step)) for step in steps])


def _spread(values: list[float], count: int) -> np.ndarray:
    """One value for each of `count` steps, from one for each block of steps."""
    blocks = np.arange(count) * len(values) // count
    return np.asarray(values, np.float64)[blocks]
