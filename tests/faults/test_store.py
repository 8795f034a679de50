"""Arrays in files: whole and as they were, or an error before anything else is done."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from faulty_files import every_fault
from small_disks import PAGE

from tfschedules.drive.store import OnDisk

pytestmark = pytest.mark.any_backend

RANDOM = np.random.default_rng(0)
DTYPES = [
    *("float16", "float32", "float64", "complex64", "bool", "int8", "uint16", "int64"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    *(ml_dtypes.int4, "S5", "U3"),
]
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (2, 3, 5), (0,), (3, 0, 2)]


def bits(value: np.ndarray) -> tuple[Any, ...]:
    """All that tells arrays apart: NaNs have bits, too."""
    return value.dtype, value.shape, np.ascontiguousarray(value).tobytes()


def kept(folder: Path, *values: np.ndarray) -> list[Any]:
    """What becomes of arrays; in the end nothing is left of the files."""
    store = OnDisk(str(folder))
    stored = [store.put(value) for value in values]
    found = [store.get(each) for each in stored]
    store.remove()
    assert list(folder.iterdir()) == []
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kind_of_array_comes_back(tmp_path, dtype) -> None:
    raw = [RANDOM.bytes(int(np.prod(shape)) * 64) for shape in SHAPES]
    dtype = np.dtype(dtype)
    values = [
        np.arange(np.prod(shape)).astype("U3").astype(dtype).reshape(shape)
        if dtype.kind in "SU"
        else np.frombuffer(noise, np.uint8)[: int(np.prod(shape)) * dtype.itemsize]
        .copy()
        .view(dtype)
        .reshape(shape)
        for shape, noise in zip(SHAPES, raw, strict=True)
        if dtype.kind != "b"
    ] or [np.array([True, False, True]), np.array(True), np.zeros((0, 2), bool)]
    before = [bits(value) for value in values]
    assert [bits(value) for value in kept(tmp_path, *values)] == before


def test_arrays_that_are_not_in_one_piece(tmp_path) -> None:
    value = np.arange(24.0).reshape(2, 3, 4)
    views = [value.T, value[:, ::2], value[..., ::-1], np.asfortranarray(value[0])]
    assert [bits(v) for v in kept(tmp_path, *views)] == [bits(v) for v in views]


def test_objects_that_no_file_can_hold(tmp_path) -> None:
    value = np.array([b"a\0", "b", None], object)
    (found,) = kept(tmp_path, value)
    assert found.tolist() == [b"a\0", "b", None]


def test_numbers_need_no_file(tmp_path) -> None:
    store = OnDisk(str(tmp_path))
    stored = store.put(np.array(0.1, "float32"))
    shutil.rmtree(next(tmp_path.iterdir()))
    assert bits(store.get(stored)) == bits(np.array(0.1, "float32"))


VALUES = [np.arange(n, dtype="float32") for n in (3, 1000, 5000)]


def test_each_fault_of_a_write(tmp_path) -> None:
    """Either all come back as they were, or it is said; and nothing is left."""
    said = 0
    for fault in every_fault(tmp_path):
        store = None
        try:
            with fault:
                store = OnDisk(str(tmp_path))
                stored = [store.put(value) for value in VALUES]
        except OSError as error:
            said += 1
            assert error.errno == errno.ENOSPC  # noqa: PT017
            assert "Cannot write the copy of the model's state" in str(error)  # noqa: PT017
            assert str(tmp_path) in str(error)  # noqa: PT017
            assert "`snapshot_dir` must" in str(error)  # noqa: PT017
        else:
            for before, each in zip(VALUES, stored, strict=True):
                assert bits(store.get(each)) == bits(before)
        if store is not None:
            store.remove()
        assert list(tmp_path.iterdir()) == []
    assert said > 10


def test_a_disk_of_any_size_that_fills(small_disk) -> None:
    """`tofile` said nothing where the last block was cut (36,000 bytes to 32,768)."""
    whole = said = 0
    for free in range(12):
        for size in (1, 512, 1024, 1025, 2048, 2500, 5000, 9000):
            small_disk.fill(leave=free * PAGE)
            value = RANDOM.normal(size=size).astype("float32")
            try:
                (found,) = kept_on(small_disk, value)
            except OSError as error:
                said += 1
                assert error.errno == errno.ENOSPC  # noqa: PT017
                assert size * 4 > (free - 2) * PAGE
            else:
                whole += 1
                assert bits(found) == bits(value)
            assert small_disk.files() == []
    print(f"\nfull disks: whole {whole}, said {said}")  # noqa: T201
    assert whole > 20
    assert said > 20


def kept_on(disk: Any, value: np.ndarray) -> list[Any]:
    store = None
    try:
        store = OnDisk(str(disk.path))
        return [store.get(store.put(value))]
    finally:
        if store is not None:
            store.remove()


def test_a_limit_of_the_process(tmp_path) -> None:
    """The kernel says no, as on a full disk, without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = OnDisk(str(tmp_path))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        store.put(VALUES[1])
        with pytest.raises(OSError, match="File too large"):
            store.put(VALUES[2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    store.remove()
    assert list(tmp_path.iterdir()) == []


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def flip(at: int) -> Any:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return change


def replace(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes and not 4000"),
    "cut": (cut, "has 3999 bytes and not 4000"),
    "longer": (grow, "has 4001 bytes and not 4000"),
    "first byte": (flip(0), "not hold any more what was written"),
    "last byte": (flip(-1), "not hold any more what was written"),
    "zeros": (lambda path: path.write_bytes(bytes(4000)), "not hold any more"),
    "gone": (Path.unlink, "No such file"),
    "a folder": (replace, "Is a directory"),
    "all gone": (lambda path: shutil.rmtree(path.parent), "No such file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_not_read(tmp_path, name) -> None:
    damage, message = DAMAGE[name]
    store = OnDisk(str(tmp_path))
    stored = store.put(VALUES[1])
    (path,) = tmp_path.glob("*/*")
    damage(path)
    with pytest.raises(OSError, match=message) as raised:
        store.get(stored)
    assert raised.value.filename == str(path)
    store.remove()
    assert list(tmp_path.iterdir()) == []


def test_each_fault_of_a_read(tmp_path) -> None:
    store = OnDisk(str(tmp_path))
    stored = [store.put(value) for value in VALUES]
    for fault in every_fault(tmp_path, ["read"], code=errno.EIO):
        with fault:
            for before, each in zip(VALUES, stored, strict=True):
                try:
                    assert bits(store.get(each)) == bits(before)
                except OSError as error:
                    assert "by the test" in str(error)  # noqa: PT017
    for before, each in zip(VALUES, stored, strict=True):  # the files are still there
        assert bits(store.get(each)) == bits(before)
    store.remove()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing", "No such file or directory"),
        (lambda folder: Path(__file__), "Not a directory"),
        (lambda folder: folder / ("x" * 300), "File name too long"),
    ],
)
def test_a_place_that_is_no_folder(tmp_path, make, message) -> None:
    folder = make(tmp_path)
    with pytest.raises(OSError, match=f"{message}.*must name a folder that exists"):
        OnDisk(str(folder))


def test_a_place_that_can_only_be_read(make_disk) -> None:
    disk = make_disk(1 << 20, "ro")
    with pytest.raises(OSError, match=r"Read-only file system.*can be written to"):
        OnDisk(str(disk.path))
