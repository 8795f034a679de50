"""The schedule itself: a call, values, operators, and its way to a file and back."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np

from tfschedules._support import checks
from tfschedules._support.arguments import Named
from tfschedules.schedules import evaluation, moments
from tfschedules.schedules.configs import deserialized, serialized
from tfschedules.schedules.steps import Cycles, Time
from tfschedules.schedules.units import FitLength

_Class = TypeVar("_Class", bound=type)
_MOST_DRAWN = 100_000  # steps in a picture
# What operators make, by sign. `arithmetic` puts its classes here: they are schedules
# themselves, and so this module cannot import them.
OPERATIONS: dict[str, Callable[..., Any]] = {}


def register(cls: _Class) -> _Class:
    """Make a schedule known to Keras's loader, under a path that stays the same."""
    cls.__module__ = "tfschedules.schedules"
    return keras.saving.register_keras_serializable("tfschedules")(cls)


class Schedule(Named, keras.optimizers.schedules.LearningRateSchedule, abc.ABC):
    """A value as a pure function of the step; immutable, composable, serializable.

    To write one, make a frozen dataclass with one method, `equation`:

    Example:
        >>> import dataclasses, keras, tfschedules as tfs
        >>> @keras.saving.register_keras_serializable("mine")
        ... @dataclasses.dataclass(frozen=True)
        ... class InverseTime(tfs.Schedule):
        ...     start: float
        ...     half_life: float
        ...     def equation(self, time):
        ...         return self.start / (1 + time.step / self.half_life)
        >>> InverseTime(0.1, 100).values([0, 100]).tolist()
        [0.1, 0.05]

    Schedules are added, subtracted and multiplied, with each other and with numbers;
    they are divided by numbers, negated and clipped:

        >>> (tfs.Linear(0.0, 1.0, 4) * 0.1).clip(0.05, 1.0).values(5).tolist()
        [0.05, 0.05, 0.05, 0.07500000000000001, 0.1]
        >>> (1 - tfs.Linear(0.0, 1.0, 4) / 2).values(5).tolist()
        [1.0, 0.875, 0.75, 0.625, 0.5]
    """

    __array_ufunc__ = None  # or NumPy makes an array of schedules of array * schedule

    @abc.abstractmethod
    def equation(self, time: Time) -> Any:
        """The value at `time`; of the shape of `time.step`, through `time.ops`.

        Args:
            time: The moment: `time.step`, a float array or tensor, counted from this
                schedule's own step 0, and `time.ops`, which is NumPy or `keras.ops`.
        """

    def __call__(self, step: Any) -> Any:
        """The value at `step`, an integer tensor, in float32; traceable.

        It is computed in float32: what is smaller than about 1e-38 counts as 0, what is
        greater than 3.4e38 as that.

        Raises:
            ValueError: If a length is in epochs still, or cannot be counted in the
                integers of the backend.
        """
        self._check_resolved()
        return evaluation.in_backend(self.equation, step)

    def values(self, steps: Any) -> np.ndarray:
        """The values at `steps`, computed in float64 without a backend.

        They are computed some thousands at a time: little more memory is needed than
        the result takes.

        Args:
            steps: A count n, for the steps 0 … n-1, or an integer array of any shape.

        Returns:
            A float64 array of shape `(n,)`, or of the shape of `steps`.

        Raises:
            TypeError: If `steps` holds anything but integers.
            ValueError: If `steps` is a negative count, or a length is in epochs still.

        Example:
            >>> import tfschedules as tfs
            >>> tfs.Linear(1.0, 0.0, steps=4).values(6).tolist()
            [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        self._check_resolved()
        return evaluation.in_blocks(self.equation, steps)

    @functools.cached_property  # asked for at each step, where a step is not compiled
    def in_epochs(self) -> bool:
        """Whether a length is in epochs, or a share of the fit, and to be resolved."""
        return self.fit_lengths > 0

    @property
    def fit_lengths(self) -> int:
        """How many lengths are in epochs, or shares of the fit."""
        return fit_lengths(tuple(self._fields().values()))

    def resolve(self, steps_per_epoch: float, epochs: float | None = None) -> Schedule:
        """This schedule with every length in steps.

        Args:
            steps_per_epoch: The optimizer updates in an epoch, > 0; with gradient
                accumulation not a whole number, perhaps.
            epochs: The epochs of the fit, > 0; needed where a length is a share of it.

        Example:
            >>> import tfschedules as tfs
            >>> tfs.Cosine(0.1, 0.0, tfs.epochs(3)).resolve(steps_per_epoch=50).steps
            150
            >>> tfs.Cosine(0.1, 0.0, tfs.fit_share(0.5)).resolve(50, epochs=6).steps
            150
        """
        fit = fit_of(steps_per_epoch, epochs)
        if not self.in_epochs:
            return self
        fields = self._fields().items()
        return type(self)(**{name: in_steps(v, *fit) for name, v in fields})

    @property
    def length(self) -> float | None:
        """The step from which on the value stays the same; `None` if it goes on."""
        return None

    @property
    def greatest(self) -> float | None:
        """A bound of the value's size, at every step; `None` if it is not known."""
        return None

    def cycles(self, step: int) -> Cycles:
        """How many cycles have ended by `step`, and where the next one ends.

        Cycles are those of a `Repeat`, also inside other schedules; a cycle that a
        `Join` cuts off does not end. Of two schedules that are added or multiplied,
        those of the first that has any count.

        Args:
            step: A whole number >= 0.

        Example:
            >>> import tfschedules as tfs
            >>> restarts = tfs.warm_restarts(0.1, first_cycle=10, cycle_mult=2)
            >>> restarts.cycles(15)
            Cycles(ended=1, next_end=30)
        """
        self._check_resolved()
        whole = checks.whole("step", step, at_least=0)
        whole = min(whole, int(np.iinfo(np.int64).max))
        return self.cycles_at(moments.in_numpy(np.asarray(whole)))

    def cycles_at(self, time: Time) -> Cycles:
        """The same for one moment of this schedule's own time; none, if not said.

        Args:
            time: The moment, as in `equation`, but of one step.
        """
        return Cycles(0, None)

    def plot(self, steps: Any, ax: Any = None) -> Any:
        """Draw the schedule over `steps` and return the matplotlib `Axes`.

        Args:
            steps: A count n, for the steps 0 … n-1, or an integer array `(n,)`. Of a
                count above 100,000 as many steps are drawn, evenly spread.
            ax: The `Axes` to draw on; a new figure's if not given.
        """
        from tfschedules.schedules import picture

        if np.ndim(steps) == 0:
            count = checks.whole("steps", steps)
            if count <= _MOST_DRAWN:
                steps = np.arange(count)
            else:  # in integers: of floats the last may be another one
                steps = [
                    i * (count - 1) // (_MOST_DRAWN - 1) for i in range(_MOST_DRAWN)
                ]
        return picture.plot_schedule(np.asarray(steps), self.values(steps), ax)

    def clip(self, lower: float, upper: float) -> Schedule:
        """This schedule, held between two values.

        Args:
            lower: What is below it is raised to this.
            upper: What is above it is lowered to this; >= `lower`.
        """
        return OPERATIONS["clip"](self, lower, upper)

    def stretch(self, factor: float) -> Schedule:
        """This schedule over a time that is `factor` times as long: f(t/factor).

        Every length in it is multiplied, that of cycles and warm-ups, too. What Mosaic
        composer calls the scale schedule ratio.

        Args:
            factor: How much longer, in [1e-6, 1e6]; below 1 it is shorter.

        Example:
            >>> import tfschedules as tfs
            >>> tfs.Linear(0.0, 1.0, 2).stretch(2).values(6).tolist()
            [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
        """
        return OPERATIONS["stretch"](self, factor)

    def __add__(self, other: Schedule | float) -> Schedule:
        term = _as_term(other)
        return NotImplemented if term is None else OPERATIONS["+"](self, term)

    def __sub__(self, other: Schedule | float) -> Schedule:
        term = _as_term(other)
        return NotImplemented if term is None else OPERATIONS["-"](self, term)

    def __mul__(self, other: Schedule | float) -> Schedule:
        term = _as_term(other)
        return NotImplemented if term is None else OPERATIONS["*"](self, term)

    def __truediv__(self, other: float) -> Schedule:
        term = _as_term(other)
        return (
            OPERATIONS["/"](self, term)
            if isinstance(term, Constant)
            else NotImplemented
        )

    def __radd__(self, other: Schedule | float) -> Schedule:
        return self + other

    def __rsub__(self, other: Schedule | float) -> Schedule:
        term = _as_term(other)
        return NotImplemented if term is None else OPERATIONS["-"](term, self)

    def __rmul__(self, other: Schedule | float) -> Schedule:
        return self * other

    def __neg__(self) -> Schedule:
        return OPERATIONS["*"](self, Constant(-1.0))

    if not TYPE_CHECKING:  # which goes on knowing what there is

        def __getattr__(self, name: str) -> Any:
            """Say what to do to those who put a schedule among the callbacks."""
            if name in ("set_model", "on_batch_end"):  # of which Keras asks first
                raise AttributeError(
                    "A schedule is no callback. Give callbacks="
                    "[tfs.HyperparameterScheduler(learning_rate=schedule)], or, of "
                    f"a dictionary, (**schedules). Received: {self!r} as a callback"
                )
            return object.__getattribute__(self, name)  # Python's own error

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this schedule, as plain Python objects."""
        return {name: serialized(value) for name, value in self._fields().items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """Rebuild a schedule from `get_config`."""
        return cls(**{name: deserialized(value) for name, value in config.items()})

    def _fields(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return {name: getattr(self, name) for name in names}

    def _check_resolved(self) -> None:
        if self.in_epochs:
            raise ValueError(
                "This schedule has lengths in epochs or shares of the fit, and no "
                "callback has told how many steps an epoch has. Call "
                "schedule.resolve(steps_per_epoch), with epochs=… for shares, first. "
                f"Received: {self!r}"
            )


def fit_lengths(value: Any) -> int:
    """How many lengths of the fit a value is, or has in it."""
    if isinstance(value, tuple):
        return sum(fit_lengths(item) for item in value)
    if isinstance(value, Schedule):
        return value.fit_lengths
    return int(isinstance(value, FitLength))


def fit_of(steps_per_epoch: Any, epochs: Any) -> tuple[float, float | None]:
    """Check what `resolve` is given."""
    per_epoch = checks.real("steps_per_epoch", steps_per_epoch, above=0)
    count = None if epochs is None else checks.real("epochs", epochs, above=0)
    return per_epoch, count


def in_steps(value: Any, per_epoch: float, epochs: float | None) -> Any:
    """Put steps in place of lengths of the fit, in whatever a schedule is made of."""
    if isinstance(value, tuple):
        return tuple(in_steps(item, per_epoch, epochs) for item in value)
    if isinstance(value, FitLength):
        return value.in_steps(per_epoch, epochs)
    if isinstance(value, Schedule):
        return value.resolve(per_epoch, epochs)
    return value


def _as_term(value: Any) -> Schedule | None:
    if isinstance(value, Schedule):
        return value
    number = checks.as_real(value)
    if number is None and hasattr(value, "shape"):
        raise TypeError(
            "A schedule is computed with schedules and with numbers. Received: "
            f"{checks.shown(value)} (of type {type(value).__name__}). Of an array or "
            "a tensor that holds one number give float(…)."
        )
    return None if number is None else Constant(number)


def set_checked(schedule: Any, **checked: Any) -> None:
    """Put checked values in place of a frozen dataclass's arguments."""
    for name, value in checked.items():
        object.__setattr__(schedule, name, value)


def endless(*bounds: float | None) -> float | None:
    """A bound where one is not known: infinity where another grows without end."""
    return math.inf if math.inf in bounds else None


def as_schedule(name: str, value: Any) -> Schedule:
    """Return `value` if it is a schedule, or say what to give instead."""
    if not isinstance(value, Schedule):
        raise TypeError(
            f"Argument `{name}` must be a tfschedules.Schedule. Received: "
            f"{name}={checks.shown(value)}. {checks.no_schedule(value)}"
        )
    return value


@register
@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """One value at every step: f(t) = value.

    Args:
        value: The value.

    Example:
        >>> Constant(0.1).values(2).tolist()
        [0.1, 0.1]
    """

    value: float

    def __post_init__(self) -> None:
        set_checked(self, value=checks.single("value", self.value))

    def equation(self, time: Time) -> Any:
        return time.as_float(self.value)

    @property
    def greatest(self) -> float | None:
        return abs(self.value)
