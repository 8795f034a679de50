"""The range test as a hook: sweep the rate, stop at divergence, put all back."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from tfschedules._support.paths import log_path
from tfschedules.estimator import graph as graphs
from tfschedules.finding import (
    RangeTest,
    RangeTestResult,
    diverged,
    log_range_test,
    new_range_test_run,
)
from tfschedules.tensorboard import absolute_path

_V1 = tf.compat.v1
_GOING = "out of data"  # the reason to stop, until there is another


class RangeTestHook(tf.compat.v1.train.SessionRunHook):
    """Sweeps the learning rate in a `train` of its own, and leaves no trace of it.

    The first training step becomes the whole sweep: inside it the step is run up to
    `steps` times with rates from `min_lr` to `max_lr`; then every variable of the
    session is what it was, the global step, too, and training ends, as at the end of
    the data. Savers, summaries and other hooks see no swept step. An Estimator's
    `model_dir` then has the checkpoint that was there, or one of the initial weights,
    and the next `train` goes on from it. `.result` holds the curve.

    Where the data come by `feed_dict`, each run of the loop is a step of the sweep.
    Savers see these; so a session that saves checkpoints is refused.

    Args:
        min_lr: The first rate, > 0.
        max_lr: The last rate, > `min_lr`.
        steps: The length of the sweep in updates, >= 2.
        mode: "exponential", or "linear" as in Smith's paper.
        stop_factor: The sweep stops where the loss is greater than this times the least
            so far; as for `RangeTest`. `None` sweeps to the end.
        rule: The rule of `.result.suggestion`; as for `RangeTest`.
        loss: The loss, a scalar tensor or its name. If `None`, the one that the
            Estimator trains, or the only one in the graph's collection of losses.
        log_dir: Where to write a TensorBoard run `range_test`; not written if `None`. A
            `TensorBoardHook` beside this one has it written to its folder, too.

    Attributes:
        result: A `RangeTestResult` after the sweep, or `None`.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If one is out of range; when a session begins, if the loss or the
            learning rate is not to be found in the graph or there are several, or
            another hook has taken the rate over, or the session is one of a cluster;
            at the first step, if there are no data, or they are fed to a session that
            saves checkpoints.

    Example:
        >>> from tfschedules import estimator
        >>> test = estimator.RangeTestHook(min_lr=1e-6, max_lr=1.0, steps=200)
        >>> # tf.estimator.Estimator(model_fn).train(input_fn, hooks=[test])
        >>> # print(test.result)
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
        loss: Any = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the arguments and make the sweep."""
        # The callback's checks and its sweep; it never sees a fit.
        self._test = RangeTest(min_lr, max_lr, steps, mode, stop_factor, rule=rule)
        self._rates = self._test.schedule.values(self._test.steps)
        self._loss = loss
        self._log_dirs = []
        if log_dir is not None:
            self._log_dirs.append(log_path("log_dir", log_dir))
        self.result: RangeTestResult | None = None

    def begin(self) -> None:
        """Put a rate that is fed in place of the graph's: the graph is complete."""
        self.result = None
        graph = _V1.get_default_graph()
        self._loss_tensor = graphs.find_loss(graph, self._loss)
        with graph.control_dependencies(None):
            self._rate = _V1.placeholder_with_default(
                np.float32(self._rates[0]), (), name="tfschedules/swept_learning_rate"
            )
        graphs.take_over(graph, self._rate)

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Make the folders: an error must come before a sweep."""
        if session.sess_str:
            raise ValueError(
                "A range test is for one machine: others would train on while it puts "
                f"the variables back. Received: a session of {session.sess_str!r}. Run "
                "it without TF_CONFIG or `master`."
            )
        self._graph = session.graph
        folders = [*self._log_dirs, *self._graph.get_collection(graphs.LOG_DIRS)]
        folders = [
            absolute_path("log_dir", tf.compat.as_str_any(folder)) for folder in folders
        ]
        self._run_dirs = [new_range_test_run(f) for f in dict.fromkeys(folders)]
        self._losses: list[float] = []
        self._times: list[float] = []
        self._stop_reason = _GOING
        self._variables: _Variables | None = None

    def before_run(self, run_context: Any) -> Any:
        """Sweep, if this run is a step of training."""
        fetches, feed = run_context.original_args[:2]
        if not graphs.trains(self._graph, fetches, {self._rate.op.name}):
            return None
        if self.result is not None:
            _end()
        if self._variables is None:
            if feed:
                _refuse_savers(self._graph)
            self._variables = _Variables(self._graph, run_context.session)
        if not feed:
            self._sweep(run_context.session, fetches)
            _end()
        return _V1.train.SessionRunArgs(self._loss_tensor, {self._rate: self._next()})

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Note the loss of a step whose data were fed."""
        if run_values.results is None:
            return
        self._note(float(run_values.results))
        if self._stop_reason != _GOING:
            self._finish(run_context.session)
            run_context.request_stop()

    def end(self, session: Any) -> None:
        """Put the variables back where fed data have ended early."""
        if self._variables is not None and self.result is None:
            self._finish(session)

    def _sweep(self, session: Any, fetches: Any) -> None:
        """Run the step again and again, and put all back whatever happens."""
        try:
            while self._stop_reason == _GOING:
                loss, _ = session.run(
                    [self._loss_tensor, fetches], {self._rate: self._next()}
                )
                self._note(float(loss))
        except tf.errors.OutOfRangeError as error:
            if not self._losses:
                raise ValueError(
                    "A range test needs data to sweep over. Received: an input that "
                    "ends before its first batch."
                ) from error
        except BaseException:
            self._stop_reason = "interrupted"
            raise
        finally:
            self._finish(session)

    def _next(self) -> np.float32:
        return np.float32(self._rates[len(self._losses)])

    def _note(self, loss: float) -> None:
        """Add a step to the curve, and see whether there is a reason to stop."""
        self._losses.append(loss)
        self._times.append(time.time())
        factor = self._test.stop_factor
        if not np.isfinite(loss):
            self._stop_reason = "non-finite loss"
        elif factor is not None and diverged(self._losses, factor):
            self._stop_reason = "diverged"
        elif len(self._losses) == self._test.steps:
            self._stop_reason = "finished"

    def _finish(self, session: Any) -> None:
        """Put the variables back and read the curve."""
        assert self._variables is not None
        self._variables.restore(session)
        self.result = RangeTestResult.from_sweep(
            self._rates[: len(self._losses)],
            self._losses,
            steps=self._test.steps,
            stop_reason=self._stop_reason,
            mode=self._test.mode,
            rule=self._test.rule,
        )
        for run_dir in self._run_dirs:
            if self._losses:
                log_range_test(self.result, run_dir, self._times)
            else:  # a run that has not come to be
                with contextlib.suppress(OSError):
                    Path(run_dir).rmdir()


