"""What every callback has that borrows something of the model for a fit."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import keras

from tfschedules._support.arguments import Recalled, names_of
from tfschedules.drive.chosen import Chosen, choose, unused
from tfschedules.drive.epoch_logs import EpochLogs, is_told_otherwise, values_now
from tfschedules.drive.frames import Taken
from tfschedules.drive.loan import Loan
from tfschedules.drive.proof import Proof
from tfschedules.drive.restored import (
    backs_up_whole_epochs,
    is_restored,
    mark_earlier,
)

if TYPE_CHECKING:
    from tfschedules.drive.drive import Drive

# Two threads may give one callback to two fits at the same time.
_taking = threading.RLock()


class Borrower(Recalled, keras.callbacks.Callback):
    """A callback with something of one model on loan, from `on_train_begin` on.

    A copy of it, or what `pickle` makes of it, is in no fit and has no model. A deep
    copy is made with the same data and layers as the original, which are not copied.
    """

    # Whether it writes records of the fit itself: then `also_log_to` says where else,
    # and logs are left as they are.
    writes_records: ClassVar[bool] = False

    # What belongs to a fit, and the value that it has outside of one.
    _of_a_fit: ClassVar[dict[str, Any]] = {
        "_loan": None,
        "_proof": None,
        "_taken": None,
        "_model": None,
        "params": None,
    }

    # What a deep copy has in common with the original.
    _shared: ClassVar[tuple[str, ...]] = ("_given", "_optimizer")

    _optimizer: Any = None  # which of the model's, as it was given; else the compiled

    _loan: Loan | None = None
    _proof: Proof | None = None
    _taken: Taken | None = None

    def set_model(self, model: keras.Model) -> None:
        """Be given the model of the fit that begins.

        Raises:
            RuntimeError: If the callback is in another fit, in another thread or
                around this one.
        """
        taken = Taken(model, sys._getframe())
        with _taking:
            if (other := self._in_use(taken)) is not None:
                raise RuntimeError(
                    f"This {type(self).__name__} is in use: a fit of the model "
                    f"{other.name!r} has it, and one callback can be in one fit only. "
                    f"Make another one for the fit of {model.name!r}, or a copy "
                    "(copy.deepcopy)."
                )
            self._taken = taken
            mark_earlier(model)
            super().set_model(model)

    def _in_use(self, taken: Taken) -> keras.Model | None:
        """The model of another fit that is running with this callback."""
        if self._taken is not None and self._taken.excludes(taken):
            return self._taken.model
        loan = self._loan
        if loan is not None and loan.model is not taken.model and loan.in_progress:
            return loan.model
        return None

    @property
    def restored_epochs(self) -> bool:
        """Whether the fit was put back, and to the end of an epoch of it."""
        if self._taken is None or not is_restored(self.model):
            return False
        return backs_up_whole_epochs(self._taken.callbacks)

    def rate_begins(self, drive: Drive, epoch: int) -> None:
        """The drive of the rate has found its position, before the first step.

        A plateau rule takes it up; others have nothing to do.

        Args:
            drive: The drive.
            epoch: The first epoch of the fit.
        """

    @property
    def optimizer(self) -> Any:
        """Which of the model's optimizers it is about, as given; `None`: the compiled.

        An optimizer, or the name of the attribute that holds it.
        """
        return self._optimizer

    @property
    def chosen(self) -> Chosen:
        """The optimizer that it is about; to be asked in a fit.

        Raises:
            ValueError: If the model does not have it.
        """
        if self._loan is not None and self._loan.model is self._model:
            return self._loan.chosen
        return choose(self.model, self._optimizer)

    def _borrow(self, optimizer: Any = None) -> Loan:
        """Begin a loan, and end the one of an earlier fit.

        Args:
            optimizer: Which of the model's; by default the one that was given.
        """
        which = self._optimizer if optimizer is None else optimizer
        loan = Loan(self.model, borrower=self, optimizer=which)
        self._give_back()
        self._loan = loan
        with loan.closed_on_error():
            EpochLogs(loan).begin()
        return loan

    def _tell(self, logs: Any) -> None:
        """Put what is driven into an epoch's logs, in a loop without a list."""
        loan = self._loan
        if loan is None or loan.closed is not None or is_told_otherwise(loan):
            return
        if isinstance(logs, dict):
            for name, value in values_now(loan).items():
                logs.setdefault(name, value)

    def _prove(self, knows: Callable[[], bool], why: str) -> None:
        """Look at the first updates: do they know what is borrowed?"""
        assert self._loan is not None
        self._proof = Proof(self._loan, knows, why)

    def _new_epoch(self) -> None:
        """Look anew; to be called when an epoch begins."""
        self._ask(Proof.new_epoch)

    def _look_at_updates(self) -> None:
        """Refuse updates that do not know; to be called when a batch begins."""
        self._ask(Proof.look)

    def _check_updates(self) -> None:
        """The same, at an epoch's end; tell of an optimizer that makes no update."""
        self._ask(Proof.check)
        loan = self._loan
        if loan is not None and loan.closed is None and loan.turns.turn is not None:
            self._tell_if_unused(loan)

    def _tell_if_unused(self, loan: Loan) -> None:
        chosen, count = loan.chosen, loan.count
        idle = chosen.every == 1 and chosen.batches() == count.begun_at
        if not idle or count.told_unused:
            return
        count.told_unused = True
        text = (
            "The compiled optimizer has made no update in this epoch, and nothing was "
            "scheduled. Does the model's train_step use another one, or has a loss "
            "scale (mixed_float16) skipped every step of it?"
        )
        if not chosen.is_compiled:
            text = text.replace("The compiled optimizer", str(chosen))
        name = type(self).__name__
        if "optimizer" in names_of(type(self).__init__):
            way_out = unused(chosen, f"{name}(…, {{}})")
        else:
            way_out = (
                f" {name} is for the compiled optimizer: give compile the one that "
                "makes the updates."
            )
        warnings.warn(text + way_out, stacklevel=4)

    def _conclude_updates(self) -> None:
        """The same, at the end of all."""
        self._ask(Proof.conclude)

    def _ask(self, question: Callable[[Proof], None]) -> None:
        if self._proof is not None:
            question(self._proof)

    def _check_on_loan(self) -> bool:
        """Whether there is a loan.

        Raises:
            RuntimeError: If somebody else has ended it, and the fit or loop goes on.
        """
        if self._loan is not None and self._loan.closed is not None:
            raise RuntimeError(
                f"{type(self).__name__} has given the model "
                f"{self._loan.model.name!r} back: {self._loan.closed}. To go on, begin "
                "anew: another fit, or callbacks.on_train_begin() in a loop, with "
                "start_step= where a schedule is to go on."
            )
        return self._loan is not None

    def _give_back(self) -> None:
        if self._loan is not None:
            self._loan.close()
        self._loan = self._proof = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but what belongs to a fit."""
        own = {n: copy.copy(v) for n, v in self._of_a_fit.items() if n in vars(self)}
        return {**vars(self), **own}

    def __deepcopy__(self, memo: dict[int, Any]) -> Borrower:
        """A copy of all but what is shared."""
        made: Borrower = copy.copy(self)
        memo[id(self)] = made
        own = {n: v for n, v in vars(made).items() if n not in self._shared}
        made.__dict__.update({n: copy.deepcopy(v, memo) for n, v in own.items()})
        return made
