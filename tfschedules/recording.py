"""The steps of one fit, from the optimizer to the event file.

Backends hand a step to the device and go on in Python, up to 32 steps ahead of it on
JAX: what is read then waits for the device. So steps are written after so many as take
some two seconds there, however fast Python sees them go by, and of times that it saw
go by too early only the last, when the device was done, is believed.

A run is the record of one training, and which one is known by its state (see
`tensorboard/identity.py`). So the state is noted at the moments at which it may be
saved: when something saves it, and when an epoch, or the fit, is over.
"""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from typing import Any

import keras
import numpy as np

from tfschedules.drive import (
    Drive,
    Loan,
    StepReader,
    block_of,
    drive_of,
    fingerprint,
    hyperparameters_of,
    innermost,
    name_of,
    parts_of,
    rate_of,
    read,
    updates,
)
from tfschedules.fit_settings import settings_of
from tfschedules.schedules import Schedule
from tfschedules.tensorboard import (
    EventWriter,
    Found,
    Journal,
    begin_run,
    discard,
    find_run,
    let_go,
    row_key,
)

_SECONDS_BETWEEN_WRITES = 2.0
_NAME = "schedules"  # of the runs
_MOST_RUNS = 8  # of one training that are remembered

# The runs that each optimizer's training has in this process, the latest last.
_runs: weakref.WeakKeyDictionary[Any, list[Journal]] = weakref.WeakKeyDictionary()
_recorded: weakref.WeakSet[keras.Model] = weakref.WeakSet()  # models with open runs
_opening = threading.RLock()  # one thread at a time finds a run and opens it


