"""Run folders: new ones, how far one got, and who writes there.

Left out: locks on remote file systems and on Windows, which have none that vanish
with a killed process. There, two processes may continue the same run folder.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.io import gfile

from tfschedules._support.paths import log_path
from tfschedules.tensorboard.wire import (
    VERSION_SIZE,
    is_bare,
    whole_events,
    whole_events_from_the_end,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def new_run(log_dir: str | os.PathLike[str], name: str) -> str:
    """The first folder among `name`, `name_1`, … that does not exist; it is made.

    Its path is absolute: what is written there later is not led astray by `os.chdir`.

    Args:
        log_dir: The folder of all runs: a path, or a URL.
        name: The run's name, such as `"range_test"`.

    Raises:
        OSError: If the folder cannot be made.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> [Path(new_run(folder, "range_test")).name for _ in range(3)]
        ['range_test', 'range_test_1', 'range_test_2']
    """
    base = f"{absolute_path('log_dir', log_dir)}/{name}"
    taken = _names(log_dir)
    for n in itertools.count():
        run_dir = f"{base}_{n}" if n else base
        if run_dir.rpartition("/")[2] in taken:
            continue
        with file_errors("write event files to", run_dir):
            if is_local(run_dir):
                Path(run_dir).parent.mkdir(parents=True, exist_ok=True)
                try:
                    Path(run_dir).mkdir()  # atomic: one of two processes gets it
                except FileExistsError:
                    continue
            elif gfile.exists(run_dir):
                continue
            else:
                gfile.makedirs(run_dir)
        return run_dir
    raise AssertionError("unreachable: there is always another name")


def runs_of(log_dir: str | os.PathLike[str], name: str) -> list[str]:
    """The folders `name`, `name_1`, … that are there, the last first.

    Raises:
        OSError: If the folder of all runs cannot be read.
    """
    parent = folder_path("log_dir", log_dir)
    form = re.compile(re.escape(name) + r"(?:_([1-9][0-9]*))?")
    found = [form.fullmatch(each) for each in _names(log_dir)]
    numbers = sorted((int(each[1] or 0) for each in found if each), reverse=True)
    return [f"{parent}/{name}_{n}" if n else f"{parent}/{name}" for n in numbers]


def _names(log_dir: str | os.PathLike[str]) -> set[str]:
    """What is in the folder of all runs; one listing, however many there are."""
    path = folder_path("log_dir", log_dir)
    with file_errors("read the folder", path):
        listed = gfile.listdir(path) if gfile.isdir(path) else []
    return {each.split("/")[0] for each in listed}  # some list what is deeper, too


def make_log_dir(log_dir: str | os.PathLike[str]) -> None:
    """Make the folder of all runs, where it is not there.

    Raises:
        OSError: If it cannot be made, or not be written to.
    """
    path = folder_path("log_dir", log_dir)
    with file_errors("write event files to", path):
        gfile.makedirs(path)
        if is_local(path) and not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def last_step(run_dir: str | os.PathLike[str]) -> int | None:
    """The greatest step in a run folder's event files, or None where there is none.

    What a killed run left half-written at the end of a file is passed over, and so are
    steps that a resumed run has undone, and a row of the HParams tab, which is of no
    step.

    Raises:
        OSError: If a file is there and cannot be read.
    """
    run_dir = folder_path("run_dir", run_dir)
    steps: list[int] = []
    with file_errors("read event files in", run_dir):
        names = gfile.listdir(run_dir) if gfile.isdir(run_dir) else []
        for name in sorted(names):
            if "tfevents" not in name:
                continue
            with gfile.GFile(f"{run_dir}/{name}", "rb") as file:
                data = file.read()
            for event in whole_events(data):
                if event.session_log.status == event_pb2.SessionLog.START:
                    steps = [step for step in steps if step < event.step]
                if _is_of_a_step(event):
                    steps.append(event.step)
    return max(steps, default=None)


def shows_nothing(path: str) -> bool:
    """Whether an event file has no more than its version.

    Raises:
        OSError: If it cannot be read.
    """
    with file_errors("read the event file", path), gfile.GFile(path, "rb") as file:
        return is_bare(file.read(VERSION_SIZE + 1))


def shown_before(run_dir: str) -> int:
    """One more than the last step that a run shows, 0 where there is none.

    It is read from the end of the last file, for runs whose last fit was killed.

    Raises:
        OSError: If a file is there and cannot be read.
    """
    hidden = math.inf  # from this step on, for what comes before in the files
    with file_errors("read event files in", run_dir):
        names = [name for name in gfile.listdir(run_dir) if "tfevents" in name]
        for name in sorted(names, reverse=True):
            with gfile.GFile(f"{run_dir}/{name}", "rb") as file:
                data = file.read()
            for event in whole_events_from_the_end(data):
                if _is_of_a_step(event):
                    return int(min(event.step + 1, hidden))
                if event.session_log.status == event_pb2.SessionLog.START:
                    hidden = min(event.step, hidden)
    return 0


def _is_of_a_step(event: event_pb2.Event) -> bool:
    """Whether it has something else than a row of the HParams tab."""
    return any(value.tag[:10] != "_hparams_/" for value in event.summary.value)


def folder_path(argument: str, path: str | os.PathLike[str]) -> str:
    """The path as text, without a slash at its end, or an error."""
    return log_path(argument, path).rstrip("/") or "/"


def absolute_path(argument: str, path: str | os.PathLike[str]) -> str:
    """The same, wherever the process goes from now on."""
    path = folder_path(argument, path)
    return str(Path(path).absolute()) if is_local(path) else path


def is_writable(run_dir: str, *names: str) -> bool:
    """Whether this process may write to a folder and to files in it, if local."""
    if not is_local(run_dir):
        return True
    effective = os.access in os.supports_effective_ids
    paths = [Path(run_dir, name) for name in names]
    return os.access(run_dir, os.W_OK | os.X_OK, effective_ids=effective) and all(
        os.access(path, os.W_OK, effective_ids=effective)
        for path in paths
        if path.exists()
    )


def is_local(path: str) -> bool:
    """Whether it is a path of the operating system, not a URL."""
    return "://" not in path


@contextlib.contextmanager
def file_errors(doing: str, path: str) -> Iterator[None]:
    """Say what failed, where and the way out; whatever it was, as an `OSError`."""
    try:
        yield
    except Exception as error:  # S3 and fsspec have exception classes of their own
        if isinstance(error, BlockingIOError):
            cure = "Close it, or take another folder, as `find_run` does."
        elif isinstance(error, GoneError):
            cure = "Remove logs between two fits."
        elif is_local(path):
            cure = "Give a `log_dir` that can be read and written, with space left."
        else:
            cure = "Remote folders need `pip install fsspec` with the driver of theirs."
        cause = getattr(error, "strerror", None) or error
        code = getattr(error, "errno", None) or errno.EIO
        raise OSError(code, f"Cannot {doing} {path!r}: {cause}. {cure}") from error


# ---------------------------------------------------------------------- who writes

_locks: dict[Hashable, int] = {}  # from folders to the descriptors that lock them
_written: set[Hashable] = set()  # folders with an open writer of this process


class Taken(NamedTuple):
    """A folder that is kept to one writer."""

    run_dir: str
    folder: Hashable

    def give_back(self) -> None:
        """Keep it no longer; a second time does nothing."""
        _written.discard(self.folder)
        _unlock(self.folder)

    def check(self, path: str | None = None) -> None:
        """See that it is still there, and at its path, and a file in it.

        Raises:
            FileNotFoundError: If it was removed; what is there now is not ours.
        """
        if not is_local(self.run_dir):
            return
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.run_dir) == self.folder and (
                path is None or Path(path).exists()
            ):
                return
        raise GoneError(errno.ENOENT, "somebody has removed it since")


class GoneError(FileNotFoundError):
    """A folder was removed that is being written to."""


def take(run_dir: str) -> Taken:
    """Keep a folder that exists to one writer, until it is given back.

    Raises:
        BlockingIOError: If another writer has it, here or in another process.
    """
    folder = _identity(run_dir)
    if folder in _written:
        cause = "another writer of this process writes there"
        raise BlockingIOError(errno.EAGAIN, cause)
    if not _lock(run_dir, folder):
        raise BlockingIOError(errno.EAGAIN, "another process writes there")
    _written.add(folder)
    return Taken(run_dir, folder)


def hold(run_dir: str) -> bool:
    """Keep a folder that exists from other processes, if nobody writes there.

    It is kept until its writer is closed; without a writer, until `let_go`.

    Returns:
        Whether it is kept now.

    Raises:
        OSError: If it cannot be opened.
    """
    with file_errors("write event files to", run_dir):
        try:
            folder = _identity(run_dir)
            return folder not in _written and _lock(run_dir, folder)
        except FileNotFoundError:  # whoever has made it found no use for it
            return False


def is_written_here(run_dir: str) -> bool:
    """Whether a writer of this process has a folder, which is there."""
    return _identity(run_dir) in _written


def let_go(run_dir: str) -> None:
    """Keep a folder no longer that has no writer; a second time does nothing."""
    with contextlib.suppress(OSError):
        folder = _identity(run_dir)
        if folder not in _written:
            _unlock(folder)


def _identity(run_dir: str) -> Hashable:
    """What tells folders apart, however their paths are spelled."""
    if not is_local(run_dir):
        return run_dir
    found = Path(run_dir).stat()
    return found.st_dev, found.st_ino


def _lock(run_dir: str, folder: Hashable) -> bool:
    """Lock a local folder for this process; False if another process has it.

    The lock is the kernel's: a killed process leaves none behind.
    """
    if fcntl is None or not is_local(run_dir) or folder in _locks:
        return True
    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # a file system without locks: go on without
        os.close(descriptor)
        return True
    if not _is_at(run_dir, folder, descriptor):  # removed, and perhaps made anew
        os.close(descriptor)
        return False
    _locks[folder] = descriptor
    return True


def _is_at(run_dir: str, folder: Hashable, descriptor: int) -> bool:
    """Whether the folder is the one that was opened, and still at its path."""
    opened = os.fstat(descriptor)
    with contextlib.suppress(FileNotFoundError):
        return (opened.st_dev, opened.st_ino) == folder == _identity(run_dir)
    return False


def _unlock(folder: Hashable) -> None:
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


# A forked worker must not hold its parent's locks. The writers that it inherits stay
# in `_written`, so that giving back for one of them never frees what another has.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [*map(_unlock, [*_locks])])
