"""Whose snapshots lie in a directory: the training's that has been in their states.

The same steps of the same schedule may be those of any training. So a directory has a
journal beside its snapshots, `.tfschedules`, in which the states of the training are
noted at the moments at which they may be saved. A fit that goes on inside of a schedule
has to begin in one of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from tfschedules._support import journal
from tfschedules.drive import Chosen, known_state

NAME = ".tfschedules"  # of the file: no pattern for snapshots finds it

# By optimizer: the journals of its training in this process, by directory.
_own: weakref.WeakKeyDictionary[Any, dict[Path, str]] = weakref.WeakKeyDictionary()


class SnapshotOwner:
    """The training whose snapshots a directory has, in a fit.

    Methods that write raise an `OSError` if that fails.
    """

    def __init__(self, chosen: Chosen, directory: Path) -> None:
        """Read what is known of the directory; nothing is changed yet.

        Raises:
            OSError: If the journal is there and cannot be read.
        """
        self._chosen, self._directory = chosen, directory
        self._journal = _Journal(directory / NAME)
        self._step, self._state = chosen.updates(), known_state(chosen)

    @property
    def id(self) -> str:
        """What tells that training from others; empty where nobody knows it."""
        return self._journal.id

    @property
    def is_this(self) -> bool:
        """Whether it is the training that goes on now."""
        known, step, state = self._journal, self._step, self._state
        if known.strange:
            return False
        if state is not None and known.passed(step, state):
            return True
        of_here = _own.get(self._chosen.inner, {})
        # Trained without the callback since, or somebody has changed its weights.
        ours = known.id != "" and of_here.get(self._directory) == known.id
        return ours and known.reached <= step

    @property
    def unknown_because(self) -> str:
        """Why nobody knows that it is, as a sentence."""
        step, state = self._step, self._state
        if not self._journal.id:
            return f"There is no journal in it ({NAME}) that tells whose they are."
        if self._journal.strange:
            return (
                f"The journal in it ({NAME}), which tells whose they are, is damaged, "
                "or of a later version of tfschedules."
            )
        if state is not None and self._journal.has_undone(step, state):
            return (
                "This training was in its state once, but a fit has gone on from an "
                "earlier one since, and has kept snapshots of its own."
            )
        return (
            f"The training that they are of was never in the state, after {step} "
            "updates, in which this fit begins."
        )

    def begin(self, *, anew: bool) -> None:
        """Go on in the directory, which is there.

        Args:
            anew: Whether it is of this training from now on.
        """
        if anew:
            self._journal.remove()
        if not self._journal.id:
            self._journal.make()
        self._journal.begin(self._step, back=self._journal.reached > self._step)
        if self._state is not None and self._step > 0:
            self._journal.note_state(self._step, self._state)
        _own.setdefault(self._chosen.inner, {})[self._directory] = self._journal.id

    def note_state(self) -> None:
        """Note the state that the training is in: it may be saved."""
        step, state = self._chosen.updates(), known_state(self._chosen)
        if state is None or self._journal.latest == (step, state):
            return
        if self._journal.reached > step:  # it was put back inside of the fit
            self._journal.begin(step, back=True)
        self._journal.note_state(step, state)


def owner_of(directory: Path) -> str:
    """The `id` of the training whose snapshots a directory has now.

    Raises:
        OSError: If the journal is there and cannot be read.
    """
    return _Journal(directory / NAME).id


class _Journal(journal.Journal):
    """A journal in a file of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    def _mark(self) -> Hashable:
        return journal.mark_of(self._path)

    def _read(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def _append(self, line: bytes) -> None:
        journal.append_line(self._path, line, self._head)

    def remove(self) -> None:
        """Begin anew."""
        self._path.unlink(missing_ok=True)
        self.refresh()
