"""Names of arguments: those that nobody has are refused, and what was given is kept."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from tfschedules._support import checks

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MOST_LISTED = 16  # names; those of `fit` besides are too many to read

# What Keras, torch, fastai and users call what has another name here: the first that a
# callable has is meant. The guides "Coming from" have the whole story.
ALIASES: dict[str, tuple[str, ...]] = {
    "learning_rate": ("max_lr", "base_lr", "peak", "value", "low"),
    "lr": ("learning_rate", "max_lr", "base_lr", "peak", "value"),
    "initial_learning_rate": ("start", "max_lr", "base_lr", "value"),
    "maximal_learning_rate": ("max_lr",),
    "end_learning_rate": ("end", "min_lr"),
    "warmup_target": ("max_lr", "peak"),
    "decay_steps": ("steps", "total_steps", "first_cycle"),
    "first_decay_steps": ("first_cycle",),
    "num_warmup_steps": ("warmup_steps", "steps"),
    "alpha": ("min_lr", "end"),
    "t_mul": ("cycle_mult", "growth"),
    "m_mul": ("peak_decay",),
    "T_0": ("first_cycle",),
    "T_max": ("steps", "total_steps", "first_cycle"),
    "T_mult": ("cycle_mult", "growth"),
    "eta_min": ("min_lr", "end"),
    "step_size_up": ("step_size",),
    "t_initial": ("steps", "first_cycle", "total_steps"),
    "cycle_mul": ("cycle_mult", "growth"),
    "cycle_decay": ("peak_decay",),
    "noise_pct": ("amount",),
    "noise_std": ("amount",),
    "noise_seed": ("seed",),
    "warmup_t": ("warmup_steps", "steps"),
    "warmup_lr_init": ("start",),
    "lr_min": ("min_lr", "end"),
    "anneal_epochs": ("anneal_steps",),
    "transition_steps": ("steps", "total_steps"),
    "init_value": ("start",),
    "peak_value": ("max_lr", "peak"),
    "end_value": ("min_lr", "end"),
    "anneal_strategy": ("anneal",),
    "beta_1": ("momentum",),
    "start_lr": ("min_lr",),
    "end_lr": ("max_lr",),
    "lr_max": ("max_lr",),
    "num_it": ("steps",),
    "num_iter": ("steps",),
    "num_steps": ("steps", "total_steps"),
    "num_training": ("steps",),
    "num_training_steps": ("total_steps", "steps"),
    "validation_split": ("validation_data",),
    "filepath": ("directory", "path", "log_dir"),
    "path": ("log_dir", "directory"),
}


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that is probably meant, or `None`.

    Example:
        >>> closest("maxlr", ["min_lr", "max_lr"])
        'max_lr'
        >>> closest("learning_rate", ["max_lr", "total_steps"])
        'max_lr'
        >>> closest("colour", ["max_lr", "total_steps"])
    """
    names = list(names)
    for other in ALIASES.get(name, ()):
        if other in names:
            return other
    squeezed: dict[str, str] = {}
    for other in names:
        squeezed.setdefault(_squeezed(other), other)
    found = difflib.get_close_matches(_squeezed(name), squeezed, 1)
    return squeezed[found[0]] if found else None


def _squeezed(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def did_you_mean(name: str, names: Iterable[str], quoted: str = "`{}`") -> str:
    """A sentence with the name that is probably meant, or nothing.

    Example:
        >>> did_you_mean("onecycle", ["one_cycle", "cosine"])
        ' Did you mean `one_cycle`?'
    """
    other = closest(name, names)
    return "" if other is None else f" Did you mean {quoted.format(other)}?"


def check_names(what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse arguments that something does not have.

    Args:
        what: What it is, for the message.
        given: Arguments by name.
        known: The names that it has.

    Raises:
        TypeError: If one is not known.

    Example:
        >>> check_names("OneCycle", {"max_lr": 0.1}, ["max_lr", "total_steps"])
    """
    names = list(known)
    for name, value in given.items():
        if name not in names:
            way_out = did_you_mean(name, names)
            if not way_out and len(names) <= _MOST_LISTED:
                way_out = f" It has: {', '.join(names)}."
            raise TypeError(
                f"{what} has no argument `{name}`. Received: "
                f"{name}={checks.shown(value)}.{way_out}"
            )


def names_of(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, without those of `**arguments`."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind in kinds]


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a function has `**arguments`."""
    parameters = inspect.signature(function).parameters.values()
    return any(each.kind is each.VAR_KEYWORD for each in parameters)


def checked_names(function: _Function) -> _Function:
    """Let a function refuse arguments that it does not have as `check_names` does.

    Example:
        >>> @checked_names
        ... def lamp(watts): ...
        >>> lamp(wats=40)
        Traceback (most recent call last):
        TypeError: lamp has no argument `wats`. Received: wats=40. Did you mean `watts`?
    """
    assert not takes_any(function), "it checks the names itself"
    known = names_of(function)

    @functools.wraps(function)
    def result(*args: Any, **kwargs: Any) -> Any:
        check_names(function.__name__, kwargs, known)
        return function(*args, **kwargs)

    return cast(_Function, result)


class Named:
    """Refuses arguments that its constructor does not have, as `check_names` does.

    It stands first among the bases.

    Example:
        >>> class Lamp(Named):
        ...     def __init__(self, watts, colour="white"): ...
        >>> Lamp(color="red")
        Traceback (most recent call last):
        TypeError: Lamp has no argument `color`. Received: color='red'. Did you mean
        `colour`?
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Look at the names; copies and `pickle` give none."""
        if kwargs and not takes_any(cls.__init__):
            known = names_of(cls.__init__)[1:]  # without `self`
            check_names(cls.__name__, kwargs, known)
        return super().__new__(cls)


class Recalled(Named):
    """Keeps the arguments that it is made with, and shows them as its `repr`.

    It stands before Keras's `Callback` among the bases, which knows no arguments.

    Example:
        >>> class Lamp(Recalled):
        ...     def __init__(self, watts, colour="white"): ...
        >>> Lamp(40)
        Lamp(watts=40)
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keep what it is made with."""
        made = super().__new__(cls, *args, **kwargs)
        made._given = args, kwargs
        return made

    def _recalled(self, *, defaults: bool) -> dict[str, Any]:
        """What it was made with, by name."""
        args, kwargs = self._given
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        if defaults:
            bound.apply_defaults()
        return {n: given for n, given in bound.arguments.items() if given is not self}

    def __repr__(self) -> str:
        given = self._recalled(defaults=False)
        taken = inspect.signature(type(self).__init__).parameters
        for name, parameter in taken.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # **hyperparameters
                given |= given.pop(name, {})
        shown = ", ".join(f"{name}={checks.shown(v)}" for name, v in given.items())
        return f"{type(self).__name__}({shown})"
