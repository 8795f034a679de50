"""Whose turn it is: which training steps of a model are driven, and which are not.

While something of a model is on loan there is one turn, that of a fit or that of a loop
of the user's own. The train function asks at each call who calls. The fit of the turn,
or `train_on_batch` in its loop, gets the function that was made for what is borrowed.
Anybody else gets a plain one, whose updates do not count: a `train_on_batch` or a fit
in a callback of the fit, for example.

A step that is made during a turn is a function of its own (`own_steps`), so that JAX
takes no trace of before for it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import keras

from tfschedules.drive import frames
from tfschedules.drive.attributes import InPlace, set_behind
from tfschedules.drive.chosen import Chosen, optimizers_of
from tfschedules.drive.count import Count
from tfschedules.drive.own_functions import StepGraphs
from tfschedules.drive.own_steps import evict, of_its_own
from tfschedules.drive.shift import Shift, handing, taking
from tfschedules.drive.state import (
    keep_after_error,
    note_state,
    settle_state,
    show_state,
)
from tfschedules.drive.step_lock import StepLock
from tfschedules.drive.turn import Turn

if TYPE_CHECKING:
    from tfschedules.drive.loan import Loan


class Turns:
    """In place of a model's `make_train_function` and `compile` during a turn.

    Attributes:
        loans: What is on loan.
        counts: The updates of each optimizer of which something is on loan.
        graphs: Where its steps are traced.
        stepping: Whether a step of the turn is being made.
        resting: Whether a step of somebody else is being made.
        lock: Held while a step is made, of whichever thread, and while what makes it
            is exchanged.
    """

    def __init__(self, model: keras.Model) -> None:
        """Stand in for the model's methods."""
        self._model = model
        self.loans: list[Loan] = []
        self.turn: Turn | None = None
        self.counts: list[Count] = []
        self._shifts: list[Shift] = []  # theirs
        self.graphs = StepGraphs()
        self.stepping = self.resting = False
        self.lock = StepLock(model.name)
        self.watch: Any = None  # makes another train function of Keras's
        self._told = True  # the loans, that others make steps
        self._down = False  # whether the model has its own methods again
        self._driven: Any = None
        self._plain: Any = None
        self._function = _TrainFunction(self)
        self._before = model.train_function
        self._make_train_function = model.make_train_function
        self._make_test_function = model.make_test_function
        self._compile = model.compile
        self._places = [
            InPlace(model, "make_train_function", self),
            InPlace(model, "make_test_function", self._test_function),
            InPlace(model, "compile", self._compile_anew),
        ]

    @staticmethod
    def at(model: keras.Model) -> Turns | None:
        """What stands in for the methods of `model` now."""
        turns = vars(model).get("make_train_function")
        return turns if isinstance(turns, Turns) else None

    @staticmethod
    def borrow(model: keras.Model, loan: Loan, what: str) -> None:
        """Begin a loan in the turn of the fit, or loop, that is beginning.

        The loan knows its turns before they know it: an interruption in between leaves
        nothing that cannot be closed.

        Raises:
            RuntimeError: If another fit has something on loan.
        """
        fit, callback_list = frames.beginning(model, sys._getframe(1))
        turns = Turns.at(model)
        if turns is not None:
            turns.end_if_over()
            turns = Turns.at(model)
        if turns is not None and turns.turn is not None:
            turn = turns.turn
            if not turn.is_also(fit, callback_list):
                if turn.fit is not None or turn.is_others(sys._getframe(1)):
                    raise RuntimeError(turns._refusal(what))
                turns.end(
                    "its loop had not ended (callbacks.on_train_end) when callbacks "
                    "of another fit or loop of the model began"
                )
                turns = Turns.at(model)
        if turns is None:
            turns = loan.turns = Turns(model)
            turns.loans.append(loan)
            for place in turns._places:
                place.take()
            around = None
            if fit is None:
                around = frames.fit_around(model, sys._getframe(1))
            thread = threading.get_ident()
            turns.turn = Turn(fit, callback_list, around, thread)
            turns.renew()
        else:
            loan.turns = turns
            turns.loans.append(loan)

    @functools.cached_property
    def optimizers(self) -> list[Chosen]:
        """Those of the model; to be asked when the turn has begun."""
        own = [count.chosen for count in self.counts]  # one a property has, too
        inner = {id(chosen.inner) for chosen in own}
        others = optimizers_of(self._model)
        return [*own, *(each for each in others if id(each.inner) not in inner)]

    def count_of(self, chosen: Chosen) -> Count:
        """The updates of an optimizer in this turn."""
        for count in self.counts:
            if count.chosen.inner is chosen.inner:
                return count
        count = Count(chosen)
        self.counts.append(count)
        self._shifts.append(count.shift)
        self.renew()
        return count

    def _refusal(self, what: str) -> str:
        assert self.turn is not None
        names = " and ".join(
            type(loan.borrower).__name__
            for loan in self.loans
            if loan.borrower is not None
        )
        where = "a callback of it has begun"
        if self.turn.thread != threading.get_ident():
            where = "another thread has begun"
        return (
            f"{what} cannot begin while a fit of the same model with "
            f"{names or 'a callback of tfschedules'} is running: {where} a fit of "
            f"{self._model.name!r} with callbacks of tfschedules. A fit without them "
            "may run there, and so may train_on_batch. Else wait until the other fit, "
            "or loop, has ended, or take a copy of the model "
            "(keras.models.clone_model)."
        )

    # What stands in for the model's own methods.

    def __call__(self, force: bool = False) -> Any:
        """`model.make_train_function`: a fit or `train_on_batch` begins."""
        if force:  # something in the step has changed
            self.renew()
            return self._function
        caller = sys._getframe(1)
        self.end_if_over(caller)
        self._end_if_left(caller)
        if Turns.at(self._model) is not self:
            return self._model.make_train_function()
        if self._model.train_function is None:
            self.renew()
        return self._model.train_function

    def _test_function(self, force: bool = False) -> Any:
        with of_its_own(self._model, "test_step"):
            return self._make_test_function(*([True] if force else []))

    def _compile_anew(self, *args: Any, **kwargs: Any) -> None:
        self.end("the model was compiled anew")
        self._compile(*args, **kwargs)

    # The train function.

    def renew(self, *, everything: bool = False) -> None:
        """Make the functions anew before the next step: something in it has changed.

        Args:
            everything: Also those that test and predict.
        """
        with self.lock:  # no step of another thread is between two functions
            self._driven = self._plain = None
            set_behind(self._model, "train_function", self._function)
            if everything:
                self._model.test_function = self._model.predict_function = None

    def forget(self) -> None:
        """Make the functions anew, and that of a fit around this one."""
        self._before = None
        self.renew()

    @property
    def driven(self) -> Any:
        """The train function that sees what is borrowed."""
        if self._driven is None:
            self._driven = self._make(self.watch)
        return self._driven

    def _make(self, watch: Callable[[Any], Any] | None) -> Any:
        """Have Keras make a train function."""
        model, shifts = self._model, self._shifts

        def take(step: Any) -> Any:
            return taking(step, shifts)

        with contextlib.ExitStack() as stack:
            stack.callback(lambda: set_behind(model, "train_function", self._function))
            stack.enter_context(of_its_own(model, "train_step", take))
            if hasattr(model, "_make_function"):
                make = model._make_function

                def make_function(step: Any, *args: Any, **kwargs: Any) -> Any:
                    step = self.graphs.noting(handing(step, shifts))
                    function = make(step, *args, **kwargs)
                    return function if watch is None else watch(function)

                stack.enter_context(InPlace(model, "_make_function", make_function))
            set_behind(model, "train_function", None)
            self._make_train_function()  # a user's own may know no `force`
            return model.train_function

    def step(self, caller: FrameType, arguments: tuple[Any, ...]) -> Any:
        """Make a step, or a block of them, for who calls the train function."""
        with self.lock:
            return self._step(caller, arguments)

    def _step(self, caller: FrameType, arguments: tuple[Any, ...]) -> Any:
        turn = self.turn
        if turn is None:
            now = self._model.train_function
            if now is not self._function and frames.is_step(caller):
                return now(*arguments)  # another thread had this one in its hand
            raise RuntimeError(
                "This train function was made for a fit with callbacks of tfschedules, "
                "which is over. Call model.make_train_function(), and then take "
                "model.train_function."
            )
        turn.adopt(caller)
        if id(caller) == turn.fit or self._is_its_turn(caller):
            turn.stepped, self._told = True, False
            before = self.stepping
            if self._driven is None:
                show_state(self._model, arguments)
            try:
                self.stepping = True
                return self.driven(*arguments)
            except BaseException:
                keep_after_error(self._model, arguments)
                raise
            finally:
                self.stepping = before
        return self._step_of_others(arguments)

    def _is_its_turn(self, caller: FrameType) -> bool:
        assert self.turn is not None
        for frame in frames.upwards(caller):
            if frame.f_code in frames.codes_of_lists():
                return False  # a callback calls the train function itself
            if frames.is_of(frame, "fit", self._model):
                return id(frame) == self.turn.fit
            if frames.is_of(frame, "train_on_batch", self._model):
                around = frames.fit_around(self._model, frame)
                loop = self.turn.fit is None and around == self.turn.around
                return loop and not self.turn.is_others(frame)
        return self.turn.fit is None and self.turn.around is None

    def _step_of_others(self, arguments: tuple[Any, ...]) -> Any:
        model = self._model
        state = arguments[0] if len(arguments) > 1 else None  # on JAX
        if not self._told:
            if state is not None:
                note_state(model, state)
            self._told = True
            for count in self.counts:
                count.note()
            for loan in self.loans[:]:
                loan.before_others()
        if self._plain is None:
            show_state(model, arguments)
            self._plain = self._make(None)
        made = after = self._batches_in(state)
        before = self.resting, self.stepping
        try:
            self.resting, self.stepping = True, False
            result = self._plain(*arguments)
            if state is not None:
                after = self._batches_in(result[1])
            return result
        except BaseException:
            keep_after_error(model, arguments)
            raise
        finally:
            self.resting, self.stepping = before
            if state is None:
                after = self._batches_in(None)
            self._pass_over(made, after)

    def _batches_in(self, state: tuple[Any, ...] | None) -> list[int]:
        return [count.batches_in(state) for count in self.counts]

    def _pass_over(self, before: list[int], after: list[int]) -> None:
        """Updates of others are none of the turn."""
        batches = {}
        for count, first, last in zip(self.counts, before, after, strict=True):
            count.pass_over(first, last)
            batches[id(count)] = last - first
        if any(shift.is_constant for shift in self._shifts):
            self._driven = None
        for loan in self.loans[:]:
            loan.after_others(batches[id(loan.count)])

    def made_of(self, count: Count) -> tuple[int, int]:
        """How many updates an optimizer has made: see `Count.now`."""
        with self.lock:
            return count.now(others=self._told)

    # The end.

    @property
    def in_fit(self) -> bool:
        """Whether the turn is that of a fit, and the fit is running."""
        fit = self.turn.fit if self.turn is not None else None
        return fit is not None and fit in frames.running(self._model)

    def is_over(self, caller: FrameType | None = None) -> bool:
        """Whether the fit, or the loop, has died.

        Args:
            caller: Who asks: a fit that begins is none of those that are running.
        """
        fits = frames.running(self._model)
        if caller is not None:
            fits.discard(id(caller))
        return self.turn is None or not self.loans or self.turn.is_over(fits)

    def end_if_over(self, caller: FrameType | None = None) -> None:
        """Give back what a fit has left that died; `caller` as above."""
        if self.is_over(caller):
            gone = self.turn is not None and self.turn.fit is None
            self.end(
                "its CallbackList is gone: keep it until callbacks.on_train_end()"
                if gone
                else "its fit was interrupted"
            )

    def _end_if_left(self, caller: FrameType) -> None:
        """End a loop where a fit begins that is none of a callback in the loop.

        Either the loop has died, or its fits are to be driven, and they would not be.
        """
        turn, model = self.turn, self._model
        if turn is None or turn.fit is not None:
            return
        if not frames.is_of(caller, "fit", model) or turn.is_others(caller):
            return
        if frames.fit_around(model, caller.f_back) == turn.around:
            self.end(
                "a fit of the model has begun in its loop (or after it, without "
                "callbacks.on_train_end). Such a loop is around train_on_batch; a fit "
                "takes the callbacks itself, and start_step= to go on in a schedule"
            )

    def end(self, why: str) -> None:
        """Give everything back."""
        settle_state(self._model)
        for loan in reversed(self.loans[:]):
            loan.close(why)
        if not self.loans:
            self._take_down()

    def give_up(self, loan: Loan) -> None:
        """A loan is closed; with the last one the model has its own methods again."""
        if loan in self.loans:
            self.loans.remove(loan)
        if self.loans:
            self.renew()
        else:
            self._take_down()

    def _take_down(self) -> None:
        """Give the model its own methods again; a second time does nothing."""
        with self.lock:
            self._take_all_down()

    def _take_all_down(self) -> None:
        if self._down:  # what stands there now may be that of another turn
            return
        model = self._model
        ours = vars(model).get("train_function") is self._function
        for place in reversed(self._places):
            place.give_back()
        if ours:
            own = {self.turn.fit} if self.turn is not None else set()
            # A fit around this one has no turn; in other threads are any.
            others = frames.running(model, "fit", "train_on_batch") - own
            set_behind(model, "train_function", self._before if others else None)
            if others:
                model.make_train_function()
        self.turn = self._driven = self._plain = self._before = None
        self._down = True


class _TrainFunction:
    """In place of `model.train_function` during a turn."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def __call__(self, *arguments: Any) -> Any:
        return self._turns.step(sys._getframe(1), arguments)


def forget(model: keras.Model) -> None:
    """Have the train function traced anew: something that stays has changed.

    On JAX a plain step is the model's own bound method, whose trace JAX would find
    again as long as an older train function is alive.
    """
    turns = Turns.at(model)
    if turns is not None:
        turns.forget()
    else:
        model.train_function = None
    evict(model)
