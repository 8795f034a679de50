"""Recipes that wait for the length of an epoch."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tfschedules.schedules.base import Schedule, in_steps, register, waits
from tfschedules.steps import Time

_Recipe = TypeVar("_Recipe", bound=Callable[..., Any])
_RECIPES: dict[str, Callable[..., Any]] = {}
_TRIAL = (
    1000  # steps in an epoch, to find bad arguments before the true number is known
)


def recipe(function: _Recipe) -> _Recipe:
    """Let a recipe take lengths in epochs, also in the schedules that it is given.

    With all lengths in steps the recipe is called and returns its composition. With
    any in epochs it is tried out, for errors, and a `Waiting` stands in for the result:
    what a recipe does with lengths (sums, shares of them) needs steps.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def result(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        if not any(waits(value) for value in arguments.values()):
            return function(**arguments)
        made = function(**{n: in_steps(v, _TRIAL) for n, v in arguments.items()})
        fields = tuple(arguments.items())
        if isinstance(made, dict):
            return {key: Waiting(function.__name__, fields, key) for key in made}
        return Waiting(function.__name__, fields)

    _RECIPES[function.__name__] = function
    return cast(_Recipe, result)


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

    def resolve(self, steps_per_epoch: float) -> Schedule:
        fields = {name: in_steps(v, steps_per_epoch) for name, v in self.arguments}
        importlib.import_module("tfschedules.recipes")  # after loading, perhaps not yet
        made = _RECIPES[self.recipe](**fields)
        return made if self.key is None else made[self.key]

    def equation(self, time: Time) -> Any:
        raise AssertionError("unreachable: a schedule in epochs is not evaluated")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        key = "" if self.key is None else f"[{self.key!r}]"
        return f"{self.recipe}({arguments}){key}"
