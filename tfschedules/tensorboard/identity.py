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
from tfschedules.tensorboard.journal import NAME, Journal, journal_with
from tfschedules.tensorboard.runs import (
    absolute_path,
    file_errors,
    hold,
    is_local,
    is_writable,
    is_written_here,
    let_go,
    new_run,
    runs_of,
    shown_before,
    shows_nothing,
)
from tfschedules.tensorboard.writer import EventWriter


class Found(NamedTuple):
    """A run to record in; it is kept from other writers.

    Attributes:
        journal: The run's journal, and its folder.
        undone: Before which step is hidden what it has from the first step on; 0 if
            there is nothing.
        stranger: Whether the training has made steps, there are runs, and none of
            them knows its state: it has a new one.
        undone_in: The folder of a run that has passed through the state and hides
            it now, if the training has a new one for that reason.
        passed_over: Why the training has a new run though there is one in which it
            may be expected to go on; a sentence, or nothing.
        gap: How many steps the training has made that nobody has recorded, if it goes
            on in its own run for no other reason than that this process knows it.
    """

    journal: Journal
    undone: int = 0
    stranger: bool = False
    undone_in: str = ""
    passed_over: str = ""
    gap: int = 0

    @property
    def back(self) -> bool:
        """Whether steps of the run are undone by a resumption."""
        return self.undone > 0

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
    *,
    given: str | None = None,
    restored: bool = False,
) -> Found:
    """The run in which a training is recorded from `step` on.

    It is the one that has passed through `state` and that

    - has no steps beyond: then it goes on; or
    - has been left by a fit that was killed: then that fit is resumed, and the steps
      from `step` on are undone, if it was given the same; or
    - has been left by a fit that an exception has ended: so it is, too, if the fit is
      `restored`.

    Where the training is known in this process, and its state has been changed by
    somebody, its own run goes on, if it has no steps beyond. In all other cases there
    is a new run: for a training that begins, that branches off from the middle of
    another, whose run is being written, or whose state no run knows. A run that this
    process may not read or write is passed over.

    Args:
        log_dir: The folder of all runs: a path, or a URL.
        name: The run's name, such as `"schedules"`.
        step: The first step that will be written.
        state: The fingerprint of the training's state; `None` if it has none.
        own: The runs that the same training has written in this process.
        given: The key of the schedules that the fit is given (`schedules_key`), if they
            are known.
        restored: Whether the fit itself was put back, as by `BackupAndRestore`.

    Raises:
        OSError: If the new folder cannot be made or written to.

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
    log_dir = absolute_path("log_dir", log_dir)
    fit, refusals = _Fit(step, given, restored), list[str]()
    mine = [each for each in own if _is_still_there(each, log_dir, name)]
    for journal in mine:
        if state is not None and journal.latest == (step, state):
            if isinstance(found := _taken(journal, fit), Found):
                return found
            refusals.append(found)
    there = runs_of(log_dir, name)
    known, undone_in = False, ""
    if step > 0 and state is not None:
        for run_dir in there:
            noted = journal_with(run_dir, step, state)
            if noted is None or noted.strange:
                continue
            journal = noted
            if journal.passed(step, state):
                known = True
                if isinstance(found := _taken(journal, fit), Found):
                    return found
                refusals.append(found)
            elif journal.has_undone(step, state):
                undone_in = undone_in or journal.run_dir
    for journal in reversed(mine):
        if step > 0 and journal.reached <= step:
            if isinstance(found := _taken(journal, fit), Found):
                return found._replace(gap=step - journal.reached)
            refusals.append(found)
    stranger = step > 0 and bool(there) and not (known or mine or undone_in)
    undone_in = "" if known or mine else undone_in
    made = begin_run(log_dir, name)
    passed_over = next(filter(None, refusals), "")
    return Found(made, 0, stranger, undone_in, passed_over)


def begin_run(log_dir: str | os.PathLike[str], name: str) -> Journal:
    """Make a new run, kept from other writers, or take one that was never written to.

    Raises:
        OSError: If the new folder cannot be made or written to.
    """
    log_dir = absolute_path("log_dir", log_dir)
    there = runs_of(log_dir, name)
    if there and (journal := _reused(there[0])) is not None:
        return journal
    while True:
        run_dir = new_run(log_dir, name)
        if hold(run_dir):  # else another process has found it without anything in it
            return _made(run_dir)


def discard(journal: Journal, event_file: str) -> None:
    """Remove a run that this process has made, in which nothing was recorded.

    It stays if there is anything else than these two files. A remote one stays, too,
    and is taken by the next fit. So does what cannot be removed.

    Args:
        journal: The run's journal.
        event_file: The path of the file that this process has written to.
    """
    run_dir = journal.run_dir
    files = {Path(event_file), Path(run_dir, NAME)}
    if journal.maker != os.getpid() or not is_local(run_dir):
        return
    with contextlib.suppress(OSError):
        others = {*Path(run_dir).iterdir()} - files
        if others or not _is_unused(run_dir) or not hold(run_dir):
            return
        if Journal(run_dir).id == journal.id:
            for each in files:
                each.unlink(missing_ok=True)
            Path(run_dir).rmdir()
    let_go(run_dir)


class _Fit(NamedTuple):
    """What is asked of a fit that begins; see `find_run`."""

    step: int
    given: str | None
    restored: bool


def _reused(run_dir: str) -> Journal | None:
    """The run, if it is unused and this process may use it."""
    try:
        if not (_is_unused(run_dir) and hold(run_dir)):
            return None
        if _is_unused(run_dir) and is_writable(run_dir, NAME):
            return _made(run_dir)
    except OSError:  # somebody else's, or damaged
        pass
    let_go(run_dir)
    return None


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
    try:
        journal.refresh()
    except OSError:
        return False
    return bool(before) and journal.id == before and not journal.strange


def _taken(journal: Journal, fit: _Fit) -> Found | str:
    """The run, if the fit can go on in it, and nobody writes there.

    Else the reason, if it is not the plain one that the fit is a branch.
    """
    found: Found | str = ""
    try:
        if not journal.begun:
            return ""
        if not hold(journal.run_dir):
            return _kept_by_another(journal, fit)
        journal.refresh()  # nobody else writes there any more
        if not journal.strange:
            found = _gone_on(journal, fit)
        if isinstance(found, Found) and not is_writable(journal.run_dir, NAME):
            found = f"{_led_here(journal)}, cannot be written to by this process."
    except OSError as error:
        found = f"{_led_here(journal)}, cannot be used: {error}"
    if not isinstance(found, Found):
        let_go(journal.run_dir)
    return found


def _kept_by_another(journal: Journal, fit: _Fit) -> str:
    """That somebody else writes to the run, if the fit would go on in it otherwise."""
    here = is_written_here(journal.run_dir)
    journal.refresh()
    if journal.strange or not isinstance(_gone_on(journal, fit), Found):
        return ""  # a branch
    who = "another fit of this process" if here else "another process"
    return (
        f"{_led_here(journal)}, is kept by {who}. (A fit that an exception has ended "
        "keeps its run until its model is used again or has gone, or its process ends.)"
    )


def _led_here(journal: Journal) -> str:
    return f"the run that has led to its state, {journal.run_dir!r}"


def _gone_on(journal: Journal, fit: _Fit) -> Found | str:
    """The run, if it has no steps beyond, or these are the fit's own to undo."""
    if journal.open_from is not None:  # killed: it may have more than it has noted
        resumes = journal.open_from <= fit.step
        reached = max(journal.reached, shown_before(journal.run_dir))
    else:
        since = journal.left_from
        resumes = fit.restored and since is not None and since <= fit.step
        reached = journal.reached
    if reached <= fit.step:
        return Found(journal)
    if not resumes:
        return ""
    if fit.given == journal.given:
        return Found(journal, undone=reached)
    return (
        f"the last fit in {journal.run_dir!r} was broken off at step {reached}, and it "
        "was given other schedules than this fit, so its steps are not made anew. (To "
        "go on there, give the fit the same schedules, of the same length.)"
    )


def _is_unused(run_dir: str) -> bool:
    """Whether nothing has been recorded in a folder, and nothing else lies there."""
    with file_errors("read the folder", run_dir):
        if not gfile.isdir(run_dir):
            return False
        names = gfile.listdir(run_dir)
    journal, events = Journal(run_dir), [n for n in names if "tfevents" in n]
    return (
        journal.blank
        and {*names} <= {NAME, *events}
        and (not events or journal.id != "")
        and all(shows_nothing(f"{run_dir}/{name}") for name in events)
    )
