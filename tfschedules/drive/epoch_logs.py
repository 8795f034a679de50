"""The rate, and what else is driven, in the logs of an epoch.

Keras makes one dictionary of logs when an epoch's steps are done, and hands it to all
callbacks, in their order. Callbacks before ours are to see the rate, too. So it is put
in where Keras makes the dictionary. In a loop of the user's own it is put in where the
`CallbackList` takes the logs.

The values are those of the epoch's last update. They are computed from the schedules:
nothing is read but the optimizer's count, after the epoch's steps.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from types import FrameType
from typing import Any

import keras
import numpy as np

from tfschedules.drive.attributes import set_behind
from tfschedules.drive.chosen import Chosen
from tfschedules.drive.loan import Loan
from tfschedules.drive.split import parts_of
from tfschedules.drive.state import rates_compiled, read
from tfschedules.drive.turns import Turns
from tfschedules.drive.wheel import Wheel


class EpochLogs:
    """Puts what is driven into the logs of a fit, or of a loop, for one loan.

    Each loan of a turn has one. The first that is open does the work.
    """

    def __init__(self, loan: Loan) -> None:
        """Begin nothing yet."""
        self._loan = loan

    def begin(self) -> None:
        """Put it in until the loan is closed."""
        loan = self._loan
        for chosen in loan.turns.optimizers:
            if _has_rates(chosen):
                loan.turns.count_of(chosen)  # from here on
        loan.change_result(loan.model, "_get_metrics_result_or_logs", self._in_fit)
        turn = loan.turns.turn
        assert turn is not None  # a loan has begun in it
        callback_list = turn.callback_list and turn.callback_list()
        if callback_list is not None:
            told = _ListTold.of(callback_list)
            loan.undo_with(lambda: told.remove(self))
            told.add(self)

    def _in_fit(self, caller: FrameType, result: Any) -> Any:
        """The logs with what is driven, where it is the fit of the turn that asks.

        Validation asks in the same way, and others that fit the model do.
        """
        turn = self._loan.turns.turn
        if turn is None or turn.fit != id(caller) or not isinstance(result, Mapping):
            return result
        return self.added_to(result)

    def added_to(self, logs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The logs with what is driven; what the training step reports stays."""
        loans = self._loan.turns.loans
        if not loans or self._loan is not loans[0]:
            return logs
        return {**values_now(self._loan), **logs}


class _ListTold:
    """In place of `on_epoch_end` of a loop's `CallbackList`.

    It does not hold the list: a loop is known to have died when its list is gone.
    """

    def __init__(self, callback_list: Any) -> None:
        self._list = weakref.ref(callback_list)
        self._own = vars(callback_list).get("on_epoch_end")
        self._all: list[EpochLogs] = []

    @classmethod
    def of(cls, callback_list: Any) -> _ListTold:
        there = vars(callback_list).get("on_epoch_end")
        return there if isinstance(there, cls) else cls(callback_list)

    def add(self, one: EpochLogs) -> None:
        self._all.append(one)
        if (callback_list := self._list()) is not None:
            set_behind(callback_list, "on_epoch_end", self)

    def remove(self, one: EpochLogs) -> None:
        """Tell no more for it; a second time does nothing."""
        if one in self._all:
            self._all.remove(one)
        callback_list = self._list()
        if self._all or callback_list is None:
            return
        if vars(callback_list).get("on_epoch_end") is self:
            del callback_list.on_epoch_end
            if self._own is not None:
                set_behind(callback_list, "on_epoch_end", self._own)

    def __call__(self, epoch: int, logs: Any = None) -> None:
        callback_list = self._list()
        assert callback_list is not None  # it is calling
        if logs is None or isinstance(logs, Mapping):
            logs = logs or {}
            for one in self._all[:]:
                logs = one.added_to(logs)
        if self._own is not None:
            self._own(epoch, logs)
        else:
            type(callback_list).on_epoch_end(callback_list, epoch, logs)


def is_told_otherwise(loan: Loan) -> bool:
    """Whether a fit or a `CallbackList` has what is driven in its logs already."""
    turn = loan.turns.turn
    return turn is not None and (turn.fit or turn.callback_list) is not None


def values_now(loan: Loan) -> dict[str, float]:
    """What hyperparameters were in the last update of their optimizer, by their names.

    Those of another optimizer than the compiled one have its name before theirs. There
    is nothing where no schedule and no group of layers gives a rate, where an optimizer
    makes no update, and beside a range test, whose rates are its own. An epoch without
    an update has the values of the one before it; before the first update, those that
    it will have.
    """
    if any(getattr(one.borrower, "writes_records", False) for one in loan.turns.loans):
        return {}
    return {
        chosen.tag(name): value
        for chosen in loan.turns.optimizers
        for name, value in _values_of(chosen, loan.turns).items()
    }


def _has_rates(chosen: Chosen) -> bool:
    """Whether an optimizer has rates that change without anything that drives them."""
    schedules = keras.optimizers.schedules.LearningRateSchedule
    return bool(parts_of(chosen.inner)) or isinstance(chosen.rate, schedules)


def _values_of(chosen: Chosen, turns: Turns) -> dict[str, float]:
    """Those of one optimizer."""
    optimizer, rate = chosen.inner, chosen.rate
    drives = [d for d in Wheel.drives_on(optimizer) if d.turns is turns]
    parts = parts_of(optimizer)
    if not (drives or _has_rates(chosen)):
        return {}
    count = turns.count_of(chosen)
    used = any(drive.entered for drive in drives)
    if not used and chosen.batches() == count.begun_at:
        return {}
    after, made = turns.made_of(count)
    last = after if drives and not drives[0].has_begun(made) else after - 1
    update = np.array([max(last, 0)])
    driven = {drive.attribute: drive for drive in drives}
    drive = driven.pop("learning_rate", None)
    now = _rate_at(chosen.model, rate, update) if drive is None else drive.latest(made)
    values = {}
    if now is not None:
        values["learning_rate"] = now
        for part in parts:
            factor = float(part.values(update)[0])
            values[f"learning_rate/{part.name}"] = now * factor
    values.update({drive.name: drive.latest(made) for drive in driven.values()})
    return values


def _rate_at(model: keras.Model, rate: Any, update: np.ndarray) -> float | None:
    """A rate that nothing drives; None where it is a function of the user's own."""
    if isinstance(rate, keras.Variable):
        return float(read(model, rate))
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(rates_compiled(rate, update)[0])
    return None
