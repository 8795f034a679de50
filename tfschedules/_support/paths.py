"""Paths that the user gives, to be written to or read.

TensorBoard expands `~` in its `--logdir`, and so it is expanded here, too: else a
folder that is called `~` is made, and TensorBoard looks elsewhere. A `file://` URL is
the path in it. Other URLs are for event files, which TensorBoard's file systems write.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tfschedules._support import checks

# Two letters at least: "C:/" is a drive. `pathlib` makes one slash of two.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")
_FILE_URL = re.compile(r"file:", re.IGNORECASE)


def local_path(name: str, value: Any, what: str = "folder") -> Path:
    """Return the path of a file or a folder of this machine, or say what is wrong.

    Args:
        name: The argument's name, for the message.
        value: What the user gave: text or a `pathlib.Path`, with `~`, or a `file://`
            URL.
        what: "folder" or "file", for the message.

    Raises:
        TypeError: If it is no path, or empty.
        ValueError: If it is a URL, or of a user who is not known.

    Example:
        >>> local_path("directory", "file:///tmp/a%20b").as_posix()
        '/tmp/a b'
    """
    path = _expanded(name, value, what)
    if (found := _SCHEME.match(path)) is not None:
        raise ValueError(
            f"Argument `{name}` must be the path of a {what} of this machine. "
            f"Received: {name}={checks.shown(value)}, a URL of {found[1]!r}. Write "
            "to this machine, and copy it there."
        )
    return Path(path)


def log_path(name: str, value: Any) -> str:
    """Return the path of a folder for event files, or say what is wrong.

    Args:
        name: The argument's name, for the message.
        value: As for `local_path`, or a URL that TensorBoard can write to, such as
            `gs://bucket/logs`.

    Raises:
        TypeError: If it is no path, or empty.
        ValueError: If it is of a user who is not known, or a URL in a
            `pathlib.Path`, which loses a slash of it.

    Example:
        >>> log_path("log_dir", "gs://bucket/logs")
        'gs://bucket/logs'
        >>> log_path("log_dir", "file:///tmp/logs")
        '/tmp/logs'
    """
    path = _expanded(name, value, "folder")
    if (found := _SCHEME.match(path)) is not None and not found[2]:
        raise ValueError(
            f"Argument `{name}` must be text where it is a URL, as "
            f"'{found[1]}://…': a pathlib.Path takes a slash away. Received: "
            f"{name}={checks.shown(value)}. For a folder that is called so write "
            f"'./{found[1]}:/…'."
        )
    return path


def _expanded(name: str, value: Any, what: str) -> str:
    """The path as text, with the home in place of `~`, and without `file://`."""
    path = _text(name, value, what)
    if _FILE_URL.match(path):
        parts = urlsplit(path)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError(
                f"Argument `{name}` must be a path, or a URL with three slashes, as "
                f"'file:///home/me/logs'. Received: {name}={checks.shown(value)}"
            )
        return url2pathname(parts.path)
    if not path.startswith("~"):
        return path
    home = os.path.expanduser(path)  # noqa: PTH111 - Path's own raises elsewhere
    if home.startswith("~"):
        raise ValueError(
            f"Argument `{name}` begins with `~` and no home is known for it. Received: "
            f"{name}={checks.shown(value)}. For a {what} that is called so write "
            f"'./{path}'."
        )
    return home


def _text(name: str, value: Any, what: str) -> str:
    """The path as the user wrote it."""
    path = None
    if isinstance(value, (str, os.PathLike)):
        try:
            path = os.fspath(value)
        except Exception:  # one that fails is no path
            path = None
    if not isinstance(path, str) or not path:
        raise TypeError(
            f"Argument `{name}` must be the path of a {what}. "
            f"Received: {name}={checks.shown(value)} (of type {type(value).__name__})"
            + (". Give os.fsdecode(…) of it." if isinstance(value, bytes) else "")
        )
    if "\0" in path:
        raise ValueError(
            f"Argument `{name}` must not hold a null character. "
            f"Received: {name}={checks.shown(value)}"
        )
    return path
