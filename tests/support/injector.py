"""Interruptions of the package's own code, at a statement that is given by its number.

Python tells a trace function of each line before it is run, and an exception that it
raises is raised there. But with it tracing ends, so that a profile function, which goes
on, begins it again: at the next call or return.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import tfschedules

PACKAGE = str(Path(tfschedules.__file__).parent)
EVERY = os.environ.get("TFSCHEDULES_EVERY_STATEMENT") == "1"


class Injector:
    """Interrupts the package at statements that are counted from `arm` on.

    Attributes:
        seen: How many statements were run since `arm`, or since the last interruption.
        lines: All of them.
        where: The statements at which it has interrupted.
    """

    def __init__(self, *points: int, how: str = "exception", under: str = PACKAGE):
        """Prepare.

        Args:
            *points: The numbers of the statements, each counted from the one before.
            how: "exception", or "signal": then it is SIGINT.
            under: The folder whose code is counted.
        """
        self.points, self.how, self.under = list(points), how, under
        self.seen, self.where = 0, []
        self.lines: list[tuple[str, int]] = []
        self.armed = False

    def arm(self) -> None:
        """Begin to count, also in the functions that wait for the caller."""
        if not self.armed:
            self.armed, self._before = True, sys.gettrace()
            self._trace(sys._getframe(1))

    def disarm(self) -> None:
        """Count no more."""
        if self.armed:
            self.armed = False
            sys.setprofile(None)
            sys.settrace(self._before)

    def _trace(self, frame: FrameType | None) -> None:
        sys.settrace(self._called)
        while frame is not None:
            if self._counts(frame):
                frame.f_trace = self._line
            frame = frame.f_back

    def _counts(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self.under)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if self.armed and self._counts(frame) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and self.armed:
            self.seen += 1
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if self.points and self.seen == self.points[0]:
                self.points.pop(0)
                self.seen = 0
                file = Path(frame.f_code.co_filename).name
                self.where.append(f"{file}:{frame.f_lineno}")
                if self.points:
                    sys.setprofile(self._go_on)
                if self.how == "signal":
                    signal.raise_signal(signal.SIGINT)
                else:
                    raise KeyboardInterrupt("by the injector")
        return self._line

    def _go_on(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.armed and sys.gettrace() is None:
            sys.setprofile(None)
            self._trace(frame)

    def firsts_and_lasts(self) -> list[int]:
        """The numbers at which a line was run for the first and for the last time."""
        first: dict[tuple[str, int], int] = {}
        last: dict[tuple[str, int], int] = {}
        for number, line in enumerate(self.lines, start=1):
            first.setdefault(line, number)
            last[line] = number
        return sorted({*first.values(), *last.values()})

    def lines_in(self, *files: str) -> list[tuple[str, int]]:
        """The lines of some files that were run, in order."""
        return [
            line for line in dict.fromkeys(self.lines) if Path(line[0]).name in files
        ]
