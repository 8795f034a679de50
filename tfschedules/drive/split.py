"""An optimizer's update, with a rate of its own for each part of the weights.

Everything that belongs to the whole step stays as it is: one count of updates, one
clipping by the global norm, accumulation, averages, the loss scale. Only the two places
that use the rate for a single weight are wrapped: `update_step`, and weight decay,
which Keras applies with the optimizer's rate.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from tfschedules.drive.attributes import set_behind
from tfschedules.drive.floors import Floor
from tfschedules.drive.state import value_of
from tfschedules.drive.tidying import AtTheEnd
from tfschedules.drive.turns import forget
from tfschedules.schedules import Schedule

Factor = float | Schedule


class Clock(Protocol):
    """Tells the step of a schedule that has not begun with the first update."""

    @property
    def start(self) -> int:
        """The optimizer's count of updates at its step 0."""

    def position(self, made: Any) -> Any:
        """Its step as a tensor, from the optimizer's count."""


_NAME = "_tfschedules_split"


@dataclasses.dataclass(frozen=True)
class Part:
    """Weights with one rate.

    Attributes:
        name: The group's name.
        factor: The part's rate over the optimizer's: a number, or a schedule of the
            optimizer's updates.
        members: Positions of the weights among those the optimizer was built on.
        decays: What the decay of each is multiplied by besides, in the same order.
        clock: What the factor's step 0 is told by, if it is not the first update.
        floor: What holds the part's rate up, if anything does.
        own: Hyperparameters of its own, by the optimizer's names: its momentum.
    """

    name: str
    factor: Factor
    members: Sequence[int]
    decays: Sequence[float]
    clock: Clock | None = None
    floor: Floor | None = None
    own: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def values(self, steps: np.ndarray) -> np.ndarray:
        """The factor at each of `steps`, in float64."""
        if isinstance(self.factor, Schedule):
            start = 0 if self.clock is None else self.clock.start
            factors = self.factor.values(np.maximum(steps - start, 0))
        else:
            factors = np.full(len(steps), self.factor, np.float64)
        return factors if self.floor is None else self.floor.values(factors, steps)

    def now(self, made: Any) -> Any:
        """The factor in the update that is being made: a number, or a tensor."""
        factor: Any = self.factor
        made = keras.ops.convert_to_tensor(made)
        if isinstance(factor, Schedule):
            at = made if self.clock is None else self.clock.position(made)
            factor = factor(at)
        if self.floor is None or _is(factor, 0.0):
            return factor
        return self.floor.raised(factor, made)


