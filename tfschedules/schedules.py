"""Schedules: pure functions from the step to a value.

Each class is one equation. It stands once and is evaluated twice: by `values` in
float64 NumPy and by a call in `keras.ops`, inside a compiled training step. What
papers call a schedule is a composition of these; see `tfschedules.recipes`.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfschedules import checks, steps as moments
from tfschedules.steps import Time

_register = keras.saving.register_keras_serializable("tfschedules")


class Schedule(keras.optimizers.schedules.LearningRateSchedule, abc.ABC):
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

    Schedules multiply and add, with each other and with numbers, and may be clipped:

        >>> (tfs.Linear(0.0, 1.0, 4) * 0.1).clip(0.05, 1.0).values(5).tolist()
        [0.05, 0.05, 0.05, 0.07500000000000001, 0.1]
    """

    @abc.abstractmethod
    def equation(self, time: Time) -> Any:
        """The value at `time`; of the shape of `time.step`, through `time.ops`."""

    def __call__(self, step: Any) -> Any:
        """The value at `step`, an integer tensor, in float32; traceable."""
        time = moments.in_graph(step)
        value = keras.ops.cast(self.equation(time), "float32")
        return keras.ops.broadcast_to(value, keras.ops.shape(time.whole))

    def values(self, steps: Any) -> np.ndarray:
        """The values at `steps`, computed in float64 without a backend.

        Args:
            steps: A count n, for the steps 0 … n-1, or an integer array of any shape.

        Returns:
            A float64 array of shape `(n,)`, or of the shape of `steps`.

        Raises:
            TypeError: If `steps` holds anything but integers.
            ValueError: If `steps` is a negative count.

        Example:
            >>> import tfschedules as tfs
            >>> tfs.Linear(1.0, 0.0, steps=4).values(6).tolist()
            [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        array = np.asarray(steps)
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise TypeError(
                "Argument `steps` must be a count or an array of integers. "
                f"Received: steps={steps!r}. Round it first?"
            )
        if array.ndim == 0:
            array = np.arange(checks.whole("steps", steps, at_least=0))
        value = self.equation(moments.in_numpy(array))
        return np.broadcast_to(np.asarray(value, np.float64), array.shape).copy()

    def plot(self, steps: Any, ax: Any = None) -> Any:
        """Draw the schedule over `steps` and return the matplotlib `Axes`.

        Args:
            steps: A count n, for the steps 0 … n-1, or an integer array `(n,)`.
            ax: The `Axes` to draw on; a new figure's if not given.
        """
        from tfschedules import plots

        if np.ndim(steps) == 0:
            steps = np.arange(checks.whole("steps", steps))
        return plots.plot_schedule(np.asarray(steps), self.values(steps), ax)

    def clip(self, lower: float, upper: float) -> Schedule:
        """This schedule, held between `lower` and `upper`."""
        return Clip(self, lower, upper)

    def __add__(self, other: Schedule | float) -> Schedule:
        term = _as_term(other)
        return NotImplemented if term is None else Sum(self, term)

    def __mul__(self, other: Schedule | float) -> Schedule:
        term = _as_term(other)
        return NotImplemented if term is None else Product(self, term)

    def __radd__(self, other: Schedule | float) -> Schedule:
        return self + other

    def __rmul__(self, other: Schedule | float) -> Schedule:
        return self * other

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this schedule, as plain Python objects."""
        return {
            field.name: _serialize(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """Rebuild a schedule from `get_config`."""
        return cls(**{name: _deserialize(value) for name, value in config.items()})


def _as_term(value: Any) -> Schedule | None:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return Constant(value)
    return None


def _serialize(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_serialize(item) for item in value]
    if isinstance(value, Schedule):
        return keras.saving.serialize_keras_object(value)
    if callable(value):
        if keras.saving.get_registered_name(value) == value.__name__:
            raise ValueError(
                f"The function {value.__name__!r} in this schedule cannot be saved: "
                "it is not registered. Decorate it with "
                "@keras.saving.register_keras_serializable('my_package')."
            )
        return keras.saving.serialize_keras_object(value)
    return value


def _deserialize(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_deserialize(item) for item in value)
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return value


def _check(schedule: Any, **checked: Any) -> None:
    """Put checked values in place of a frozen dataclass's arguments."""
    for name, value in checked.items():
        object.__setattr__(schedule, name, value)


def _schedule(name: str, value: Any) -> Schedule:
    if not isinstance(value, Schedule):
        raise TypeError(
            f"Argument `{name}` must be a tfschedules.Schedule. Received: "
            f"{name}={value!r}. For a fixed value use tfs.Constant(value)."
        )
    return value


@_register
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
        _check(self, value=checks.real("value", self.value))

    def equation(self, time: Time) -> Any:
        return self.value


class Ramp(Schedule):
    """From `start` at step 0 to `end` at step `steps`, where it stays.

    A ramp is a function of the shares of its length that are done and left, and so
    the one kind of schedule that can be stretched.
    """

    start: float
    end: float
    steps: float

    def __post_init__(self) -> None:
        _check(
            self,
            start=checks.real("start", self.start),
            end=checks.real("end", self.end),
            steps=checks.real("steps", self.steps, above=0),
        )

    def equation(self, time: Time) -> Any:
        return self.blend(*time.over(self.steps), time.ops)

    @abc.abstractmethod
    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        """The value where the shares `done` and `left` = 1 - done have passed."""


@_register
@dataclasses.dataclass(frozen=True)
class Linear(Ramp):
    """A straight line: f(t) = start·(1 - t/steps) + end·t/steps, then `end`.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0.

    Example:
        >>> Linear(0.0, 1.0, steps=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    start: float
    end: float
    steps: float

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        return self.start * left + self.end * done


@_register
@dataclasses.dataclass(frozen=True)
class Cosine(Ramp):
    """Half a cosine wave.

    f(t) = end + (start - end)·(1 + cos(π·t/steps))/2, then `end`.

    It is computed as start·sin²(π/2·left) + end·sin²(π/2·done), which keeps all its
    digits near the end, where 1 + cos cancels. Loshchilov & Hutter 2016 (SGDR,
    arXiv:1608.03983), equation 5, anneals with it.

    Args:
        start: The value at step 0.
        end: The value at step `steps` and after.
        steps: The length in steps, a real number > 0.

    Example:
        >>> Cosine(1.0, 0.0, steps=2).values(4).round(6).tolist()
        [1.0, 0.5, 0.0, 0.0]
    """

    start: float
    end: float
    steps: float

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        falling = ops.square(ops.sin(math.pi / 2 * left))
        rising = ops.square(ops.sin(math.pi / 2 * done))
        return self.start * falling + self.end * rising


@_register
@dataclasses.dataclass(frozen=True)
class Exponential(Ramp):
    """A geometric sweep: f(t) = start·(end/start)^(t/steps), then `end`.

    It is measured from the nearer end, and so is exact at both.

    Args:
        start: The value at step 0, > 0.
        end: The value at step `steps` and after, > 0.
        steps: The length in steps, a real number > 0.

    Example:
        >>> Exponential(1.0, 100.0, steps=2).values(4).round(6).tolist()
        [1.0, 10.0, 100.0, 100.0]
    """

    start: float
    end: float
    steps: float

    def __post_init__(self) -> None:
        hint = "A geometric sweep cannot reach 0; use Linear or Cosine for that."
        checks.real("start", self.start, above=0, hint=hint)
        checks.real("end", self.end, above=0, hint=hint)
        super().__post_init__()

    def blend(self, done: Any, left: Any, ops: Any) -> Any:
        ratio = math.log(self.end) - math.log(self.start)
        return ops.where(
            done < left,
            self.start * ops.exp(ratio * done),
            self.end * ops.exp(-ratio * left),
        )


@_register
@dataclasses.dataclass(frozen=True)
class Join(Schedule):
    """Schedules one after another, each from its own step 0.

    f(t) = schedules[i](t - boundaries[i-1]) for boundaries[i-1] <= t < boundaries[i].

    Args:
        schedules: At least one schedule.
        boundaries: Where the second, third … schedule begins: increasing, in steps,
            one fewer than `schedules`. Real numbers are kept as they are: a part that
            begins at 2.5 is half a step old at step 3. A boundary at or before step 0
            hides the parts before it.

    Raises:
        ValueError: If the counts do not fit or the boundaries do not increase.

    Example:
        >>> warm = Join([Linear(0.0, 1.0, 2), Constant(1.0)], boundaries=[2])
        >>> warm.values(4).tolist()
        [0.0, 0.5, 1.0, 1.0]
    """

    schedules: tuple[Schedule, ...]
    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("schedules", "boundaries"):
            if not isinstance(getattr(self, name), (list, tuple, np.ndarray)):
                raise TypeError(
                    f"Argument `{name}` must be a list. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        parts = tuple(_schedule("schedules", part) for part in self.schedules)
        edges = tuple(checks.real("boundaries", edge) for edge in self.boundaries)
        if not parts or len(edges) != len(parts) - 1:
            raise ValueError(
                "Argument `boundaries` must have one entry fewer than `schedules`: "
                f"one for each change. Received: {len(parts)} schedules and "
                f"{len(edges)} boundaries, {list(edges)}."
            )
        if any(later <= sooner for sooner, later in itertools.pairwise(edges)):
            raise ValueError(
                "Argument `boundaries` must increase; they are steps since the "
                f"beginning, not lengths. Received: boundaries={list(edges)}"
            )
        _check(self, schedules=parts, boundaries=edges)

    def equation(self, time: Time) -> Any:
        value = self.schedules[0].equation(time)
        for part, edge in zip(self.schedules[1:], self.boundaries, strict=True):
            later = part.equation(time.since(edge))
            value = time.ops.where(time.reached(edge), later, value)
        return value


@_register
@dataclasses.dataclass(frozen=True)
class Repeat(Schedule):
    """A schedule begun anew every `steps` steps: f(t) = schedule(t mod steps).

    With `growth` each cycle is `growth` times as long as the one before, and the
    schedule, a ramp over `steps`, is stretched with it. Cycles are found with integers:
    they are right to the step at any age.

    Args:
        schedule: What to repeat.
        steps: The length of the first cycle, a whole number of steps.
        growth: Cycle i lasts steps·growth^i; >= 1. A fraction is fine: boundaries are
            real numbers then, and not rounded.

    Raises:
        ValueError: If `growth` is not 1 and `schedule` is not a ramp over `steps`.

    Example:
        >>> Repeat(Linear(1.0, 0.0, 2), steps=2).values(5).tolist()
        [1.0, 0.5, 1.0, 0.5, 1.0]
        >>> Repeat(Linear(1.0, 0.0, 2), steps=2, growth=2.0).values(7).tolist()
        [1.0, 0.5, 1.0, 0.75, 0.5, 0.25, 1.0]
    """

    schedule: Schedule
    steps: int
    growth: float = 1.0

    def __post_init__(self) -> None:
        _schedule("schedule", self.schedule)
        _check_cycles(self)
        if self.growth != 1 and not (
            isinstance(self.schedule, Ramp) and self.schedule.steps == self.steps
        ):
            raise ValueError(
                "Argument `schedule` must be a ramp (Linear, Cosine, …) over "
                f"`steps`={self.steps} steps, to be stretched by `growth`. Received: "
                f"schedule={self.schedule!r}, growth={self.growth!r}"
            )

    def equation(self, time: Time) -> Any:
        if self.growth == 1 or not isinstance(self.schedule, Ramp):
            return self.schedule.equation(time.cycle(self.steps)[1])
        _, done, left = time.growing_cycle(self.steps, self.growth)
        return self.schedule.blend(done, left, time.ops)


@_register
@dataclasses.dataclass(frozen=True)
class PerCycle(Schedule):
    """A factor for each cycle: f(t) = factor^i in cycle i, counted from 0.

    Args:
        factor: What each cycle multiplies by, > 0.
        steps: The length of the first cycle, a whole number of steps. With 1,
            f(t) = factor^t.
        growth: Cycle i lasts steps·growth^i; >= 1.

    Example:
        >>> PerCycle(0.5, steps=2).values(5).tolist()
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    factor: float
    steps: int
    growth: float = 1.0

    def __post_init__(self) -> None:
        _check(self, factor=checks.real("factor", self.factor, above=0))
        _check_cycles(self)

    def equation(self, time: Time) -> Any:
        if self.growth == 1:
            index = time.cycle(self.steps)[0]
        else:
            index = time.growing_cycle(self.steps, self.growth)[0]
        # 2^(i·log2 factor): exact for powers of two, and log2 is taken in float64.
        return time.ops.power(2.0, math.log2(self.factor) * time.as_float(index))


def _check_cycles(schedule: Any) -> None:
    growth = checks.real("growth", schedule.growth, at_least=1)
    steps = checks.whole("steps", schedule.steps)
    if growth != 1:
        moments.cycle_table(steps, growth, 0.0, int(np.iinfo(np.int64).max))
    _check(schedule, steps=steps, growth=growth)


@_register
@dataclasses.dataclass(frozen=True)
class ScaleFunction(Schedule):
    """A user's function of the cycle or of the step: f(t) = function(x).

    Args:
        function: Takes a float array or tensor x and returns one of its shape. To be
            saved, it must be registered with
            `keras.saving.register_keras_serializable`.
        steps: The length of a cycle: x is the number of the cycle, 1 in the first. With
            `None`, x is the step itself, 0 in the first.

    Example:
        >>> ScaleFunction(lambda cycle: 1 / cycle, steps=2).values(4).tolist()
        [1.0, 1.0, 0.5, 0.5]
    """

    function: Callable[[Any], Any]
    steps: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                "Argument `function` (or `scale_fn`) must be a function of one number. "
                f"Received: {self.function!r}"
            )
        if self.steps is not None:
            _check(self, steps=checks.whole("steps", self.steps))

    def equation(self, time: Time) -> Any:
        if self.steps is None:
            return self.function(time.step)
        return self.function(1 + time.as_float(time.cycle(self.steps)[0]))


@_register
@dataclasses.dataclass(frozen=True)
class Sum(Schedule):
    """The sum of two schedules, written `first + second`."""

    first: Schedule
    second: Schedule

    def equation(self, time: Time) -> Any:
        return self.first.equation(time) + self.second.equation(time)

    def __repr__(self) -> str:
        return f"({self.first!r} + {self.second!r})"


@_register
@dataclasses.dataclass(frozen=True)
class Product(Schedule):
    """The product of two schedules, written `first * second`."""

    first: Schedule
    second: Schedule

    def equation(self, time: Time) -> Any:
        return self.first.equation(time) * self.second.equation(time)

    def __repr__(self) -> str:
        return f"({self.first!r} * {self.second!r})"


@_register
@dataclasses.dataclass(frozen=True)
class Clip(Schedule):
    """A schedule held between two values, written `schedule.clip(lower, upper)`."""

    schedule: Schedule
    lower: float
    upper: float

    def __post_init__(self) -> None:
        _schedule("schedule", self.schedule)
        lower = checks.real("lower", self.lower)
        upper = checks.real("upper", self.upper)
        checks.ordered("lower", lower, "upper", upper)
        _check(self, lower=lower, upper=upper)

    def equation(self, time: Time) -> Any:
        return time.ops.clip(self.schedule.equation(time), self.lower, self.upper)

    def __repr__(self) -> str:
        return f"{self.schedule!r}.clip({self.lower!r}, {self.upper!r})"
