"""What the tests of faults share: disks that fill."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disks import SmallDisk, mounted


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[..., SmallDisk]]:
    """A function `(size, *options)` that mounts a small disk until the test is over."""
    with contextlib.ExitStack() as stack:

        def make(size: int = 1 << 20, *options: str) -> SmallDisk:
            path = tmp_path / f"disk {len(list(tmp_path.iterdir()))}"
            try:
                return stack.enter_context(mounted(path, size, *options))
            except (PermissionError, FileNotFoundError) as error:
                pytest.skip(f"needs root, to mount a file system: {error}")

        yield make


@pytest.fixture
def small_disk(make_disk: Callable[..., SmallDisk]) -> SmallDisk:
    """A file system of a MiB; where root is missing, the test is skipped."""
    return make_disk()
