"""The model right after a given update, also inside an execution block.

With `steps_per_execution` above 1 callbacks see a model at the ends of blocks only. A
block in which somebody wants to see it earlier is made of single steps instead: the
train function is given its batches one by one, as `train_on_batch` does. All other
blocks are as they were, no copies are kept on the device, and nothing is added to the
compiled step, so that it computes the same to the bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfschedules.drive.chosen import Chosen
from tfschedules.drive.loan import Loan
from tfschedules.drive.own_steps import is_stock
from tfschedules.drive.put_back import around_put_back
from tfschedules.drive.state import (
    KINDS,
    batches_in,
    note_state,
)
from tfschedules.drive.turns import Turns


@dataclasses.dataclass(eq=False)
class Stops:
    """Updates of an optimizer after which somebody wants to see the model.

    Attributes:
        next_after: The first such update after a given one, both as the optimizer's
            count of updates; `None` if there is none.
        see: Called between two steps, when variables hold the state, with the update
            that was waited for and with the count, which is later where a batch makes
            several updates.
    """

    next_after: Callable[[int], int | None]
    see: Callable[[int, int], None]

    @classmethod
    def attach(
        cls,
        model: keras.Model,
        loan: Loan,
        next_after: Callable[[int], int | None],
        see: Callable[[int, int], None],
    ) -> Stops:
        """Begin to watch a model's training steps, until `loan` is closed.

        Raises:
            NotImplementedError: On torch.
            ValueError: If the model makes its train function in a way of its own.
        """
        if keras.backend.backend() == "torch":
            raise NotImplementedError(
                "To see a model between two steps, as for `validation_data` or "
                "snapshots, takes the TensorFlow or the JAX backend: Keras's "
                "trainer on torch makes its steps in another way. A range test "
                "reads the training batches there."
            )
        stops = cls(next_after, see)
        turns = loan.turns
        watch = turns.watch
        if watch is None:
            watch = _Watch(model)
        loan.undo_with(lambda: watch.remove(stops, turns))
        watch.add(stops, loan.chosen)
        turns.watch = watch
        loan.around_others(lambda: None, watch.begin_anew)
        around_put_back(model, loan, lambda: None, watch.begin_anew)
        loan.retrace()
        if not isinstance(turns.driven, _Stepwise):
            raise ValueError(
                "The training steps of this model cannot be watched: it has a "
                f"`make_train_function` of its own. Received: {type(model).__name__}, "
                f"on {keras.backend.backend()}."
            )
        return stops

    @staticmethod
    def plan(loan: Loan) -> None:
        """Count anew; to be called before an epoch's first step."""
        loan.turns.watch.begin_anew()