class _Variables:
    """All variables of a session as they are now."""

    def __init__(self, graph: Any, session: Any) -> None:
        with graph.as_default():
            of_graph = [*_V1.global_variables(), *_V1.local_variables()]
        self._variables = list({v.name: v for v in of_graph}.values())
        self._values = [np.array(value) for value in session.run(self._variables)]

    def restore(self, session: Any) -> None:
        # The graph can take no new operations: each initializer is fed the value.
        for variable, value in zip(self._variables, self._values, strict=True):
            initializer = variable.initializer
            session.run(initializer, {initializer.inputs[1]: value})


def _refuse_savers(graph: Any) -> None:
    """Refuse to sweep where a saver would write what is swept."""
    savers = graph.get_collection(_V1.GraphKeys.SAVERS)
    if any(saver.last_checkpoints for saver in savers):
        raise ValueError(
            "A range test over fed data must not run in a session that saves "
            "checkpoints: they would hold swept weights. Put the data into the graph "
            "(tf.data), or give MonitoredTrainingSession no checkpoint_dir."
        )


def _end() -> NoReturn:
    """End training as the end of the data does, without one more step."""
    raise tf.errors.OutOfRangeError(
        None,
        None,
        "The range test is over: see `.result` of the RangeTestHook. `with "
        "MonitoredTrainingSession(...)`, as in an Estimator, ends without this error.",
    )
