"""Which run a training goes on in: the one that has passed through its state.

A state is known by a fingerprint: a count of steps may be that of any training. Where
several runs have passed through the same state, the newest that can take it goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tensorboard.compat.tensorflow_stub.io import gfile

from tfschedules._support import checks
from tfschedules.tensorboard.journal import NAME, Journal
from tfschedules.tensorboard.runs import (
    file_errors,
    folder_path,
    hold,
    is_local,
    let_go,
    new_run,
    runs_of,
)
from tfschedules.tensorboard.writer import EventWriter


class Found(NamedTuple):
    """A run to record in; it is kept from other writers.

    Attributes:
        journal: The run's journal, and its folder.
        back: Whether what it has from the first step on is undone by a resumption.
        stranger: Whether the training has made steps, there are runs, and none of
            them knows its state: it has a new one.
    """

    journal: Journal
    back: bool = False
    stranger: bool = False

    def begin(self, writer: EventWriter, step: int, state: str | None = None) -> None:
        """Say that a fit records from `step` on, and hide what that undoes.

        Args:
            writer: The run's writer.
            step: The first step.
            state: The fingerprint of the training's state before it, if it is known.

        Raises:
            OSError: If it cannot be written.
        """
        restarts = self.back or not self.journal.begun
        self.journal.begin(step, back=self.back)
        if restarts:
            writer.restart(step)
        if state is not None:
            self.journal.note_state(step, state)


def find_run(
    log_dir: str | os.PathLike[str],
    name: str,
    step: int,
    state: str | None = None,
    own: Sequence[Journal] = (),
) -> Found:
    """The run in which a training is recorded from `step` on.

    It is the one that has passed through `state` and that

    - has no steps beyond: then it goes on; or
    - has been left by a fit that did not come to its end, as one that was killed: then
      that fit is resumed, and the steps from `step` on are undone.

    Where the training is known in this process, and its state has been changed by
    somebody, its own run goes on, if it has no steps beyond. In all other cases there
    is a new run: for a training that begins, that branches off from the middle of a
    finished one, whose run is being written, or whose state no run knows.

    Args:
        log_dir: The folder of all runs: a path, or a URL.
        name: The run's name, such as `"schedules"`.
        step: The first step that will be written.
        state: The fingerprint of the training's state; `None` if it has none.
        own: The runs that the same training has written in this process.

    Raises:
        OSError: If a folder cannot be made, read or written to.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> first = find_run(folder, "schedules", 0).journal
        >>> first.begin(0); first.note_state(20, "5ca1ab1e"); first.end(40)
        >>> let_go(first.run_dir)
        >>> find_run(folder, "schedules", 40, "f00d").journal.run_dir == first.run_dir
        False
        >>> find_run(folder, "schedules", 40, "f00d", [first]).journal is first
        True
    """
    step = checks.whole("step", step, at_least=0)
    log_dir = folder_path("log_dir", log_dir)
    mine = [each for each in own if _is_still_there(each, log_dir, name)]
    for journal in mine:
        if state is not None and journal.latest == (step, state):
            if (found := _taken(journal, step)) is not None:
                return found
    there = runs_of(log_dir, name)
    known = False
    if step > 0 and state is not None:
        for run_dir in there:
            journal = Journal(run_dir)
            if journal.passed(step, state):
                known = True
                if (found := _taken(journal, step)) is not None:
                    return found
    for journal in reversed(mine):
        if step > 0 and journal.reached <= step:
            if (found := _taken(journal, step)) is not None:
                return found
    stranger = step > 0 and bool(there) and not known and not mine
    return Found(begin_run(log_dir, name), stranger=stranger)


def begin_run(log_dir: str | os.PathLike[str], name: str) -> Journal:
    """Make a new run, kept from other writers, or take one that was never written to.

    Raises:
        OSError: If a folder cannot be made, read or written to.
    """
    there = runs_of(log_dir, name)
    if there and _is_unused(there[0]) and hold(there[0]):
        if _is_unused(there[0]):
            return _made(there[0])
        let_go(there[0])
    while True:
        run_dir = new_run(log_dir, name)
        if hold(run_dir):  # else another process has found it without anything in it
            return _made(run_dir)


def discard(journal: Journal) -> None:
    """Remove a run in which nothing was recorded, and nobody writes.

    A remote one stays, and is taken by the next fit. What cannot be removed stays, too.
    """
    run_dir = journal.run_dir
    if not is_local(run_dir) or not _is_unused(run_dir) or not hold(run_dir):
        return
    with contextlib.suppress(OSError):
        for each in Path(run_dir).iterdir():
            each.unlink()
        Path(run_dir).rmdir()
    let_go(run_dir)


def _made(run_dir: str) -> Journal:
    journal = Journal(run_dir)
    if not journal.id:
        journal.make()
    return journal


def _is_still_there(journal: Journal, log_dir: str, name: str) -> bool:
    parent, _, last = journal.run_dir.rpartition("/")
    if parent != log_dir or not re.fullmatch(re.escape(name) + r"(_\d+)?", last):
        return False
    before = journal.id
    journal.refresh()
    return bool(before) and journal.id == before


def _taken(journal: Journal, step: int) -> Found | None:
    """The run, if it can go on at `step`, and nobody writes there."""
    if not journal.begun or not hold(journal.run_dir):
        return None
    journal.refresh()  # nobody else writes there any more
    if journal.open_from is None:
        if journal.reached <= step:
            return Found(journal)
    elif journal.open_from <= step:
        return Found(journal, back=True)
    let_go(journal.run_dir)
    return None


def _is_unused(run_dir: str) -> bool:
    """Whether nothing has been recorded in a folder, and nothing else lies there."""
    with file_errors("read the folder", run_dir):
        if not gfile.isdir(run_dir):
            return False
        names = gfile.listdir(run_dir)
    journal = Journal(run_dir)
    return not journal.begun and all(
        each == NAME or (journal.id and "tfevents" in each) for each in names
    )
