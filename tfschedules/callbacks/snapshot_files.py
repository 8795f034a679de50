"""The files of snapshots: their names, and which of a directory's are taken."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from tfschedules._support import checks

_NAME = re.compile(r"cycle_(\d{4,})_step_(\d{9,})\.keras")


def name_of(cycle: int, step: int) -> str:
    """The name of the file that is written at a cycle's end."""
    return f"cycle_{cycle:04d}_step_{step:09d}.keras"


class Snapshot(NamedTuple):
    """A file of a model at a cycle's end."""

    cycle: int
    step: int
    path: Path


def snapshots_in(directory: Path) -> list[Snapshot]:
    """All of a directory, in the order of their cycles."""
    files = directory.iterdir() if directory.is_dir() else []
    named = [(path, _NAME.fullmatch(path.name)) for path in files]
    return sorted(Snapshot(int(m[1]), int(m[2]), path) for path, m in named if m)


def chosen(directory: Path, last: int | None) -> list[Snapshot]:
    """The last of a directory's snapshots, all of them whole; by default all."""
    found = snapshots_in(directory)
    if not found:
        raise FileNotFoundError(
            "Argument `directory` must be a folder with snapshots "
            f"(cycle_…_step_….keras). Received: directory={str(directory)!r}"
        )
    if last is not None:
        last = checks.whole("last", last)
        if last > len(found):
            raise ValueError(
                "Argument `last` must be at most the number of snapshots, "
                f"{len(found)} in {str(directory)!r}. Received: last={last}"
            )
        found = found[-last:]
    for snapshot in found:
        check_whole(snapshot.path)
    return found


def some(found: list[Snapshot]) -> str:
    """The first of snapshots, and how many more there are."""
    return f"{found[0].path} and {len(found) - 1} more"


def check_whole(path: Path) -> None:
    """Refuse a file that is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = str(error)
    if damaged is not None:
        raise ValueError(
            f"The snapshot {path} is damaged: {damaged}. Remove it to load the others."
        )
