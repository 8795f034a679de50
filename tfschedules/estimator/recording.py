"""The hook that records every step for TensorBoard."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfschedules._support.paths import log_path
from tfschedules._support.telling import tell
from tfschedules.estimator import graph as graphs
from tfschedules.estimator.states import States
from tfschedules.tensorboard import (
    EventWriter,
    Found,
    absolute_path,
    begin_run,
    find_run,
    let_go,
    make_log_dir,
)

_SECONDS_BETWEEN_WRITES = 2.0
_MOST_STEPS_KEPT = 1000
_V1 = tf.compat.v1


class TensorBoardHook(tf.compat.v1.train.SessionRunHook):
    """Writes the rate and the loss of every step.

    They go to `<output_dir>/schedules`, under the tags `schedule/learning_rate` and
    `schedule/loss`, at the global step that the rate was made of. With the estimator's
    own `model_dir` one `tensorboard --logdir` shows them beside its summaries. A
    training that is resumed from a checkpoint goes on in its own run, and steps that
    were undone are hidden; a new one, and one whose count went back, begins a new run
    folder. Each worker has a run folder of its own. Beside a `RangeTestHook` its
    result is written instead, to `<output_dir>/range_test`.

    A killed process loses at most the last seconds. If the disk fails during training,
    there is a warning and training goes on unrecorded.

    Args:
        output_dir: The folder that `tensorboard --logdir` is started on.
        loss: The loss, a scalar tensor or its name. If `None`, the one that the
            Estimator trains, or the only one in the graph's collection of losses.

    Raises:
        TypeError: If `output_dir` is not a path.
        ValueError: When a session begins, if the loss or the learning rate is not to be
            found in the graph, or there are several.
        OSError: When a session begins, if the folder cannot be written to.

    Example:
        >>> from tfschedules import estimator
        >>> hook = estimator.TensorBoardHook("model_dir")
        >>> # tf.estimator.Estimator(model_fn, "model_dir").train(data, hooks=[hook])
    """

    def __init__(self, output_dir: str | os.PathLike[str], loss: Any = None) -> None:
        """Check the path; files are made when the first step is done."""
        self.output_dir = log_path("output_dir", output_dir)
        self._folder = self.output_dir
        self._loss = loss
        self._writer: EventWriter | None = None
        self._states: States | None = None
        self._found: Found  # with the writer

    def begin(self) -> None:
        """Find the loss, and the folder: the graph is complete."""
        self._close()  # an exception skips `end`
        self._folder = absolute_path("output_dir", self.output_dir)
        make_log_dir(self._folder)  # an error must come before a training
        self._steps: list[int] = []
        self._times: list[float] = []
        self._rates: list[float] = []
        self._losses: list[float] = []
        self._last = -1
        self._failed = False
        graph = _V1.get_default_graph()
        graph.add_to_collection(graphs.LOG_DIRS, self._folder)
        self._fetched = {"loss": graphs.find_loss(graph, self._loss)}
        # Hooks after this one may take the rate over; what they do not bring is ready.
        self._own_step = graphs.read_step(graph)
        self._states = States(graph)
        graphs.before_counting(graph, self._own_step)

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Find the rate: all hooks have done with the graph."""
        assert self._states is not None
        self._first_state = self._states.now(session)
        self._states.before_saves(session.graph, self._save)
        rate = graphs.observed_rate(session.graph)
        self._graph, self._rate_ops = session.graph, set()
        if rate is not None:
            step = self._own_step if rate.step is None else rate.step
            self._fetched |= {"rate": rate.tensor, "step": step}
            self._rate_ops = rate.users
        self._trains: dict[tuple[str, ...], bool] = {}

    def before_run(self, run_context: Any) -> Any:
        """Ask for the step's rate and loss, if it is a step."""
        if not self._rate_ops or self._failed:
            return None
        fetches = run_context.original_args.fetches
        key = tuple(getattr(f, "name", str(f)) for f in tf.nest.flatten(fetches))
        if key not in self._trains:
            self._trains[key] = graphs.trains(self._graph, fetches, self._rate_ops)
        return _V1.train.SessionRunArgs(self._fetched) if self._trains[key] else None

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Note the step, and write now and then."""
        found = run_values.results
        if found is None:
            return
        step, now = int(found["step"]), time.time()
        if not self._steps and step == self._last:
            return  # not counted, and what came first has been written
        if self._steps and step == self._steps[-1]:  # accumulated, not counted yet
            del self._steps[-1], self._times[-1], self._rates[-1], self._losses[-1]
        elif self._steps and step < self._steps[-1]:
            self._write()
        self._steps.append(step)
        self._times.append(now)
        self._rates.append(float(found["rate"]))
        self._losses.append(float(found["loss"]))
        if (
            len(self._steps) >= _MOST_STEPS_KEPT
            or now - self._times[0] > _SECONDS_BETWEEN_WRITES
        ):
            self._write()

    def end(self, session: Any) -> None:
        """Write the last steps and close the run."""
        self._write()
        self._save(session)
        if self._writer is not None:
            self._guarded(lambda: self._found.journal.end(self._last + 1))
        self._close()

    def _save(self, session: Any) -> None:
        """Note the state of a training that is saved, or over, and what led there."""
        self._write()
        if self._writer is not None and self._states is not None:
            known = self._states.now(session)
            if known is not None:  # the hook that saves may come before this one
                self._guarded(lambda: self._found.journal.note_state(*known))

    def _open(self, step: int) -> None:
        """Open the run in which steps are written from `step` on."""
        put_back = self._writer is not None
        self._close_writer()
        first, state = self._first_state or (-1, None)
        state = state if first == step and not put_back else None
        if put_back:  # a checkpoint was gone back to
            self._found.journal.end(self._last + 1)
            self._found = Found(begin_run(self._folder, "schedules"))
        else:
            self._found = find_run(self._folder, "schedules", step, state)
        try:
            self._writer = EventWriter(self._found.journal.run_dir)
            self._found.begin(self._writer, step, state)
        except BaseException:
            let_go(self._found.journal.run_dir)
            raise

    def _write(self) -> None:
        if not self._steps or self._failed:
            return
        self._guarded(self._write_steps)
        self._steps, self._times, self._rates, self._losses = [], [], [], []

    def _write_steps(self) -> None:
        if self._writer is None or self._steps[0] <= self._last:
            self._open(self._steps[0])
        assert self._writer is not None
        columns = {
            "schedule/learning_rate": self._rates,
            "schedule/loss": self._losses,
        }
        self._writer.scalars(self._steps, self._times, columns)
        self._writer.flush()
        self._last = self._steps[-1]

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do what records, and if that fails, record no more: training goes on."""
        try:
            action()
        except Exception as error:
            cause = error if isinstance(error, OSError) else repr(error)
            tell(
                f"TensorBoardHook no longer records to {self.output_dir!r}: {cause}. "
                "Training goes on.",
                stacklevel=3,
            )
            self._failed = True
            self._close()

    def _close(self) -> None:
        self._close_writer()
        if self._states is not None:
            self._states.let_go()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
