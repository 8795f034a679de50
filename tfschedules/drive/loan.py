"""What a callback borrows of a model for one fit, and gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras

from tfschedules.drive.attributes import Announced, InPlace
from tfschedules.drive.chosen import check_carried, choose
from tfschedules.drive.insides import check_insides
from tfschedules.drive.own_functions import is_in_function
from tfschedules.drive.tidying import Uninterrupted, do_all
from tfschedules.drive.turns import Turns


class Loan:
    """A list of what to undo when a fit is over, however it ends.

    An exception in `fit` skips `on_train_end`. So where a fit has died that had
    something on loan, the next use of the model gives it back: `fit` and
    `train_on_batch` begin with `make_train_function`, which `Turns` stands in for, as
    for `compile`. A fit that is still running keeps what it has.

    Attributes:
        borrower: Who has borrowed, if it can be asked for.
        chosen: Which of the model's optimizers it is about.
        closed: Why it was closed by somebody else, if it was.
        count: The updates of that optimizer during the turn.
        turns: What stands in for the model's methods meanwhile.
    """

    turns: Turns

    def __init__(
        self, model: keras.Model, borrower: Any = None, optimizer: Any = None
    ) -> None:
        """Begin a loan on `model`, in `on_train_begin`.

        Args:
            model: The model.
            borrower: Who borrows.
            optimizer: Which of its optimizers, as `choose` takes it.

        Raises:
            RuntimeError: If another fit of the model has something on loan, or Keras
                is not as this package knows it.
            ValueError: If the model does not have the optimizer, or on JAX does not
                carry its state from step to step.
        """
        self.chosen = chosen = choose(model, optimizer)
        check_insides(chosen)
        check_carried(chosen)
        self.model, self.borrower = model, borrower
        self.closed: str | None = None
        self._undo: list[Callable[[], None]] = []
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[int], None]] = []
        what = type(borrower).__name__ if borrower is not None else "This callback"
        Turns.borrow(model, self, what)
        self.count = self.turns.count_of(chosen)

    @staticmethod
    def borrowers(model: keras.Model) -> list[Any]:
        """Who has something of `model` on loan now."""
        turns = Turns.at(model)
        return [] if turns is None else [loan.borrower for loan in turns.loans]

    @staticmethod
    def end_if_over(model: keras.Model) -> None:
        """Give back what a fit of `model` has left that died, before its next use."""
        if (turns := Turns.at(model)) is not None:
            turns.end_if_over()

    @property
    def in_progress(self) -> bool:
        """Whether it is that of a fit that is running; of a loop nobody knows."""
        return self in self.turns.loans and self.turns.in_fit

    @property
    def is_over(self) -> bool:
        """Whether its fit, or loop, is over: by an exception, if it is not closed."""
        return self.turns.is_over()

    @property
    def made(self) -> int:
        """How many updates the optimizer has made, without those of others."""
        return self.turns.made_of(self.count)[1]

    @property
    def stepped(self) -> bool:
        """Whether a step has been made by the train function."""
        turn = self.turns.turn
        return turn is not None and turn.stepped

    def keeps(self, what: str) -> bool:
        """Whether what is computed now is of the turn, and of no other function.

        Args:
            what: What a function of the user's own inside of the step would keep.

        Raises:
            RuntimeError: If it is in one, on TensorFlow.
        """
        turns = self.turns
        if turns.stepping:
            turns.graphs.refuse_own(what)
            return True
        return not (turns.resting or is_in_function())

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Give everything back if what follows raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def borrow(self, owner: Any, name: str, replacement: Any) -> None:
        """Put `replacement` in the place of an attribute until the loan is closed."""
        place = InPlace(owner, name, replacement)
        self.undo_with(place.give_back)
        place.take()

    def before(self, owner: Any, name: str, action: Callable[[], None]) -> None:
        """Call `action` before a method of `owner` is, until the loan is closed.

        Several loans may do so, and be closed in any order.
        """
        announced = Announced.of(owner, name)
        self.undo_with(lambda: announced.remove(action))
        announced.add(action)

    def change_result(
        self, owner: Any, name: str, change: Callable[[FrameType, Any], Any]
    ) -> None:
        """Have `change` see what a method of `owner` returns, and return another.

        Args:
            owner: Whose method it is.
            name: The method's name.
            change: A function of the caller's frame and of the result.
        """
        announced = Announced.of(owner, name)
        self.undo_with(lambda: announced.remove(change))
        announced.change(change)

    def undo_with(self, action: Callable[[], None]) -> None:
        """Add an action to be done at the end; the last added is done first.

        It may be called before there is anything to undo, and once more after that.
        """
        self._undo.append(action)

    def around_others(
        self, before: Callable[[], None], after: Callable[[int], None]
    ) -> None:
        """Call something around the steps that others make during the fit.

        Args:
            before: Before the first of them, when all updates can still be read.
            after: After each call, with the number of batches that went by.
        """
        self._before.append(before)
        self._after.append(after)

    def before_others(self) -> None:
        """Somebody else is about to make steps."""
        for action in self._before:
            action()

    def after_others(self, batches: int) -> None:
        """Somebody else has made steps."""
        for action in self._after:
            action(batches)

    def retrace(self, *, everything: bool = False) -> None:
        """Make the train function anew, so that it sees what has changed.

        Args:
            everything: Also the functions for tests and predictions.
        """
        self.turns.renew(everything=everything)

    def set_tests_aside(self) -> None:
        """Have the function that tests made anew for the time of the loan."""
        before = self.model.test_function

        def put_back() -> None:
            alone = self.turns.loans in ([], [self])
            self.model.test_function = before if alone else None

        self.undo_with(put_back)
        self.model.test_function = None

    def close(self, why: str | None = None) -> None:
        """Give everything back; a second time does nothing.

        Args:
            why: Why somebody else closes it.
        """
        with Uninterrupted():
            if self._undo or self in self.turns.loans:
                self.closed = self.closed or why
            try:
                do_all(self._undo)
            finally:
                if not self._undo:
                    self.turns.give_up(self)


class Functions:
    """A model's compiled functions, to go on with after a loan.

    Tracing them anew would be right, too, but for random operations of TensorFlow's
    own: these are at a place in their sequence that only the old function knows.
    """

    def __init__(self, model: keras.Model) -> None:
        """Note them; nothing is changed yet."""
        self._model = model
        self._compiled = self._made_by_compile()
        self._train, self._test = model.train_function, model.test_function

    def _made_by_compile(self) -> list[Any]:
        return [self._model.optimizer, self._model._loss_tracker]

    def restore(self) -> None:
        """Put them back after the loan, unless the model was compiled anew."""
        model = self._model
        same = zip(self._compiled, self._made_by_compile(), strict=True)
        if all(before is now for before, now in same) and not Loan.borrowers(model):
            model.train_function, model.test_function = self._train, self._test
