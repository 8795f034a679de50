"""The helpers do what they say, or the tests that lean on them would show nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from faulty_files import OPERATIONS, Fault, every_fault
from small_disks import PAGE

pytestmark = pytest.mark.any_backend


def write(path: Path) -> None:
    """Every operation once, the buffered and the other way, beside one elsewhere."""
    path.parent.with_name("elsewhere").write_text("whole")
    path.mkdir()
    with (path / "text").open("w") as file:
        file.write("text" * 5000)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(path / "bytes", os.O_WRONLY | os.O_CREAT)
    try:
        assert os.write(descriptor, b"12345678") == 8
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    (path / "text").replace(path / "renamed")


def test_each_operation_fails_once(tmp_path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    found = []
    for number, fault in enumerate(every_fault(folder, stays=False)):
        error = None
        with fault:
            try:
                write(folder / str(number))
            except (OSError, AssertionError) as raised:
                error = raised
        # A short write is made up for by Python's buffer, and noticed by the assertion.
        buffered = str(fault) == "short 1"
        assert (error is not None) == bool(fault.injected and not buffered), fault
        assert (tmp_path / "elsewhere").read_text() == "whole"
        found.append((fault.operation, fault.injected))
    counts = {kind: found.count((kind, 1)) for kind in OPERATIONS}
    assert counts == {
        **{"mkdir": 1, "open": 2, "write": 2, "short": 2, "fsync": 2},
        **{"close": 2, "replace": 1},
    }
    assert [kind for kind, injected in found if not injected] == list(OPERATIONS)


def test_a_disk_that_is_full_stays_full(tmp_path) -> None:
    with Fault(tmp_path, "write", 2) as fault:
        (tmp_path / "1").write_text("whole")
        for number in (2, 3):
            with (tmp_path / str(number)).open("wb", buffering=0) as file:
                with pytest.raises(OSError, match="No space left"):
                    file.write(b"four")
    assert fault.injected == 2
    assert [(tmp_path / n).read_text() for n in "123"] == ["whole", "fo", "fo"]
    (tmp_path / "4").write_text("after")


def test_removing_and_reading_fail_if_told_to(tmp_path) -> None:
    (tmp_path / "a").touch()
    with Fault(tmp_path, "remove"), pytest.raises(OSError, match="by the test"):
        (tmp_path / "a").unlink()
    with Fault(tmp_path, "read"), pytest.raises(OSError, match="by the test"):
        (tmp_path / "a").read_text()
    assert (tmp_path / "a").read_text() == ""


def test_a_small_disk_fills(small_disk) -> None:
    small_disk.fill(leave=2 * PAGE)
    assert small_disk.left() == 2 * PAGE
    with pytest.raises(OSError, match="No space left"):
        (small_disk.path / "a").write_bytes(bytes(3 * PAGE))
    assert small_disk.files() == ["a"]
    small_disk.free()
    with contextlib.suppress(OSError):
        (small_disk.path / "a").write_bytes(bytes(3 * PAGE))
    assert (small_disk.path / "a").stat().st_size == 3 * PAGE


def test_a_small_disk_may_be_read_only(make_disk) -> None:
    disk = make_disk(1 << 20, "ro")
    with pytest.raises(OSError, match="Read-only"):
        (disk.path / "a").touch()
