"""A file system that fills, for what no wrapper of Python's functions can see."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096  # bytes, of which a file takes whole ones


class SmallDisk:
    """A file system of its own, of some pages.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filling = path / "filling"

    def left(self) -> int:
        """How many bytes can still be written."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Write a file that leaves so many bytes, down to whole pages."""
        self.free()
        pages = (self.left() - leave) // PAGE
        self._filling.write_bytes(bytes(pages * PAGE))

    def free(self) -> None:
        """Remove that file."""
        self._filling.unlink(missing_ok=True)

    def files(self) -> list[str]:
        """The names of all files and folders but the filling, however deep."""
        return sorted(
            str(path.relative_to(self.path))
            for path in self.path.rglob("*")
            if path != self._filling
        )


@contextlib.contextmanager
def mounted(path: Path, size: int, *options: str) -> Iterator[SmallDisk]:
    """Mount a file system in memory of `size` bytes at a new folder, as root may.

    Raises:
        PermissionError: Where that is not allowed.
    """
    path.mkdir()
    which = ",".join([f"size={size}", *options])
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", which, "tmpfs", str(path)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PermissionError(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
