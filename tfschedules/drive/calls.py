"""The first calls of functions that TensorFlow has compiled: do their updates know?

A function that was compiled before a `with` runs no Python of this package. So the
first calls of each are looked at from outside: if the optimizer's count goes on by more
than what was driven, it is refused after that update, and not at the end of all.
"""

from __future__ import annotations

import functools
import threading
import weakref
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from tfschedules.drive.loop_drive import DrivenLoop

_lock = threading.Lock()
_watching: list[Calls] = []


class Calls:
    """Looks at the calls of `tf.function`s in a loop that is driven."""

    def __init__(self, loop: DrivenLoop) -> None:
        """Nothing is looked at yet."""
        self._loop, self._thread = loop, threading.get_ident()
        self._seen: _Seen | None = None  # of the first of those that look
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._calls: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def begin(self) -> None:
        """Look, on TensorFlow."""
        if keras.backend.backend() == "tensorflow":
            with _lock:
                if not _watching:
                    self._seen = _Seen()
                    self._seen.take()
                _watching.append(self)

    def end(self) -> None:
        """Look no more; a second time does nothing."""
        with _lock:
            if self in _watching:
                _watching.remove(self)
                if _watching:
                    _watching[0]._seen = self._seen or _watching[0]._seen
                elif self._seen is not None:
                    self._seen.give_back()

    def asks(self, function: Any) -> bool:
        """Whether to look at this call of a function.

        One that updates is known after its first call. Of others, as one that
        evaluates, fewer and fewer calls are looked at.
        """
        if function in self._known or threading.get_ident() != self._thread:
            return False
        count = self._calls[function] = self._calls.get(function, 0) + 1
        return count <= 4 or count & (count - 1) == 0

    def note(self) -> tuple[int, int]:
        """What has been done before a call."""
        return self._loop.batches, self._loop.driven

    def look(self, function: Any, before: tuple[int, int]) -> None:
        """Look at what a call has done.

        Raises:
            RuntimeError: If it has made updates that are not driven.
        """
        made, driven = self._loop.batches - before[0], self._loop.driven - before[1]
        if made > driven:
            self._loop.refuse_ignorance()
        if made:
            self._known.add(function)


class _Seen:
    """In place of the method by which functions of TensorFlow are called."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._kind: Any = type(tf.function(lambda: None))
        call = self._call = self._kind.__call__

        @functools.wraps(call)
        def seen(function: Any, *args: Any, **kwargs: Any) -> Any:
            if not _watching or tf.inside_function():
                return call(function, *args, **kwargs)
            before = [(each, each.note()) for each in _watching if each.asks(function)]
            result = call(function, *args, **kwargs)
            for each, noted in before:
                each.look(function, noted)
            return result

        self._seen = seen

    def take(self) -> None:
        """Let calls be seen."""
        self._kind.__call__ = self._seen

    def give_back(self) -> None:
        """Put the method back, unless somebody else has put another over it."""
        if self._kind.__call__ is self._seen:
            self._kind.__call__ = self._call