class Recorder:
    """Writes the steps of a fit into the run folders of a log directory.

    Attributes:
        active: Whether training steps are being made, and not validated.
    """

    def __init__(
        self, model: keras.Model, reader: StepReader, log_dir: str, step: int
    ) -> None:
        """Open the run for steps from `step` on.

        Raises:
            OSError: If that fails.
        """
        self._model, self._reader, self._log_dir = model, reader, log_dir
        self._optimizer = innermost(model.optimizer)
        self._hyperparameters = hyperparameters_of(self._optimizer)
        # A scaled loss may skip updates; which, is known from one read to the next.
        scaled = keras.optimizers.LossScaleOptimizer
        self._every_step = isinstance(model.optimizer, scaled)
        self._last = -1
        self._latest: dict[str, np.ndarray] = {}  # values, by tag
        self._blocks = 1  # to be made between two writes
        self._times: list[float] = []  # since the last one
        self._rates: list[float] = []
        self.active = False
        self._ahead = False  # of the ticks: a save came between two of them
        self._note_drives()
        self._open(step)

    def _open(self, step: int) -> None:
        """Open the run that the training is recorded in."""
        for model in [*_recorded]:
            if model is not self._model:
                Loan.end_if_over(model)  # what an interrupted fit of it has open
        own = _runs.setdefault(self._optimizer, [])
        self._first_state = _state_of(self._model) if step > 0 else None
        with _opening:
            found = find_run(self._log_dir, _NAME, step, self._first_state, own)
            self._take(found, step)
        if found.journal not in own:
            own[:] = [*own[1 - _MOST_RUNS :], found.journal]
        if found.stranger:
            warnings.warn(
                "TensorBoardLogger begins a new run with step "
                f"{step}, {found.journal.run_dir!r}: no run in {self._log_dir!r} has "
                "recorded how the training came to the state that it is in. (It was "
                "trained without the logger, in another log_dir or by an earlier "
                "version of tfschedules, or somebody has changed its weights.)",
                stacklevel=5,
            )

    def _open_anew(self, step: int) -> None:
        """Open another run: the model was put back inside of the fit."""
        own = _runs.setdefault(self._optimizer, [])
        if self._run in own:
            own.remove(self._run)
        self._run.end(self._last + 1)
        self._close_files()
        self._first_state = None
        with _opening:
            self._take(Found(begin_run(self._log_dir, _NAME)), step)
        own.append(self._run)

    def _take(self, found: Found, step: int) -> None:
        self._found, self._run, self._first = found, found.journal, step
        try:
            self._writer = EventWriter(self._run.run_dir)
        except BaseException:
            let_go(self._run.run_dir)
            raise
        _recorded.add(self._model)
        self._begun = False
        self._flushed_at = time.monotonic()
        self._row: EventWriter | None = None

    def _begin_run(self) -> None:
        """Say that steps follow, and hide those that they undo: the first is there."""
        self._found.begin(self._writer, self._first, self._first_state)
        self._begun = True
        self._open_row()

    def _open_row(self) -> None:
        """Say what the fit is given: with its first steps, so that no row lacks any."""
        settings = settings_of(self._model)
        key, rows = row_key(settings), self._run.rows
        folder = rows.get(key) or (f"fit_{len(rows) + 1}" if rows else ".")
        self._row = self._writer
        for each in dict.fromkeys(
            [folder, *(rows.values() if self._found.back else ())]
        ):
            if each == ".":
                continue
            row = EventWriter(f"{self._run.run_dir}/{each}")
            if self._found.back or key not in rows:
                row.restart(self._first)
            if each == folder:
                self._row = row
            else:
                row.close()
        if key not in rows:
            self._row.session_start(settings)
            self._run.note_row(key, folder)

    def begin(self) -> None:
        """Record from here on: an epoch begins, or validation is over."""
        self._reader.skip()
        self._rates, self._ahead = [], False
        self.go_on()
        self.active = True

    def go_on(self) -> None:
        """Go on after steps that are not recorded."""
        self._times, self._rates = [], self._rates[-1:]
        self._began, self._written_at = time.time(), time.monotonic()

    def start(self) -> None:
        """The first batch begins, and callbacks have set what they set by the epoch."""
        self.begin()
        self._note_drives()
        self._rates = self._rate_now()

    def tick(self) -> None:
        """A batch, or a block of them, is done, or on its way."""
        ahead, self._ahead = self._ahead, False
        if ahead and not self._reader.waiting:  # it was written when the save came
            self._rates = self._rate_now()
            return
        self._times.append(time.time())
        # JAX would be held up by the reading, and loses what callbacks assign anyway.
        if keras.backend.backend() != "jax":
            self._rates += self._rate_now()
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
            self._flush()

    def saved(self) -> None:
        """The state is being saved, between two steps or after an epoch's.

        The records go as far as what is saved: whoever resumes it goes on there.
        """
        if self.active:
            waiting = self._reader.waiting
            if waiting > len(self._times) * block_of(self._model):
                self._times.append(time.time())
                self._ahead = True
            if waiting > 0 and self._times:
                self.write()
                self._flush()
        self._note_state()

    def end(self) -> None:
        """The epoch's batches are done; what comes now is not recorded."""
        self.steps_done()
        self._write_row()
        self.active = False

    def end_epoch(self) -> None:
        """An epoch is over."""
        self.end()
        self._note_state()

    def _note_state(self) -> None:
        """Note the state that the recorded steps have led to."""
        if self._begun and (state := _state_of(self._model)) is not None:
            self._run.note_state(updates(self._model), state)

    def write(self, now: float | None = None) -> None:
        """Write the steps since the last time.

        Args:
            now: When the last of them was made; by default just now.

        Raises:
            OSError: If that fails.
        """
        done = self._reader.read()  # waits until they are made
        if updates(self._model) < 0:
            raise OverflowError(
                "the optimizer's count of updates has passed the largest number that "
                "it can hold, and goes on with negative ones"
            )
        now = time.time() if now is None else now
        count, blocks = len(done.steps), len(self._times)
        if count:
            columns = self._values_at(done.steps)
            if self._reader.seen:
                columns["schedule/loss"] = done.losses
            if done.steps[0] <= self._last:  # something has put the model back
                self._open_anew(int(done.steps[0]))
            if not self._begun:
                self._begin_run()
            self._last = int(done.steps[-1])
            times = self._times
            if now - times[-1] > 0.1 * (now - self._began):  # Python was ahead
                times = [now]
            made = _between(self._began, times, count)
            self._writer.scalars(done.steps, made, columns)
            self._run.reached = max(self._run.reached, self._last + 1)
            # Where a file system cannot append, this uploads the whole file.
            if time.monotonic() - self._flushed_at > _SECONDS_BETWEEN_WRITES:
                self._flush()
            self._latest = {tag: values[-1:] for tag, values in columns.items()}
            elapsed = max(time.monotonic() - self._written_at, 1e-6)
            fitting = int(_SECONDS_BETWEEN_WRITES * blocks / elapsed)
            self._blocks = max(1, min(fitting, 2 * self._blocks))
        self._times, self._rates = [], self._rates[-1:]
        self._began, self._written_at = now, time.monotonic()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed_at = time.monotonic()

    def finish(self) -> None:
        """The fit has come to its end.

        Raises:
            OSError: If that cannot be written.
        """
        try:
            self._write_rest()
            if self._row is not None:
                self._row.session_end()
            if self._begun:
                self._note_state()
                self._run.end(self._last + 1)
        finally:
            self._close_files()

    def close(self) -> None:
        """Write what an interrupted fit has left, and close the files.

        Raises:
            OSError: If that fails.
        """
        try:
            self._write_rest()
            self._note_state()
        finally:
            self._close_files()

    def _write_rest(self) -> None:
        if self.active:  # when they were made is known up to the last tick
            self._times = self._times or [self._began]
            self.write(self._times[-1])
            self._write_row()

    def _close_files(self) -> None:
        _recorded.discard(self._model)
        try:
            self._writer.close()
        finally:
            if self._row is not None:
                self._row.close()
            if not self._begun:
                discard(self._run)

    def _write_row(self) -> None:
        """Let a row of its own show where this fit is."""
        row = self._row
        if row is not None and row is not self._writer and self._latest:
            row.scalars([self._last], [self._began], self._latest)
            row.flush()
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
        rate = rate_of(self._model)
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return []
        if isinstance(rate, keras.Variable):
            return [float(read(self._model, rate))]
        return [float(self._optimizer.learning_rate)]

    def _values_at(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """The hyperparameters at `steps`, by tag."""
        rates = self._learning_rates(steps)
        columns = {"schedule/learning_rate": rates}
        for part in parts_of(self._optimizer):
            columns[f"schedule/learning_rate/{part.name}"] = rates * part.values(steps)
        for attribute in self._hyperparameters[1:]:
            drive = self._drives[attribute]
            name = name_of(self._optimizer, attribute)
            if drive is not None:
                values = drive.schedule.values(steps - drive.start)
                columns[f"schedule/{name}"] = values
            elif name in ("momentum", "weight_decay"):
                value = float(getattr(self._optimizer, attribute))
                columns[f"schedule/{name}"] = np.full(len(steps), value)
        return columns

    def _learning_rates(self, steps: np.ndarray) -> np.ndarray:
        drive = self._drives["learning_rate"]
        if drive is not None:
            return drive.schedule.values(steps - drive.start)
        if self._rates:  # noted before each block, and after the last
            used = self._rates[: len(self._times)] or self._rates
            every = self._optimizer.gradient_accumulation_steps or 1
            block = max(block_of(self._model), -(-len(steps) * every // len(used)))
            return np.asarray(used, np.float64)[np.arange(len(steps)) * every // block]
        schedule = rate_of(self._model)
        if isinstance(schedule, Schedule):
            return schedule.values(steps)
        return np.array([float(schedule(step)) for step in steps])


def _state_of(model: keras.Model) -> str | None:
    """The fingerprint of the training's state; None where it has none."""
    try:
        return fingerprint(model)
    except Exception:  # the state is lost, or of a kind that this does not know
        return None


def _between(began: float, times: list[float], count: int) -> np.ndarray:
    """When each of `count` steps was done, from when their blocks were."""
    ends = np.linspace(0, count, len(times) + 1)
    return np.interp(np.arange(1, count + 1), ends, [began, *times])
