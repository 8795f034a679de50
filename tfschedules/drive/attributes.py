"""Attributes of models and optimizers that are taken for a while, and given back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, TracebackType
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


class Announced:
    """In place of a method: it calls others first, and others may change its result.

    They are called in the order in which they came.
    """

    def __init__(self, owner: Any, name: str) -> None:
        """Note what is there now; nothing is changed yet."""
        self._method = getattr(owner, name)
        self._actions: list[Callable[[], None]] = []
        self._changes: list[Callable[[FrameType, Any], Any]] = []
        self._place = InPlace(owner, name, self)

    @classmethod
    def of(cls, owner: Any, name: str) -> Announced:
        """What is in place of the method, or a new one."""
        there = vars(owner).get(name)
        return there if isinstance(there, cls) else cls(owner, name)

    def add(self, action: Callable[[], None]) -> None:
        """Call `action` each time before the method is called."""
        self._actions.append(action)
        self._place.take()

    def change(self, change: Callable[[FrameType, Any], Any]) -> None:
        """Call `change` with the caller's frame and the result: it returns another."""
        self._changes.append(change)
        self._place.take()

    def remove(self, one: Callable[..., Any]) -> None:
        """Call it no more; the last gives the method back. A second time: nothing."""
        for those in (self._actions, self._changes):
            if one in those:
                those.remove(one)
        if not (self._actions or self._changes):
            self._place.give_back()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for action in self._actions[:]:
            action()
        result = self._method(*args, **kwargs)
        for change in self._changes[:]:
            result = change(sys._getframe(1), result)
        return result