class Split:
    """In place of an optimizer's `update_step` and of its weight decay.

    Attributes:
        parts: The parts; a weight in none has the optimizer's own rate.
        missed: How many batches each weight has missed while it was frozen, by its
            position. Adam and its like correct the bias of young averages by the count
            of updates: of a weight they count those that it has taken. A state that
            is loaded has missed no more than it has seen.
    """

    def __init__(self, optimizer: Any) -> None:
        """Wrap the update of `optimizer`, the innermost, for good."""
        self._optimizer = optimizer
        self._update_all = optimizer._backend_update_step
        self._update_one = optimizer.update_step
        self._decay = optimizer._apply_weight_decay
        self._load = optimizer.load_own_variables
        self._part_of: dict[int, tuple[Part, float]] = {}
        self._values: dict[str, Any] = {}
        self._parts: tuple[Part, ...] = ()
        self.missed: dict[int, int] = {}
        self._models: weakref.WeakSet[keras.Model] = weakref.WeakSet()
        # All at once: an interruption must not leave a part of it.
        vars(optimizer).update(
            {
                "_backend_update_step": self.update_all,
                "update_step": self.update_one,
                "_apply_weight_decay": self.decay,
                "load_own_variables": self.load,
                _NAME: self,
            }
        )

    @classmethod
    def of(cls, optimizer: Any) -> Split:
        """The split of `optimizer`; it is made if there is none."""
        return cls.at(optimizer) or cls(optimizer)

    @staticmethod
    def at(optimizer: Any) -> Split | None:
        """The split of `optimizer`, if there is one."""
        return vars(optimizer).get(_NAME)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts; setting them is good for what is traced from then on."""
        return self._parts

    @parts.setter
    def parts(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._part_of = {
            position: (part, decay)
            for part in parts
            for position, decay in zip(part.members, part.decays, strict=True)
        }

    def hold_up(self, floors: Mapping[str, Floor]) -> None:
        """Give parts floors by their names, and take the others' away."""
        self.parts = [
            dataclasses.replace(part, floor=floors.get(part.name))
            for part in self.parts
        ]

    def update_all(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        """Evaluate the factors that are schedules, once a step, and update."""
        self._values = self._factors()
        try:
            self._update_all(grads, variables, learning_rate)
        finally:
            self._values = {}

    def update_one(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one weight with what its part has, and its own count of updates."""
        position = self._optimizer._get_variable_index(variable)
        own: dict[str, Any] = {}
        if position in self._part_of:
            values = self._values or self._factors()  # called by itself
            factor = values[self._part_of[position][0].name]
            if _is(factor, 0.0):  # Ftrl would divide by it
                return
            learning_rate = _times(learning_rate, factor)
            own.update(self._part_of[position][0].own)
        if missed := self.missed.get(position, 0):
            now = keras.ops.convert_to_tensor(self._optimizer._iterations)
            late = keras.ops.convert_to_tensor(missed, dtype=now.dtype)
            # Something may have set the count back; a negative one would give NaN.
            own["_iterations"] = keras.ops.maximum(
                now - late, keras.ops.zeros_like(now)
            )
        if not own:
            self._update_one(gradient, variable, learning_rate)
            return
        # What is driven holds a tensor now, and that is put back.
        before = {name: getattr(self._optimizer, name) for name in own}

        def give_back() -> None:
            for name, value in before.items():
                set_behind(self._optimizer, name, value)

        with AtTheEnd(give_back), AtTheEnd(give_back):
            for name, value in own.items():
                set_behind(self._optimizer, name, value)
            self._update_one(gradient, variable, learning_rate)

    def decay(self, variables: Any) -> None:
        """Apply weight decay, with the rate of each weight's part."""
        optimizer = self._optimizer
        # Of the class: another replica may have put its own in place of the method.
        rate = type(optimizer)._get_current_learning_rate(optimizer)

        def give_back() -> None:  # replicas run this in turns: it may be gone
            vars(optimizer).pop("_get_current_learning_rate", None)

        for factor, those in self._by_decay(variables):
            with AtTheEnd(give_back), AtTheEnd(give_back):
                if not _is(factor, 1.0):
                    now = functools.partial(_times, rate, factor)
                    set_behind(optimizer, "_get_current_learning_rate", now)
                self._decay(those)

    def load(self, store: Any) -> None:
        """Load a state: of an earlier one, batches missed since are none of its."""
        self._load(store)
        made = int(value_of(self._optimizer._iterations))
        self.set_missed({at: min(late, made) for at, late in self.missed.items()})

    def trains(self, model: keras.Model) -> None:
        """Note a model that is trained with `missed` in its step's trace."""
        self._models.add(model)

    def set_missed(self, missed: dict[int, int]) -> None:
        """Set `missed` between two steps, and forget what was traced with another."""
        if missed != self.missed:
            self.missed = dict(missed)
            for model in list(self._models):
                forget(model)

    def _factors(self) -> dict[str, Any]:
        """The factors by part: numbers, or tensors at this update."""
        made = self._optimizer.iterations
        return {part.name: part.now(made) for part in self.parts}

    def _by_decay(self, variables: Any) -> Iterator[tuple[Any, list[Any]]]:
        """Weights by what their decay is multiplied by, without those that have none.

        Parts with equal numbers are decayed in one go.
        """
        values = self._factors()
        those: dict[Any, tuple[Any, list[Any]]] = {}
        for variable in variables:
            position = self._optimizer._get_variable_index(variable)
            factor: Any = 1.0
            key: tuple[str | None, float] = (None, 1.0)
            if position in self._part_of:
                part, decay = self._part_of[position]
                factor = _times(values[part.name], decay)
                if _is(factor, 0.0):
                    continue
                key = (part.name, decay)
                if isinstance(factor, float):
                    key = (None, factor)
            those.setdefault(key, (factor, []))[1].append(variable)
        yield from those.values()


def _is(factor: Any, number: float) -> bool:
    """Whether a factor is this number in every step."""
    return isinstance(factor, float) and factor == number


def _times(value: Any, factor: Any) -> Any:
    """`value` times `factor`, to the bit `value` where the factor is 1."""
    if _is(factor, 1.0):
        return value
    if isinstance(value, float) and isinstance(factor, float):
        return value * factor
    value = keras.ops.convert_to_tensor(value)
    return value * keras.ops.cast(factor, value.dtype)


def parts_of(optimizer: Any) -> tuple[Part, ...]:
    """The parts of the innermost optimizer's weights, if it has any."""
    split = Split.at(optimizer)
    return split.parts if split is not None else ()
