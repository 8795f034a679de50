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
    is_carried,
    is_first_process,
    optimizers_of,
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
    training goes on unrecorded. So there is where no optimizer makes updates.

    Each optimizer of the model has a run and tags of its own, by the attribute that
    holds it: those of `d_optimizer` are in `<log_dir>/schedules_d_optimizer`, as
    `schedule/d_optimizer/learning_rate` and so on, over its own updates. The loss is in
    the run of the compiled one. One that makes no update has no run.

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
        self._readers: list[tuple[Loan, StepReader]] = []  # of each optimizer
        self._recorders: dict[Loan, Recorder] = {}

    _of_a_fit: ClassVar[dict[str, Any]] = {
        **Borrower._of_a_fit,
        "_readers": [],
        "_recorders": {},
    }

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to keep losses."""
        self._folder = absolute_path("log_dir", self.log_dir)  # also after `os.chdir`
        known = optimizers_of(self.model)  # without the compiled one, if there is none
        loan = self._borrow(known[0].optimizer if known else None)
        loan.undo_with(self._close)  # after an interrupted fit, too
        with loan.closed_on_error():
            for each in [loan, *self._of_others(loan)]:
                reader = StepReader(self.model, each, losses=each is loan)
                self._readers.append((each, reader))
                before_saves(self.model, each, functools.partial(self._saved, each))
                put = functools.partial(self._record_of, each, Recorder.put_back)
                was = functools.partial(self._record_of, each, Recorder.was_put_back)
                around_put_back(self.model, each, put, was)
            # Before other callbacks take their time at the epoch's end.
            done = functools.partial(self._record, Recorder.steps_done)
            after_steps(self.model, loan, done)
            # What a callback does with the model is none of the fit's.
            before = functools.partial(self._record, Recorder.steps_done)
            loan.around_others(before, lambda _: self._record(Recorder.go_on))

    def _of_others(self, loan: Loan) -> list[Loan]:
        """Loans of the model's other optimizers, closed with the one of the compiled.

        What a step on JAX does not carry is not updated in it.
        """
        loans = []
        for other in optimizers_of(self.model):
            if other.inner is not loan.chosen.inner and is_carried(other):
                each = Loan(self.model, borrower=self, optimizer=other.optimizer)
                loan.undo_with(each.close)
                loans.append(each)
        return loans

    def _saved(self, loan: Loan) -> None:
        """Somebody saves the model; after a fit that has died, the process goes on."""
        self._record_of(loan, Recorder.saved)
        if loan.is_over:
            self._record_of(loan, Recorder.leave)

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
        """Open the runs, and record from here on."""
        if self._readers and not self._recorders:
            readers, self._readers = self._readers, []
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
                for loan, reader in readers:
                    chosen = loan.chosen
                    recorder = Recorder(chosen, reader, self._folder, chosen.updates())
                    self._recorders[loan] = recorder
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
        if self._is_on_loan() and self._readers:  # a loop without epochs
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
        loan = self._loan
        if loan is not None and loan.is_over:
            for recorder in self._recorders.values():
                with contextlib.suppress(Exception):  # as in `_close`
                    recorder.at_exit()

    def _give_back(self) -> None:
        super()._give_back()
        self._readers = []

    def _record(self, action: Callable[[Recorder], None]) -> None:
        for loan in [*self._recorders]:
            self._record_of(loan, action)

    def _record_of(self, loan: Loan, action: Callable[[Recorder], None]) -> None:
        recorder = self._recorders.get(loan)
        if recorder is None:
            return
        try:
            action(recorder)
        except Exception as error:  # whatever it is: the training is worth more
            self._say(error)
            for each in self._recorders.values():
                each.active = False
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
        recorders, self._recorders = self._recorders, {}
        for recorder in recorders.values():
            # What fails here has failed before; or JAX has lost the state with a step
            # that was interrupted.
            with contextlib.suppress(Exception):
                recorder.close()
