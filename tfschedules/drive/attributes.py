"""Attributes of models and optimizers that are taken for a while, and given back."""

from __future__ import annotations

from types import TracebackType
from typing import Any

_NONE = object()


def set_behind(owner: Any, name: str, value: Any) -> None:
    """Set an attribute behind the back of Keras's and TensorFlow's tracking."""
    object.__setattr__(owner, name, value)


class InPlace:
    """Something in the place of an attribute.

    An interruption may come between any two statements: both methods may be called
    again, and then do what is left to do.
    """

    def __init__(self, owner: Any, name: str, replacement: Any) -> None:
        """Note what is there now; nothing is changed yet."""
        self._owner, self._name, self._replacement = owner, name, replacement
        self._before = vars(owner).get(name, _NONE)

    def take(self) -> None:
        """Put the replacement there."""
        set_behind(self._owner, self._name, self._replacement)

    def give_back(self) -> None:
        """Put back what was there."""
        if self._before is not _NONE:
            set_behind(self._owner, self._name, self._before)
        elif self._name in vars(self._owner):
            object.__delattr__(self._owner, self._name)

    def __enter__(self) -> None:
        self.take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_back()
