"""Every step of a fit, for TensorBoard, nearly free.

A driven rate is a function of the step and is computed in bulk when it is written;
losses are read back from the ring that keeps them, a thousand at a time or every other
second. Nothing is read and nothing is written in a step itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from tfschedules._support.paths import log_path
from tfschedules._support.telling import tell
from tfschedules.drive import (
    Borrower,
    Loan,
    StepReader,
    after_steps,
    around_put_back,
    before_saves,
    is_first_process,
    updates,
)
from tfschedules.tensorboard.recording import Recorder
from tfschedules.tensorboard.runs import absolute_path

# The loggers with open runs, and the process that each is of.
_recording: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


@atexit.register
def _at_exit() -> None:
    """Write what a fit has left that ends with its process, by an exception.

    It may be resumed as after a kill: that it is over is not noted.
    """
    for logger, process in [*_recording.items()]:
        if process == os.getpid():
            logger.at_exit()


class TensorBoardLogger(Borrower):
    """Writes rate, momentum, weight decay and true batch loss of every step.

    They go to `<log_dir>/schedules`, under the tags `schedule/learning_rate` (with a
    `LayerwiseOptimizer` also `schedule/learning_rate/<group>`), `schedule/momentum`
    (also where it is Adam's `beta_1`), `schedule/weight_decay`,
    `schedule/<hyperparameter>` for others that are driven, and `schedule/loss`. Steps
    are the optimizer's updates. A run is the record of one training: its next fit goes
    on in the same run, also where it is resumed in another process from a backup, a
    checkpoint or a saved model. Steps that are made again are shown once. A new model,
    and a branch, begin a new run folder. A branch goes on from an old checkpoint of a
    fit that is over, also by an exception, or with another schedule. A relative
    `log_dir` is that of the folder in which `fit` begins. Beside a `RangeTest`
    its result is written instead, to `<log_dir>/range_test`. Put it last among the
    callbacks: a rate that another one assigns from Python is recorded if that has been
    done by then.

    Of several processes that train one model together, the first writes.

    Each schedule has a row in the HParams tab: its name and arguments, the optimizer
    and its constants. Its metrics are the last values of the run. A fit that goes on in
    the run with another schedule has a row of its own, `<log_dir>/schedules/fit_2`,
    with the last values of that fit; the first row shows those of the whole run.

    A killed process loses the last two seconds of training and the step, or execution
    block, that was on its way. One that an exception ends, Ctrl-C or `sys.exit`, has
    recorded all steps, and may be resumed as a killed one. If the disk fails during
    training, or whatever else there is, there is one warning with the cause, and
    training goes on unrecorded. So there is where the train step does not update with
    the compiled optimizer.

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
        self.log_dir = self._folder = log_path("log_dir", log_dir)
        self._reader: StepReader | None = None
        self._recorder: Recorder | None = None

    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "_reader": None,
        "_recorder": None,
    }

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to keep losses."""
        self._folder = absolute_path("log_dir", self.log_dir)  # also after `os.chdir`
        loan = self._borrow()
        loan.undo_with(self._close)  # after an interrupted fit, too
        with loan.closed_on_error():
            self._reader = StepReader(self.model, loan)
            # Before other callbacks take their time at the epoch's end.
            done = functools.partial(self._record, Recorder.steps_done)
            after_steps(self.model, loan, done)
            before_saves(self.model, loan, self._saved)
            put = functools.partial(self._record, Recorder.put_back)
            was_put = functools.partial(self._record, Recorder.was_put_back)
            around_put_back(self.model, loan, put, was_put)
            # What a callback does with the model is none of the fit's.
            before = functools.partial(self._record, Recorder.steps_done)
            loan.around_others(before, lambda _: self._record(Recorder.go_on))

    def _saved(self) -> None:
        """Somebody saves the model; after a fit that has died, the process goes on."""
        self._record(Recorder.saved)
        if self._loan is not None and self._loan.is_over:
            self._record(Recorder.leave)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Open the run at the optimizer's count: a resumed state is loaded by now."""
        if self._is_on_loan():
            self._begin()

    def _is_on_loan(self) -> bool:
        """Whether there is a loan; a loop that goes on without is not recorded."""
        try:
            return self._check_on_loan()
        except RuntimeError as error:
            self._say(str(error))
            self._give_back()
            return False

    def _begin(self) -> None:
        """Open the run, and record from here on."""
        if self._reader is not None and self._recorder is None:
            reader, self._reader = self._reader, None
            tests = [
                o
                for o in Loan.borrowers(self.model)
                if isinstance(o, Borrower) and o.writes_records
            ]
            for test in tests:
                test.also_log_to(self._folder)
            if tests or not is_first_process():
                return
            try:
                step = updates(self.model)
                self._recorder = Recorder(self.model, reader, self._folder, step)
                _recording[self] = os.getpid()
            except OSError:  # the argument `log_dir`: the fit has not begun
                raise
            except Exception as error:
                self._say(error)
        self._record(Recorder.begin)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time, and write now and then.

        This is called in the main thread between two steps; `on_train_batch_end` would
        take Keras's asynchronous dispatch away, or be called beside a running step.
        """
        if self._is_on_loan() and self._reader is not None:  # a loop without epochs
            self._begin()
            batch = 0
        self._record(Recorder.start if batch == 0 else Recorder.tick)

    def on_test_begin(self, logs: Any = None) -> None:
        """Write before validation, whose losses are not the training's."""
        self._record(Recorder.end)

    def on_test_end(self, logs: Any = None) -> None:
        """Go on after validation."""
        self._record(Recorder.begin)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write what the epoch has left."""
        self._tell(logs)
        self._record(Recorder.end_epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Close the run."""
        self._record(Recorder.finish)
        self._give_back()

    def at_exit(self) -> None:
        """Write what is left, where the process ends after an exception in the fit."""
        recorder, loan = self._recorder, self._loan
        if recorder is not None and loan is not None and loan.is_over:
            with contextlib.suppress(Exception):  # as in `_close`
                recorder.at_exit()

    def _give_back(self) -> None:
        super()._give_back()
        self._reader = None

    def _record(self, action: Callable[[Recorder], None]) -> None:
        if self._recorder is None:
            return
        try:
            action(self._recorder)
        except Exception as error:  # whatever it is: the training is worth more
            self._say(error)
            self._recorder.active = False
            self._close()

    def _say(self, cause: object) -> None:
        """Say why nothing is recorded any more."""
        if isinstance(cause, Exception) and not isinstance(cause, OSError):
            cause = f"{type(cause).__name__}: {cause}"
        text = str(cause).rstrip(".")
        tell(
            f"TensorBoardLogger no longer records to {self.log_dir!r}: {text}. "
            "Training goes on.",
            stacklevel=3,
        )

    def _close(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            # What fails here has failed before; or JAX has lost the state with a step
            # that was interrupted.
            with contextlib.suppress(Exception):
                recorder.close()
