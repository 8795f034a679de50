"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil

from tfschedules.paths import local_path


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file; whatever happens, the old one or the new one is there.

    Args:
        path: The file's path; its folder must exist.
        text: What to write, as UTF-8.

    Raises:
        TypeError, ValueError: If `path` is not that of a file of this machine.
        OSError: If it cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.txt")
        >>> replace_text(path, "b")
        >>> path.read_text()
        'b'
    """
    path = local_path("path", path, "file")
    # Not tempfile's, which nobody else may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        with contextlib.suppress(OSError):  # there is none yet
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
