"""Folders on disk that go with the process that has made them.

A process that ends removes its own, also by an error, by SIGTERM or by SIGHUP. SIGKILL
and a power failure leave them behind: the next process that makes one in the same place
removes those whose maker is dead. That has to be known and not to be guessed:

- A maker holds a lock of the kernel's (`flock`) on its folder, which ends with it.
- A lock may say nothing to other machines, nor to another mount of the same files. So
  the name of a folder holds the boot of its machine and the number of the mounted file
  system. Only where both are the same is a lock that is free the proof; or on a disk
  that one machine alone can have mounted.
- A folder that could not be locked has a name that nobody takes for a dead one's.
- Folders of other users are left alone.

What is left out: Windows and macOS, where nothing left behind is removed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import shutil
import signal
import weakref
from pathlib import Path
from types import FrameType

from tfschedules._support.telling import tell

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"tfschedules-([0-9a-f]{32})-([0-9a-f]+)-[0-9a-f]{16}")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mountinfo")
# On a disk, which two machines cannot have mounted at the same time.
_OF_ONE_MACHINE = {"ext2", "ext3", "ext4", "f2fs", "xfs"}
_ATTEMPTS = 10  # each is in vain only where another process looks in that moment


class Scratch:
    """A folder of this process's own, with what is put into it.

    It is removed by `remove`, when this object goes, or when the process ends:
    normally, by an exception, by SIGTERM or by SIGHUP. These have a handler while there
    is such a folder, if it was made in the main thread and they had none. It removes
    the folder and lets the signal end the process. A forked process removes nothing of
    its parent's.

    Args:
        parent: The folder in which to make it.

    Attributes:
        path: Where it is.

    Raises:
        OSError: If it cannot be made.

    Example:
        >>> import tempfile
        >>> parent = tempfile.mkdtemp()
        >>> scratch = Scratch(parent)
        >>> _ = (scratch.path / "a").write_text("b")
        >>> scratch.remove()
        >>> os.listdir(parent)
        []
    """

    def __init__(self, parent: str | os.PathLike[str]) -> None:
        # Absolute: what is made here is found after an `os.chdir`, too.
        parent = Path(os.fsdecode(parent)).absolute()
        self._held = _Held()
        weakref.finalize(self, self._held.remove)
        try:
            _all.add(self._held)
            _take_signals()
            with contextlib.suppress(OSError):  # if there is a reason, `make` gives it
                _remove_left_behind(parent)
            self._held.make(parent)
        except BaseException:
            self.remove()
            raise
        assert self._held.path is not None
        self.path = self._held.path

    def remove(self) -> None:
        """Remove it, with all that is in it; a second time does nothing.

        What cannot be removed is warned of.
        """
        self._held.remove()


class _Held:
    """What is to be given back of a folder: its files, and its lock."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.path: Path | None = None
        self.descriptor: int | None = None

    def make(self, parent: Path) -> None:
        """Make it, and lock it before there is anything in it."""
        place = _place(parent)
        for _ in range(_ATTEMPTS):
            name = f"{place or 'unlocked'}-{secrets.token_hex(8)}"
            self.path = parent / f"tfschedules-{name}"  # known before it is there
            self.path.mkdir(mode=0o700)
            if not place:
                return
            try:
                self.descriptor = os.open(self.path, os.O_RDONLY)
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.descriptor), self.path.stat()):
                    return
            except (BlockingIOError, FileNotFoundError):
                pass  # another process has taken it for a dead one's: once more
            except OSError:
                place = ""  # without a lock nobody can tell whether this one lives
            self.remove()
            _all.add(self)
            _take_signals()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(parent))

    def unlock(self) -> None:
        """Close what holds the lock."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def remove(self) -> None:
        """Remove it, unless this process is a fork of the one that has made it."""
        if self.owner != os.getpid():
            return
        path, why = self.path, None
        if path is not None:
            why = _removed(path)
        # The lock ends after the files: until then nobody else removes them, too.
        self.path = None
        self.unlock()
        _all.discard(self)
        if not _all:
            _give_signals_back()
        if why is not None:
            tell(
                f"The copy of a model's state in {str(path)!r} cannot be removed "
                f"({why}), and takes room there. The next one that is made beside it "
                "tries again.",
                stacklevel=3,
            )


_all: set[_Held] = set()  # of this process


def _removed(path: Path) -> OSError | None:
    """Remove a folder; why that cannot be done, or None."""
    why = None
    for remove in (
        os.rmdir,  # an empty one goes also where no more files can be opened
        functools.partial(shutil.rmtree, ignore_errors=True),
        shutil.rmtree,
    ):
        try:
            remove(path)
        except OSError as error:
            why = error
        if not os.path.lexists(path):
            return None
    return why


def _place(parent: Path) -> str:
    """The boot of this machine and the mounted file system, or "" where unknown."""
    if fcntl is None:
        return ""
    try:
        boot = _BOOT.read_text("ascii").strip().replace("-", "")
    except OSError:
        return ""
    return f"{boot}-{parent.stat().st_dev:x}"


def _remove_left_behind(parent: Path) -> None:
    """Remove what dead processes of this user have left in a folder."""
    if not (place := _place(parent)):
        return
    ours_alone = _is_of_one_machine(parent.stat().st_dev)
    with os.scandir(parent) as found:
        named = [(entry.path, _NAME.fullmatch(entry.name)) for entry in found]
    for path, match in named:
        if match and (ours_alone or f"{match[1]}-{match[2]}" == place):
            with contextlib.suppress(OSError):
                _remove_if_free(path)


def _remove_if_free(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_of_one_machine(device: int) -> bool:
    """Whether the file system with this number lies on a disk of this machine's own."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text("utf-8", "replace").splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == number:
            return kind.split()[0] in _OF_ONE_MACHINE
    return False


# ------------------------------------------------------- signals that end a process

_ENDING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def _take_signals() -> None:
    """Handle signals that would end this process, and have no handler."""
    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # this is not the main thread
                signal.signal(number, _end)


def _give_signals_back() -> None:
    """Put the default back, unless somebody else has set a handler since."""
    for number in _ENDING:
        if signal.getsignal(number) is _end:
            with contextlib.suppress(ValueError):  # then a signal does it, in `_end`
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    """Remove the folders, and let the signal have the effect that it had before.

    No exception is raised for that, which could be caught: IPython goes on after a
    `SystemExit`, and so does whoever catches everything.
    """
    try:
        for held in list(_all):
            with contextlib.suppress(Exception):
                held.remove()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _after_fork() -> None:
    """A forked process has none of its parent's folders, locks and handlers."""
    for held in _all:
        held.unlock()
    _all.clear()
    # At once: a worker has to end in the middle of a long computation, too.
    _give_signals_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
