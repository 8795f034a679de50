"""Weights that sit out a part of a fit, at no cost.

`variable.trainable` is what decides whether Keras asks for a gradient, so that is what
is switched, and not `layer.trainable`: a checkpoint written meanwhile says nothing of
it, and loads with everything trainable. What has to be helped along:

- layers with statistics (BatchNormalization) are called as in inference;
- JAX's `stateless_apply` takes only all the weights that the optimizer was built on;
- averages of weights are put into place for all of them at the end of a fit, or into
  the wrong ones.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras

from tfschedules.drive.attributes import InPlace, set_behind
from tfschedules.drive.guard import Guard
from tfschedules.drive.loan import Loan
from tfschedules.drive.own_functions import refuse_own_step
from tfschedules.drive.split import Split
from tfschedules.drive.state import value_of
from tfschedules.drive.tidying import AtTheEnd
from tfschedules.drive.turns import forget


class Freezer:
    """Freezes and thaws weights of a model during a fit."""

    def __init__(self, model: keras.Model, loan: Loan) -> None:
        """Prepare the optimizer; everything is trainable again when `loan` closes."""
        self._model, self._loan = model, loan
        self._optimizer = loan.chosen.inner
        self._frozen: dict[int, Any] = {}  # by position in the optimizer
        self._calm: dict[int, InPlace] = {}
        self._since = 0
        self._averaged = 0
        self._latest = 0  # the count when the missed batches were last noted
        self._begun = False  # whether weights have been frozen, or none had to be
        self._missed: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._caught_up: list[tuple[Any, Any]] = []  # averages, and their new values
        self._put_back: bool | None = None  # whether a range test has, at the end
        self._put_averages = self._optimizer.finalize_variable_values
        optimizer = self._optimizer
        what = "GradualUnfreezing freezes weights"
        refuse_own_step(model, what)
        loan.borrow(optimizer, "finalize_variable_values", self._finalize)
        if keras.backend.backend() == "jax":
            loan.borrow(optimizer, "stateless_apply", self._stateless_apply)
        loan.undo_with(self._end)
        self.guard = Guard(loan, optimizer, what, self._changes, self._freezes)

    def _freezes(self) -> bool:
        return bool(self._frozen)

    def _changes(self) -> bool:
        """Whether weights are frozen, or are going to be."""
        return self._freezes() or not self._begun

    def _finalize(self, var_list: Any) -> None:
        """Put averages into all weights, and not into those trainable at the end."""
        self._catch_up(self._loan.chosen.batches())
        self._put_averages(self._optimizer._trainable_variables)

    def begin(self, since: int, missed: dict[int, int] | None) -> None:
        """Say what is known of the past, before the first step.

        Args:
            since: The optimizer's count of batches when what is frozen first was.
            missed: How many batches weights that have been thawed since had missed, by
                position, in a fit that goes on. `None` in a new one: weights may have
                missed some in earlier fits, and these are added.
        """
        split = Split.of(self._optimizer)
        split.trains(self._model)
        self._since = since
        self._averaged = self._latest = self._loan.chosen.batches()
        self._missed = dict(split.missed) if missed is None else {}
        if missed is not None:
            split.set_missed(missed)
        self._before = dict(split.missed)

    def freeze(self, weights: Iterable[Any], calm: Iterable[Any]) -> None:
        """Freeze these weights and no others, until this is called again.

        To be called between epochs, when the variables hold the state on every backend.

        Args:
            weights: Weights that the optimizer was built on.
            calm: Layers that are to be called as in inference.
        """
        self._begun = True
        index = self._optimizer._get_variable_index
        frozen = {index(weight): weight for weight in weights}
        layers = {id(layer): layer for layer in calm}
        if frozen.keys() == self._frozen.keys() and layers.keys() == self._calm.keys():
            return
        self._thaw(self._frozen.keys() - frozen.keys())
        self._frozen = frozen
        for weight in frozen.values():
            weight.trainable = False
        if self._loan.chosen.batches() == 0:
            self._caught_up = self._averages(left=0.0)
            self._assign_averages()
        for key in self._calm.keys() - layers.keys():
            self._excite(key)
        for key in layers.keys() - self._calm.keys():
            layer = layers[key]
            place = InPlace(layer, "call", _as_in_inference(layer.call))
            self._calm[key] = place
            place.take()
        # Tests and predictions, too: JAX's know weights by their place among those that
        # are trainable, and those that are not.
        self._loan.retrace(everything=True)

    def _thaw(self, positions: Iterable[int]) -> None:
        made = self._loan.chosen.batches()
        missed = Split.of(self._optimizer).missed
        self._catch_up(made)
        self._latest = made
        for position in positions:
            missed[position] = self._missed.get(position, 0) + made - self._since
            self._frozen[position].trainable = True

    def _excite(self, key: int) -> None:
        self._calm[key].give_back()
        del self._calm[key]

    def _end(self) -> None:
        """Thaw everything; a second time, as after an interruption, does the rest."""
        if self._put_back is None:
            self._put_back = self._loan.chosen.batches() < self._latest
        if self._frozen or self._latest:
            self._thaw(list(self._frozen))
            if self._put_back:  # by a range test, to before this fit
                Split.of(self._optimizer).set_missed(self._before)
        self._frozen = {}
        for key in list(self._calm):
            self._excite(key)
        self._loan.retrace(everything=True)
        forget(self._model)  # what was traced before knows nothing of batches missed

    def _stateless_apply(
        self, optimizer_variables: Any, grads: Any, trainable_variables: Any
    ) -> Any:
        """The optimizer's `stateless_apply`, for the weights that are trainable now."""
        optimizer = self._optimizer
        given = self._model.trainable_variables
        self.guard.check((optimizer_variables, grads, trainable_variables), given)
        everything = optimizer._trainable_variables
        averages = getattr(optimizer, "_model_variables_moving_average", None)
        pairs = [
            *zip(given, trainable_variables, strict=True),
            *zip(optimizer.variables, optimizer_variables, strict=True),
        ]
        with keras.StatelessScope(state_mapping=pairs) as scope:

            def give_back() -> None:
                set_behind(optimizer, "_trainable_variables", everything)
                if averages is not None:
                    set_behind(optimizer, "_model_variables_moving_average", averages)

            with AtTheEnd(give_back), AtTheEnd(give_back):
                set_behind(optimizer, "_trainable_variables", given)
                if averages is not None:
                    index = optimizer._get_variable_index
                    those = [averages[index(weight)] for weight in given]
                    set_behind(optimizer, "_model_variables_moving_average", those)
                optimizer.apply(grads, given)
            return (
                [scope.get_current_value(variable) for variable in given],
                [scope.get_current_value(v) for v in optimizer.variables],
            )

    def _catch_up(self, made: int) -> None:
        """Bring averages of frozen weights up to date."""
        if self._optimizer.use_ema and made > self._averaged and not self._caught_up:
            left = self._optimizer.ema_momentum ** (made - self._averaged)
            self._caught_up = self._averages(left)
        self._assign_averages()
        self._averaged = made

    def _assign_averages(self) -> None:
        for average, value in self._caught_up:
            average.assign(value)
        self._caught_up = []

    def _averages(self, left: float) -> list[tuple[Any, Any]]:
        """Averages of frozen weights moved on, where the steps have not.

        JAX's step knows only the weights that are trained. An average a of a weight w
        that stands still goes on as a ← m·a + (1−m)·w, in the very first step with
        m = 0.
        """
        optimizer = self._optimizer
        if keras.backend.backend() != "jax" or not optimizer.use_ema:
            return []
        moved = []
        for position, weight in self._frozen.items():
            average = optimizer._model_variables_moving_average[position]
            if average is not None:
                old, now = value_of(average), value_of(weight)
                value = now + left * (old - now)  # to the bit if they are equal
                moved.append((average, value))
        return moved


def _as_in_inference(call: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(call)

    @functools.wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["training"] = False
        return call(*bound.args, **bound.kwargs)

    return called


def layers_with_statistics(model: keras.Model) -> list[Any]:
    """The layers that training changes without a gradient, as BatchNormalization."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if layer._non_trainable_variables
        and "training" in inspect.signature(layer.call).parameters
        and not isinstance(layer, keras.Model)
    ]
