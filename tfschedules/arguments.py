"""What a callback was made with, kept and shown."""

from __future__ import annotations

import inspect
from typing import Any

from tfschedules import checks


class Recalled:
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
        made = super().__new__(cls)
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
