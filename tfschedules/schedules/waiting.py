"""Recipes that wait for the length of the fit."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import numbers
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tfschedules._support import checks
from tfschedules._support.arguments import check_names
from tfschedules.schedules.base import (
    Schedule,
    fit_lengths,
    fit_of,
    in_steps,
    register,
)
from tfschedules.schedules.steps import Time

_Recipe = TypeVar("_Recipe", bound=Callable[..., Any])
_RECIPES: dict[str, Callable[..., Any]] = {}


_STEPS, _EPOCHS = (1e3, 1.0, 10.0, 1e9), (1.0, 10.0, 100.0, 1e6)  # of fits to try


def trial(make: Callable[[float, float], Any]) -> Any:
    """What `make` returns for some fit, of so many steps in an epoch and epochs.

    Bad arguments raise for short epochs and for long ones, for few and for many; a
    boundary in steps beside one in epochs, or beside a share, for some of them only.
    """
    for fit in itertools.product(_STEPS, _EPOCHS):
        with contextlib.suppress(ValueError):
            return make(*fit)
    return make(_STEPS[-1], _EPOCHS[-1])  # it raises


def recipe(function: _Recipe) -> _Recipe:
    """Let a recipe take lengths in epochs, also in the schedules that it is given.

    With all lengths in steps the recipe is called and returns its composition. With
    any in epochs it is tried out, for errors, and a `Waiting` stands in for the result:
    what a recipe does with lengths (sums, shares of them) needs steps.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def result(*args: Any, **kwargs: Any) -> Any:
        check_names(function.__name__, kwargs, signature.parameters)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        if not fit_lengths(tuple(arguments.values())):
            return function(**arguments)
        made = trial(
            lambda *fit: function(
                **{n: in_steps(v, *fit) for n, v in arguments.items()}
            )
        )
        fields = tuple((name, _plain(value)) for name, value in arguments.items())
        if isinstance(made, dict):
            return {key: Waiting(function.__name__, fields, key) for key in made}
        return Waiting(function.__name__, fields)

    _RECIPES[function.__name__] = function
    return cast(_Recipe, result)


def _plain(value: Any) -> Any:
    """A number as Python's own, to be hashed, printed and saved."""
    number = checks.as_real(value)
    if number is None:
        return value
    return int(number) if isinstance(number, numbers.Integral) else float(number)


@register
@dataclasses.dataclass(frozen=True)
class Waiting(Schedule):
    """What a recipe returns while a length is in epochs; `resolve` calls the recipe.

    Args:
        recipe: The recipe's name.
        arguments: Its arguments, as pairs.
        key: Which of its schedules this is, where it returns several.
    """

    recipe: str
    arguments: tuple[tuple[str, Any], ...]
    key: str | None = None

    @property
    def in_epochs(self) -> bool:
        return True

    def resolve(self, steps_per_epoch: float, epochs: float | None = None) -> Schedule:
        fit = fit_of(steps_per_epoch, epochs)
        fields = {name: in_steps(v, *fit) for name, v in self.arguments}
        made = _RECIPES[self.recipe](**fields)
        return made if self.key is None else made[self.key]

    def equation(self, time: Time) -> Any:
        raise AssertionError("unreachable: a schedule in epochs is not evaluated")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        key = "" if self.key is None else f"[{self.key!r}]"
        return f"{self.recipe}({arguments}){key}"