class _Pace:
    """How far it is to the next stop, by the updates of one optimizer.

    A batch is taken to make as many updates as a batch has made so far. With a train
    step of the user's own the first batch shows how many that is.
    """

    def __init__(self, chosen: Chosen) -> None:
        self.model, self.chosen = chosen.model, chosen
        self.all_stops: list[Stops] = []
        self.batches = 0  # as the optimizer counts; a loss scale may skip some
        self.most = 1 if is_stock(chosen.model) else 0  # with a batch; 0: not known yet
        self.stop: int | None = None
        self.aimed = True

    def _batches_in(self, state: Sequence[Any]) -> int:
        return batches_in(self.model, self.chosen.inner, state[0] if state else None)

    def aim(self, state: Sequence[Any] = ()) -> None:
        """Find the count of batches at which to stop next.

        Args:
            state: JAX's state, to count anew where that is asked for.
        """
        if not self.aimed:
            self.batches = self._batches_in(state)
        made = self.batches // self.chosen.every
        coming = [stops.next_after(made) for stops in self.all_stops]
        known = [update for update in coming if update is not None]
        self.stop = min(known) * self.chosen.every if known else None
        self.aimed = True

    def is_far(self, block: int) -> bool:
        """Whether so many batches do not come to the stop."""
        if self.stop is None:
            return True
        return self.most > 0 and self.batches + self.most * block < self.stop

    def pass_by(self, block: int) -> None:
        """So many batches are made without a look."""
        self.batches += self.most * block

    def reached(self, state: tuple[Any, ...]) -> int | None:
        """A single step is done: the update to look after, if it is time."""
        expected = self.batches + self.most
        if self.stop is None or (self.most and expected < self.stop):
            self.batches = expected
            return None
        before, self.batches = self.batches, self._batches_in(state)
        # What was passed by is an upper bound, and so is the advance from there.
        self.most = max(self.most, self.batches - before)
        if self.batches < self.stop:
            return None
        return self.batches // self.chosen.every

    def see(self, update: int) -> None:
        """Let those look who want to; then find the next stop."""
        due = self.stop
        assert due is not None
        for stops in self.all_stops:
            wanted = stops.next_after(due // self.chosen.every - 1)
            if wanted is not None and wanted <= update:
                stops.see(wanted, update)


class _Watch:
    """Makes the train function of a model stop where somebody wants to see it."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.paces: list[_Pace] = []

    def __call__(self, function: Any) -> _Stepwise:
        return _Stepwise(self, function)

    def add(self, stops: Stops, chosen: Chosen) -> None:
        """Somebody watches, by the updates of an optimizer."""
        for pace in self.paces:
            if pace.chosen.inner is chosen.inner:
                break
        else:
            pace = _Pace(chosen)
            self.paces.append(pace)
        pace.all_stops.append(stops)

    def begin_anew(self, batches: int = 0) -> None:
        """Count anew in the next step: then all who watch have their plans."""
        for pace in self.paces:
            pace.aimed = False

    def remove(self, stops: Stops, turns: Turns) -> None:
        """Somebody watches no more; a second time does nothing."""
        for pace in self.paces[:]:
            if stops in pace.all_stops:
                pace.all_stops.remove(stops)
            if not pace.all_stops:
                self.paces.remove(pace)
        if not self.paces:
            turns.watch = None

    def aim(self, state: Sequence[Any]) -> None:
        """Find the next stops where that is asked for."""
        for pace in self.paces:
            if not pace.aimed:
                pace.aim(state)

    def stepped(self, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """A single step is done; the state with which to go on."""
        reached = [(pace, pace.reached(state)) for pace in self.paces]
        due = [(pace, update) for pace, update in reached if update is not None]
        if not due:
            return state
        if state:
            _into_variables(self.model, state)
        for pace, update in due:
            pace.see(update)
        if state:
            state = _out_of_variables(self.model)
        for pace, _ in due:
            pace.aim()
        return state


@dataclasses.dataclass(eq=False)
class _Stepwise:
    """In place of `model.train_function`: in single steps where somebody looks."""

    watch: _Watch
    function: Any

    def __call__(self, *state_and_iterator: Any) -> Any:
        watch, block = self.watch, self.watch.model.steps_per_execution
        *before, iterator = state_and_iterator
        watch.aim(before)
        if all(pace.is_far(block) for pace in watch.paces):
            for pace in watch.paces:
                pace.pass_by(block)
            return self.function(*state_and_iterator)
        state, result = tuple(before), None
        for _ in range(block):
            if block > 1:
                try:
                    single = iter([next(iterator)])
                except StopIteration:
                    if result is None:
                        raise
                    break
            else:
                single = iterator
            result = self.function(*state, single)
            if state:  # JAX
                state = watch.stepped(result[1:])
                result = (result[0], *state)
            else:
                watch.stepped(state)
        return result


def _into_variables(model: keras.Model, state: tuple[Any, ...]) -> None:
    """Put JAX's state into the variables."""
    note_state(model, state[0])
    model.jax_state_sync()


def _out_of_variables(model: keras.Model) -> tuple[Any, ...]:
    """Take JAX's state out of the variables: an evaluation may have replaced it."""
    everything = dict.fromkeys(KINDS, True)
    state = model._get_jax_state(**everything, purge_model_variables=True)
    model._jax_state_synced = False
    return (state,)


def after_steps(model: keras.Model, loan: Loan, action: Callable[[], None]) -> None:
    """Call `action` when an epoch's steps are done, until `loan` is closed.

    It is called before validation, before any callback has its turn, and once more
    after each evaluation.
    """
    loan.before(model, "_get_metrics_result_or_logs", action)


def before_saves(model: keras.Model, loan: Loan, action: Callable[[], None]) -> None:
    """Call `action` when the state of the training is saved, until `loan` is closed.

    Whatever saves a model, or its weights alone, saves its optimizer, too: by this
    method of its; and Orbax takes the state by the model's. The variables hold it then.
    """
    loan.before(loan.chosen.optimizer, "save_own_variables", action)
    loan.before(model, "get_state_tree", action)
