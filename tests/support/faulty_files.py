"""Files that fail: an `OSError` at the n-th operation of a kind, in one folder.

    for fault in every_fault(tmp_path):
        with fault, contextlib.suppress(OSError):
            ...  # what writes into `tmp_path`
        ...      # what has to hold after it, whatever has failed

The loop tries each kind of operation, and of each kind the first, the second … until
what is tried meets no fault any more. With `pytest -s` it prints how many faults it has
injected, and how many were survived. What C code writes by itself, as h5py and
`ndarray.tofile` do, is not seen here: give that a `small_disk` (see `conftest.py`).
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

# "short" is no error: a system call may write less than it is given, and says so.
OPERATIONS = ("mkdir", "open", "write", "short", "fsync", "close", "replace")


class Fault:
    """A context in which operations on files under a folder fail.

    Args:
        folder: The folder; files elsewhere are as ever.
        operation: One of "mkdir", "open" (to write, or by `os.open`), "read" (opening
            a file to read it), "write", "short" (half is written, without an error),
            "fsync", "close", "replace" (and rename), "remove" (and rmdir).
        at: Which operation of this kind fails, from 1 on; 0 counts only.
        stays: Whether all later ones fail, too, as on a disk that is full; "remove",
            "short" and "close" fail once only if this is `False`.
        code: The number of the error.

    Attributes:
        seen: How many operations of the kind there were.
        injected: How many of them have failed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        operation: str,
        at: int = 1,
        *,
        stays: bool = True,
        code: int = errno.ENOSPC,
    ) -> None:
        self.folder = str(Path(folder).resolve())
        self.operation, self.at = operation, at
        self.stays, self.code = stays, code
        self.seen = self.injected = 0

    def __str__(self) -> str:
        return f"{self.operation} {self.at}"

    def __enter__(self) -> Fault:
        self._patches = contextlib.ExitStack()
        for module, name, replacement in (
            (builtins, "open", self._open),
            (io, "open", self._open),
            (os, "open", self._wrapped(os.open, "open", self._is_in)),
            (os, "mkdir", self._wrapped(os.mkdir, "mkdir", self._is_in)),
            (os, "replace", self._wrapped(os.replace, "replace", self._is_in)),
            (os, "rename", self._wrapped(os.rename, "replace", self._is_in)),
            (os, "remove", self._wrapped(os.remove, "remove", self._is_in)),
            (os, "unlink", self._wrapped(os.unlink, "remove", self._is_in)),
            (os, "rmdir", self._wrapped(os.rmdir, "remove", self._is_in)),
            (os, "fsync", self._wrapped(os.fsync, "fsync", self._is_of)),
            (os, "write", self._write_by(os.write)),
            (os, "close", self._close_by(os.close)),
        ):
            self._patches.enter_context(mock.patch.object(module, name, replacement))
        return self

    def __exit__(self, *exception: object) -> None:
        self._patches.close()

    def fails(self, operation: str) -> bool:
        """Whether this operation, which is counted, is to fail."""
        if operation != self.operation:
            return False
        self.seen += 1
        late = self.stays and self.seen > self.at > 0
        if self.seen != self.at and not late:
            return False
        self.injected += 1
        return True

    def error(self) -> OSError:
        """What it fails with."""
        return OSError(self.code, f"{os.strerror(self.code)} (by the test)")

    def _is_in(self, path: Any, *arguments: Any, **keywords: Any) -> bool:
        if isinstance(path, int):
            return self._is_of(path)
        path = os.fsdecode(path)
        if (folder := keywords.get("dir_fd")) is not None:
            path = os.path.join(_path_of(folder), path)  # noqa: PTH118
        path = os.path.abspath(path)  # noqa: PTH100
        return path == self.folder or path.startswith(self.folder + os.sep)

    def _is_of(self, descriptor: Any) -> bool:
        if not isinstance(descriptor, int):
            descriptor = descriptor.fileno()
        return self._is_in(_path_of(descriptor))

    def _wrapped(
        self, function: Callable[..., Any], operation: str, here: Callable[..., bool]
    ) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if here(*arguments, **keywords) and self.fails(operation):
                raise self.error()
            return function(*arguments, **keywords)

        return wrapped

    def _write_by(self, function: Callable[[int, Any], int]) -> Callable[..., int]:
        def write(descriptor: int, data: Any) -> int:
            if self._is_of(descriptor):
                return self.write(lambda part: function(descriptor, part), data)
            return function(descriptor, data)

        return write

    def write(self, write: Callable[[Any], int], data: Any) -> int:
        """Write, or a half only."""
        half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
        if self.fails("write"):
            write(half)
            raise self.error()
        if len(half) and self.fails("short"):
            return write(half)
        return write(data)

    def _close_by(self, function: Callable[[int], None]) -> Callable[[int], None]:
        def close(descriptor: int) -> None:
            here = self._is_of(descriptor)
            function(descriptor)
            if here and self.fails("close"):
                raise self.error()

        return close

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """Python's `open`, whose layers are put upon one another here."""
        rest = encoding, errors, newline
        if not self._is_in(file):
            return _open(file, mode, buffering, *rest, closefd, opener)
        if not set(mode) & set("wxa+"):
            if self.fails("read"):
                raise self.error()
            return _open(file, mode, buffering, *rest, closefd, opener)
        if not isinstance(file, int) and self.fails("open"):
            raise self.error()
        plain = mode.replace("b", "").replace("t", "")
        raw = _Raw(self, file, plain, closefd, opener)
        if buffering == 0:
            return raw
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, *rest, line_buffering=buffering == 1)


class _Raw(io.FileIO):
    """A file whose writing and closing may fail."""

    def __init__(self, fault: Fault, *arguments: Any) -> None:
        self._fault = fault
        super().__init__(*arguments)

    def write(self, data: Any) -> int:
        return self._fault.write(super().write, data)

    def close(self) -> None:
        was_open = not self.closed
        super().close()
        if was_open and self._fault.fails("close"):
            raise self._fault.error()


_open = io.open


def _path_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def every_fault(
    folder: str | os.PathLike[str],
    operations: Sequence[str] = OPERATIONS,
    *,
    stays: bool = True,
    code: int = errno.ENOSPC,
) -> Iterator[Fault]:
    """A fault at each operation in turn, until one is not met any more.

    The last of each kind meets none: then all must be as without faults.

    Args:
        folder: As of `Fault`.
        operations: Which kinds.
        stays: As of `Fault`.
        code: As of `Fault`.
    """
    injected: collections.Counter[str] = collections.Counter()
    survived = 0
    try:
        for operation in operations:
            for at in itertools.count(1):
                fault = Fault(folder, operation, at, stays=stays, code=code)
                yield fault
                if not fault.injected:
                    break
                injected[operation] += 1
                survived += 1
    finally:
        kinds = ", ".join(f"{kind} {count}" for kind, count in injected.items())
        print(f"\nfaults survived: {survived} ({kinds})")  # noqa: T201
