"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from tfschedules._support.paths import local_path


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file; whatever happens, the old one or the new one is there.

    The text is written beside the file and brought to the disk, and then takes the
    file's place. Where `path` is a link, what it leads to is replaced.

    Args:
        path: The file's path; its folder must exist.
        text: What to write, as UTF-8.

    Raises:
        TypeError, ValueError: If `path` is not that of a file of this machine.
        OSError: If it cannot be written, as on a full disk. The old file is there.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.txt")
        >>> replace_text(path, "b")
        >>> path.read_text()
        'b'
    """
    path = Path(os.path.realpath(local_path("path", path, "file")))
    # Not tempfile's, which nobody else may read; and no longer than the name allows.
    temporary = path.parent / f".tfschedules-{secrets.token_hex(4)}"
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # some file systems report a full disk only now
        with contextlib.suppress(OSError):  # there is none yet
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the error before is the one to see
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Bring the new name to the disk; Windows has no way to, and needs none."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
