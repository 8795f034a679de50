"""Giving back what is borrowed, also where Ctrl-C comes in between.

Ctrl-C may come between any two statements, and again while the first is dealt with.
Three things together make that harmless: the signal waits while things are put back;
an action is off the list only when it is done, and may be done again; and what must be
done at the end of a block is tried again where it is interrupted.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from tfschedules.drive import frames

_ATTEMPTS = 3


class Uninterrupted:
    """A block in which Ctrl-C waits: it is raised when the block is left.

    Python handles signals in the main thread alone; in others this does nothing.
    """

    def __enter__(self) -> None:
        """Let the signal wait."""
        self._before: Any = None
        self._waiting: list[tuple[int, FrameType | None]] = []
        # The frame and not its id, which a later one may have.
        self._block: FrameType | None = sys._getframe(1)
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._wait)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Handle the signal as before, also the one that has waited."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._block = None
            if self._waiting:
                self._before(*self._waiting[0])

    def _wait(self, number: int, frame: FrameType | None) -> None:
        # Left without its end, by an exception between two statements of that?
        if any(each is self._block for each in frames.upwards(frame)):
            self._waiting.append((number, frame))
            return
        signal.signal(signal.SIGINT, self._before)
        self._before(number, frame)


def do_all(actions: list[Callable[[], None]]) -> None:
    """Do actions, the last first, and take each off the list when it is done.

    All are done, also where some raise; the first error is raised in the end. One that
    is interrupted is done again, so each must be such that this is right.
    """
    first: BaseException | None = None
    attempts = 0
    while actions:
        try:
            actions[-1]()
        except Exception as error:
            first = first or error
        except BaseException as interruption:
            first, attempts = interruption, attempts + 1
            if attempts < _ATTEMPTS:
                continue
        attempts = 0
        actions.pop()
    if first is not None:
        raise first


class AtTheEnd:
    """An action for the end of a block, however it ends.

    Where an interruption ends the action itself, the next one around it does the rest:
    `with AtTheEnd(a), AtTheEnd(a), AtTheEnd(a):` survives two interruptions. A second
    time the action has to do nothing.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def __enter__(self) -> None:
        """Nothing is done at the beginning."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do it."""
        with Uninterrupted():
            self._action()
