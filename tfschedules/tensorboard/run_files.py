"""The run folder in which the records of a training are, and who is known to own which.

A run is the record of one training, and which one is known by its state (see
`tensorboard/identity.py`). So the state is noted at the moments at which it may be
saved: when something saves it, and when an epoch, or the fit, is over.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from tensorboard.compat.tensorflow_stub.io import gfile

from tfschedules._support.telling import tell
from tfschedules.drive import Chosen, Loan, is_restored, known_state
from tfschedules.tensorboard import (
    EventWriter,
    Found,
    Journal,
    begin_run,
    discard,
    find_run,
    let_go,
    row_key,
    schedules_key,
)
from tfschedules.tensorboard.fit_settings import settings_of
from tfschedules.tensorboard.runs import file_errors

_NAME = "schedules"  # of the runs
_MOST_RUNS = 8  # of one training that are remembered

# The runs that each optimizer's training has in this process, the latest last.
_runs: weakref.WeakKeyDictionary[Any, list[Journal]] = weakref.WeakKeyDictionary()
_recorded: weakref.WeakSet[keras.Model] = weakref.WeakSet()  # models with open runs
_opening = threading.RLock()  # one thread at a time finds a run and opens it


class RunFiles:
    """The files of a fit: its run's events and journal, and its row.

    All methods raise an `OSError` if something cannot be written.

    Attributes:
        begun: Whether anything has been recorded.
        flushed_at: When all of it was last on disk, by the monotonic clock.
    """

    def __init__(self, chosen: Chosen, log_dir: str, step: int) -> None:
        """Open the run that the training is recorded in, from `step` on."""
        model = chosen.model
        self._chosen, self._model, self._log_dir = chosen, model, log_dir
        self._name = _NAME
        if chosen.name is not None:  # an attribute's, or a key's, which may be anything
            self._name += "_" + re.sub(r"[^\w.-]", "_", chosen.name)
        for other in [*_recorded]:
            if other is not model:
                Loan.end_if_over(other)  # what an interrupted fit of it has open
        self._own = _runs.setdefault(chosen.inner, [])
        self._state = known_state(chosen) if step > 0 else None  # before the first step
        self._seen_at, self._seen = -1, self._state
        restored = is_restored(model)
        given = schedules_key(settings_of(chosen)) if step > 0 else None
        with _opening:
            found = find_run(
                log_dir,
                self._name,
                step,
                self._state,
                self._own,
                given=given,
                restored=restored,
            )
            try:
                self._take(found, step)
            except OSError as error:
                if not found.journal.begun:
                    raise
                why = f"the run that has led to its state cannot be written to: {error}"
                found = Found(begin_run(log_dir, self._name), passed_over=why)
                self._take(found, step)
        if (text := self._surprise(found, restored)) is not None:
            tell(f"TensorBoardLogger {text}", stacklevel=6)

    def _surprise(self, found: Found, restored: bool) -> str | None:
        """What somebody may not expect of the run that was found, if there is."""
        run_dir, step = self._journal.run_dir, self._first
        if found.passed_over:
            return (
                f"begins a new run with step {step}, {run_dir!r}: {found.passed_over}"
            )
        if found.stranger:
            return (
                f"begins a new run with step {step}, {run_dir!r}: no run in "
                f"{self._log_dir!r} has recorded how the training came to the state "
                "that it is in. (It was trained without the logger, in another log_dir "
                "or by another version of tfschedules, its run's journal is damaged, "
                "or somebody has changed its weights.)"
            )
        if found.undone_in:
            return (
                f"begins a new run with step {step}, {run_dir!r}: the steps that have "
                f"led to this state are hidden in {found.undone_in!r}, where a fit has "
                "gone on from an earlier state since."
            )
        if found.gap:
            return (
                f"goes on in {run_dir!r} with step {step}. The last step there is "
                f"{step - found.gap - 1}, and no run in {self._log_dir!r} has recorded "
                "how the training came to the state that it is in. (It was trained "
                "without the logger or in another log_dir, or its recording had "
                "failed. If the weights that were loaded, and the optimizer's state, "
                "are another training's, give the fit another log_dir.)"
            )
        if self._found.back and not restored:
            return (
                f"goes on in {run_dir!r}, whose last fit was broken off: its steps "
                f"from {step} to {found.undone - 1} are hidden, as this fit makes them "
                "anew. To keep them shown, give the fit another log_dir."
            )
        return None

    def open_anew(self, step: int) -> None:
        """Open another run: the model was put back inside of the fit."""
        self._journal.end(self._journal.reached)
        self.close()
        if self._journal in self._own:
            self._own.remove(self._journal)
        self._state = self._seen if self._seen_at == step else None
        self._seen_at = -1
        with _opening:
            self._take(Found(begin_run(self._log_dir, self._name)), step)

    def see_state(self) -> None:
        """Note for `open_anew` the state that the model was put back to."""
        self._seen_at, self._seen = self._chosen.updates(), known_state(self._chosen)

    def _take(self, found: Found, step: int) -> None:
        self._found, self._journal, self._first = found, found.journal, step
        try:
            self._writer = EventWriter(self._journal.run_dir)
        except BaseException:
            let_go(self._journal.run_dir)
            raise
        if self._journal not in self._own:
            self._own[:] = [*self._own[1 - _MOST_RUNS :], self._journal]
        _recorded.add(self._model)
        self._closed = False
        self.begun, self._row, self._told = False, self._writer, False
        self.flushed_at = time.monotonic()

    def begin(self) -> None:
        """Say that steps follow, and what the fit is given: the first are made."""
        first = not self._journal.begun
        self._found.begin(self._writer, self._first, self._state)
        self.begun = True
        settings = settings_of(self._chosen)
        self._journal.note_given(schedules_key(settings))
        key, rows = row_key(settings), self._journal.rows
        folder = rows.get(key) or ("." if first else self._new_folder(len(rows)))
        undone = [*rows.values()] if self._found.back else []
        for each in dict.fromkeys([folder, *undone]):
            if each == ".":
                continue
            row = EventWriter(f"{self._journal.run_dir}/{each}")
            if undone or key not in rows:
                row.restart(self._first)
            if each == folder:
                self._row = row
            else:
                row.close()
        if key not in rows:
            self._row.session_start(settings)
        self._journal.note_row(key, folder)

    def _new_folder(self, rows: int) -> str:
        """A folder for a row; one that was killed may have one that is not noted."""
        run_dir = self._journal.run_dir
        with file_errors("read the folder", run_dir):
            taken = {each.split("/")[0] for each in gfile.listdir(run_dir)}
        free = (f"fit_{n}" for n in itertools.count(max(rows, 1) + 1))
        return next(name for name in free if name not in taken)

    def scalars(
        self, steps: np.ndarray, times: np.ndarray, columns: Mapping[str, np.ndarray]
    ) -> None:
        """Write some steps, and in words where the loss is first not finite."""
        self._writer.scalars(steps, times, columns)
        if not self._told and (text := _divergence(steps, columns)):
            self._told = True
            self._writer.text("schedule/divergence", text, int(steps[-1]))
        reached = int(steps[-1]) + 1
        self._journal.reached = max(self._journal.reached, reached)

    def flush(self) -> None:
        """See to it that it is on disk."""
        self._writer.flush()
        self.flushed_at = time.monotonic()

    def point(self, step: int, now: float, values: Mapping[str, np.ndarray]) -> None:
        """Let a row of its own show where this fit is."""
        if self._row is not self._writer:
            self._row.scalars([step], [now], values)
            self._row.flush()

    def note_state(self) -> None:
        """Note the state that the recorded steps have led to."""
        if self._closed or not self.begun:
            return
        made = self._chosen.updates()
        if made < self._journal.reached:
            return  # it was put back: the run has passed through that state before
        if (state := known_state(self._chosen)) is not None:
            self._journal.note_state(made, state)

    def end(self) -> None:
        """Note that the fit has come to its end."""
        if self.begun:
            self._row.session_end()
            self.note_state()
            self._journal.end(self._journal.reached)

    @property
    def closed(self) -> bool:
        """Whether the files were closed."""
        return self._closed

    def leave(self) -> None:
        """Note that the fit is over without having come to its end."""
        if self._closed or not self.begun:
            return
        try:
            self.note_state()
        finally:
            self._journal.leave(self._journal.reached)

    def close(self) -> None:
        """Close the files; a run in which nothing was recorded is removed."""
        if self._closed:
            return
        self._closed = True
        _recorded.discard(self._model)
        try:
            self._writer.close()
        finally:
            self._row.close()
            if not self.begun:
                discard(self._journal, self._writer.path)


def _divergence(steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> str | None:
    """Where the first loss is that is not finite, and at which rate; None without."""
    bad = ~np.isfinite(columns.get("schedule/loss", np.zeros(len(steps))))
    if not bad.any():
        return None
    place = int(bad.argmax())
    loss = "NaN" if np.isnan(columns["schedule/loss"][place]) else "infinite"
    rate = columns["schedule/learning_rate"][place]
    return (
        f"The loss is {loss} at step {steps[place]}, at the learning rate {rate:.3g}."
    )
