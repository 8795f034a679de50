"""What a folder says of itself: who it is, and what training it is the record of.

A count of steps does not tell whose it is. So a folder of records keeps a journal, of
one line for each of these:

    run <id>                     the record was made
    begin <step>                 a fit records from this step on
    back <step>                  a resumed fit does: what came from there on is undone
    state <step> <fingerprint>   the training was in this state after so many steps
    given <key>                  the schedules that the fit is given
    row <key> <folder>           a row of the HParams tab, and the folder that it is in
    end <step>                   a fit has come to its end after so many steps
    left <step>                  an exception has ended a fit, and its process goes on

Lines are only added. A process that is killed leaves a part of one at most, and that is
passed over. What is of no such form is of a later version, or damage: then what the
record has is not known.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import re
import uuid
from collections.abc import Hashable, Iterator
from pathlib import Path

_KINDS = ("run", "begin", "back", "state", "given", "row", "end", "left")
_FORM = re.compile(
    r"(run|given) \w+|(begin|back|end|left) \d{1,19}|"
    r"state \d{1,19} \w+|row \w+ [\w.]+",
    re.ASCII,
)
_NOTHING = "nothing"  # the mark of a file that is not there
_CUT = "?"  # what a line that was cut off is ended with: no line is of that form


class Journal(abc.ABC):
    """A journal; where its lines are kept is another matter.

    Attributes:
        id: What tells the record from any other, also from a later one in its folder;
            empty where there is no journal.
        strange: Whether there are lines of an unknown form: it is damaged, or of a
            later version. Whose record it is, and how far it got, is not known then.
        blank: Whether it says who the record is at most.
        maker: The process that has made the record, if it was made by this object.
        begun: Whether a fit has recorded anything.
        reached: How many steps the record has, as far as that is known: after a fit
            that was killed it may have more.
        open_from: Where the first fit began of those since the last that is over;
            `None` if the last one is, in whichever way.
        left_from: The same of a fit that an exception has ended, if it is the last.
        latest: The state that was noted last, with its step.
        given: The key of the schedules that the last fit was given, if it is known.
        row: The key of the last fit's row, if it has one.
    """

    def __init__(self) -> None:
        """Read it, where there is one.

        Raises:
            OSError: If it is there and cannot be read.
        """
        self._seen: Hashable = None  # what told the bytes from others that were read
        self.maker = 0
        self.refresh()

    @abc.abstractmethod
    def _mark(self) -> Hashable:
        """What tells the bytes that are there from others; or an `OSError`.

        It is `None` where nothing does.
        """

    @abc.abstractmethod
    def _read(self) -> bytes:
        """All of it, nothing where there is none; or raise an `OSError`."""

    @abc.abstractmethod
    def _append(self, line: bytes) -> None:
        """Add a line behind the bytes that were read, or raise an `OSError`."""

    @property
    def _head(self) -> bytes | None:
        """What the bytes begin with that were read; `None` where there were none."""
        if self._seen == _NOTHING:
            return None
        return f"run {self.id}\n".encode() if self.id else b""

    def refresh(self) -> None:
        """Read it anew, if somebody else has written to it since.

        Raises:
            OSError: If it is there and cannot be read.
        """
        mark = self._mark()
        if mark is not None and mark == self._seen:
            return
        data = self._read()
        self._seen = mark
        self._size, self._cut = len(data), data[-1:] not in (b"", b"\n")
        self.id, self.begun, self.reached = "", False, 0
        self.strange, self.blank = False, True
        self.open_from: int | None = None
        self.left_from: int | None = None
        self.latest: tuple[int, str] | None = None
        self.given: str | None = None
        self.row: str | None = None
        self._states: dict[str, int] = {}
        self._undone: dict[str, int] = {}
        self._rows: dict[str, str] = {}
        for line in _lines(data):
            if line is None:
                self.strange, self.blank = True, False
            else:
                self._take(*line.split(" "))

    def _take(self, kind: str, first: str, second: str = "") -> None:
        self.blank = self.blank and kind == "run"
        if kind == "run":
            self.id = self.id or first
        elif kind == "given":
            self.given = first
        elif kind == "row":
            self._rows[first], self.row = second, first
        elif kind == "state":
            self.latest = int(first), second
            self._states[second] = int(first)
            self.reached = max(self.reached, int(first))
        elif kind in ("end", "left"):
            self.reached = max(self.reached, int(first))
            self.left_from = self.open_from if kind == "left" else None
            self.open_from = None
        else:
            self.begun, step = True, int(first)
            if kind == "back":
                self.reached = min(self.reached, step)
                self._undone |= {s: n for s, n in self._states.items() if n > step}
                self._states = {s: n for s, n in self._states.items() if n <= step}
            self.open_from = step if self.open_from is None else self.open_from
            self.left_from = None

    def _add(self, *words: str | int) -> None:
        line = " ".join(map(str, words)).encode() + b"\n"
        if self._cut:
            line = f"{_CUT}\n".encode() + line
        self._append(line)
        self._size, self._cut, self._seen = self._size + len(line), False, self._mark()
        self._take(*map(str, words))

    def make(self) -> None:
        """Say who the run is; its folder is there.

        Raises:
            OSError: As all that write here, if it cannot be written.
        """
        self._add("run", uuid.uuid4().hex)
        self.maker = os.getpid()

    def begin(self, step: int, *, back: bool = False) -> None:
        """Note that a fit records from `step` on, and whether steps are undone."""
        self._add("back" if back else "begin", step)

    def note_state(self, step: int, state: str) -> None:
        """Note the state that the training is in after so many steps."""
        if self.latest != (step, state):
            self._add("state", step, state)

    def note_given(self, key: str) -> None:
        """Note the schedules that the fit is given: what resumes it has the same."""
        if self.given != key:
            self._add("given", key)

    def note_row(self, key: str, folder: str) -> None:
        """Note that the fit has the row of these settings, and in which folder."""
        if self.row != key:
            self._add("row", key, folder)

    def end(self, step: int) -> None:
        """Note that a fit has come to its end after so many steps."""
        self._add("end", step)

    def leave(self, step: int) -> None:
        """Note that an exception has ended the fit, if one has begun."""
        if self.open_from is not None:
            self._add("left", step)

    def passed(self, step: int, state: str) -> bool:
        """Whether the training was in this state after so many steps."""
        return self._states.get(state) == step

    def has_undone(self, step: int, state: str) -> bool:
        """Whether the training was in this state, and went on from an earlier one."""
        return self._undone.get(state) == step and not self.passed(step, state)

    @property
    def rows(self) -> dict[str, str]:
        """The folder of each row's settings, inside the run's; "." is that itself."""
        return dict(self._rows)


def state_line(step: int, state: str) -> bytes:
    """The line that a journal has of a state, if it knows that.

    To look for it takes far less time than to read all the others.
    """
    return f"state {step} {state}\n".encode()


def mark_of(path: Path) -> Hashable:
    """What tells what is in a file of this machine from what else was or will be.

    A file that is removed and made anew may be as long as it was.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return _NOTHING
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def append_line(path: Path, line: bytes, head: bytes | None) -> None:
    """Add a line to a file of this machine, or leave it as it was.

    Args:
        path: The file's path.
        line: The line.
        head: What the file begins with that was read: there may be another one in its
            place. `None` if there was none: then it is made.

    Raises:
        OSError: If that fails, or it is not the file that was read.
    """
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
    if head is None:
        flags |= os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        if file.read(len(head or b"")) != (head or b""):
            raise FileNotFoundError(errno.ENOENT, "it was removed and made anew")
        before = file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[file.write(line) :]
        except BaseException:  # half a line would spoil the next one
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def _lines(data: bytes) -> Iterator[str | None]:
    """All whole lines; `None` for each that is of an unknown form."""
    *whole, last = data.decode("utf-8", "replace").split("\n")
    for line in whole:
        if _FORM.fullmatch(line):
            yield line
        elif not (line.endswith(_CUT) and _is_part(line.removesuffix(_CUT))):
            yield None
    if not _is_part(last):
        yield None


def _is_part(text: str) -> bool:
    """Whether it is what is left of a line: nothing, a part, or all but its end."""
    rest = ("", "0", " 0", "0 0", " 0 0")
    return any(kind.startswith(text) for kind in _KINDS) or any(
        _FORM.fullmatch(text + more) for more in rest
    )
