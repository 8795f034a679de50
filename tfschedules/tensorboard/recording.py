"""The steps of one fit, from the optimizer to the event file.

Backends hand a step to the device and go on in Python, up to 32 steps ahead of it on
JAX: what is read then waits for the device. So steps are written after so many as take
some two seconds there, however fast Python sees them go by, and of times that it saw
go by too early only the last, when the device was done, is believed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

import keras
import numpy as np

from tfschedules._support.telling import tell
from tfschedules.drive import (
    Chosen,
    Drive,
    StepReader,
    block_of,
    drive_of,
    hyperparameters_of,
    name_of,
    parts_of,
    rates_compiled,
    read,
)
from tfschedules.tensorboard.idle import Idle
from tfschedules.tensorboard.run_files import RunFiles

_SECONDS_BETWEEN_WRITES = 2.0


class Recorder:
    """Writes the steps of a fit into the run folders of a log directory.

    Attributes:
        active: Whether training steps are being made, and not validated.
    """

    def __init__(
        self, chosen: Chosen, reader: StepReader, log_dir: str, step: int
    ) -> None:
        """Open the run for steps from `step` on.

        Raises:
            OSError: If that fails.
        """
        self._chosen, self._model, self._reader = chosen, chosen.model, reader
        self._optimizer = chosen.inner
        self._hyperparameters = hyperparameters_of(self._optimizer)
        # A scaled loss may skip updates; which, is known from one read to the next.
        scaled = keras.optimizers.LossScaleOptimizer
        self._every_step = isinstance(chosen.optimizer, scaled)
        self._last = -1
        self._latest: dict[str, np.ndarray] = {}  # values, by tag
        self._blocks = 1  # to be made between two writes
        self._times: list[float] = []  # since the last one
        self._rates: list[float] = []
        self.active = False
        self._prefix = "schedule/"
        self._idle: Idle | None = None  # until something is recorded, or said
        if chosen.is_compiled:
            self._idle = Idle(chosen)
        else:
            self._prefix = f"schedule/{chosen.name}/"
        self._ahead = False  # of the ticks: a save came between two of them
        self._process, self._ends_with_it = os.getpid(), False
        self._was_put_back = False  # and what the state is then is to be seen
        self._note_drives()
        self._files = RunFiles(chosen, log_dir, step)

    def begin(self) -> None:
        """Record from here on: an epoch begins, or validation is over."""
        self._reader.skip()
        self._rates, self._ahead = [], False
        self.go_on()
        self.active = True
        self._see_state()

    def go_on(self) -> None:
        """Go on after steps that are not recorded."""
        self._times, self._rates = [], self._rates[-1:]
        self._began, self._written_at = time.time(), time.monotonic()

    def start(self) -> None:
        """The first batch begins, and callbacks have set what they set by the epoch."""
        self.begin()
        self._count_call()
        self._note_drives()
        self._rates = self._rate_now()

    def tick(self) -> None:
        """A batch, or a block of them, is done, or on its way."""
        self._count_call()
        if self._was_put_back:
            self._see_state()
        ahead, self._ahead = self._ahead, False
        written = ahead and not self._reader.waiting  # when the save came
        # JAX would be held up by the reading, and loses what callbacks assign anyway.
        if keras.backend.backend() != "jax":
            self._rates = [*([] if written else self._rates), *self._rate_now()]
        if written:
            return
        self._times.append(time.time())
        block = block_of(self._model)
        if (
            len(self._times) >= self._blocks
            or (len(self._times) + 1) * block > self._reader.capacity // 2
            or time.monotonic() - self._written_at > _SECONDS_BETWEEN_WRITES
            or self._every_step
        ):
            self.write()

    def steps_done(self) -> None:
        """No step is on its way: the epoch's are made, or a callback evaluates."""
        if self.active:
            self._times.append(time.time())
            self.write()
            self._files.flush()

    def saved(self) -> None:
        """The state is being saved, between two steps or after an epoch's.

        The records go as far as what is saved: whoever resumes it goes on there.
        """
        self._write_made()
        self._files.note_state()

    def leave(self) -> None:
        """An exception has ended the fit, and the process has gone on."""
        self._files.leave()

    def at_exit(self) -> None:
        """The process ends with the fit: write what that has left."""
        self._ends_with_it = True
        self._write_rest()
        self._files.flush()

    def put_back(self) -> None:
        """Somebody is about to put the count elsewhere: what was made is written."""
        self._write_made()

    def was_put_back(self) -> None:
        """The count is the new one: from there on steps are recorded."""
        if self.active:
            self._reader.skip()
            self._was_put_back = True

    def _see_state(self) -> None:
        """See from which state the steps are made again, if they are to be."""
        self._was_put_back = False
        if self._reader.next_step <= self._last and not self._reader.waiting:
            self._files.see_state()

    def _write_made(self) -> None:
        """Write what was made, between two steps."""
        if self.active:
            waiting = self._reader.waiting
            if waiting > len(self._times) * block_of(self._model):
                self._times.append(time.time())
                self._ahead = True
            if waiting > 0 and self._times:
                self.write()
                self._files.flush()

    def end(self) -> None:
        """The epoch's batches are done; what comes now is not recorded."""
        self.steps_done()
        self._write_row()
        self.active = False

    def end_epoch(self) -> None:
        """An epoch is over."""
        self.end()
        self._files.note_state()
        self._say_if_idle()

    def _count_call(self) -> None:
        if self._idle is not None:
            self._idle.steps += 1

    def _say_if_idle(self, *, over: bool = False) -> None:
        """Say so, once, if steps have led to nothing that could be recorded."""
        if self._idle is None or (cause := self._idle.cause(over=over)) is None:
            return
        self._idle = None
        tell(f"TensorBoardLogger has nothing to record: {cause}.", stacklevel=4)

    def _say_lost(self) -> None:
        """Some steps cannot be told apart: say which are missing."""
        tell(
            "TensorBoardLogger has not recorded the last steps before step "
            f"{self._reader.next_step}: within an epoch something has put the "
            "optimizer's count back without Keras, as tf.train.Checkpoint does. Do it "
            "between two epochs, or by model.load_weights.",
            stacklevel=4,
        )

    def write(self, now: float | None = None) -> None:
        """Write the steps since the last time.

        Args:
            now: When the last of them was made; by default just now.

        Raises:
            OSError: If that fails.
        """
        done = self._reader.read()  # waits until they are made
        if self._chosen.updates() < 0:
            raise OverflowError(
                "the optimizer's count of updates has passed the largest number that "
                "it can hold, and goes on with negative ones"
            )
        if done.lost:
            self._say_lost()
        now = time.time() if now is None else now
        count, blocks = len(done.steps), len(self._times)
        if count:
            columns = self._values_at(done.steps)
            if self._reader.seen and self._chosen.is_compiled:
                columns["schedule/loss"] = done.losses
            if done.steps[0] <= self._last:  # something has put the model back
                self._files.open_anew(int(done.steps[0]))
            if not self._files.begun:
                self._files.begin()
                self._idle = None
            self._last = int(done.steps[-1])
            times = self._times
            if now - times[-1] > 0.1 * (now - self._began):  # Python was ahead
                times = [now]
            made = _between(self._began, times, count)
            self._files.scalars(done.steps, made, columns)
            # Where a file system cannot append, this uploads the whole file.
            if time.monotonic() - self._files.flushed_at > _SECONDS_BETWEEN_WRITES:
                self._files.flush()
            self._latest = {tag: values[-1:] for tag, values in columns.items()}
            elapsed = max(time.monotonic() - self._written_at, 1e-6)
            fitting = int(_SECONDS_BETWEEN_WRITES * blocks / elapsed)
            self._blocks = max(1, min(fitting, 2 * self._blocks))
        self._times, self._rates = [], self._rates[-1:]
        self._began, self._written_at = now, time.monotonic()

    def finish(self) -> None:
        """The fit has come to its end.

        Raises:
            OSError: If that cannot be written.
        """
        try:
            self._write_rest()
            self._say_if_idle(over=True)
            self._files.end()
        finally:
            self._files.close()

    def close(self) -> None:
        """Write what an interrupted fit has left, and close the files.

        Raises:
            OSError: If that fails.
        """
        try:
            self._write_rest()
        finally:
            try:
                self._files.leave()
            finally:
                self._files.close()

    def __del__(self) -> None:
        """An exception has ended the fit, and its model is lost: close the files.

        They are of one cycle, and Python calls this before it takes any of it apart. It
        may do so at any moment: where TensorFlow traces a function just then, what can
        be read is written no more.
        """
        with contextlib.suppress(Exception):  # as in the logger
            if self._process == os.getpid() and not (
                self._files.closed or self._ends_with_it or sys.is_finalizing()
            ):
                self.close()

    def _write_rest(self) -> None:
        if self.active:  # when they were made is known up to the last tick
            self._times = self._times or [self._began]
            self.write(self._times[-1])
            self._write_row()

    def _write_row(self) -> None:
        """Let a row of its own show where this fit is."""
        if self._latest:
            self._files.point(self._last, self._began, self._latest)
        self._latest = {}

    def _note_drives(self) -> None:
        """Note who drives what: after an interruption nobody does any more."""
        self._drives: dict[str, Drive | None] = {
            attribute: drive_of(self._optimizer, attribute)
            for attribute in self._hyperparameters
        }

    def _rate_now(self) -> list[float]:
        """A rate that nothing drives, and callbacks may set between two steps."""
        if self._drives["learning_rate"] is not None:
            return []
        rate = self._chosen.rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return []
        if isinstance(rate, keras.Variable):
            return [float(read(self._model, rate))]
        return [float(self._optimizer.learning_rate)]

    def _values_at(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """The hyperparameters at `steps`, by tag."""
        rates = self._learning_rates(steps)
        prefix = self._prefix
        columns = {f"{prefix}learning_rate": rates}
        for part in parts_of(self._optimizer):
            columns[f"{prefix}learning_rate/{part.name}"] = rates * part.values(steps)
        for attribute in self._hyperparameters[1:]:
            drive = self._drives[attribute]
            name = name_of(self._optimizer, attribute)
            if drive is not None:
                values = drive.schedule.values(steps - drive.start)
                columns[f"{prefix}{name}"] = values
            elif name in ("momentum", "weight_decay"):
                value = float(getattr(self._optimizer, attribute))
                columns[f"{prefix}{name}"] = np.full(len(steps), value)
        return columns

    def _learning_rates(self, steps: np.ndarray) -> np.ndarray:
        drive = self._drives["learning_rate"]
        if drive is not None:
            return drive.schedule.values(steps - drive.start)
        if self._rates:  # noted before each block, and after the last
            used = self._rates[: len(self._times)] or self._rates
            every = self._chosen.every
            block = max(block_of(self._model), -(-len(steps) * every // len(used)))
            return np.asarray(used, np.float64)[np.arange(len(steps)) * every // block]
        return rates_compiled(self._chosen.rate, steps)


def _between(began: float, times: list[float], count: int) -> np.ndarray:
    """When each of `count` steps was done, from when their blocks were."""
    ends = np.linspace(0, count, len(times) + 1)
    return np.interp(np.arange(1, count + 1), ends, [began, *times])
